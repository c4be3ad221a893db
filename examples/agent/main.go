// Command agent shows how a workspace is kept: a directory in which an agent, a notebook or
// any other program works.
//
//	go run ./examples/agent [-quiet 2s] [file:///var/lib/agent]
//
// Each run needs a URL at which nothing is yet.
//
// The workspace is saved when nothing was written to it for the time of -quiet. A saved state
// is forked, for a second attempt beside the first one, with a workspace of its own. After a
// step that went wrong, the first one is rolled back to what it was before.
//
// The agent here is a few functions that write files. At the end both workspaces, and what
// was saved of them, are compared with what they must be. Any difference ends the program with
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
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/examples/internal/cli"
	_ "github.com/holdfast-io/holdfast/local" // file://; import s3 or gcs for theirs
)

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

func command(args []string, stdout, stderr io.Writer) int {
	logger := log.New(stderr, "agent: ", 0)
	f := flag.NewFlagSet("agent", flag.ContinueOnError)
	quiet := f.Duration("quiet", 2*time.Second, "a workspace is saved when nothing was written to it for so long")
	err := cli.Parse(f, args, stderr, "agent [-quiet 2s] [URL]\nThe URL is that of a store at which nothing is yet, such as file:///var/lib/agent (default: a temporary directory); flags:")
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
	if err := cli.Ended(ctx, run(ctx, *quiet, f.Args(), out)); err != nil {
		logger.Println(err)
		return 1
	}
	return 0
}

func run(ctx context.Context, quiet time.Duration, args []string, out io.Writer) (err error) {
	if len(args) > 1 {
		return errors.New("too many arguments; want the job's URL, or nothing")
	}
	if quiet < looks*time.Millisecond {
		return fmt.Errorf("-quiet %v is too short; give %v or more", quiet, looks*time.Millisecond)
	}
	dir, err := os.MkdirTemp("", "agent-")
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
	s := &story{out: out, dir: dir, url: url, job: job, quiet: quiet, log: slog.Default()}
	return s.tell(ctx)
}
