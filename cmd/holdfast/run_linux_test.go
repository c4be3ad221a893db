package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// TestRunAsInit: run is the first process of a PID namespace, as the entry point of a
// container is. It collects orphans, and ends as its program does.
func TestRunAsInit(t *testing.T) {
	args := []string{"--pid", "--fork", "--mount-proc", "--kill-child"}
	if os.Getuid() != 0 {
		args = append([]string{"--map-root-user"}, args...)
	}
	if out, err := exec.Command("unshare", append(args, "true")...).CombinedOutput(); err != nil {
		t.Skipf("this system does not let this user make a PID namespace: %v, %s", err, out)
	}
	r := newRunTest(t)
	args = append(args, "holdfast", "run", fileURL(r.store), "a", "--state", r.dir, "--pause", "--every", "100ms", "--", "sh", "-c", `
		for i in 1 2 3 4 5 6 7 8 9 10; do ( setsid sh -c 'sleep 0.1' & ); done
		sleep 1
		if ps -A -o stat= | grep -q '^Z'; then ps -A >&2; exit 98; fi
		echo saved >"$HOLDFAST_STATE/n"
		exit 42`)
	cmd := exec.Command("unshare", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Errorf("%v; %s", err, &stderr)
	}
	if got := r.saved("n"); got != "saved" || r.status().Claimed {
		t.Errorf("the checkpoint has %q; claimed: %v", got, r.status().Claimed)
	}
}
