package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/local" // file://; import s3 or gcs for theirs
	"github.com/holdfast-io/holdfast/runner"
)

// input is what the examples read: a queue, a topic, a file.
var input []string

// A counter counts how often it has seen each word.
type counter struct {
	next   int // of the input
	counts map[string]int
}

// open opens a counter with what was restored.
func open(_ context.Context, _ string, restored *runner.Restored) (runner.Worker, error) {
	c := &counter{counts: make(map[string]int)}
	start, err := restored.Start("words")
	switch {
	case err != nil:
		return nil, err
	case start.At == runner.Checkpointed:
		c.next, err = strconv.Atoi(start.Offset)
	case start.At == runner.Newest:
		c.next = len(input)
	case start.At == runner.AtTime:
		err = errors.New("the words have no times")
	} // or from the oldest on, which is 0
	if err != nil || restored.IsNew("") {
		return c, err
	}
	data, err := os.ReadFile(filepath.Join(restored.Dir(""), "counts.json"))
	if err != nil {
		return nil, err
	}
	return c, json.Unmarshal(data, &c.counts)
}

// Process counts one word.
func (c *counter) Process(ctx context.Context) error {
	if c.next == len(input) {
		return io.EOF // a queue would be waited for, until ctx ends
	}
	c.counts[input[c.next]]++
	c.next++
	return nil
}

// Cut captures the counts, and how far the input was counted.
func (c *counter) Cut(context.Context, string) (runner.Cut, error) {
	state, err := json.Marshal(c.counts)
	return runner.Cut{
		Offsets: map[string]string{"words": strconv.Itoa(c.next)},
		Stores:  map[string]checkpoint.Source{"": checkpoint.Stream("counts.json", bytes.NewReader(state))},
	}, err
}

func (c *counter) Close() error {
	fmt.Println(c.next, "words:", c.counts)
	return nil
}

func run(url, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	job, err := checkpoint.Open(ctx, url, checkpoint.Options{})
	if err != nil {
		return err
	}
	defer job.Close(ctx)
	return runner.Run(ctx, runner.RunOptions{
		Job:     job,
		Dir:     dir,
		Tasks:   []string{"words"},
		Options: runner.Options{Interval: 10 * time.Second},
	}, open)
}

func ExampleRun() {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dir, err := os.MkdirTemp("", "runner-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	url := "file://" + filepath.ToSlash(filepath.Join(dir, "checkpoints"))

	input = []string{"to", "be", "or", "not", "to", "be"}
	if err := run(url, filepath.Join(dir, "a host")); err != nil {
		fmt.Println(err)
	}
	input = append(input, "that", "is", "the", "question")
	if err := run(url, filepath.Join(dir, "another host")); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 6 words: map[be:2 not:1 or:1 to:2]
	// 10 words: map[be:2 is:1 not:1 or:1 question:1 that:1 the:1 to:2]
}

// A ledger is a state that a program's own loop changes.
type ledger struct {
	file    string
	balance int
}

func openLedger(_ context.Context, restored *runner.Restored) (*ledger, error) {
	l := &ledger{file: filepath.Join(restored.Dir(""), "balance")}
	data, err := os.ReadFile(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		l.balance, err = strconv.Atoi(string(data))
	}
	return l, err
}

// Cut is called while no step runs.
func (l *ledger) Cut(context.Context) (runner.Cut, error) {
	state := bytes.NewReader([]byte(strconv.Itoa(l.balance)))
	return runner.Cut{Stores: map[string]checkpoint.Source{"": checkpoint.Stream("balance", state)}}, nil
}

func (l *ledger) Close() error { return nil }

// A program that has a loop of its own.
func loop(ctx context.Context, job *checkpoint.Job, dir string, payments []int) error {
	r, err := runner.New(job, runner.Options{})
	if err != nil {
		return err
	}
	var l *ledger
	task, err := r.Own(ctx, "payments/7", runner.Spec{
		Dir: dir,
		Open: func(ctx context.Context, restored *runner.Restored) (runner.Cutter, error) {
			l, err = openLedger(ctx, restored)
			return l, err
		},
		Hooks: runner.Hooks{After: func(_ context.Context, c *checkpoint.Checkpoint) error {
			fmt.Println("acknowledge up to", c.Offsets["payments/7"]) // they are durable
			return nil
		}},
	})
	if err != nil {
		return err
	}
	for i, payment := range payments {
		err := task.Step(ctx, func(p *runner.Position) error {
			l.balance += payment
			p.Advance("payments/7", strconv.Itoa(i+1))
			return nil
		})
		if err != nil {
			return err // the task has ended: context.Cause(task.Context()) says why
		}
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return r.Drain(grace)
}

func ExampleRunner() {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dir, err := os.MkdirTemp("", "runner-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	job, err := checkpoint.Open(ctx, "file://"+filepath.ToSlash(filepath.Join(dir, "checkpoints")), checkpoint.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer job.Close(ctx)
	if err := loop(ctx, job, filepath.Join(dir, "run"), []int{100, -30, 5}); err != nil {
		fmt.Println(err)
	}
	// Output: acknowledge up to 3
}
