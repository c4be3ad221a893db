package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/bench/internal/records"
	"github.com/holdfast-io/holdfast/runner"
)

// A load is what a job does all the time.
type load struct {
	name string
	rate float64 // MiB of records in a second; 0 is as fast as it can
	step func(j *job) func() error
}

var loads = []load{
	{"writes 8 MiB/s", 8, (*job).write},
	{"decodes, reads and writes", 0, (*job).process},
	{"writes as fast as it can", 0, (*job).write},
}

// write returns a step that overwrites records.
func (j *job) write() func() error {
	return func() error { return j.db.Overwrite(records.Batch) }
}

// process returns a step that handles events: it decodes each, and reads and writes
// the record that it is about.
func (j *job) process() func() error {
	type event struct {
		Record uint64   `json:"record"`
		Kind   string   `json:"kind"`
		Tags   []string `json:"tags"`
		Amount float64  `json:"amount"`
	}
	var input [][]byte
	for range 100_000 {
		data, err := json.Marshal(event{j.db.Any(), "payment", []string{"europe", "card", "first"}, 12.5})
		if err != nil {
			panic(err) // it has no reason to
		}
		input = append(input, data)
	}
	next := 0
	return func() error {
		b := j.engine.DB.NewBatch()
		for range records.Batch {
			var e event
			if err := json.Unmarshal(input[next], &e); err != nil {
				return err
			}
			next = (next + 1) % len(input)
			key := records.Key(e.Record)
			_, closer, err := j.engine.DB.Get(key[:])
			if err != nil {
				return err
			}
			if err := errors.Join(closer.Close(), b.Set(key[:], j.db.Value(), nil)); err != nil {
				return err
			}
		}
		return errors.Join(b.Commit(pebbledb.NoSync), b.Close())
	}
}

// A round is what a load did for some time.
type round struct {
	rate    float64         // records in a second
	steps   []time.Duration // from one's beginning to its end
	waits   []time.Duration // of the first step after each cut, for the gate
	commits []commit
	cpu     time.Duration
}

func measureLoads(ctx context.Context, c *config) (err error) {
	j, err := openJob(ctx, c, c.hostDir("load"), runner.Manual, func() {}, func() {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close(ctx)) }()
	if _, err := j.task.Commit(ctx); err != nil { // all of the state
		return err
	}
	fmt.Printf("State of %d MiB, a checkpoint every %v or none, by turns, %d rounds of %v for each:\n\n", c.Size, every, c.Rounds, c.Round)
	fmt.Println("| the job | checkpoints | records/s, median | of that without | the loop waits for a cut, p50 / p99 / longest ms | steps, p99 / p99.9 / longest ms | commits | commit p50 / p99 ms | stored, p50 MiB | cores used |")
	fmt.Println("| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |")
	stop, err := c.profile()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, l := range loads {
		if err := j.compare(ctx, c, l); err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

// profile begins to write the profile, if one is wanted.
func (c *config) profile() (stop func() error, err error) {
	if c.Profile == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(c.Profile)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// compare runs a load with checkpoints and without, by turns.
func (j *job) compare(ctx context.Context, c *config, l load) error {
	var with, without []round
	step := l.step(j)
	for n := range 2 * c.Rounds {
		on := n%4 == 0 || n%4 == 3 // so that neither is always the later one
		r, err := j.round(ctx, c, l, step, on)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s, checkpoints %v: %.0f records/s\n", l.name, on, r.rate)
		if on {
			with = append(with, r)
		} else {
			without = append(without, r)
		}
	}
	base := measure.Median(without, func(r round) float64 { return r.rate })
	report(l.name, "every second", with, base)
	report(l.name, "none", without, base)
	return nil
}

func report(name, checkpoints string, rounds []round, base float64) {
	var all round
	for _, r := range rounds {
		all.steps, all.waits, all.commits = append(all.steps, r.steps...), append(all.waits, r.waits...), append(all.commits, r.commits...)
	}
	rate := measure.Median(rounds, func(r round) float64 { return r.rate })
	waits, commits, stored := "-", "-", "-"
	if len(all.commits) > 0 {
		waits = fmt.Sprintf("%.1f / %.1f / %.1f", ms(percentile(all.waits, 50)), ms(percentile(all.waits, 99)), ms(percentile(all.waits, 100)))
		took := figures(all.commits, func(c commit) time.Duration { return c.took })
		commits = fmt.Sprintf("%.0f / %.0f", ms(percentile(took, 50)), ms(percentile(took, 99)))
		stored = fmt.Sprintf("%.1f", mib(percentile(figures(all.commits, func(c commit) int64 { return c.stored }), 50)))
	}
	fmt.Printf("| %s | %s | %.0f | %.1f %% | %s | %.1f / %.1f / %.1f | %d | %s | %s | %.2f |\n", name, checkpoints, rate, 100*rate/base, waits,
		ms(percentile(all.steps, 99)), ms(percentile(all.steps, 99.9)), ms(percentile(all.steps, 100)), len(all.commits), commits, stored,
		measure.Median(rounds, func(r round) float64 { return r.cpu.Seconds() }))
}

// round runs a load once.
func (j *job) round(ctx context.Context, c *config, l load, step func() error, on bool) (r round, err error) {
	if on {
		// What the rounds without checkpoints have written is not this round's.
		if _, err := j.task.Commit(ctx); err != nil {
			return r, err
		}
		j.log.take()
		err = j.runner.SetInterval(every)
		defer func() {
			// What is under way ends before the next round begins.
			err = errors.Join(err, j.runner.SetInterval(runner.Manual))
			if err == nil {
				_, err = j.task.Commit(ctx)
			}
			j.log.take()
		}()
	}
	if err != nil {
		return r, err
	}
	began, cpu, cuts := time.Now(), measure.Self(), j.cuts.Load()
	end, next := began.Add(c.Round), began
	for now := began; now.Before(end); {
		waited, err := j.step(ctx, step)
		if err != nil {
			return r, err
		}
		if n := j.cuts.Load(); n != cuts {
			cuts = n
			r.waits = append(r.waits, waited)
		}
		done := time.Now()
		r.steps = append(r.steps, done.Sub(now))
		if l.rate > 0 {
			next = next.Add(time.Duration(float64(time.Second) * records.Batch / records.PerMiB / l.rate))
			if wait := next.Sub(done); wait > 0 {
				<-time.After(wait)
				done = time.Now()
			}
		}
		now = done
	}
	took := time.Since(began)
	r.rate = float64(len(r.steps)*records.Batch) / took.Seconds()
	r.cpu = time.Duration(float64(measure.Self()-cpu) / took.Seconds())
	r.commits = j.log.take()
	return r, nil
}
