//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSignal interrupts commands while they work.
func TestSignal(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	dir, work := t.TempDir(), t.TempDir()
	ok(t, "save", fileURL(dir), "orders", before)
	out := filepath.Join(work, "out")
	ok(t, "restore", fileURL(dir), "orders", out)
	for _, c := range []struct {
		name   string
		signal os.Signal
		args   []string
		want   string
		prints bool // the command prints what was done before the signal
	}{
		{"save, interrupted", os.Interrupt, []string{"save", gateURL(dir, "put"), "orders", after},
			"holdfast: stopped (interrupt signal received); nothing was saved or replaced\n", false},
		{"save, terminated", syscall.SIGTERM, []string{"save", gateURL(dir, "put"), "orders", after},
			"holdfast: stopped (terminated signal received); nothing was saved or replaced\n", false},
		{"save, committing", os.Interrupt, []string{"save", gateURL(dir, "create"), "orders", after},
			"it may have been done: look with 'holdfast ls' before you do it again\n", false},
		{"restore", os.Interrupt, []string{"restore", gateURL(dir, "get"), "orders", out, "--force"},
			"holdfast: stopped (interrupt signal received); nothing was saved or replaced\n", false},
		{"ls", os.Interrupt, []string{"ls", gateURL(dir, "list")},
			"holdfast: stopped (interrupt signal received); nothing was saved or replaced\n", false},
		{"verify", os.Interrupt, []string{"verify", gateURL(dir, "get"), "--data"},
			"holdfast: stopped (interrupt signal received); nothing was changed, and not all was verified\n", false},
		{"verify --repair", os.Interrupt, []string{"verify", gateURL(dir, "get"), "--repair"},
			"holdfast: stopped (interrupt signal received); what was repaired stays so, and the same command goes on with the rest\n", true},
		{"gc", os.Interrupt, []string{"gc", gateURL(dir, "get")},
			"holdfast: stopped (interrupt signal received); what is garbage still goes with the next gc\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startTo(t, c.args...)
			if err := s.cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			r := s.wait(t)
			if r.code != exitFailed || !strings.HasSuffix(r.stderr, c.want) || (r.stdout != "") != c.prints {
				t.Errorf("exit code %d, %s; want 1, %s", r.code, r.stderr, c.want)
			}
			wantCheckpoints(t, fileURL(dir), before, 1)
			if diff := difference(t, out, before); diff != "" {
				t.Error(diff)
			}
			if left, _ := os.ReadDir(work); len(left) != 1 {
				t.Errorf("beside the target: %v", left)
			}
		})
	}
	ok(t, "save", fileURL(dir), "orders", after)
	wantCheckpoints(t, fileURL(dir), after, 2, 1)
}

// TestSecondSignalKills stops a save that does not react to the first signal.
func TestSecondSignalKills(t *testing.T) {
	s := startTo(t, "save", gateURL(t.TempDir(), "put")+"&deaf", "orders", makeState(t, "state "))
	ended := make(chan struct{})
	go func() {
		_ = s.cmd.Wait()
		close(ended)
	}()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for range 10_000 {
		select {
		case <-ended:
			if status := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
				t.Errorf("it ended with %v", s.cmd.ProcessState)
			}
			return
		case <-again.C:
			_ = s.cmd.Process.Signal(os.Interrupt)
		}
	}
	t.Error("it does not react to any signal")
	_ = s.cmd.Process.Kill()
	<-ended
}
