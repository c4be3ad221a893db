package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestRunFindsWhatHasNoFiles: a process that a killed run has left keeps the next one from
// starting, also if it has closed the file of the lock.
func TestRunFindsWhatHasNoFiles(t *testing.T) {
	r := newRunTest(t)
	x := r.start(`setsid sh -c 'exec 3>&-; echo $$ >"$HOLDFAST_STATE/pid"; exec sleep 100' >/dev/null 2>&1 &
		while ! [ -s "$HOLDFAST_STATE/pid" ]; do sleep 0.01; done; touch "$HOLDFAST_STATE/ready"; exec sleep 100`)
	eventually(t, "the program", r.hasFile("ready"))
	pid := r.pid()
	x.signal(syscall.SIGKILL)
	x.end()
	r.start("true").wantEnd(121, "in use by process "+strconv.Itoa(pid))
	_ = syscall.Kill(pid, syscall.SIGKILL)
	r.start("true").wantEnd(0, "")
}

// TestRunSaysWhoIsInTheWay: a wrapper script dies with its run, and what it waits for does not.
func TestRunSaysWhoIsInTheWay(t *testing.T) {
	r := newRunTest(t)
	x := r.start(`sleep 100 & echo $! >"$HOLDFAST_STATE/pid"; touch "$HOLDFAST_STATE/ready"; wait`)
	eventually(t, "the program", r.hasFile("ready"))
	pid := r.pid()
	r.start("true").wantEnd(124, fmt.Sprintf("another 'holdfast run' (process %d)", x.Process.Pid))
	x.signal(syscall.SIGKILL)
	x.end()
	r.start("true").wantEnd(121, fmt.Sprintf("in use by process %d (sleep)", pid))
	_ = syscall.Kill(pid, syscall.SIGKILL)
	r.start("true").wantEnd(0, "")
}

// pid returns the number that a program has written, of a process that is killed at the end.
func (r *runTest) pid() int {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	if err != nil {
		r.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	return pid
}

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
