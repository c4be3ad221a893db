//go:build linux || darwin

// Package run tests the programs in this directory, which know nothing of Go: each is
// killed under "holdfast run" and goes on, again and again.
package run

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var kills = flag.Int("kills", 3, "how often each program is killed")

// holdfast is the command, which TestMain builds.
var holdfast string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "holdfast-test-")
	if err != nil {
		panic(err)
	}
	holdfast = filepath.Join(dir, "holdfast")
	if out, err := exec.Command("go", "build", "-o", holdfast, "../../cmd/holdfast").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// A program is one of the examples.
type program struct {
	name    string
	command []string
	steps   string   // that it takes for a whole run
	flags   []string // of run
}

var programs = []program{
	{"trainer", []string{"python3", "train.py"}, "400", []string{"--when-asked"}},
	{"counter", []string{"sh", "counter.sh"}, "100000", []string{"--pause", "--every", "200ms"}},
	{"sqlite", []string{"python3", "sqlite.py"}, "3000", []string{"--pause", "--every", "200ms"}},
}

// need skips the test if the program cannot be run here.
func (p *program) need(t *testing.T) {
	t.Helper()
	if p.command[0] == "sh" {
		return
	}
	if out, err := exec.Command(p.command[0], "-c", "import sqlite3").CombinedOutput(); err != nil {
		t.Skipf("there is no Python with sqlite3 here: %v %s", err, out)
	}
}

// check says of which step a state is, or how it is torn.
func (p *program) check(t *testing.T, dir string) (step int, torn string) {
	t.Helper()
	out, err := exec.Command(p.command[0], append(p.command[1:len(p.command):len(p.command)], "check", dir)...).CombinedOutput()
	if err == nil {
		if _, err = fmt.Sscanf(string(out), "step %d\n", &step); err == nil {
			return step, ""
		}
	}
	if !strings.HasPrefix(string(out), "torn: ") {
		t.Fatalf("%s check: %v: %s", p.name, err, out)
	}
	return 0, strings.TrimSpace(string(out))
}

// A world is a store, and a program that is run on it.
type world struct {
	*program
	t          *testing.T
	store, dir string
	newest     int // step that is in a checkpoint; 0 if there is no checkpoint
}

func newWorld(t *testing.T, p *program) *world {
	dir := t.TempDir()
	return &world{program: p, t: t, store: "file://" + filepath.Join(dir, "store"), dir: filepath.Join(dir, "state")}
}

// A life is one run of the program, under holdfast run.
type life struct {
	*exec.Cmd
	said   *bufio.Scanner
	stderr strings.Builder
}

func (w *world) start() *life {
	w.t.Helper()
	args := append([]string{"run", w.store, w.name, "--state", w.dir}, w.flags...)
	args = append(args, "--", "sh", "-c", `echo "pid $$"; exec "$@"`, "sh")
	args = append(args, w.command...)
	l := &life{Cmd: exec.Command(holdfast, append(args, w.steps)...)}
	l.Stderr = &l.stderr
	out, err := l.StdoutPipe()
	if err == nil {
		err = l.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	l.said = bufio.NewScanner(out)
	return l
}

// hear returns the next line that begins with a word; "" if the program has ended.
func (l *life) hear(word string) string {
	for l.said.Scan() {
		if rest, ok := strings.CutPrefix(l.said.Text(), word+" "); ok {
			return rest
		}
	}
	return ""
}

// hearAll lets the program speak until its end, when it closes what it returns.
func (l *life) hearAll() <-chan struct{} {
	silent := make(chan struct{})
	go func() {
		defer close(silent)
		for l.said.Scan() {
		}
	}()
	return silent
}

// TestKilled kills each program again and again, and lets it come to its end. It ends as one
// that was never killed. Every checkpoint is one that the program can go on from.
//
//	go test ./examples/run -run TestKilled -kills 50 -timeout 1h
func TestKilled(t *testing.T) {
	for i := range programs {
		p := &programs[i]
		t.Run(p.name, func(t *testing.T) {
			p.need(t)
			calm := newWorld(t, p)
			l := calm.start()
			l.hear("from")
			began := time.Now()
			want := l.hear("sum")
			took := time.Since(began)
			if err := l.Wait(); err != nil || want == "" {
				t.Fatalf("%v: %s", err, &l.stderr)
			}
			killed, ends := 0, 0
			for ; killed < *kills; ends++ { // again from the start, if it came to its end before
				if ends > *kills {
					t.Fatalf("killed %d times, it came to its end %d times: let it take more steps", killed, ends)
				}
				w := newWorld(t, p)
				for killed < *kills && w.kill(took/3) { // so that it lives twice at least, however quick it is
					killed++
				}
				w.wantEnd(want)
			}
			t.Logf("killed %d times, and came to its end %d times", killed, ends)
		})
	}
}

// wantEnd lets the program come to its end.
func (w *world) wantEnd(want string) {
	w.t.Helper()
	l := w.start()
	w.wantFrom(l)
	got := l.hear("sum")
	if err := l.Wait(); err != nil || got != want {
		w.t.Fatalf("it ends with %q, %v; without a kill it ends with %q\n%s", got, err, want, &l.stderr)
	}
}

// wantFrom waits for the program to say from which step it goes on: that of the newest
// checkpoint. Before the first one it may be what the program has left itself.
func (w *world) wantFrom(l *life) {
	w.t.Helper()
	said := l.hear("from")
	from, err := strconv.Atoi(said)
	if err != nil || w.newest != 0 && from != w.newest {
		w.t.Fatalf("it goes on from %q; the newest checkpoint is of step %d\n%s", said, w.newest, &l.stderr)
	}
}

// wasKilled reports whether run was killed, or ended as one does whose program was. Any other end
// that is not a good one is a failure.
func (w *world) wasKilled(l *life, victim string) bool {
	w.t.Helper()
	err := l.Wait()
	if err == nil {
		return false // it came to its end just before
	}
	status, ok := l.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || (!status.Signaled() || status.Signal() != syscall.SIGKILL) && status.ExitStatus() != 128+int(syscall.SIGKILL) {
		w.t.Fatalf("after a kill of %s: %v\n%s", victim, err, &l.stderr)
	}
	return true
}

// kill kills run or its program within a time, and checks the newest checkpoint. It reports
// false if the program has come to its end.
func (w *world) kill(within time.Duration) bool {
	w.t.Helper()
	l := w.start()
	pid, err := strconv.Atoi(l.hear("pid"))
	if err != nil || pid <= 0 {
		_ = l.Wait()
		w.t.Fatalf("the program was not started: %v\n%s", err, &l.stderr)
	}
	w.wantFrom(l)
	silent := l.hearAll()
	time.Sleep(rand.N(max(min(within, 600*time.Millisecond), time.Millisecond)))
	victim := "run"
	if rand.IntN(3) == 0 { // its program alone: run saves what that has left
		victim = "the program"
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	} else {
		_ = l.Process.Signal(syscall.SIGKILL)
	}
	<-silent
	killed := w.wasKilled(l, victim)
	out := filepath.Join(w.t.TempDir(), "out")
	restored, err := exec.Command(holdfast, "restore", w.store, w.name, out).CombinedOutput()
	if err != nil && (w.newest != 0 || !strings.Contains(string(restored), "has no checkpoint")) {
		w.t.Fatalf("after a kill of %s: %v: %s", victim, err, restored)
	}
	if err != nil {
		return killed
	}
	torn := ""
	if w.newest, torn = w.check(w.t, out); torn != "" {
		w.t.Fatalf("after a kill of %s, the checkpoint is %s", victim, torn)
	}
	return killed
}

// TestNaiveCopyIsTorn shows that each program's state is torn by a copy that is made beside
// it, and that the checkpoints of the same run are not.
func TestNaiveCopyIsTorn(t *testing.T) {
	for i := range programs {
		p := &programs[i]
		t.Run(p.name, func(t *testing.T) {
			p.need(t)
			w := newWorld(t, p)
			w.steps = "1000000000"
			l := w.start()
			l.hear("at")
			silent := l.hearAll()
			defer func() {
				_ = l.Process.Signal(syscall.SIGTERM)
				<-silent
				_ = l.Wait() // SIGTERM has ended it
			}()
			torn := ""
			for n := 0; torn == "" && n < 50; n++ {
				dir := filepath.Join(t.TempDir(), "copy")
				if err := copySlowly(dir, w.dir); err != nil {
					t.Fatal(err)
				}
				_, torn = p.check(t, dir)
			}
			if torn == "" {
				t.Fatal("50 copies were not torn")
			}
			t.Logf("a copy is %s", torn)
			for range 5 {
				w.wantNewer()
			}
		})
	}
}

// wantNewer waits for a checkpoint of a later step than the newest that is known, and checks it.
func (w *world) wantNewer() {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		out := filepath.Join(w.t.TempDir(), "out")
		said, err := exec.Command(holdfast, "restore", w.store, w.name, out).CombinedOutput()
		if err != nil && w.newest == 0 && strings.Contains(string(said), "has no checkpoint") {
			continue // the first one is on its way
		}
		if err != nil {
			w.t.Fatalf("%v: %s", err, said)
		}
		step, torn := w.check(w.t, out)
		if torn != "" {
			w.t.Fatalf("the checkpoint after step %d is %s", w.newest, torn)
		}
		if step > w.newest {
			w.newest = step
			return
		}
	}
	w.t.Fatalf("there is no checkpoint after that of step %d", w.newest)
}

// copySlowly copies the files of a directory, as cp does on a busy machine: one after the
// other, in small pieces.
func copySlowly(to, from string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := copyFile(filepath.Join(to, e.Name()), filepath.Join(from, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	for buf := make([]byte, 64<<10); ; time.Sleep(time.Millisecond) {
		n, err := in.Read(buf)
		if _, werr := out.Write(buf[:n]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
