package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// The two tasks: the first attempt, and a second one that is forked from it.
const (
	first  = "first"
	second = "second"
)

// A step of the agent writes some files, and removes others.
type step struct {
	does   string
	write  map[string]string
	remove []string
}

var (
	plan = step{"makes a plan", map[string]string{
		"plan.md":       "1. read the data\n2. add it up\n",
		"data/days.csv": strings.Repeat("mon,3\ntue,4\n", 2000),
	}, nil}
	draft  = step{"writes a program", map[string]string{"sum.py": "print(sum(read('data/days.csv')))\n"}, nil}
	spoils = step{"cleans up, and removes its data", map[string]string{"sum.py": "print('done')\n"}, []string{"data/days.csv", "plan.md"}}
	report = step{"writes the report", map[string]string{"report.md": "The sum is 14000.\n"}, nil}
	other  = step{"tries another way", map[string]string{"sum.sql": "select sum(n) from days;\n"}, []string{"sum.py"}}
)

// do does the step in a workspace.
func (s step) do(workspace string) error {
	for _, name := range slices.Sorted(maps.Keys(s.write)) {
		path := filepath.Join(workspace, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(s.write[name]), 0o666); err != nil {
			return err
		}
	}
	for _, name := range s.remove {
		if err := os.Remove(filepath.Join(workspace, filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	return nil
}

// after is what must be in a workspace after steps.
func after(steps ...step) map[string]string {
	files := make(map[string]string)
	for _, s := range steps {
		maps.Copy(files, s.write)
		for _, name := range s.remove {
			delete(files, name)
		}
	}
	return files
}

// A story is what happens, and what must come of it.
type story struct {
	out   io.Writer
	dir   string
	url   string
	job   *checkpoint.Job
	quiet time.Duration
	log   *slog.Logger

	begun time.Time
}

func (s *story) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, "%5.1f s  %s\n", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

func (s *story) tell(ctx context.Context) error {
	s.begun = time.Now()
	good, err := s.tellFirst(ctx)
	if err != nil {
		return err
	}
	if err := s.tellSecond(ctx, good); err != nil {
		return err
	}
	if err := s.tellRollback(ctx, good); err != nil {
		return err
	}
	return s.compareSaved(ctx)
}

// tellFirst is two good steps and a bad one. It returns the checkpoint before that.
func (s *story) tellFirst(ctx context.Context) (good *checkpoint.Checkpoint, err error) {
	k, err := s.keep(ctx, first)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.close(context.WithoutCancel(ctx))) }()
	if _, err := s.step(ctx, k, plan); err != nil {
		return nil, err
	}
	if good, err = s.step(ctx, k, draft); err != nil {
		return nil, err
	}
	if _, err = s.step(ctx, k, spoils); err != nil {
		return nil, err
	}
	return good, compare(os.DirFS(k.path), after(plan, draft, spoils))
}

// tellSecond forks the good checkpoint, and goes on from it in another workspace.
func (s *story) tellSecond(ctx context.Context, good *checkpoint.Checkpoint) (err error) {
	task, err := s.job.Task(first)
	if err != nil {
		return err
	}
	s.say("That was a bad step. Checkpoint %d is forked for a second attempt; no data is copied.", good.Seq)
	if _, err := task.Fork(ctx, second, checkpoint.ForkOptions{At: checkpoint.Seq(good.Seq)}); err != nil {
		return err
	}
	k, err := s.keep(ctx, second)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close(context.WithoutCancel(ctx))) }()
	if err := compare(os.DirFS(k.path), after(plan, draft)); err != nil {
		return err
	}
	_, err = s.step(ctx, k, other)
	return err
}

// tellRollback takes the bad step back, and goes on from the checkpoint before.
func (s *story) tellRollback(ctx context.Context, good *checkpoint.Checkpoint) (err error) {
	task, err := s.job.Task(first)
	if err != nil {
		return err
	}
	s.say("The first attempt is rolled back to checkpoint %d.", good.Seq)
	if _, err := task.Rollback(ctx, checkpoint.Seq(good.Seq), checkpoint.RollbackOptions{}); err != nil {
		return err
	}
	k, err := s.keep(ctx, first)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close(context.WithoutCancel(ctx))) }()
	if err := compare(os.DirFS(k.path), after(plan, draft)); err != nil {
		return err
	}
	if _, err = s.step(ctx, k, report); err != nil {
		return err
	}
	s.say("  Claims, releases and rollbacks take numbers too: that is why some were skipped.")
	return nil
}

// compareSaved compares what is saved of both attempts with what it must be.
func (s *story) compareSaved(ctx context.Context) error {
	for name, want := range map[string]map[string]string{
		first:  after(plan, draft, report),
		second: after(plan, draft, other),
	} {
		task, err := s.job.Task(name)
		if err != nil {
			return err
		}
		c, err := task.Latest(ctx)
		if err != nil {
			return err
		}
		saved, err := c.FS(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(compare(saved, want), compare(os.DirFS(filepath.Join(s.dir, "workspaces", name)), want)); err != nil {
			return fmt.Errorf("the %s attempt: %w", name, err)
		}
	}
	s.say("Both attempts are what they must be, in their workspaces and in the store.")
	return nil
}

func (s *story) keep(ctx context.Context, task string) (*keeper, error) {
	k, err := keep(ctx, s.job, s.url, s.dir, task, s.quiet, s.log)
	if err == nil {
		s.say("The %s attempt works in %s.", task, filepath.Base(filepath.Dir(k.path))+"/"+task)
	}
	return k, err
}

// step lets the agent do a step, and waits until that is saved.
func (s *story) step(ctx context.Context, k *keeper, does step) (*checkpoint.Checkpoint, error) {
	s.say("The agent %s.", does.does)
	if err := does.do(k.path); err != nil {
		return nil, err
	}
	c, err := k.next(ctx)
	if err == nil {
		s.say("  Nothing was written for %v: saved as checkpoint %d of %s.", s.quiet, c.Seq, k.task.Name())
	}
	return c, err
}

// compare compares a tree with what must be in it.
func compare(tree fs.FS, want map[string]string) error {
	got, err := read(tree)
	if err != nil {
		return err
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("there are the files %v; there must be %v, with the content that the agent wrote", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	return nil
}
