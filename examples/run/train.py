"""A training loop, in the shape of PyTorch's, without PyTorch.

    holdfast run URL train --state DIR --when-asked -- python3 train.py STEPS

The model and the optimizer are two files, which belong together: a copy of one step's
model and the next step's optimizer is no state of this loop. So the loop says when both
are there, and waits until they are saved.

    python3 train.py check DIR      says of which step DIR is, or fails if its files are not of one
"""

import json
import os
import sys
import urllib.parse
import urllib.request


def load(path, default):
    try:
        with open(path) as f:
            return json.load(f)
    except FileNotFoundError:
        return default


def store(path, what):
    """Writes a file beside its place, and renames it."""
    with open(path + ".tmp", "w") as f:
        json.dump(what, f)
    os.replace(path + ".tmp", path)


def save(state, step, model, optimizer):
    store(os.path.join(state, "model.json"), {"step": step, "weights": model})
    store(os.path.join(state, "optimizer.json"), {"step": step, "momentum": optimizer})


def commit(step):
    """Saves a checkpoint, and returns when it is durable."""
    url = os.environ.get("HOLDFAST_RUN_URL")
    if url:
        form = urllib.parse.urlencode({"label": f"step={step}"})
        urllib.request.urlopen(url + "/commit", form.encode()).read()


def train(state, steps):
    model = load(os.path.join(state, "model.json"), {"step": 0, "weights": [1] * 1000})
    optimizer = load(os.path.join(state, "optimizer.json"), {"step": 0, "momentum": [0] * 1000})
    step, weights, momentum = model["step"], model["weights"], optimizer["momentum"]
    print("from", step, flush=True)
    while step < steps:
        step += 1
        # A step that depends on all before it: one that is lost or repeated shows.
        momentum = [(m * 9 + w + step) % 65521 for m, w in zip(momentum, weights)]
        weights = [(w * 31 + m + i) % 65521 for i, (w, m) in enumerate(zip(weights, momentum))]
        save(state, step, weights, momentum)
        if step % 5 == 0 or step == steps:
            commit(step)
            print("at", step, flush=True)
    print("sum", sum(weights), sum(momentum), flush=True)


def check(state):
    model = load(os.path.join(state, "model.json"), {"step": 0})
    optimizer = load(os.path.join(state, "optimizer.json"), {"step": 0})
    if model["step"] != optimizer["step"]:
        sys.exit(f"torn: the model is of step {model['step']}, the optimizer of step {optimizer['step']}")
    print("step", model["step"])


if sys.argv[1] == "check":
    check(sys.argv[2])
else:
    train(os.environ["HOLDFAST_STATE"], int(sys.argv[1]))
