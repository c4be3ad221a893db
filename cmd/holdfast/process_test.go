package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A waiting process has reached the gate of its store.
type waiting struct {
	cmd     *exec.Cmd
	arrived *os.File
	goOn    *os.File
}

// startTo runs a command in a process of its own, up to the first operation of a
// certain kind on its store. The command must use gateURL for the store.
func startTo(t *testing.T, args ...string) *waiting {
	t.Helper()
	return startOn(t, new(bytes.Buffer), args...)
}

// startOn is startTo with another stderr.
func startOn(t *testing.T, stderr io.Writer, args ...string) *waiting {
	t.Helper()
	arrived, tell := pipe(t)
	hear, goOn := pipe(t)
	cmd := exec.Command("holdfast", args...)
	cmd.Stdout, cmd.Stderr = new(bytes.Buffer), stderr
	cmd.ExtraFiles = []*os.File{tell, hear}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tell.Close(), hear.Close()); err != nil {
		t.Fatal(err)
	}
	w := &waiting{cmd, arrived, goOn}
	t.Cleanup(func() {
		if w.cmd.ProcessState == nil {
			_ = errors.Join(w.cmd.Process.Kill(), w.cmd.Wait())
		}
	})
	if _, err := io.ReadFull(arrived, make([]byte, 1)); err != nil {
		t.Fatalf("%q did not reach the gate: %v\n%s", args, cmd.Wait(), cmd.Stderr)
	}
	return w
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// open lets the process go on.
func (w *waiting) open(t *testing.T) {
	t.Helper()
	if err := w.goOn.Close(); err != nil {
		t.Fatal(err)
	}
}

// kill ends the process by SIGKILL.
func (w *waiting) kill(t *testing.T) {
	t.Helper()
	if err := w.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if r := w.wait(t); r.code != -1 {
		t.Fatalf("exit code %d, %s", r.code, r.stderr)
	}
}

func (w *waiting) wait(t *testing.T) result {
	t.Helper()
	return wait(t, w.cmd, w.cmd.Wait)
}

func fileURL(dir string) string { return "file://" + filepath.ToSlash(dir) }

func gateURL(dir, at string) string {
	return "gate://" + filepath.ToSlash(dir) + "?at=" + url.QueryEscape(at)
}

// TestTwoSavesAtOnce stops two processes before the Create that commits: one of them
// wins.
func TestTwoSavesAtOnce(t *testing.T) {
	dir := t.TempDir()
	states := []string{makeState(t, "one "), makeState(t, "two ")}
	var saves []*waiting
	for _, state := range states {
		saves = append(saves, startTo(t, "save", gateURL(dir, "create"), "orders", state))
	}
	for _, s := range saves {
		s.open(t)
	}
	winner := -1
	for i, s := range saves {
		switch r := s.wait(t); r.code {
		case 0:
			if winner >= 0 {
				t.Error("both saves won")
			}
			winner = i
		case exitRival:
			if want := "holdfast: conflict: nothing was saved, because another writer was first: manifest 1 of task \"orders\" is from epoch 1, writer "; !strings.HasPrefix(r.stderr, want) ||
				!strings.HasSuffix(r.stderr, "; save again if this state is still wanted\n") {
				t.Errorf("the loser says: %s", r.stderr)
			}
		default:
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
	}
	if winner < 0 {
		t.Fatal("neither save won")
	}
	wantCheckpoints(t, fileURL(dir), states[winner], 1)
	if segments, _ := filepath.Glob(filepath.Join(dir, "orders", "segments", "*")); len(segments) != 1 {
		t.Errorf("segments: %q", segments)
	}
	ok(t, "save", fileURL(dir), "orders", states[1-winner])
	wantCheckpoints(t, fileURL(dir), states[1-winner], 2, 1)
}

// TestManySavesAtOnce lets processes compete without stopping them.
func TestManySavesAtOnce(t *testing.T) {
	dir := t.TempDir()
	const processes, rounds = 6, 4
	var states [processes][rounds]string // each needs a segment
	for i := range processes {
		for n := range rounds {
			states[i][n] = makeState(t, fmt.Sprint("state ", i, n))
		}
	}
	var won, lost int
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range processes {
		group.Go(func() {
			for n := range rounds {
				cmd := exec.Command("holdfast", "save", fileURL(dir), "orders", states[i][n], "--label", fmt.Sprintf("save=%d-%d", i, n))
				out, err := cmd.CombinedOutput()
				mu.Lock()
				switch code := cmd.ProcessState.ExitCode(); {
				case code == 0:
					won++
				case code == exitRival && bytes.HasPrefix(out, []byte("holdfast: conflict: nothing was saved, because another writer was first: ")):
					lost++
				default:
					t.Errorf("%v: %s", err, out)
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	t.Logf("%d saved, %d lost", won, lost)
	list := okJSON[[]checkpointDoc](t, "ls", fileURL(dir), "orders")
	if len(list) != won || won+lost != processes*rounds {
		t.Errorf("%d checkpoints; %d saves succeeded, %d lost", len(list), won, lost)
	}
	for i, c := range list {
		if c.Seq != uint64(won-i) || c.Epoch != c.Seq {
			t.Errorf("checkpoint %d has number %d, epoch %d", won-i, c.Seq, c.Epoch)
		}
	}
	if segments, _ := filepath.Glob(filepath.Join(dir, "orders", "segments", "*")); len(segments) != won {
		t.Errorf("%d segments, %d checkpoints", len(segments), won)
	}
}

// TestSaveIsKilled ends a save by SIGKILL at each kind of request, and just before
// its process ends.
func TestSaveIsKilled(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	for _, at := range []string{"put", "create"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			ok(t, "save", fileURL(dir), "orders", before)
			s := startTo(t, "save", gateURL(dir, at), "orders", after)
			s.kill(t)
			wantCheckpoints(t, fileURL(dir), before, 1)
			// The killed save has not left an owner.
			if r := holdfast(t, "save", fileURL(dir), "orders", after); r.code != 0 || r.stderr != "" {
				t.Errorf("exit code %d, %s", r.code, r.stderr)
			}
			wantCheckpoints(t, fileURL(dir), after, 2, 1)
		})
	}
}

// sweep runs a command again and again, and kills it a little later each time, until
// it ends before that. check inspects what each run left.
func sweep(t *testing.T, check func(), args ...string) {
	t.Helper()
	begun := time.Now()
	if err := exec.Command("holdfast", args...).Run(); err != nil {
		t.Fatal(err)
	}
	step := time.Since(begun) / 25
	check()
	killed := 0
	for delay := time.Duration(0); ; delay += step {
		cmd := exec.Command("holdfast", args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		check()
		if err == nil {
			break
		}
		if code := cmd.ProcessState.ExitCode(); code != -1 {
			t.Fatalf("%q: exit code %d", args, code)
		}
		killed++
	}
	t.Logf("killed %d times", killed)
	if killed == 0 {
		t.Error("it was never killed")
	}
}

// TestRestoreIsKilled kills restores that replace a directory: afterwards it is the
// old one or the new one.
func TestRestoreIsKilled(t *testing.T) {
	dir, work := t.TempDir(), t.TempDir()
	old, new := makeState(t, "old "), makeState(t, "new ")
	for i := range 300 {
		mustWrite(t, filepath.Join(new, "many", fmt.Sprint(i)), strings.Repeat("x", i))
	}
	ok(t, "save", fileURL(dir), "orders", old)
	ok(t, "save", fileURL(dir), "orders", new)
	out := filepath.Join(work, "out")

	reset := func() { ok(t, "restore", fileURL(dir), "orders", out, "--force", "--at", "1") }
	reset()
	wasOld, wasNew := 0, 0
	sweep(t, func() {
		many, err := os.ReadDir(filepath.Join(out, "many"))
		switch {
		case os.IsNotExist(err) && difference(t, out, old) == "":
			wasOld++
		case len(many) == 300 && difference(t, out, new) == "":
			wasNew++
			reset()
		default:
			t.Fatalf("%d files; %s; %s", len(many), difference(t, out, old), difference(t, out, new))
		}
	}, "restore", fileURL(dir), "orders", out, "--force")
	t.Logf("%d old, %d new", wasOld, wasNew)
	if wasOld == 0 || wasNew == 0 {
		t.Errorf("%d old, %d new: the kills did not cover both", wasOld, wasNew)
	}
	if left, _ := os.ReadDir(work); len(left) != 1 {
		t.Errorf("beside the target: %v", left)
	}

	// At certain requests in the middle of the restore.
	for _, at := range []string{"list", "get"} {
		s := startTo(t, "restore", gateURL(dir, at), "orders", out, "--force")
		s.kill(t)
		if diff := difference(t, out, old); diff != "" {
			t.Errorf("killed at a %s: %s", at, diff)
		}
	}
}
