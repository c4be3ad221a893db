package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/natsleases"
	"github.com/holdfast-io/holdfast/runner"
)

// settings are what a worker needs to know.
type settings struct {
	Worker     int           // its number
	Broker     string        // URL
	Stream     string        // its name, and that of the bucket with the leases
	Partitions int           // of the stream
	URL        string        // of the store
	Dir        string        // for the state it works on
	Interval   time.Duration // between two checkpoints of a partition; runner.Manual for one at the end
	Expiry     time.Duration // of its leases

	// Fixed gives it all partitions, without leases, until their input ends: to measure.
	Fixed bool
	Until []uint64 // then: by partition, the last event's place in the stream
}

// runWorker is the main function of a worker.
func runWorker(encoded string, spoil spoiler) int {
	signal.Ignore(os.Interrupt) // which the other processes get too; they end this one
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the process that has the other end
		stop()
	}()
	s, err := decodeSettings(encoded)
	if err == nil {
		err = work(ctx, s, tellOn(os.Stdout), spoil)
	}
	if err != nil {
		logTo(os.Stderr).Printf("worker %d failed: %v", s.Worker, err)
		return failed
	}
	return 0
}

// work is a worker: it counts the events of its part of the partitions until ctx ends.
func work(ctx context.Context, s settings, tell tell, spoil spoiler) (err error) {
	log, closeLog, err := s.openLog()
	if err != nil {
		return err
	}
	defer closeLog()
	// A connection that is lost is made again, however long that takes. Meanwhile the worker goes
	// on with what it has.
	conn, err := nats.Connect(s.Broker, nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.Name("worker "+strconv.Itoa(s.Worker)),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("NATS", "err", err) }))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	job, err := checkpoint.Open(ctx, s.URL, checkpoint.Options{Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	opts := runner.RunOptions{
		Options: runner.Options{Interval: s.Interval, Logger: log},
		Job:     job, Dir: s.Dir,
		Spec:  runner.Spec{Hooks: runner.Hooks{After: tell.committed}},
		Ended: natsleases.Fenced(nil),
	}
	if err := s.assign(ctx, js, &opts, log); err != nil {
		return err
	}
	return runner.Run(ctx, opts, func(ctx context.Context, task string, restored *runner.Restored) (runner.Worker, error) {
		return openCounter(ctx, js, s, task, restored, log, tell, spoil)
	})
}

// assign says which partitions this worker works on: those of which it gets the leases.
func (s *settings) assign(ctx context.Context, js jetstream.JetStream, opts *runner.RunOptions, log *slog.Logger) error {
	tasks := make([]string, s.Partitions)
	for p := range tasks {
		tasks[p] = taskOf(p)
	}
	if s.Fixed {
		opts.Tasks = tasks
		return nil
	}
	leases, err := js.KeyValue(ctx, s.Stream)
	opts.Assign = natsleases.Assign(leases, natsleases.Options{
		Tasks: tasks, Expiry: s.Expiry, Name: fmt.Sprintf("worker %d", s.Worker), Logger: log,
	})
	return err
}

// openLog opens the worker's log. It is a file, because in this job much is out of order on
// purpose.
func (s *settings) openLog() (*slog.Logger, func(), error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return slog.New(slog.NewTextHandler(f, nil)).With("worker", s.Worker), func() { _ = f.Close() }, nil
}
