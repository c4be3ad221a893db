package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/holdfast-io/holdfast/examples/internal/cli"
	"github.com/holdfast-io/holdfast/examples/internal/clicks"

	"github.com/holdfast-io/holdfast/runner"
)

// A bench measures the job with checkpoints and without: one worker, which has all partitions,
// and a stream that has all events.
type bench struct {
	*options
	broker *broker
	last   []uint64
	events []int // by partition
	jobs   int   // that were run
}

// figures are what was measured of one kind of job.
type figures struct {
	name     string
	interval time.Duration
	rates    []float64       // events a second
	pauses   []time.Duration // of loops, for cuts
	commits  []int           // while the events were counted
	recovery []time.Duration
	again    []int // events that were counted again, by recovery
}

func (o *options) measure(ctx context.Context, b *broker, out io.Writer) error {
	m := &bench{options: o, broker: b, events: make([]int, o.partitions)}
	if err := m.fill(ctx); err != nil {
		return err
	}
	all := []*figures{{name: fmt.Sprintf("every %v", o.interval), interval: o.interval}, {name: "none", interval: runner.Manual}}
	for range o.rounds {
		for _, f := range all {
			if err := m.throughput(ctx, f); err != nil {
				return err
			}
			if err := m.recovery(ctx, f); err != nil {
				return err
			}
		}
		slices.Reverse(all) // in the next round the other one is first
	}
	slices.SortFunc(all, func(a, b *figures) int { return cmp.Compare(b.interval, a.interval) })
	if _, err := fmt.Fprintf(out, "%s in %s, one worker; medians of %s.\n\n%s",
		cli.Number(o.events, "event"), cli.Number(o.partitions, "partition"), cli.Number(o.rounds, "round"), header); err != nil {
		return err
	}
	for _, f := range all {
		if _, err := fmt.Fprintln(out, f); err != nil {
			return err
		}
	}
	return nil
}

const header = "| checkpoints | events/s | commits | the loop stands still for a cut | recovery, s | events counted again |\n| --- | --: | --: | --: | --: | --: |\n"

func (f *figures) String() string {
	return fmt.Sprintf("| %s | %.0f | %d | %s | %.2f | %d |",
		f.name, median(f.rates), median(f.commits), spread(f.pauses), median(f.recovery).Seconds(), median(f.again))
}

// fill sends all events.
func (m *bench) fill(ctx context.Context) (err error) {
	p := &producer{js: m.broker.js, stream: m.broker.stream}
	for i, c := range clicks.All(m.seed, m.options.events, m.partitions) {
		if err := p.send(ctx, i, c); err != nil {
			return err
		}
		m.events[c.Partition]++
	}
	if err := p.flush(ctx); err != nil {
		return err
	}
	m.last, err = m.broker.last(ctx, m.partitions)
	return err
}

// job starts the job anew, with a store and a directory of its own.
func (m *bench) job(interval time.Duration, fail context.CancelCauseFunc) *crew {
	m.jobs++
	name := strconv.Itoa(m.jobs)
	return newCrew(settings{
		Broker: m.broker.url, Stream: m.broker.stream, Partitions: m.partitions, Interval: interval,
		URL: m.url + "-" + name, Fixed: true, Until: m.last,
	}, filepath.Join(m.dir, "bench", name), fail)
}

// throughput measures how quickly all events are counted.
func (m *bench) throughput(ctx context.Context, f *figures) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	c := m.job(f.interval, fail)
	defer c.killAll()
	if _, err := c.start(); err != nil {
		return err
	}
	if err := c.until(ctx, "each partition has had a worker", c.begunAll); err != nil {
		return err
	}
	began := time.Now()
	if err := c.until(ctx, "all events are counted", func() bool { return c.counted() == m.options.events }); err != nil {
		return err
	}
	f.rates = append(f.rates, float64(m.options.events)/time.Since(began).Seconds())
	c.look(func() {
		if f.interval != runner.Manual { // the last commits, of partitions that are done, are no cost of counting
			f.commits = append(f.commits, c.commits)
			f.pauses = append(f.pauses, c.pauses...)
		}
	})
	return c.until(ctx, "the worker has ended", func() bool { return len(c.workers) == 0 })
}

// recovery kills the worker when it has counted half of the events, and measures how long it
// takes from the start of another one, in the same directory, until that one has come as far.
func (m *bench) recovery(ctx context.Context, f *figures) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	c := m.job(f.interval, fail)
	defer c.killAll()
	w, err := c.start()
	if err != nil {
		return err
	}
	if err := c.until(ctx, "half of the events are counted", func() bool { return c.counted() > m.options.events/2 }); err != nil {
		return err
	}
	c.kill(w)
	if err := c.until(ctx, "the worker that was killed has ended", func() bool { return w.gone }); err != nil {
		return err
	}
	reached := make([]int, m.partitions)
	c.change(func() {
		for p := range reached {
			reached[p] = c.partitions[p].counted
			c.partitions[p].counted, c.partitions[p].begun = 0, false
		}
	})
	again, began := 0, time.Now()
	if _, err := c.start(); err != nil {
		return err
	}
	if err := c.until(ctx, "each partition has had a worker again", c.begunAll); err != nil {
		return err
	}
	c.look(func() {
		for p := range reached {
			again += max(0, reached[p]-c.partitions[p].from)
		}
	})
	err = c.until(ctx, "what was counted is counted again", func() bool {
		for p, n := range reached {
			if c.partitions[p].counted < n {
				return false
			}
		}
		return true
	})
	f.recovery, f.again = append(f.recovery, time.Since(began)), append(f.again, again)
	return err
}

// median returns the middle one of some figures, or 0.
func median[T cmp.Ordered](figures []T) (middle T) {
	if len(figures) == 0 {
		return middle
	}
	return slices.Sorted(slices.Values(figures))[len(figures)/2]
}

// spread says how long some pauses were.
func spread(pauses []time.Duration) string {
	if len(pauses) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(pauses))
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("%.1f ms (median), %.1f ms (longest)", ms(median(sorted)), ms(sorted[len(sorted)-1]))
}
