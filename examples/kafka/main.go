// Command kafka counts the events of a topic, exactly once, as a member of a consumer group.
//
//	go run ./examples/kafka                                        # the story below
//	go run ./examples/kafka -brokers HOST:PORT -checkpoint URL ... # one worker, of as many as you like
//
// The job is that of examples/stream: each partition is a task, whose worker counts clicks in a
// Pebble database, and checkpoints the counts with how far it has read. Here the broker divides
// the partitions among the members of the group. It is not told how far they have read: a
// partition that a member gains is paused until its checkpoint is restored, and then read from
// the checkpoint's offset.
//
// Without -brokers the program starts a broker of franz-go's package kfake, and itself several
// times as a worker. It kills workers, lets some leave and others join, and compares every count
// in the newest checkpoints with the truth. It ends with 1 if any differs, and also if it killed
// workers and none went on from a checkpoint, because then it has shown nothing.
//
// member.go is the member of the group, an Assign for package runner; counter.go works on one
// partition; story.go is the story.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/examples/internal/cli"
	_ "github.com/holdfast-io/holdfast/local"
	"github.com/holdfast-io/holdfast/runner"
	_ "github.com/holdfast-io/holdfast/s3"
)

// storyEnv is the environment variable that makes a worker end when its standard input does: the
// story, which sets it, is gone then.
const storyEnv = "HOLDFAST_KAFKA_STORY"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, nil)) }

type options struct {
	brokers  string // of the cluster; "" for the story
	topic    string
	group    string
	url      string // of the store
	dir      string // for everything on this machine
	interval time.Duration
	session  time.Duration

	events     int // from here on, of the story
	partitions int
	workers    int
	kills      int
	moves      int
	seed       uint64

	name  string // of this run of the story
	spoil spoiler
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("kafka", flag.ContinueOnError)
	f.StringVar(&o.brokers, "brokers", "", "`addresses` of brokers, by commas: be a worker (default: tell a story with a broker in this process)")
	f.StringVar(&o.topic, "topic", "clicks", "topic to read")
	f.StringVar(&o.group, "group", "holdfast-clicks", "consumer group, which is the job's alone")
	f.StringVar(&o.url, "checkpoint", "", "`URL` of the store, file:// or s3://; the story keeps its checkpoints below it (its default: a directory in -dir)")
	f.StringVar(&o.dir, "dir", "", "working `directory`; each story has one of its own below it (its default: a temporary one)")
	f.DurationVar(&o.interval, "interval", time.Second, "time between two checkpoints of a partition")
	f.DurationVar(&o.session, "session", 3*time.Second, "time without a sign of a worker after which the broker gives its partitions to others")
	f.IntVar(&o.events, "events", 100_000, "of the story: events to send")
	f.IntVar(&o.partitions, "partitions", 8, "of the story: partitions of the topic")
	f.IntVar(&o.workers, "workers", 3, "of the story: workers at the beginning")
	f.IntVar(&o.kills, "kills", 4, "of the story: how often to kill a worker")
	f.IntVar(&o.moves, "moves", 4, "of the story: how often to let a worker join or leave")
	f.Uint64Var(&o.seed, "seed", mathrand.Uint64N(1_000_000), "of the story: of the events, and of the random choices")
	if err := cli.Parse(f, args, stderr, "kafka [flags]"); err != nil {
		return o, err
	}
	o.name = "kafka-" + strings.ToLower(rand.Text()[:8])
	return o, o.check(f.Args())
}

func (o *options) check(args []string) error {
	for flag, n := range map[string]int{"-events": o.events, "-partitions": o.partitions, "-workers": o.workers} {
		if n < 1 {
			return fmt.Errorf("%s is %d; set 1 or more", flag, n)
		}
	}
	for flag, n := range map[string]int{"-kills": o.kills, "-moves": o.moves} {
		if n < 0 {
			return fmt.Errorf("%s is %d; set 0 or more", flag, n)
		}
	}
	switch {
	case len(args) > 0:
		return fmt.Errorf("unexpected argument %q: all is said by flags; see -h", args[0])
	case o.brokers != "" && (o.url == "" || o.dir == ""):
		return errors.New("a worker needs a place for its checkpoints, and a directory to work in: set -checkpoint and -dir")
	case o.interval < time.Millisecond:
		return fmt.Errorf("-interval is %v; set 1ms or more", o.interval)
	case o.session < time.Second:
		return fmt.Errorf("-session is %v; set 1s or more", o.session)
	}
	return nil
}

func run(args []string, stdout, stderr io.Writer, spoil spoiler) int {
	logger := log.New(stderr, "kafka: ", 0)
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		logger.Println(err)
		return 2
	}
	o.spoil = spoil
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(storyEnv) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the process that has the other end
			stop()
		}()
	}
	if o.brokers != "" {
		err = o.work(ctx, stdout, stderr)
	} else {
		err = o.tellTo(ctx, stdout)
	}
	if err != nil {
		logger.Println(err)
		return 1
	}
	return 0
}

func (o *options) tellTo(ctx context.Context, stdout io.Writer) error {
	ctx, out, end := cli.Output(ctx, stdout)
	defer end()
	return cli.Ended(ctx, o.tell(ctx, out))
}

// work is a worker: it counts the events of the partitions that the group gives it, until ctx
// ends.
func (o *options) work(ctx context.Context, stdout, stderr io.Writer) (err error) {
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	job, err := checkpoint.Open(ctx, o.url, checkpoint.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	brokers := strings.Split(o.brokers, ",")
	if err := reach(ctx, brokers); err != nil {
		if ctx.Err() != nil {
			return nil // it is to end before it has begun
		}
		return err
	}
	m := &member{brokers: brokers, group: o.group, topic: o.topic, session: o.session, log: logger, out: stdout}
	return runner.Run(ctx, runner.RunOptions{
		Options: runner.Options{Interval: o.interval, Logger: logger},
		Job:     job, Dir: o.dir,
		Assign: m.assign,
		Ended: func(_ string, err error) error {
			if errors.Is(err, checkpoint.ErrFenced) {
				return nil // another member has the partition: this one was slow to learn of it
			}
			return err
		},
	}, func(ctx context.Context, task string, restored *runner.Restored) (runner.Worker, error) {
		return openCounter(ctx, m, task, restored, o.spoil)
	})
}

// orTemp returns a directory, and what removes it if it is a temporary one.
func orTemp(dir string) (path string, remove func() error, err error) {
	if dir != "" {
		return dir, func() error { return nil }, os.MkdirAll(dir, 0o700)
	}
	dir, err = os.MkdirTemp("", "kafka-")
	return dir, func() error { return os.RemoveAll(dir) }, err
}
