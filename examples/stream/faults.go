package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/examples/internal/cli"
)

// A fault is something that is done to the workers.
type fault func(*story, context.Context) error

// plan returns the faults, in a random order.
func (s *story) plan() (faults []fault) {
	for range s.kills {
		faults = append(faults, (*story).killOne)
	}
	for range s.pauses {
		faults = append(faults, (*story).pauseOne)
	}
	for range s.rebalances {
		faults = append(faults, (*story).rebalance)
	}
	s.chance.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	return faults
}

// doFaults does the faults, evenly over the duration.
func (s *story) doFaults(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.pausing.Wait()) }()
	if err := s.crew.until(ctx, "each partition has a worker", s.crew.restoredAll); err != nil {
		return err
	}
	s.say("Each partition has a worker.")
	for i, fault := range s.faults {
		at := s.begun.Add(time.Duration(float64(s.duration) * (float64(i) + s.chance.Float64()) / float64(len(s.faults)+1)))
		if err := wait(ctx, time.Until(at)); err != nil {
			return err
		}
		if err := fault(s, ctx); err != nil {
			return err
		}
		s.done.Add(1)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pick waits for a worker to which something can be done while another one goes on, and
// decides its fate. One that has no partitions has nothing to lose.
func (s *story) pick(ctx context.Context, f fate) (w *worker, tasks []int, err error) {
	err = s.crew.until(ctx, "two workers are at work, one of them on partitions", func() bool {
		idle := s.crew.idle()
		busy := slices.DeleteFunc(slices.Clone(idle), func(w *worker) bool { return len(w.tasks) == 0 })
		if len(idle) < 2 || len(busy) == 0 {
			return false
		}
		w = busy[s.chance.IntN(len(busy))]
		w.fate = f
		tasks = slices.Sorted(maps.Keys(w.tasks))
		return true
	})
	return w, tasks, err
}

// killOne kills a worker at some moment, and starts another one.
func (s *story) killOne(ctx context.Context) error {
	w, _, err := s.pick(ctx, killed)
	if err != nil {
		return err
	}
	if err := wait(ctx, time.Duration(s.chance.Float64()*float64(s.interval))); err != nil {
		return err
	}
	var tasks, commits []int
	s.crew.look(func() {
		tasks, commits = slices.Sorted(maps.Keys(w.tasks)), slices.Sorted(maps.Keys(w.commits))
	})
	s.crew.kill(w)
	next, err := s.crew.start()
	if err != nil {
		return err
	}
	s.killed++
	during := ""
	if len(commits) > 0 {
		during = fmt.Sprintf(", in the midst of a commit of %s", list(commits))
	}
	s.say("Worker %d is killed%s. It had %s. Worker %d is started.", w.id, during, list(tasks), next.id)
	return s.crew.until(ctx, fmt.Sprintf("worker %d, which was killed, has ended", w.id), func() bool { return w.gone })
}

// pauseOne pauses a worker until others have taken its partitions, and lets it go on as if
// nothing had happened. Other faults happen meanwhile, but no other pause.
func (s *story) pauseOne(ctx context.Context) error {
	if err := s.pausing.Wait(); err != nil {
		return err
	}
	w, tasks, err := s.pick(ctx, paused)
	if err != nil {
		return err
	}
	if err := stopProcess(w.cmd.Process); err != nil {
		return fmt.Errorf("pausing worker %d: %w", w.id, err)
	}
	s.paused.Add(1)
	s.say("Worker %d is paused. It has %s.", w.id, list(tasks))
	s.pausing.Go(func() error { return s.resume(ctx, w, tasks) })
	return nil
}

// resume lets a paused worker go on when others have its partitions, and waits until it has
// found that out.
func (s *story) resume(ctx context.Context, w *worker, tasks []int) error {
	err := s.crew.until(ctx, fmt.Sprintf("others have the partitions of worker %d, which is paused", w.id), func() bool {
		return !slices.ContainsFunc(tasks, func(p int) bool {
			owner := s.crew.partitions[p].owner
			return owner == w || owner == nil
		})
	})
	if err != nil {
		return err
	}
	before := 0
	s.crew.change(func() { before, w.fate = w.fenced, zombie })
	if err := continueProcess(w.cmd.Process); err != nil {
		return fmt.Errorf("worker %d is to go on: %w", w.id, err)
	}
	s.say("Others have the partitions of worker %d. It goes on, and does not know that.", w.id)
	err = s.crew.until(ctx, fmt.Sprintf("worker %d, which was paused, knows that others have its partitions", w.id), func() bool {
		return !slices.ContainsFunc(tasks, func(p int) bool { return w.tasks[p] && s.crew.partitions[p].owner != w })
	})
	if err != nil {
		return err
	}
	refused := 0
	s.crew.change(func() { refused, w.fate = w.fenced-before, working })
	s.refused.Add(int64(refused))
	if refused > 0 {
		s.zombies.Add(1)
	}
	s.say("Worker %d has lost them: the store refused %s of it.", w.id, cli.Number(refused, "commit"))
	return nil
}

// rebalance adds a worker or removes one, in good order.
func (s *story) rebalance(ctx context.Context) error {
	n := 0
	s.crew.look(func() { n = len(s.crew.workers) })
	if n <= s.workers || n < s.workers+2 && s.chance.IntN(2) == 0 {
		return s.add(ctx)
	}
	return s.remove(ctx)
}

func (s *story) add(ctx context.Context) error {
	w, err := s.crew.start()
	if err != nil {
		return err
	}
	s.added++
	s.say("Worker %d is added.", w.id)
	return s.crew.until(ctx, fmt.Sprintf("worker %d has a partition", w.id), func() bool {
		none := len(s.crew.workers) > len(s.crew.partitions) // there may be none left for it
		return len(w.tasks) > 0 || w.gone || none
	})
}

func (s *story) remove(ctx context.Context) error {
	w, tasks, err := s.pick(ctx, leaving)
	if err != nil {
		return err
	}
	s.removed++
	s.say("Worker %d is asked to leave. It gives %s back.", w.id, list(tasks))
	if err := s.crew.ask(w); err != nil {
		return err
	}
	return s.crew.until(ctx, fmt.Sprintf("worker %d, which was asked to leave, has ended", w.id), func() bool { return w.gone })
}

// list names partitions.
func list(partitions []int) string {
	names := make([]string, len(partitions))
	for i, p := range partitions {
		names[i] = fmt.Sprint(p)
	}
	switch len(names) {
	case 0:
		return "no partition"
	case 1:
		return "partition " + names[0]
	}
	return "partitions " + strings.Join(names, " ")
}
