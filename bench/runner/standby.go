package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/bench/internal/records"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// How owners and standbys are set up.
const (
	heartbeat = 200 * time.Millisecond
	looks     = 100 * time.Millisecond
	silence   = time.Second
	follows   = 30 // checkpoints that are kept: a restore may take as many seconds
)

// standBy follows the task, takes it over when it may, and then works until it is killed.
func (c *child) standBy(ctx context.Context) error {
	ctx, orphaned := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the parent
		orphaned()
	}()
	j, err := newJob(ctx, &c.Config, runner.Options{Interval: every, Heartbeat: heartbeat})
	if err != nil {
		return err
	}
	dir := c.Config.hostDir(c.Host)
	s, err := j.runner.Follow(ctx, "load", runner.FollowSpec{Dir: dir, Interval: looks})
	if err != nil {
		return err
	}
	go func() {
		for now := range time.Tick(time.Second) {
			u := j.checkpoints.Stats()
			if s.Checkpoint() != nil {
				fmt.Println("following")
			}
			fmt.Println("stats", now.UnixMilli(), u.Get.Calls, u.List.Calls, u.Get.Bytes, s.Lag().Milliseconds())
		}
	}()
	if _, err := s.Wait(ctx, silence); err != nil {
		return err
	}
	fmt.Println("suspects")
	spec := j.spec(&c.Config, dir, func() { fmt.Println("restored") }, func(c *checkpoint.Checkpoint) {
		fmt.Println("stored", time.Now().UnixMilli(), c.NewBytes)
		fmt.Println("committed")
	})
	if j.task, err = s.Promote(ctx, spec); err != nil {
		return err
	}
	step := j.write()
	rate := float64(c.Config.Size) / 100 // MiB a second
	for n := 0; ctx.Err() == nil; n++ {
		if _, err := j.step(ctx, step); err != nil {
			return err
		}
		if n == 0 {
			fmt.Println("processing")
		}
		<-time.After(time.Duration(float64(time.Second) * records.Batch / records.PerMiB / rate))
	}
	return j.close(ctx)
}

// A takeover is how long it took from a kill until the standby suspected it, had the state,
// and had processed something.
type takeover struct{ suspects, restored, processing time.Duration }

// measureStandbys kills an owner beside its standby, and then that one, and so on.
func measureStandbys(ctx context.Context, c *config) error {
	with := *c
	with.Keep = follows
	if err := with.idleStandby(ctx); err != nil {
		return err
	}
	owner, err := with.nextStandby(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { owner.kill() }()
	if _, err := owner.wait("processing", 1); err != nil { // nobody has owned the task, so that one does
		return err
	}
	var all []takeover
	var f followed
	for n := range max(c.Kills, 2) {
		if _, err := owner.wait("committed", 3); err != nil {
			return err
		}
		standby, err := with.nextStandby(ctx, n+1)
		if err != nil {
			return err
		}
		took, err := with.takeOver(owner, standby, &f)
		if err != nil {
			standby.kill()
			return err
		}
		owner = standby
		fmt.Fprintf(os.Stderr, "taken over: %v\n", took)
		all = append(all, took)
		if err := os.RemoveAll(c.hostDir(fmt.Sprint("standby-", n))); err != nil {
			return err
		}
	}
	report := func(of func(takeover) time.Duration) string {
		times := figures(all, of)
		return fmt.Sprintf("%.2f / %.2f", percentile(times, 50).Seconds(), percentile(times, 100).Seconds())
	}
	fmt.Printf("From SIGKILL beside a standby, with a state of %d MiB of which a hundredth is written and committed each second; "+
		"heartbeats every %v, looks every %v, silence %v; %d kills:\n\n", c.Size, heartbeat, looks, silence, len(all))
	fmt.Println("| it suspects, median / longest s | it has the state, s | it processes, s | of that after the suspicion, s |")
	fmt.Println("| --: | --: | --: | --: |")
	fmt.Printf("| %s | %s | %s | %s |\n\n", report(func(t takeover) time.Duration { return t.suspects }),
		report(func(t takeover) time.Duration { return t.restored }), report(func(t takeover) time.Duration { return t.processing }),
		report(func(t takeover) time.Duration { return t.processing - t.suspects }))
	fmt.Printf("While it follows, each second: %.1f reads and %.1f listings, %.1f MiB fetched; the owner stores %.1f MiB. It is behind by %.1f s, on average.\n\n",
		f.reads/f.seconds, f.lists/f.seconds, f.bytes/f.seconds/(1<<20), f.stored/f.storing/(1<<20), f.lag/f.samples/1000)
	return nil
}

func (c *config) nextStandby(ctx context.Context, n int) (*victim, error) {
	return startChild(ctx, &child{Config: *c, Part: "standby", Host: fmt.Sprint("standby-", n)})
}

// followed sums up what standbys did.
type followed struct{ seconds, reads, lists, bytes, lag, samples, stored, storing float64 }

// takeOver lets a standby follow for a while, kills the owner, and waits until the standby
// processes.
func (c *config) takeOver(owner, standby *victim, f *followed) (t takeover, err error) {
	if _, err := standby.wait("following", 3); err != nil {
		return t, err
	}
	seconds := int(c.Round / time.Second)
	owned := make(chan error, 1)
	go func() { owned <- owner.watchStored(seconds, f) }()
	if err := standby.watch(seconds, f); err != nil {
		return t, err
	}
	if err := <-owned; err != nil {
		return t, err
	}
	<-time.After(every / 3) // somewhere in the midst
	killed := owner.kill()
	for _, e := range []struct {
		said string
		took *time.Duration
	}{{"suspects", &t.suspects}, {"restored", &t.restored}, {"processing", &t.processing}} {
		at, err := standby.wait(e.said, 1)
		if err != nil {
			return t, err
		}
		*e.took = at.Sub(killed)
	}
	return t, nil
}

// numbers waits for a line with a word, and returns the numbers behind it.
func (v *victim) numbers(word string) ([]float64, error) {
	for v.said.Scan() {
		words := strings.Fields(v.said.Text())
		if words[0] != word {
			continue
		}
		var list []float64
		for _, w := range words[1:] {
			n, err := strconv.ParseFloat(w, 64)
			if err != nil {
				return nil, err
			}
			list = append(list, n)
		}
		return list, nil
	}
	return nil, errors.Join(fmt.Errorf("it ended before it said %s", word), v.said.Err())
}

// watch adds up what a standby does for so many seconds.
func (v *victim) watch(seconds int, f *followed) error {
	first, err := v.numbers("stats")
	if err != nil {
		return err
	}
	last := first
	for range seconds {
		if last, err = v.numbers("stats"); err != nil {
			return err
		}
		f.lag, f.samples = f.lag+last[4], f.samples+1
	}
	f.seconds += (last[0] - first[0]) / 1000
	f.reads, f.lists, f.bytes = f.reads+last[1]-first[1], f.lists+last[2]-first[2], f.bytes+last[3]-first[3]
	return nil
}

// watchStored adds up what so many commits of an owner store.
func (v *victim) watchStored(commits int, f *followed) error {
	first, err := v.numbers("stored")
	if err != nil {
		return err
	}
	last := first
	for range commits {
		if last, err = v.numbers("stored"); err != nil {
			return err
		}
		f.stored += last[1]
	}
	f.storing += (last[0] - first[0]) / 1000
	return nil
}

// idleStandby counts what a standby asks of the store while the task rests.
func (c *config) idleStandby(ctx context.Context) (err error) {
	place, err := c.store("idle")
	if err != nil {
		return err
	}
	job, err := checkpoint.Open(ctx, place, checkpoint.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	task, err := job.Task("idle")
	if err != nil {
		return err
	}
	owner, err := task.Claim(ctx, checkpoint.ClaimOptions{})
	if err != nil {
		return err
	}
	if _, err := owner.Commit(ctx, checkpoint.Snapshot{Offsets: map[string]string{"in": "1"}}); err != nil {
		return err
	}
	r, err := runner.New(job, runner.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Drain(context.WithoutCancel(ctx))) }()
	fmt.Printf("A standby of a task that rests, a look every second, counted for %v:\n\n", c.Window)
	fmt.Println("| it waits for silence | reads an hour | listings an hour |")
	fmt.Println("| --- | --: | --: |")
	for _, waits := range []bool{false, true} {
		n, err := c.countLooks(ctx, r, job, waits)
		if err != nil {
			return err
		}
		hour := float64(time.Hour) / float64(c.Window)
		fmt.Printf("| %v | %.0f | %.0f |\n", waits, float64(n.Get.Calls)*hour, float64(n.List.Calls)*hour)
	}
	fmt.Println()
	return nil
}

// countLooks returns the requests of a standby in a window, after its first look.
func (c *config) countLooks(ctx context.Context, r *runner.Runner, job *checkpoint.Job, waits bool) (backend.Stats, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := r.Follow(ctx, "idle", runner.FollowSpec{Dir: c.hostDir("idle")})
	if err != nil {
		return backend.Stats{}, err
	}
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		if waits {
			_, _ = s.Wait(ctx, 24*time.Hour) // it ends with ctx
		}
	}()
	<-time.After(time.Second / 2)
	before := job.Stats()
	<-time.After(c.Window)
	now := job.Stats()
	cancel()
	<-waited
	now.Get.Calls -= before.Get.Calls
	now.List.Calls -= before.List.Calls
	return now, s.Close()
}
