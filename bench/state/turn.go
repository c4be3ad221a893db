package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/bench/internal/recipe"
)

// The steps that are measured, in the order of the tables.
const (
	stepFull      = "full save"
	stepUnchanged = "save, nothing changed"
	stepChanged   = "save after the change"
	stepRestore   = "restore, empty directory"
	stepUpdate    = "restore, over the state before"
)

var steps = []string{stepFull, stepUnchanged, stepChanged, stepRestore, stepUpdate}

// errGaveUp means that a contender's turn is over early: what went wrong is
// noted in the results.
var errGaveUp = errors.New("gave up")

// A turn is one contender's, with one state in one round.
type turn struct {
	bench     *bench
	name      string // of the state
	state     *recipe.State
	contender contender
	round     int
	site      *site
	over      bool // the step over the state before is wanted
}

func (t *turn) run(ctx context.Context) error {
	if err := t.state.Rewind(); err != nil {
		return err
	}
	if err := t.prepare(ctx); err != nil {
		return err
	}
	if t.contender.can(firstSave) {
		if err := t.step(ctx, stepFull, firstSave, t.state.Dir); err != nil {
			return err
		}
	}
	old := ""
	if t.contender.can(nextSave) {
		var err error
		if old, err = t.saveChange(ctx); err != nil {
			return err
		}
	}
	if !t.contender.can(restore) {
		return nil
	}
	if err := t.restore(ctx, stepRestore, restore, filepath.Join(t.site.dir, "restored")); err != nil {
		return err
	}
	if old == "" {
		return nil
	}
	return t.restore(ctx, stepUpdate, update, old)
}

// prepare does what a contender needs once, unmeasured.
func (t *turn) prepare(ctx context.Context) error {
	if !t.contender.can(prepare) {
		return nil
	}
	_, err := t.measure(ctx, t.contender.command(prepare, t.site, t.state.Dir))
	if err != nil {
		return t.giveUp(ctx, result{Step: "prepare"}, err)
	}
	return nil
}

// saveChange saves the state once more, changes it, and saves it again. If the
// contender can restore over an earlier state, old is a directory with the one
// before the change, restored by the contender's own means.
func (t *turn) saveChange(ctx context.Context) (old string, err error) {
	if err := t.step(ctx, stepUnchanged, nextSave, t.state.Dir); err != nil {
		return "", err
	}
	if t.over && t.contender.can(update) {
		old = filepath.Join(t.site.dir, "old")
		if err := t.restoreOld(ctx, old); err != nil {
			return "", err
		}
	}
	if err := t.state.Change(); err != nil {
		return "", err
	}
	return old, t.step(ctx, stepChanged, nextSave, t.state.Dir)
}

// restoreOld makes sure of what it restores: over anything else, the last step
// would measure something else.
func (t *turn) restoreOld(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	_, err := t.measure(ctx, t.contender.command(restore, t.site, dir))
	if err == nil {
		err = sameTree(t.state.Dir, dir)
	}
	if err != nil {
		return t.giveUp(ctx, result{Step: "restore before the change"}, err)
	}
	return nil
}

// restore measures a restore to dir, compares what came back, and removes it.
func (t *turn) restore(ctx context.Context, step string, v verb, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := t.step(ctx, step, v, dir); err != nil {
		return err
	}
	err := sameTree(t.state.Dir, dir)
	if errors.Is(err, errDiffer) {
		t.bench.results.fail("wrong", err)
		err = nil
	}
	return errors.Join(err, ctx.Err(), os.RemoveAll(dir))
}

// step measures one command.
func (t *turn) step(ctx context.Context, step string, v verb, dir string) error {
	command := t.contender.command(v, t.site, dir)
	r := result{Step: step, Command: command.Args}
	took, err := t.measure(ctx, command)
	if err != nil {
		return t.giveUp(ctx, r, err)
	}
	r.cost(took)
	t.add(r)
	return nil
}

func (t *turn) measure(ctx context.Context, c measure.Command) (cost, error) {
	if err := t.bench.checkStep(t.name, t.bench.dir); err != nil {
		return cost{}, err
	}
	if err := measure.Settle(ctx, 2*t.state.Bytes); err != nil { // one end reads, the other writes
		return cost{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.bench.timeout, fmt.Errorf("it took more than %v", t.bench.timeout))
	defer cancel()
	took, err := t.site.measure(ctx, c)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return took, err
}

func (t *turn) add(r result) {
	r.State, r.Contender, r.Round = t.name, t.contender.name, t.round
	t.bench.results.add(r)
}

// giveUp notes how a contender failed. That everything is to end is no failure
// of its own.
func (t *turn) giveUp(ctx context.Context, r result, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.add(r)
	t.bench.results.fail("failed", err)
	return errGaveUp
}
