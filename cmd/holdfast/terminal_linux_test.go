package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A session is a process that leads a session of its own on a terminal.
type session struct {
	*exec.Cmd
	t    *testing.T
	user *os.File // the terminal's other side
	said output
	read sync.WaitGroup
}

// startSession starts a command as the leader of a session. files are open in it as 3 and up.
func startSession(t *testing.T, files []*os.File, args ...string) *session {
	t.Helper()
	user, terminal := openTerminal(t)
	s := &session{Cmd: exec.Command(args[0], args[1:]...), t: t, user: user}
	s.Stdin, s.Stdout, s.Stderr, s.ExtraFiles = terminal, terminal, terminal, files
	s.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Process.Kill() })
	if err := terminal.Close(); err != nil {
		t.Fatal(err)
	}
	s.read.Go(func() { _, _ = io.Copy(&s.said, user) }) // until no process has the terminal open
	return s
}

// types is what a user types.
func (s *session) types(text string) {
	s.t.Helper()
	if _, err := s.user.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// says waits until something is on the terminal.
func (s *session) says(what string) {
	s.t.Helper()
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the terminal has %q", s.said.String())
		}
	}()
	eventually(s.t, fmt.Sprintf("%q on the terminal", what), func() bool { return strings.Contains(s.said.String(), what) })
}

func (s *session) wantEnd(code int) {
	s.t.Helper()
	_ = s.Wait()
	s.read.Wait()
	if got := s.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d; want %d; the terminal has %q", got, code, s.said.String())
	}
}

// foreground returns the process group that is in the foreground.
func (s *session) foreground() int {
	s.t.Helper()
	group, err := unix.IoctlGetInt(int(s.user.Fd()), unix.TIOCGPGRP)
	if err != nil {
		s.t.Fatal(err)
	}
	return group
}

// TestRunGivesTheTerminalBack: the program is in the foreground until it has ended, whatever its
// end, and run is while it saves the last checkpoint: then Ctrl-C is for run.
func TestRunGivesTheTerminalBack(t *testing.T) {
	r := newRunTest(t)
	arrived, tell := pipe(t)
	hear, _ := pipe(t)
	s := startSession(t, []*os.File{tell, hear}, "holdfast", "run", gateURL(r.store, "put")+"&in=segments", "a", "--state", r.dir, "--every", "1h", "--grace", "100ms", "--",
		"sh", "-c", `head -c 200000 /dev/urandom >"$HOLDFAST_STATE/large"; echo "i am $$"; read line; echo "it read $line"`)
	s.says("i am ")
	if s.foreground() == s.Process.Pid {
		t.Error("the program is in the background")
	}
	s.types("a line\n")
	if _, err := io.ReadFull(arrived, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.says("it read a line")
	if got := s.foreground(); got != s.Process.Pid {
		t.Fatalf("group %d is in the foreground; run's is %d", got, s.Process.Pid)
	}
	s.types("\x03")
	s.wantEnd(120)
}

// TestRunIsFencedOnATerminal: the same when another run has taken the task.
func TestRunIsFencedOnATerminal(t *testing.T) {
	r := newRunTest(t)
	s := startSession(t, nil, "sh", "-c", fmt.Sprintf(`set -m
		holdfast run %s a --state %s --every 100ms -- sh -c 'echo ready; exec sleep 100'
		echo "code $?"; read line; echo "the shell read $line"`, fileURL(r.store), r.dir))
	s.says("ready")
	(&runTest{t, r.store, r.dir + "2"}).start("true", "--take-over").wantEnd(0, "")
	s.says("code 124")
	s.types("a line\n")
	s.wantEnd(0)
	if !strings.Contains(s.said.String(), "the shell read a line") {
		t.Errorf("the terminal has %q", s.said.String())
	}
}

// TestRunIsSuspended: Ctrl-Z suspends the program and run, and the shell goes on. Both go on by
// fg, with the terminal, and however often that is done.
func TestRunIsSuspended(t *testing.T) {
	for name, flags := range map[string]string{"alone": "", "beside pauses": "--pause --every 100ms"} {
		t.Run(name, func(t *testing.T) {
			r := newRunTest(t)
			s := startSession(t, nil, "sh", "-c", fmt.Sprintf(`set -m
				holdfast run %s a --state %s %s -- sh -c 'echo ready; while read line; do echo "the program read $line"; done; exit 9'
				echo "stopped 1"; fg
				echo "stopped 2"; fg
				echo "code $?"`, fileURL(r.store), r.dir, flags))
			s.says("ready")
			for i := range 2 {
				s.suspends(fmt.Sprintf("stopped %d", i+1))
				s.types(fmt.Sprintf("line %d\n", i))
				s.says(fmt.Sprintf("the program read line %d", i))
			}
			s.types("\x04")
			s.says("code 9")
			s.wantEnd(0)
		})
	}
}

// suspends types Ctrl-Z until the shell says that its job was stopped. If it comes while the
// program stands still for a copy, the system forgets it when the program goes on.
func (s *session) suspends(says string) {
	s.t.Helper()
	again := time.NewTicker(5 * time.Second)
	defer again.Stop()
	s.types("\x1a")
	eventually(s.t, "the shell", func() bool {
		select {
		case <-again.C:
			s.types("\x1a")
		default:
		}
		return strings.Contains(s.said.String(), says)
	})
}
