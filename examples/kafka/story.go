package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/examples/internal/cli"
	"github.com/holdfast-io/holdfast/examples/internal/clicks"
)

// A story is how workers join, leave and are killed, and what came of it.
type story struct {
	*options
	out    io.Writer
	broker *kfake.Cluster
	fail   context.CancelCauseFunc
	chance *rand.Rand
	begun  time.Time

	sent    []int64 // events, by partition
	workers []*worker
	started int

	restores lines // one for each partition that went on from a checkpoint
}

// lines counts the lines that are written to it, by any goroutine.
type lines struct{ n atomic.Int64 }

func (l *lines) Write(p []byte) (int, error) {
	l.n.Add(int64(bytes.Count(p, []byte("\n"))))
	return len(p), nil
}

// A worker is a process.
type worker struct {
	id    int
	cmd   *exec.Cmd
	asked chan struct{} // closed when it is to end
	ended chan struct{}
}

// What a run can end with.
var (
	errWrong     = errors.New("the checkpoints do not hold what was sent")
	errNoRestore = errors.New("workers were killed, and none has gone on from a checkpoint, so this run has shown nothing: send more -events, or take a shorter -interval")
)

func (o *options) tell(ctx context.Context, out io.Writer) (err error) {
	dir, remove, err := orTemp(o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if o.dir, err = filepath.Abs(filepath.Join(dir, o.name)); err != nil {
		return err
	}
	if o.url, err = below(cmp.Or(o.url, fileURL(o.dir)), o.name); err != nil {
		return err
	}
	if err := canOpen(ctx, o.url); err != nil { // a mistake in it is found before anything is started
		return err
	}
	broker, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(int32(o.partitions), o.topic), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		return err
	}
	defer broker.Close()
	o.brokers = strings.Join(broker.ListenAddrs(), ",")
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s := &story{
		options: o, out: out, broker: broker, fail: fail, chance: rand.New(rand.NewPCG(o.seed, 2)),
		begun: time.Now(), sent: make([]int64, o.partitions),
	}
	defer s.killAll()
	return s.live(ctx)
}

// below returns the URL of a place below another one: each run has its own, because its topic
// begins anew.
func below(place, name string) (string, error) {
	u, err := url.Parse(place)
	if err != nil {
		return "", err
	}
	return u.JoinPath(name).String(), nil
}

func canOpen(ctx context.Context, url string) error {
	store, err := backend.Open(ctx, url)
	if err != nil {
		return err
	}
	return store.Close()
}

func fileURL(path string) string {
	path = "/" + strings.TrimPrefix(filepath.ToSlash(path), "/") // C:/dir on Windows
	return (&url.URL{Scheme: "file", Path: path}).String()
}

func (s *story) live(ctx context.Context) error {
	s.say("A producer sends %s to %s, which %s will count (seed %d).",
		cli.Number(s.events, "click"), cli.Number(s.partitions, "partition"), cli.Number(s.options.workers, "worker"), s.seed)
	for range s.options.workers {
		if err := s.join(ctx); err != nil {
			return err
		}
	}
	faults := s.plan()
	midst, over := make(chan struct{}), make(chan struct{})
	group, both := errgroup.WithContext(ctx)
	group.Go(func() error { return s.produce(both, len(faults), midst, over) })
	group.Go(func() error { return s.doFaults(both, faults, midst, over) })
	if err := group.Wait(); err != nil {
		return err
	}
	s.say("All events are sent. The workers count what is left.")
	return s.finish(ctx)
}

// doFaults does each fault in the midst of a part of the events.
func (s *story) doFaults(ctx context.Context, faults []func(context.Context) error, midst <-chan struct{}, over chan<- struct{}) error {
	for _, fault := range faults {
		if _, err := receive(ctx, midst); err != nil {
			return err
		}
		if err := fault(ctx); err != nil {
			return err
		}
		if err := tell(ctx, over); err != nil {
			return err
		}
	}
	return nil
}

// plan returns what happens to the workers, in a random order.
func (s *story) plan() (faults []func(context.Context) error) {
	for range s.kills {
		faults = append(faults, s.killOne)
	}
	for range s.moves {
		faults = append(faults, s.moveOne)
	}
	s.chance.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	return faults
}

// The events are sent in parts, one for each fault and a last one. Each half of a part is sent
// in this many portions, one each tick, so that there is always something to count when a worker
// is killed.
const (
	portions = 50
	pace     = 20 * time.Millisecond
)

// produce sends the events. In the midst of each part but the last it says so, and goes on with
// the next part when a fault is over.
func (s *story) produce(ctx context.Context, faults int, midst chan<- struct{}, over <-chan struct{}) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.broker.ListenAddrs()...), kgo.DefaultProduceTopic(s.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	send := func(records []*kgo.Record) error {
		for portion := range slices.Chunk(records, len(records)/portions+1) {
			if err := client.ProduceSync(ctx, portion...).FirstErr(); err != nil {
				return err
			}
			if _, err := receive(ctx, tick.C); err != nil {
				return err
			}
		}
		return nil
	}
	records := s.records()
	for left := faults; left > 0; left-- {
		n := len(records) / (left + 1)
		err := send(records[:n/2])
		if err == nil {
			err = tell(ctx, midst)
		}
		if err == nil {
			err = send(records[n/2 : n])
		}
		if err == nil {
			_, err = receive(ctx, over)
		}
		if err != nil {
			return err
		}
		records = records[n:]
	}
	return send(records)
}

// receive waits for something to come, and tell for somebody to be told, but not when ctx has
// ended.
func receive[T any](ctx context.Context, from <-chan T) (v T, err error) {
	select {
	case v = <-from:
		return v, nil
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
}

func tell(ctx context.Context, to chan<- struct{}) error {
	select {
	case to <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// records returns the events, and counts them.
func (s *story) records() (records []*kgo.Record) {
	for _, c := range clicks.All(s.seed, s.events, s.partitions) {
		records = append(records, &kgo.Record{Partition: int32(c.Partition), Value: []byte(c.Page)})
		s.sent[c.Partition]++
	}
	return records
}

// join starts a worker: this program, with a cluster to work on. It waits until the group has
// divided the partitions anew.
func (s *story) join(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.started++
	w := &worker{id: s.started, asked: make(chan struct{}), ended: make(chan struct{})}
	dir := filepath.Join(s.dir, "workers", strconv.Itoa(w.id))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	w.cmd = exec.Command(self, "-brokers", s.brokers, "-topic", s.topic, "-group", s.group, "-checkpoint", s.url, "-dir", dir,
		"-interval", s.interval.String(), "-session", s.session.String())
	w.cmd.Env = append(os.Environ(), storyEnv+"=1")
	w.cmd.Stdout, w.cmd.Stderr = &s.restores, log
	if _, err := w.cmd.StdinPipe(); err != nil { // it ends when this process does
		return errors.Join(err, log.Close())
	}
	if err := errors.Join(w.cmd.Start(), log.Close()); err != nil {
		return err
	}
	s.workers = append(s.workers, w)
	go func() {
		defer close(w.ended)
		err := w.cmd.Wait()
		select {
		case <-w.asked:
		default:
			s.fail(fmt.Errorf("worker %d ended by itself: %w; its log is below -dir", w.id, err))
		}
	}()
	return s.settle(ctx)
}

// settle waits until the group is of all workers, and none other: one that was killed is thrown
// out when it has given no sign for the time of its session.
func (s *story) settle(ctx context.Context) error {
	_, err := s.broker.WaitGroupStable(ctx, s.group, len(s.workers))
	return err
}

// take takes a worker off the list of those that live.
func (s *story) take() *worker {
	i := s.chance.IntN(len(s.workers))
	w := s.workers[i]
	s.workers = append(s.workers[:i:i], s.workers[i+1:]...)
	close(w.asked)
	return w
}

// killOne kills a worker at some moment, and starts another one.
func (s *story) killOne(ctx context.Context) error {
	if _, err := receive(ctx, time.After(time.Duration(s.chance.Float64()*float64(s.interval)))); err != nil {
		return err
	}
	w := s.take()
	w.kill()
	<-w.ended
	s.say("Worker %d is killed, and another one started.", w.id)
	return s.join(ctx)
}

// moveOne lets a worker join, or leave in good order.
func (s *story) moveOne(ctx context.Context) error {
	n := len(s.workers)
	if n <= s.options.workers || n < s.options.workers+2 && s.chance.IntN(2) == 0 {
		s.say("Worker %d joins.", s.started+1)
		return s.join(ctx)
	}
	w := s.take()
	s.say("Worker %d leaves.", w.id)
	return errors.Join(w.leave(ctx), s.settle(ctx))
}

// kill ends a worker as hard as the system can: on Unix, with SIGKILL.
func (w *worker) kill() { _ = w.cmd.Process.Kill() } // it fails only if the process has ended

// leave lets a worker make its last commits and leave the group. When ctx ends before that, it is
// killed.
func (w *worker) leave(ctx context.Context) error {
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.kill() // there are systems without that signal
	}
	select {
	case <-w.ended:
	case <-ctx.Done():
		w.kill()
		<-w.ended
		return context.Cause(ctx)
	}
	if code := w.cmd.ProcessState.ExitCode(); code > 0 {
		return fmt.Errorf("worker %d was to leave, and failed with code %d; its log is below -dir", w.id, code)
	}
	return nil
}

// killAll ends all workers that live.
func (s *story) killAll() {
	for len(s.workers) > 0 {
		w := s.take()
		w.kill()
		<-w.ended
	}
}

// look is how often the store is asked how far the job is.
const look = 200 * time.Millisecond

// finish waits until all that was sent is in checkpoints, lets the workers leave, and gives the
// verdict.
func (s *story) finish(ctx context.Context) (err error) {
	job, err := checkpoint.Open(ctx, s.url, checkpoint.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for p := 0; p < s.partitions; {
		done, err := s.isAtEnd(ctx, job, p)
		switch {
		case err != nil:
			return err
		case done:
			p++
			continue
		}
		if _, err := receive(ctx, tick.C); err != nil {
			return err
		}
	}
	for len(s.workers) > 0 {
		if err := s.take().leave(ctx); err != nil {
			return err
		}
	}
	return s.verify(ctx, job)
}

func (s *story) isAtEnd(ctx context.Context, job *checkpoint.Job, partition int) (bool, error) {
	name := taskOf(int32(partition))
	task, err := job.Task(name)
	if err != nil {
		return false, err
	}
	made, err := task.Latest(ctx)
	if errors.Is(err, checkpoint.ErrNoCheckpoint) || errors.Is(err, checkpoint.ErrGone) {
		return false, nil // not yet, or a later one is there
	}
	return err == nil && made.Offsets[name] == strconv.FormatInt(s.sent[partition], 10), err
}

// verify compares every count in the newest checkpoints with the truth.
func (s *story) verify(ctx context.Context, job *checkpoint.Job) error {
	var v clicks.Verdict
	for p, want := range clicks.Truth(s.seed, s.events, s.partitions) {
		end, dir := strconv.FormatInt(s.sent[p], 10), filepath.Join(s.dir, "verify", strconv.Itoa(p))
		if err := v.Compare(ctx, job, taskOf(int32(p)), end, want, dir); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(s.out, "\nWorkers went on from a checkpoint %s.\n%s", cli.Times(int(s.restores.n.Load())), v); err != nil {
		return err
	}
	return s.judge(v)
}

// judge says what the run ends with.
func (s *story) judge(v clicks.Verdict) error {
	switch {
	case v.Differences > 0:
		return errWrong
	case s.kills > 0 && s.restores.n.Load() == 0:
		return errNoRestore
	}
	return nil
}

// say tells the reader a sentence, and when it was so.
func (s *story) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, "%6.1f s  %s\n", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...)) // the verdict tells of a writer that is gone
}
