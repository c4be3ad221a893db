package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// A crowd is what many tasks in one process took.
type crowd struct {
	Start, Drain time.Duration
	Commits      int // in the window, as all that follows
	P50, P99     time.Duration
	Pause99      time.Duration
	CPU          time.Duration
	Requests     map[string]int64 // by verb
	Bytes        int64            // sent and received
}

func measureTasks(ctx context.Context, c *config) error {
	fmt.Printf("%d tasks with states of %d KiB, which take a step a second each, over %v:\n\n", c.Tasks, c.TasksState, c.Window)
	fmt.Println("| each is committed | commits | p50 / p99 ms | pause, p99 ms | requests for a commit | bytes for a commit | CPU s in the window | CPU ms for a commit | peak MiB | started in s | drained in s |")
	fmt.Println("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |")
	idle := 0.0 // seconds of processor time without commits
	for n, every := range []time.Duration{runner.Manual, c.TasksEvery} {
		ch := child{Config: *c, Part: "tasks", Every: every, Report: filepath.Join(c.Dir, "report")}
		var err error
		if ch.Config.URL, err = c.store(fmt.Sprint("tasks-", n)); err != nil {
			return err
		}
		args, err := ch.args()
		if err != nil {
			return err
		}
		used, err := measure.Run(ctx, measure.Command{Args: args})
		if err != nil {
			return err
		}
		data, err := os.ReadFile(ch.Report)
		if err != nil {
			return err
		}
		var got crowd
		if err := json.Unmarshal(data, &got); err != nil {
			return err
		}
		name, each := "never", "-"
		if every > 0 {
			name, each = "every "+every.String(), fmt.Sprintf("%.2f", 1000*(got.CPU.Seconds()-idle)/float64(got.Commits))
		} else {
			idle = got.CPU.Seconds()
		}
		fmt.Printf("| %s | %d | %.1f / %.1f | %.1f | %s | %s | %.1f | %s | %.0f | %.1f | %.1f |\n", name, got.Commits, ms(got.P50), ms(got.P99), ms(got.Pause99),
			got.perCommit(), got.bytesPerCommit(), got.CPU.Seconds(), each, mib(used.PeakRSS), got.Start.Seconds(), got.Drain.Seconds())
	}
	fmt.Println()
	return nil
}

func (g *crowd) perCommit() string {
	if g.Commits == 0 {
		return "-"
	}
	var text string
	for _, verb := range []string{"create", "put", "get", "list", "delete"} {
		if n := g.Requests[verb]; n > 0 {
			text += fmt.Sprintf("%s %.3f ", verb, float64(n)/float64(g.Commits))
		}
	}
	return text
}

func (g *crowd) bytesPerCommit() string {
	if g.Commits == 0 {
		return "-"
	}
	return fmt.Sprint(g.Bytes / int64(g.Commits))
}

// own has many tasks for some time.
func (c *child) own(ctx context.Context) (err error) {
	log := &recorder{}
	job, err := checkpoint.Open(ctx, c.Config.URL, checkpoint.Options{Logger: log.logger()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var got crowd
	var stopped time.Time
	began := time.Now()
	err = runner.Run(ctx, runner.RunOptions{
		Job: job, Dir: filepath.Join(c.Config.Dir, "tasks", c.Every.String()), Grace: 5 * time.Minute,
		Options: runner.Options{Interval: c.Every, Commits: c.Config.TasksCommits, Logger: log.logger()},
		Assign: func(ctx context.Context, w *runner.Workers) error {
			if err := c.startAll(ctx, w); err != nil {
				return err
			}
			got.Start = time.Since(began)
			err := c.watch(ctx, job, log, &got)
			stopped = time.Now()
			return err
		},
	}, func(context.Context, string, *runner.Restored) (runner.Worker, error) {
		return newCounter(c.Config.TasksState), nil
	})
	if err != nil {
		return err
	}
	got.Drain = time.Since(stopped)
	data, err := json.Marshal(got)
	if err != nil {
		return err
	}
	return os.WriteFile(c.Report, data, 0o666)
}

func (c *child) startAll(ctx context.Context, w *runner.Workers) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for n := range c.Config.Tasks {
		g.Go(func() error { return w.Start(ctx, fmt.Sprint("orders/", n)) })
	}
	return g.Wait()
}

// watch measures the window.
func (c *child) watch(ctx context.Context, job *checkpoint.Job, log *recorder, got *crowd) error {
	if err := pass(ctx, max(c.Config.TasksEvery*3/2, 10*time.Second)); err != nil { // all have their places in the interval
		return err
	}
	log.take()
	cpu, before := measure.Self(), job.Stats()
	if err := pass(ctx, c.Config.Window); err != nil {
		return err
	}
	commits := log.take()
	got.CPU = measure.Self() - cpu
	now := job.Stats()
	got.Requests = map[string]int64{
		"create": now.Create.Calls - before.Create.Calls, "put": now.Put.Calls - before.Put.Calls, "get": now.Get.Calls - before.Get.Calls,
		"list": now.List.Calls - before.List.Calls, "delete": now.Delete.Calls - before.Delete.Calls,
	}
	got.Bytes = now.Create.Bytes + now.Put.Bytes + now.Get.Bytes - before.Create.Bytes - before.Put.Bytes - before.Get.Bytes
	took := figures(commits, func(c commit) time.Duration { return c.took })
	got.Commits, got.P50, got.P99 = len(commits), percentile(took, 50), percentile(took, 99)
	got.Pause99 = percentile(figures(commits, func(c commit) time.Duration { return c.pause }), 99)
	return nil
}

func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A counter is a task of small state.
type counter struct {
	n      uint64
	counts []uint64
}

// newCounter returns a counter whose state has about that many KiB.
func newCounter(kib int) *counter { return &counter{counts: make([]uint64, 100*kib)} }

// Process counts something each second.
func (c *counter) Process(ctx context.Context) error {
	if err := pass(ctx, time.Second); err != nil {
		return err
	}
	c.n++
	c.counts[c.n%uint64(len(c.counts))] += c.n * 1_000_003 % 1_000_000_007 // about ten digits
	return nil
}

func (c *counter) Cut(context.Context, string) (runner.Cut, error) {
	state, err := json.Marshal(slices.Clone(c.counts))
	return runner.Cut{
		Offsets: map[string]string{"in": fmt.Sprint(c.n)},
		Stores:  map[string]checkpoint.Source{"": checkpoint.Stream("counts", bytes.NewReader(state))},
	}, err
}

func (c *counter) Close() error { return nil }
