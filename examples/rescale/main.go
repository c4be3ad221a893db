// Command rescale shows how a job with 4 tasks becomes one with 6:
//
//	go run ./examples/rescale [file:///var/lib/rescale]
//
// Each run needs a URL at which nothing is yet.
//
// The job counts words. Its input has 12 partitions, which its tasks divide among them:
// first 4 tasks with 3 partitions each, then 6 with 2. A new task starts from the checkpoints
// of those old tasks that had its partitions: it takes their offsets, and reads its share of
// their state, and no more, through the lazy file system of a checkpoint. Its first checkpoint
// says in a label from which it came.
//
// At the end the counts are compared with the truth. Any difference ends the program with
// status 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/examples/internal/cli"
	_ "github.com/holdfast-io/holdfast/local" // file://; import s3 or gcs for theirs
	"github.com/holdfast-io/holdfast/runner"
)

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

func command(args []string, stdout, stderr io.Writer) int {
	logger := log.New(stderr, "rescale: ", 0)
	f := flag.NewFlagSet("rescale", flag.ContinueOnError)
	err := cli.Parse(f, args, stderr, "rescale [URL]\nThe URL is that of a store at which nothing is yet, such as file:///var/lib/rescale (default: a temporary directory).")
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		logger.Println(err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, out, end := cli.Output(ctx, stdout)
	defer end()
	if err := cli.Ended(ctx, run(ctx, f.Args(), out)); err != nil {
		logger.Println(err)
		return 1
	}
	return 0
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	if len(args) > 1 {
		return errors.New("too many arguments; want the job's URL, or nothing")
	}
	dir, err := os.MkdirTemp("", "rescale-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	url := "file://" + filepath.ToSlash(dir) + "/store"
	if len(args) == 1 {
		url = args[0]
	}
	job, err := checkpoint.Open(ctx, url, checkpoint.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	if err := cli.BeginsAnew(ctx, job, url); err != nil {
		return err
	}
	s := story{job: job, dir: dir, out: out}
	return s.tell(ctx)
}

// A story is one run of the job, with four tasks and then with six.
type story struct {
	job *checkpoint.Job
	dir string // for the run directories
	out io.Writer
}

func (s *story) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format+"\n", args...) }

func (s *story) tell(ctx context.Context) error {
	s.say("4 tasks count the words of %d partitions, up to the middle of each.", partitions)
	if err := s.work(ctx, layout{tasks: 4}, middle); err != nil {
		return err
	}
	if err := s.compare(ctx, 4, middle); err != nil {
		return err
	}
	s.say("The 4 tasks are stopped, and fenced: no process of theirs that was forgotten can commit.")
	if err := fence(ctx, s.job, 4); err != nil {
		return err
	}
	s.say("6 tasks go on, each from what the old ones had of its partitions.")
	if err := s.work(ctx, layout{tasks: 6, from: 4}, end); err != nil {
		return err
	}
	if err := s.compare(ctx, 6, end); err != nil {
		return err
	}
	return s.tellOrigins(ctx)
}

// work lets the job's tasks count up to an offset of each partition.
func (s *story) work(ctx context.Context, l layout, to func(partition int) int) error {
	opts := runner.RunOptions{
		Job: s.job, Dir: filepath.Join(s.dir, fmt.Sprint("of-", l.tasks)), Tasks: l.names(),
		Options: runner.Options{Logger: slog.New(slog.DiscardHandler)},
	}
	return runner.Run(ctx, opts, func(ctx context.Context, task string, restored *runner.Restored) (runner.Worker, error) {
		return open(ctx, s.job, l, task, restored, to)
	})
}

// compare compares the latest checkpoints of all tasks with the truth.
func (s *story) compare(ctx context.Context, tasks int, to func(partition int) int) error {
	words := 0
	for p := range partitions {
		c, err := latest(ctx, s.job, layout{tasks: tasks}.taskOf(p))
		if err != nil {
			return err
		}
		got, err := readPartition(ctx, c, p)
		if err != nil {
			return err
		}
		if got.Next != to(p) || !maps.Equal(got.Counts, truth(p, to(p))) {
			return fmt.Errorf("partition %d was counted up to %d, in checkpoint %d of task %q, and its counts or that number are wrong; it should be %d", p, got.Next, c.Seq, c.Task, to(p))
		}
		words += to(p)
	}
	s.say("  %d tasks have counted %d words, each exactly once.", tasks, words)
	return nil
}

// tellOrigins makes sure that each new task says where it came from.
func (s *story) tellOrigins(ctx context.Context) error {
	l := layout{tasks: 6, from: 4}
	for _, name := range l.names() {
		first, err := firstOf(ctx, s.job, name)
		if err != nil {
			return err
		}
		want, err := l.origin(ctx, s.job, name)
		if err != nil {
			return err
		}
		if got := first.Labels[originLabel]; got != want {
			return fmt.Errorf("the first checkpoint of task %q says that it came from %q; it is %q", name, got, want)
		}
		s.say("  task %s came from %s", name, want)
	}
	return nil
}
