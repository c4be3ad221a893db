// Command wordcount counts the words of the Go standard library's sources. It
// is killed in the midst of it, again and again, and its counts come out
// exact.
//
//	go run ./examples/wordcount [flags] [path...]
//
// The program starts itself as a child process, which is the job: four tasks,
// each of which counts the words of a quarter of the texts in a pebble
// database, and checkpoints offset and state to the store at --checkpoint
// every --interval. The parent ends the child with SIGKILL and starts it again
// until the job is done. Then it reads the counts from the newest checkpoints
// and compares them to those of a straight pass, which never stopped.
//
// If you write a host of your own, read count.go, which is the job, and
// state.go, which is its state. corpus.go is its input. story.go kills it,
// events.go tells story.go when, and verify.go gives the verdict.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/examples/internal/cli"
)

// settings are what the job needs to know. The parent hands them to the child.
type settings struct {
	URL      string        // of the store
	Paths    []string      // of the texts
	Dir      string        // for the working state
	Interval time.Duration // between two checkpoints of a task
	Start    time.Time     // when the texts began to arrive
	Over     time.Duration // how long they take to arrive
	Open     bool          // more may come after them: the job waits for it, and does not end
}

// jobEnv is the environment variable that makes a process the job. It holds
// the settings, as JSON.
const jobEnv = "HOLDFAST_WORDCOUNT_JOB"

// jobFailed is the job's exit code when it fails. No process that was killed
// has it.
const jobFailed = 4

func main() {
	if s := os.Getenv(jobEnv); s != "" {
		os.Exit(runJob(s, nil))
	}
	os.Exit(runStory(os.Args[1:], os.Stdout, os.Stderr))
}

// runJob is the child's main.
func runJob(encoded string, spoil spoiler) int {
	signal.Ignore(os.Interrupt) // which the parent gets too, and then kills this process
	var s settings
	err := json.Unmarshal([]byte(encoded), &s)
	if err == nil {
		err = countWords(context.Background(), s, announceOn(os.Stdout), spoil)
	}
	if err != nil {
		logTo(os.Stderr).Println("the job failed:", err)
		return jobFailed
	}
	return 0
}

// runStory is the parent's main.
func runStory(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		logTo(stderr).Println(err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, out, end := cli.Output(ctx, stdout)
	defer end()
	err = cli.Ended(ctx, o.tell(ctx, out))
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errJobFailed):
		return 1 // the job has said why
	}
	logTo(stderr).Println(err)
	return 1
}

func logTo(w io.Writer) *log.Logger { return log.New(w, "wordcount: ", 0) }

type options struct {
	settings
	dir   string // for everything on this machine
	kills int
	seed  uint64
	keep  bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("wordcount", flag.ContinueOnError)
	f.StringVar(&o.URL, "checkpoint", "", "`URL` of the store for checkpoints (default: a directory in --dir)")
	f.DurationVar(&o.Interval, "interval", time.Second, "time between two checkpoints of a task")
	f.DurationVar(&o.Over, "over", 20*time.Second, "time over which the texts arrive, as the records of a stream do; 0: they are all there")
	f.IntVar(&o.kills, "kills", 5, "how often to kill the job")
	f.Uint64Var(&o.seed, "seed", rand.Uint64N(1_000_000), "of the random choices")
	f.StringVar(&o.dir, "dir", "", "working `directory`, which stays (default: a temporary one)")
	f.BoolVar(&o.keep, "keep", false, "keep the temporary directory")
	err := cli.Parse(f, args, stderr, "wordcount [flags] [path...]\nCounts the words below the paths (default: the Go sources); flags:")
	if err != nil {
		return o, err
	}
	switch {
	case o.Interval <= 0:
		return o, fmt.Errorf("--interval is %v; set more than 0", o.Interval)
	case o.Over < 0:
		return o, fmt.Errorf("--over is %v; set 0 or more", o.Over)
	case o.kills < 0:
		return o, fmt.Errorf("--kills is %d; set 0 or more", o.kills)
	}
	o.Paths, err = textPaths(f.Args())
	return o, err
}

// tell prepares a directory and tells the story in it.
func (o *options) tell(ctx context.Context, out io.Writer) (err error) {
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "wordcount-")
		if err != nil {
			return err
		}
		o.dir = dir
		if !o.keep {
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		}
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	o.Dir = filepath.Join(dir, "work")
	if o.URL == "" {
		o.URL = fileURL(filepath.Join(dir, "store"))
	}
	return newStory(o, out).tell(ctx)
}

func fileURL(path string) string {
	path = "/" + strings.TrimPrefix(filepath.ToSlash(path), "/") // C:/dir on Windows
	return (&url.URL{Scheme: "file", Path: path}).String()
}
