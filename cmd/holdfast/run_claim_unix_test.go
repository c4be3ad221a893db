//go:build linux || darwin

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRunIsKilledWhileItRestores: a run that is killed after its claim, before it has restored
// anything, is known to be dead on the same machine. The same command goes on.
func TestRunIsKilledWhileItRestores(t *testing.T) {
	r := newRunTest(t)
	ok(t, "save", fileURL(r.store), "a", makeState(t, "state "))
	run := func(at string) []string {
		return []string{"run", gateURL(r.store, at) + "&in=segments", "a", "--state", r.dir, "--", "cat", filepath.Join(r.dir, "content")}
	}
	startTo(t, run("get")...).kill(t)
	if status := r.status(); !status.Claimed {
		t.Fatalf("it was killed before its claim: %+v", status)
	}
	out, err := exec.Command("holdfast", run("never")...).Output()
	if err != nil || string(out) != "state " {
		t.Errorf("the next one: %q, %v", out, err)
	}
	// Elsewhere, nobody knows.
	startTo(t, run("get")...).kill(t)
	(&runTest{t, r.store, r.dir + "2"}).start("true").wantEnd(124, "give --take-over to fence it")
}

// TestSignalsBeforeTheStart: while the state is restored, a signal is for run, and none of them
// comes to the program later.
func TestSignalsBeforeTheStart(t *testing.T) {
	r := newRunTest(t)
	ok(t, "save", fileURL(r.store), "a", makeState(t, "state "))
	started := filepath.Join(filepath.Dir(r.dir), "started")
	run := []string{"run", gateURL(r.store, "get") + "&in=segments", "a", "--state", r.dir, "--", "sh", "-c", fmt.Sprintf("touch %q; sleep 0.2", started)}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGQUIT} {
		w := startTo(t, run...)
		if err := w.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if got := w.wait(t); got.code != 121 || !strings.Contains(got.stderr, "before the program was started") {
			t.Errorf("%v: exit code %d, %s", sig, got.code, got.stderr)
		}
		if _, err := os.Stat(started); err == nil {
			t.Errorf("%v: the program was started", sig)
		}
		if r.status().Claimed {
			t.Errorf("%v: the task is claimed still", sig)
		}
	}
	w := startTo(t, run...)
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGALRM, syscall.SIGUSR2} {
		if err := w.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	w.open(t)
	if got := w.wait(t); got.code != 0 {
		t.Errorf("the program was given signals from before its start: exit code %d, %s", got.code, got.stderr)
	}
}

// TestRunsAtOnce starts runs on one task at the same moment, on as many machines. One wins,
// and the program of no other one is started.
func TestRunsAtOnce(t *testing.T) {
	const runs = 3
	for _, c := range []struct {
		name   string
		before func(r *runTest)
		flags  []string
	}{
		{"a new task", func(*runTest) {}, nil},
		{"a released task", func(r *runTest) { r.start("true").wantEnd(0, "") }, nil},
		{"a task that is to be taken over", func(r *runTest) {
			x := r.start(`touch "$HOLDFAST_STATE/ready"; exec sleep 100`)
			eventually(t, "the program", r.hasFile("ready"))
			x.signal(syscall.SIGKILL)
			x.end()
		}, []string{"--take-over"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 8 {
				r := newRunTest(t)
				c.before(r)
				raceRuns(r, runs, c.flags)
			}
		})
	}
}

// raceRuns lets runs claim a task at once, all of which have seen the same owner of it.
func raceRuns(r *runTest, runs int, flags []string) {
	r.t.Helper()
	log, end := filepath.Join(filepath.Dir(r.dir), "log"), filepath.Join(filepath.Dir(r.dir), "end")
	program := fmt.Sprintf(`echo began >>%q; while ! [ -e %q ]; do sleep 0.01; done`, log, end)
	var all []*waiting
	for i := range runs {
		args := append([]string{"run", gateURL(r.store, "create"), "a", "--state", fmt.Sprint(r.dir, i), "--every", "1h"}, flags...)
		all = append(all, startTo(r.t, append(args, "--", "sh", "-c", program)...))
	}
	for _, w := range all {
		w.open(r.t)
	}
	results := make(chan result, runs)
	for _, w := range all {
		go func() { results <- w.wait(r.t) }()
	}
	for range runs - 1 {
		if got := <-results; got.code != 124 || !strings.Contains(got.stderr, "another process was first") {
			r.t.Errorf("a loser ends with %d: %s", got.code, got.stderr)
		}
	}
	mustWrite(r.t, end, "")
	if got := <-results; got.code != 0 {
		r.t.Errorf("the winner ends with %d: %s", got.code, got.stderr)
	}
	if data, err := os.ReadFile(log); err != nil || string(data) != "began\n" {
		r.t.Errorf("programs: %q, %v", data, err)
	}
}

// TestStandbysAtOnce: of several that are started at the same moment on a new task, each runs its
// program, one after the other.
func TestStandbysAtOnce(t *testing.T) {
	r := newRunTest(t)
	log, end := filepath.Join(filepath.Dir(r.dir), "log"), filepath.Join(filepath.Dir(r.dir), "end")
	program := fmt.Sprintf(`echo began >>%[1]q; while ! [ -e %[2]q ]; do sleep 0.01; done; sleep 0.1; echo ended >>%[1]q`, log, end)
	var all []*waiting
	for i := range 3 {
		all = append(all, startTo(t, "run", gateURL(r.store, "create"), "a", "--state", fmt.Sprint(r.dir, i), "--every", "1h", "--standby", "--", "sh", "-c", program))
	}
	for _, w := range all {
		w.open(t)
	}
	eventually(t, "the first program", func() bool {
		_, err := os.Stat(log)
		return err == nil
	})
	mustWrite(t, end, "")
	for _, w := range all {
		if got := w.wait(t); got.code != 0 {
			t.Errorf("it ends with %d: %s", got.code, got.stderr)
		}
	}
	if data, err := os.ReadFile(log); err != nil || string(data) != strings.Repeat("began\nended\n", 3) {
		t.Errorf("programs: %q, %v", data, err)
	}
}
