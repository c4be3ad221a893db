// Command engines measures what checkpoints cost a job with each of the engines that keep
// keys and values:
//
//	go -C bench/engines run . [-keys N] [-cuts N] [-changed N] [-dir DIR]
//
// It makes a state of so many keys (with values of 200 random bytes), overwrites a part of
// them, chosen by chance, between one cut and the next, and prints a table in Markdown: how
// long the loop stands still for a cut, after the engine's Prepare if it has one, and what the
// commit sends. All engines but Pebble's read the whole checkpoint for it. The loop overwrites on
// while the cut is committed. The first commit, of the whole state, is not counted.
//
// The store is a directory. All data is in a directory below -dir that goes when the program
// ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/local"
	"github.com/holdfast-io/holdfast/runner"
)

type config struct {
	keys, cuts, changed int
	dir                 string
}

func main() {
	var c config
	flag.IntVar(&c.keys, "keys", 200_000, "how many keys the state has")
	flag.IntVar(&c.cuts, "cuts", 20, "how many cuts are measured, of each engine")
	flag.IntVar(&c.changed, "changed", 2000, "how many keys are overwritten between two cuts")
	flag.StringVar(&c.dir, "dir", "", "`directory` for all data, on a disk (default: that for temporary files)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, c)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) (err error) {
	if flag.NArg() > 0 || c.keys < batch || c.cuts < 1 || c.changed < batch {
		return fmt.Errorf("there are no arguments, -keys and -changed are %d or more, and -cuts is 1 or more; see -h", batch)
	}
	if c.dir, err = os.MkdirTemp(c.dir, "holdfast-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	fmt.Printf("%d keys with values of %d bytes, of which %d are overwritten between two cuts; %d cuts.\n\n", c.keys, valueSize, c.changed, c.cuts)
	fmt.Println("| engine | pause p50 ms | longest ms | commit p50 ms | MiB in the checkpoint | MiB sent, p50 |")
	fmt.Println("| --- | --: | --: | --: | --: | --: |")
	for _, k := range kinds {
		if err := measure(ctx, c, k); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
	}
	return nil
}

// A state is an open engine.
type state interface {
	runner.Engine
	write(keys []string, value func() []byte) error // in one transaction
}

const (
	valueSize = 200
	batch     = 100 // keys of a transaction
)

// A loop is what is measured of one engine.
type loop struct {
	config
	state
	chance *rand.Rand
	task   *ownedTask

	pauses, commits []time.Duration
	sent            []int64
	size            int64
}

func measure(ctx context.Context, c config, k kind) (err error) {
	dir := filepath.Join(c.dir, k.name)
	task, err := openTask(ctx, filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, task.close(context.WithoutCancel(ctx))) }()
	s, err := k.open(filepath.Join(dir, "state"), filepath.Join(dir, "cuts"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	l := &loop{config: c, state: s, chance: rand.New(rand.NewPCG(1, 2)), task: task}
	if err := l.run(ctx); err != nil {
		return err
	}
	fmt.Printf("| %s | %.2f | %.2f | %.0f | %.1f | %.1f |\n", k.name, ms(percentile(l.pauses, 50)), ms(slices.Max(l.pauses)),
		ms(percentile(l.commits, 50)), mib(l.size), mib(percentile(l.sent, 50)))
	return nil
}

func key(n int) string { return fmt.Sprintf("key-%012d", n) }

func (l *loop) value() []byte {
	v := make([]byte, valueSize)
	for i := range v {
		v[i] = byte(l.chance.Uint32())
	}
	return v
}

func (l *loop) run(ctx context.Context) error {
	for n := 0; n < l.keys; n += batch {
		keys := make([]string, 0, batch)
		for k := n; k < min(n+batch, l.keys); k++ {
			keys = append(keys, key(k))
		}
		if err := l.write(keys, l.value); err != nil {
			return err
		}
	}
	if err := l.cut(ctx); err != nil {
		return err
	}
	l.pauses, l.commits, l.sent = nil, nil, nil
	for range l.cuts {
		if err := l.overwrite(l.changed); err != nil {
			return err
		}
		if err := l.cut(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (l *loop) overwrite(n int) error {
	for range n / batch {
		keys := make([]string, batch)
		for i := range keys {
			keys[i] = key(l.chance.IntN(l.keys))
		}
		if err := l.write(keys, l.value); err != nil {
			return err
		}
	}
	return nil
}

// cut cuts, and commits while the loop writes a transaction now and then.
func (l *loop) cut(ctx context.Context) error {
	if p, ok := l.state.(runner.Preparer); ok {
		if err := p.Prepare(ctx); err != nil {
			return err
		}
	}
	if err := l.overwrite(batch); err != nil { // comes between the two, as in a job
		return err
	}
	began, before := time.Now(), l.task.sent()
	src, remove, err := l.Cut(ctx)
	if err != nil {
		return err
	}
	l.pauses = append(l.pauses, time.Since(began))
	committed := make(chan error, 1)
	go func() {
		began := time.Now()
		made, err := l.task.owner.Commit(ctx, checkpoint.Snapshot{State: src})
		l.commits = append(l.commits, time.Since(began))
		if err == nil {
			l.size = made.Bytes
		}
		committed <- errors.Join(err, remove())
	}()
	err = l.overwrite(batch)
	err = errors.Join(err, <-committed)
	l.sent = append(l.sent, l.task.sent()-before)
	return err
}

// An ownedTask is a task in the store, of which this program is the owner.
type ownedTask struct {
	job   *checkpoint.Job
	owner *checkpoint.Owner
}

func openTask(ctx context.Context, store string) (*ownedTask, error) {
	job, err := checkpoint.Open(ctx, "file://"+filepath.ToSlash(store), checkpoint.Options{Retention: checkpoint.Retention{Last: 1}})
	if err != nil {
		return nil, err
	}
	task, err := job.Task("task")
	if err != nil {
		return nil, errors.Join(err, job.Close(context.WithoutCancel(ctx)))
	}
	owner, err := task.Claim(ctx, checkpoint.ClaimOptions{})
	if err != nil {
		return nil, errors.Join(err, job.Close(context.WithoutCancel(ctx)))
	}
	return &ownedTask{job, owner}, nil
}

func (t *ownedTask) close(ctx context.Context) error {
	return errors.Join(t.owner.Close(ctx), t.job.Close(ctx))
}

// sent returns the bytes that went to the store so far.
func (t *ownedTask) sent() int64 {
	u := t.job.Stats()
	return u.Create.Bytes + u.Put.Bytes
}

// percentile returns a value that so many percent of all do not exceed.
func percentile[T time.Duration | int64](values []T, percent int) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
