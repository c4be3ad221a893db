// Package cli is what the examples' commands have in common: how they read their arguments, how
// they begin, and how they end when nobody reads what they say.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Parse parses a command's arguments. Only -h prints the usage, and the flags. What else is wrong
// is said once, by the error: package flag says it itself too, with a page of flags behind it.
func Parse(f *flag.FlagSet, args []string, stderr io.Writer, usage string) error {
	f.Usage = func() {}
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	f.SetOutput(stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintf(stderr, "usage: %s\n", usage)
		f.PrintDefaults()
	case err != nil:
		err = fmt.Errorf("%w; see -h", err)
	}
	return err
}

// Output returns a writer to w, and a context that ends with ctx, and when a write fails, as into
// a pipe whose reader has gone. Then the cause says so. A process that does nothing about such a
// write is ended by it on the spot (SIGPIPE), and leaves its temporary directory behind. stop ends
// that.
func Output(ctx context.Context, w io.Writer) (_ context.Context, out io.Writer, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	pipes := make(chan os.Signal, 1) // nobody reads it: that it is there makes the write fail instead
	signal.Notify(pipes, syscall.SIGPIPE)
	return ctx, &output{w, cancel}, func() { signal.Stop(pipes); cancel(nil) }
}

var errOutput = errors.New("the output cannot be written")

type output struct {
	w    io.Writer
	fail context.CancelCauseFunc
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		o.fail(fmt.Errorf("%w: %w", errOutput, err))
	}
	return n, err
}

// Ended returns the error of a command whose context is that of [Output], or has been when it
// failed: it names the cause, and not all that went wrong because of it.
func Ended(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case err == nil || cause == nil:
		return err
	case errors.Is(cause, errOutput):
		return cause
	}
	return errors.New("interrupted")
}

// BeginsAnew refuses a job that has tasks, for a command whose story begins with none.
func BeginsAnew(ctx context.Context, job *checkpoint.Job, url string) error {
	for task, err := range job.Tasks(ctx) {
		if err != nil {
			return err
		}
		return fmt.Errorf("the job at %s has tasks already, such as %q: give the URL of a place where nothing is", url, task.Name())
	}
	return nil
}

// Number says how many there are of something.
func Number(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// Times says how often.
func Times(n int) string { return Number(n, "time") }
