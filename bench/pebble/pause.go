package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/bench/internal/records"
	"github.com/holdfast-io/holdfast/checkpoint"
	engine "github.com/holdfast-io/holdfast/engines/pebble"
)

// A way to cut: what the loop waits for.
type way struct {
	name string
	cut  func(context.Context) (src checkpoint.Source, remove func() error, err error)
}

func measurePauses(ctx context.Context, c config, e *engine.Engine, s *records.DB) error {
	ways := []way{
		{"engines/pebble", e.Cut},
		{"Flush and Checkpoint", stopped(e, filepath.Join(c.dir, "stopped"))},
	}
	fmt.Printf("State of %d MiB, %g MiB/s overwritten, memtables of %d MiB, %d cuts, one every %v.\n\n", c.size, c.rate, c.memtable, c.cuts, c.every)
	fmt.Println("| the loop waits for | p50 ms | p99 ms | longest ms | MiB/s | commit p50 ms | a commit sends, p50 MiB |")
	fmt.Println("| --- | --: | --: | --: | --: | --: | --: |")
	for n, w := range ways {
		task, err := openTask(ctx, c, fmt.Sprint("pause-", n))
		if err != nil {
			return err
		}
		l := loop{config: c, way: w, DB: s, task: task}
		if err := errors.Join(l.run(ctx), task.close(ctx)); err != nil {
			return err
		}
		fmt.Printf("| %s | %.1f | %.1f | %.1f | %.2f | %.0f | %.1f |\n", w.name, ms(percentile(l.pauses, 50)), ms(percentile(l.pauses, 99)), ms(percentile(l.pauses, 100)),
			l.written/l.took.Seconds(), ms(percentile(l.commits, 50)), float64(percentile(l.sent, 50))/(1<<20))
	}
	fmt.Println()
	return nil
}

// stopped returns a way to cut that does all in the pause.
func stopped(e *engine.Engine, dir string) func(context.Context) (checkpoint.Source, func() error, error) {
	return func(context.Context) (src checkpoint.Source, remove func() error, err error) {
		if err := errors.Join(e.DB.Flush(), e.DB.Checkpoint(dir)); err != nil {
			return src, nil, err
		}
		return checkpoint.Dir(dir).WriteOnce("*.sst", "*.blob"), func() error { return os.RemoveAll(dir) }, nil
	}
}

// A loop overwrites records, at a rate, and is stopped for cuts.
type loop struct {
	config
	way
	*records.DB
	task *ownedTask

	pauses, commits []time.Duration
	sent            []int64
	written         float64 // MiB
	took            time.Duration
}

func (l *loop) run(ctx context.Context) error {
	began := time.Now()
	step := time.Duration(float64(time.Second) * records.Batch / records.PerMiB / l.rate)
	committed := make(chan error, 1)
	committed <- nil
	nextCut := began.Add(l.every)
	for next := began; len(l.pauses) < l.cuts; next = next.Add(step) {
		if wait := time.Until(next); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := l.Overwrite(records.Batch); err != nil {
			return err
		}
		l.written += float64(records.Batch) / records.PerMiB
		if time.Now().Before(nextCut) {
			continue
		}
		select {
		case err := <-committed:
			if err == nil {
				err = l.pause(ctx, committed)
			}
			if err != nil {
				return err
			}
			nextCut = nextCut.Add(l.every)
		default: // the store is slow
		}
	}
	l.took = time.Since(began)
	return <-committed
}

// pause cuts, and has the cut committed beside the loop.
func (l *loop) pause(ctx context.Context, committed chan<- error) error {
	began := time.Now()
	src, remove, err := l.cut(ctx)
	l.pauses = append(l.pauses, time.Since(began))
	if err != nil {
		return err
	}
	go func() {
		began, before := time.Now(), l.task.sent()
		_, err := l.task.owner.Commit(ctx, checkpoint.Snapshot{State: src})
		l.commits = append(l.commits, time.Since(began))
		l.sent = append(l.sent, l.task.sent()-before)
		committed <- errors.Join(err, remove())
	}()
	return nil
}

// percentile returns a value that so many percent of all do not exceed.
func percentile[T time.Duration | int64](values []T, percent int) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
