// Command stream counts the events of a stream, exactly once, while the processes that count
// are killed, paused and replaced.
//
//	go run ./examples/stream [flags]
//
// The program starts a broker, NATS JetStream, and itself again as several workers. The events
// are clicks on pages, divided into partitions by subject. Each partition is a task: whoever
// works on it counts the clicks on each page in a Pebble database, and checkpoints the counts,
// with how far it has read, to the store at -checkpoint. The workers share the partitions by
// leases in the broker's key-value store. Leases can be wrong: a worker that was paused for
// longer than its lease goes on as if it still had its partitions, beside those who have taken
// them. The store refuses its commits.
//
// In the end the program restores the newest checkpoint of each partition and compares every
// count with the truth. It ends with 1 if any count differs, and also if it paused workers and
// no commit of theirs was refused, or killed workers and none went on from a checkpoint, because
// then it has shown nothing.
//
// If you write a job of your own, read worker.go, which is a process of the job, counter.go,
// which works on one partition; its state is in examples/internal/clicks. input.go is the input
// and broker.go the broker. story.go and faults.go kill, pause and replace the workers, crew.go
// knows what they do, and verify.go gives the verdict.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/examples/internal/cli"
)

// workerEnv is the environment variable that makes a process a worker. It holds the
// settings, as JSON.
const workerEnv = "HOLDFAST_STREAM_WORKER"

// failed is the exit code of a worker that fails. No process that was killed has it.
const failed = 4

func main() {
	if s := os.Getenv(workerEnv); s != "" {
		os.Exit(runWorker(s, nil))
	}
	os.Exit(runStory(os.Args[1:], os.Stdout, os.Stderr))
}

// runStory is the main function of the process that starts the others.
func runStory(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		logTo(stderr).Println(err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, out, end := cli.Output(ctx, stdout)
	defer end()
	if err := cli.Ended(ctx, o.run(ctx, newAccount(out, windowOf(stdout)))); err != nil {
		logTo(stderr).Println(err)
		return 1
	}
	return 0
}

func logTo(w io.Writer) *log.Logger { return log.New(w, "stream: ", 0) }

type options struct {
	broker     string // URL, or "" for one of our own
	url        string // of the store
	dir        string // for everything on this machine
	keep       bool
	partitions int
	workers    int
	events     int
	duration   time.Duration
	interval   time.Duration
	expiry     time.Duration
	kills      int
	pauses     int
	rebalances int
	seed       uint64
	bench      bool
	rounds     int

	name string // the name of this run
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("stream", flag.ContinueOnError)
	f.StringVar(&o.broker, "nats", "", "`URL` of a cluster of NATS with JetStream (default: a server in this process)")
	f.StringVar(&o.url, "checkpoint", "", "`URL` of the store, file:// or s3://, below which this run keeps its checkpoints (default: a directory in -dir)")
	f.StringVar(&o.dir, "dir", "", "working `directory`, which stays (default: a temporary one)")
	f.BoolVar(&o.keep, "keep", false, "keep the temporary directory, with the logs of the workers")
	f.IntVar(&o.partitions, "partitions", 8, "partitions of the stream")
	f.IntVar(&o.workers, "workers", 3, "workers at the beginning, 2 or more")
	f.IntVar(&o.events, "events", 100_000, "events to send")
	f.DurationVar(&o.duration, "duration", 40*time.Second, "time over which they are sent; it takes longer if the faults do")
	f.DurationVar(&o.interval, "interval", time.Second, "time between two checkpoints of a partition")
	f.DurationVar(&o.expiry, "expiry", 4*time.Second, "time without a sign of a worker after which its partitions are taken over")
	f.IntVar(&o.kills, "kills", 5, "how often to kill a worker")
	f.IntVar(&o.pauses, "pauses", 2, "how often to pause a worker for longer than its lease")
	f.IntVar(&o.rebalances, "rebalances", 3, "how often to add or remove a worker")
	f.Uint64Var(&o.seed, "seed", mathrand.Uint64N(1_000_000), "of the events, and of the random choices")
	f.BoolVar(&o.bench, "bench", false, "measure the job with and without checkpoints instead; nothing is paused or replaced")
	f.IntVar(&o.rounds, "rounds", 3, "rounds of -bench, of which it tells the medians")
	if err := cli.Parse(f, args, stderr, "stream [flags]"); err != nil {
		return o, err
	}
	if !o.bench && isSet(f, "rounds") {
		return o, errors.New("-rounds is of -bench, which is not set: set it too, or leave -rounds out")
	}
	o.name = strings.ToLower(rand.Text()[:8])
	return o, o.check(f.Args())
}

func isSet(f *flag.FlagSet, name string) (set bool) {
	f.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// maxPartitions bounds what is asked of one machine: each partition is a Pebble database in a
// worker, and a reader in the broker.
const maxPartitions = 256

func (o *options) check(args []string) error {
	for flag, n := range map[string]int{"-partitions": o.partitions, "-events": o.events, "-rounds": o.rounds} {
		if n < 1 {
			return fmt.Errorf("%s is %d; set 1 or more", flag, n)
		}
	}
	for flag, n := range map[string]int{"-kills": o.kills, "-pauses": o.pauses, "-rebalances": o.rebalances} {
		if n < 0 {
			return fmt.Errorf("%s is %d; set 0 or more", flag, n)
		}
	}
	switch {
	case len(args) > 0:
		return fmt.Errorf("unexpected argument %q: all is said by flags; see -h", args[0])
	case o.partitions > maxPartitions:
		return fmt.Errorf("-partitions is %d; set %d or less", o.partitions, maxPartitions)
	case o.workers < 2:
		return fmt.Errorf("-workers is %d; set 2 or more, so that one is left when another is paused", o.workers)
	case o.interval < time.Millisecond:
		return fmt.Errorf("-interval is %v; set 1ms or more", o.interval)
	case o.duration < 0:
		return fmt.Errorf("-duration is %v; set 0 or more", o.duration)
	case o.expiry < time.Second || o.expiry > time.Minute:
		return fmt.Errorf("-expiry is %v; set 1s to 1m", o.expiry)
	case o.pauses > 0 && !canPause:
		return errors.New("this system cannot pause a process; set -pauses 0")
	case o.bench:
		return nil // nothing is paused
	}
	if least := time.Duration(o.pauses) * o.expiry; o.duration < least { // one pause comes after another
		return fmt.Errorf("-pauses is %d, each of more than the %v of -expiry, and -duration is %v; set -duration %v or more, or fewer -pauses",
			o.pauses, o.expiry, o.duration, least)
	}
	return nil
}

// run prepares a directory, and does in it what was asked for.
func (o *options) run(ctx context.Context, out *account) (err error) {
	if o.url != "" { // a mistake in it is found before anything is started
		store, err := backend.Open(ctx, o.url)
		if err != nil {
			return err
		}
		if err := store.Close(); err != nil {
			return err
		}
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "stream-"); err != nil {
			return err
		}
		if !o.keep {
			made := o.dir
			defer func() { err = errors.Join(err, os.RemoveAll(made)) }()
		}
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	o.dir = filepath.Join(o.dir, o.name)
	if o.url, err = below(cmp.Or(o.url, fileURL(filepath.Join(o.dir, "store"))), o.name); err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	b, err := o.openBroker(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close(ctx)) }()
	if o.bench {
		return o.measure(ctx, b, out.w)
	}
	return newStory(o, b, out).tell(ctx)
}

// below returns the URL of a place below another one: each run has its own, because its
// stream begins anew.
func below(place, name string) (string, error) {
	u, err := url.Parse(place)
	if err != nil {
		return "", err
	}
	return u.JoinPath("stream-" + name).String(), nil
}

func fileURL(path string) string {
	path = "/" + strings.TrimPrefix(filepath.ToSlash(path), "/") // C:/dir on Windows
	return (&url.URL{Scheme: "file", Path: path}).String()
}

func decodeSettings(encoded string) (s settings, err error) {
	err = json.Unmarshal([]byte(encoded), &s)
	return s, err
}
