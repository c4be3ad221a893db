//go:build linux || darwin

package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childVariable makes the test's binary one of its children.
const childVariable = "HOLDFAST_TEST_PROCESS"

func TestMain(m *testing.M) {
	switch what, arg, _ := strings.Cut(os.Getenv(childVariable), ":"); what {
	case "":
		goleak.VerifyTestMain(m)
	case "write":
		writeForEver(arg)
	case "start":
		startAndWait(arg)
	case "init":
		beInit(arg)
	}
}

// writeForEver appends to files, by several threads at once.
func writeForEver(dir string) {
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(i)), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			for err == nil {
				_, err = f.WriteString("x")
			}
			panic(err)
		})
	}
	all.Wait()
}

// startAndWait starts a shell command and says its number.
func startAndWait(command string) {
	g, err := Start(Command{Args: []string{"sh", "-c", command}})
	if err != nil {
		panic(err)
	}
	fmt.Println(g.Pid())
	<-g.Ended()
	os.Exit(g.Code())
}

// beInit is PID 1 of a namespace, and then the child that it starts.
func beInit(command string) {
	if !IsInit() {
		_ = os.Unsetenv(childVariable)
		passOn(command)
	}
	code, err := Init()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	os.Exit(code)
}

// passOn runs a shell command, and passes a signal on to it.
func passOn(command string) {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGUSR1)
	g, err := Start(Command{Args: []string{"sh", "-c", command}})
	if err != nil {
		panic(err)
	}
	select {
	case <-heard:
		g.Signal(syscall.SIGUSR1)
		<-g.Ended()
	case <-g.Ended():
	}
	os.Exit(g.Code())
}

func shell(t *testing.T, command string, env ...string) *Group {
	t.Helper()
	return start(t, Command{Args: []string{"sh", "-c", command}, Env: append(os.Environ(), env...)})
}

func start(t *testing.T, c Command) *Group {
	t.Helper()
	g, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Stop(syscall.SIGKILL, 0) })
	return g
}

// within waits for a channel, for a time that is long on any machine.
func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not come", what)
	}
}

// eventually waits for something that is to become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

func exists(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}

func TestCode(t *testing.T) {
	for _, c := range []struct {
		command string
		code    int
	}{
		{"exit 0", 0}, {"exit 3", 3}, {"exit 255", 255}, {"kill -KILL $$", 137}, {"kill -TERM $$", 143}, {"exec true", 0},
	} {
		g := shell(t, c.command)
		within(t, "the end of "+c.command, g.Ended())
		if got := g.Code(); got != c.code {
			t.Errorf("%s: exit code %d, want %d", c.command, got, c.code)
		}
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start(Command{Args: []string{"no such command"}}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Command{Args: []string{file}}); !errors.Is(err, syscall.ENOEXEC) {
		t.Errorf("error %v", err)
	}
}

func TestFilesArePassedOn(t *testing.T) {
	in, feed := pipe(t)
	hear, out := pipe(t)
	kept, err := os.CreateTemp(t.TempDir(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	g := start(t, Command{Args: []string{"sh", "-c", "cat; echo kept >&3"}, Stdin: in, Stdout: out, Keep: []*os.File{kept}})
	if err := errors.Join(in.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := feed.WriteString("through"); err != nil {
		t.Fatal(err)
	}
	_ = feed.Close()
	got, err := io.ReadAll(hear)
	within(t, "the end", g.Ended())
	text, _ := os.ReadFile(kept.Name())
	if err != nil || string(got) != "through" || string(text) != "kept\n" {
		t.Errorf("it said %q and wrote %q, %v", got, text, err)
	}
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

// sizes returns how much is in the files of a directory, all together.
func sizes(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// TestPausedStandsStill pauses processes with many threads that write all the time, and
// looks whether anything is written.
func TestPausedStandsStill(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Two of them, in one group.
	g := shell(t, `"$SELF" & exec "$SELF"`, "SELF="+self, childVariable+"=write:"+dir)
	eventually(t, "a write", func() bool { return sizes(t, dir) > 0 })
	for range 20 {
		var before, after int64
		_, err := g.Paused(t.Context(), 20*time.Second, func(context.Context) error {
			before = sizes(t, dir)
			time.Sleep(2 * time.Millisecond)
			after = sizes(t, dir)
			return nil
		})
		if err != nil || before != after {
			t.Fatalf("%d bytes, and then %d; %v", before, after, err)
		}
		eventually(t, "another write", func() bool { return sizes(t, dir) > after })
	}
}

// TestPausedWhileItForks: a process that has forked by vfork cannot stop before its child
// goes on.
func TestPausedWhileItForks(t *testing.T) {
	g := shell(t, "while :; do /bin/true; done")
	for range 30 {
		if _, err := g.Paused(t.Context(), 20*time.Second, func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPauseIsBounded(t *testing.T) {
	dir := t.TempDir()
	g := start(t, Command{Args: []string{os.Args[0]}, Env: append(os.Environ(), childVariable+"=write:"+dir)})
	eventually(t, "a write", func() bool { return sizes(t, dir) > 0 })
	_, err := g.Paused(t.Context(), 300*time.Millisecond, func(ctx context.Context) error {
		<-ctx.Done()
		n := sizes(t, dir)
		eventually(t, "a write, although it hangs", func() bool { return sizes(t, dir) > n })
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "paused for 300ms at most") {
		t.Errorf("error %v", err)
	}
}

// TestPausedEndsWithStop: what is asked to end is not kept waiting, and what was copied
// meanwhile does not count.
func TestPausedEndsWithStop(t *testing.T) {
	g := shell(t, "while :; do sleep 0.01; done")
	_, err := g.Paused(t.Context(), time.Minute, func(ctx context.Context) error {
		g.Stop(syscall.SIGTERM, time.Minute)
		return nil
	})
	if !errors.Is(err, ErrEnded) {
		t.Errorf("error %v", err)
	}
	if _, err := g.Paused(t.Context(), time.Minute, nil); !errors.Is(err, ErrEnded) {
		t.Errorf("after its end: %v", err)
	}
}

// TestPausedIsBroken: what was copied while another process made the program go on does not count.
func TestPausedIsBroken(t *testing.T) {
	g := shell(t, "while :; do sleep 0.01; done")
	_, err := g.Paused(t.Context(), time.Minute, func(context.Context) error {
		if err := syscall.Kill(-g.Pid(), syscall.SIGCONT); err != nil {
			return err
		}
		eventually(t, "the program", func() bool {
			still, err := g.allStopped()
			return err == nil && !still
		})
		return nil
	})
	if !errors.Is(err, errWentOn) {
		t.Errorf("error %v", err)
	}
	if _, err := g.Paused(t.Context(), time.Minute, func(context.Context) error { return nil }); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// TestPausedEndsWithTheFirst: when the first process is killed during a pause, the others are made
// to go on, to end. What is copied knows that before.
func TestPausedEndsWithTheFirst(t *testing.T) {
	// When the first one ends, the kernel sends SIGHUP and SIGCONT to a group that has stopped
	// processes and nobody in its session who could continue them.
	ready := filepath.Join(t.TempDir(), "ready")
	g := shell(t, `sh -c 'trap "" TERM HUP; touch "$READY"; while :; do sleep 0.01; done' & wait`, "READY="+ready)
	eventually(t, "its start", exists(ready))
	_, err := g.Paused(t.Context(), time.Minute, func(ctx context.Context) error {
		g.SignalFirst(syscall.SIGKILL)
		<-ctx.Done()
		if g.others() == 0 {
			t.Error("the copy was told when all had ended")
		}
		return nil
	})
	if !errors.Is(err, ErrEnded) {
		t.Errorf("error %v", err)
	}
}

func TestStop(t *testing.T) {
	for _, c := range []struct {
		name, command string
		grace         time.Duration
		code          int
	}{
		{"it ends by itself", `trap 'exit 7' TERM; touch "$READY"; while :; do sleep 0.01; done`, time.Minute, 7},
		{"by the signal", `touch "$READY"; exec sleep 100`, time.Minute, 143},
		{"it does not want to", `trap '' TERM; touch "$READY"; while :; do sleep 0.01; done`, 100 * time.Millisecond, 137},
		{"it stands still", `touch "$READY"; kill -STOP $$; exit 5`, time.Minute, 143},
	} {
		t.Run(c.name, func(t *testing.T) {
			ready := filepath.Join(t.TempDir(), "ready")
			g := shell(t, c.command, "READY="+ready)
			eventually(t, "its start", exists(ready))
			g.Stop(syscall.SIGTERM, c.grace)
			if got := g.Code(); got != c.code {
				t.Errorf("exit code %d, want %d", got, c.code)
			}
		})
	}
}

// TestNothingOutlivesTheGroup: when the program has ended, nothing of it writes any more.
func TestNothingOutlivesTheGroup(t *testing.T) {
	for _, c := range []struct{ name, trap string }{{"ends at TERM", ""}, {"ignores TERM", "trap '' TERM;"}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			ready := filepath.Join(dir, "n")
			// What outlives it all the same ends when the directory is removed.
			g := shell(t, `( `+c.trap+` while echo x >>"$N"; do :; done ) 2>/dev/null & while ! [ -s "$N" ]; do sleep 0.01; done; exit 4`, "N="+ready)
			within(t, "the end", g.Ended())
			n := sizes(t, dir)
			time.Sleep(20 * time.Millisecond)
			if later := sizes(t, dir); later != n || g.Code() != 4 {
				t.Errorf("%d bytes, later %d; exit code %d", n, later, g.Code())
			}
		})
	}
}

func TestSignals(t *testing.T) {
	dir := t.TempDir()
	// Both shells of the group hear USR1; the first one alone hears USR2.
	g := shell(t, `
		( trap 'touch "$D/second"' USR1; trap 'touch "$D/no"' USR2; touch "$D/a"; while :; do sleep 0.01; done ) &
		trap 'touch "$D/first"' USR1; trap 'touch "$D/alone"' USR2; touch "$D/b"; while :; do sleep 0.01; done`, "D="+dir)
	for _, name := range []string{"a", "b"} {
		eventually(t, name, exists(filepath.Join(dir, name)))
	}
	g.Signal(syscall.SIGUSR1)
	eventually(t, "USR1 of the first", exists(filepath.Join(dir, "first")))
	eventually(t, "USR1 of the second", exists(filepath.Join(dir, "second")))
	g.SignalFirst(syscall.SIGUSR2)
	eventually(t, "USR2 of the first", exists(filepath.Join(dir, "alone")))
	if exists(filepath.Join(dir, "no"))() {
		t.Error("a signal for the first process alone went to another")
	}
}

func TestSignalByName(t *testing.T) {
	for name, want := range map[string]syscall.Signal{"USR1": syscall.SIGUSR1, "SIGHUP": syscall.SIGHUP, "usr1": 0, "": 0, "9": 0} {
		if got, ok := SignalByName(name); got != want || ok != (want != 0) {
			t.Errorf("%q is %v, %v", name, got, ok)
		}
	}
}
