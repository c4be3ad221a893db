package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/internal/process"
)

// still calls copy while the program's state is consistent.
func (s *supervisor) still(ctx context.Context, copy func(context.Context) error) error {
	if s.group == nil {
		return copy(ctx) // there is nobody to write
	}
	if hasEnded(s.group) {
		return s.afterEnd(ctx, copy)
	}
	if s.o.pre == "" && s.o.post == "" {
		return s.pausing(ctx, copy)
	}
	began := time.Now()
	defer func() { s.stoodStill = time.Since(began) }()
	err := s.hook(ctx, "--pre", s.o.pre, s.o.limit)
	if err == nil {
		err = s.pausing(ctx, copy)
	}
	// What --pre has begun is ended, whatever came of it.
	return errors.Join(err, s.hook(context.WithoutCancel(ctx), "--post", s.o.post, s.o.limit))
}

// afterEnd calls copy when the program has ended. What --pre makes, a backup say, is made once more. If
// it fails, because it needs the program, it is not tried again, and the state is saved all the same.
func (s *supervisor) afterEnd(ctx context.Context, copy func(context.Context) error) error {
	if !s.preFailed {
		s.preFailed = s.hookAfterEnd(ctx, "--pre", s.o.pre)
	}
	err := copy(ctx)
	s.hookAfterEnd(context.WithoutCancel(ctx), "--post", s.o.post)
	return err
}

// hookShare is the part of --grace, 1/hookShare, that a hook may take when the program has ended: the
// last checkpoint needs the rest.
const hookShare = 4

// hookAfterEnd runs a hook when the program has ended. It reports whether that has failed.
func (s *supervisor) hookAfterEnd(ctx context.Context, name, command string) (failed bool) {
	err := s.hook(ctx, name, command, min(s.o.limit, s.o.grace/hookShare))
	if err != nil {
		s.p.note("%v; the program has ended, and its last checkpoint has what is in %s", err, s.o.state)
	}
	return err != nil
}

func hasEnded(g *process.Group) bool {
	select {
	case <-g.Ended():
		return true
	default:
		return false
	}
}

func (s *supervisor) pausing(ctx context.Context, copy func(context.Context) error) error {
	if !s.o.pause {
		return copy(ctx)
	}
	took, err := s.group.Paused(ctx, s.o.limit, copy)
	s.stoodStill = took
	return err
}

// hook runs a command by the shell. What it prints goes to stderr: stdout is the program's.
func (s *supervisor) hook(ctx context.Context, name, command string, limit time.Duration) error {
	if command == "" {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v", limit))
	defer cancel()
	g, err := process.Start(process.Command{
		Args: []string{"sh", "-c", command}, Stdout: os.Stderr, Stderr: os.Stderr,
		Env: s.hookEnv(),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	select {
	case <-g.Ended():
	case <-ctx.Done():
		g.Stop(syscall.SIGKILL, 0)
		return fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	if code := g.Code(); code != 0 {
		return fmt.Errorf("%s has failed, with exit code %d", name, code)
	}
	return nil
}

// hookEnv is the environment of a hook. A program that has ended has no number: another process may
// have it by now.
func (s *supervisor) hookEnv() []string {
	const pid = "HOLDFAST_PID="
	env := slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, pid) }) // of a run around this one
	env = append(env, "HOLDFAST_STATE="+s.o.stateDir, "HOLDFAST_TASK="+s.o.task)
	if !hasEnded(s.group) {
		env = append(env, fmt.Sprint(pid, s.group.Pid()))
	}
	return env
}

// plainURL returns a store's URL without its parameters, which may change: a region, say.
func plainURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	u.RawQuery, u.ForceQuery = "", false
	return u.String()
}
