// Command state measures saves and restores of a job's state beside other
// programs that copy directories to S3, against MinIO on the loopback
// interface, and beside cp on the local disk:
//
//	go run ./bench/state [-scale small|full] [-states files,...] [-contenders holdfast,...] [-rounds N] [-link rtt=25ms,conn=60MB] [-json FILE] [-dir DIR]
//
// It prints one table in Markdown for each state, of medians, and writes
// everything that it measured to the JSON file. docs/benchmarks.md says what
// the states are, what is done with them, and how to read the tables.
//
// It builds MinIO, rclone, s5cmd and mc the first time, which takes some
// minutes, and the holdfast command each time. restic takes part if it is on
// the PATH. It needs a Unix, and git if the JSON file is to name the commit.
// At -scale full it takes 6 GiB of disk; the state one, which like many is made only when
// it is named, takes 31 GiB, and 41 GiB with contenders that replace objects.
// All of it is in a directory below -dir that goes when the program ends.
//
// Every request passes a proxy that counts. It takes about 0.7 s of processor
// time for a GiB saved and 0.5 s for one restored (on one machine; the JSON file
// has it for each step), which is not counted as the contender's, but which the
// machine lacks meanwhile. To see what that does to a figure, run once more with
// -noproxy. With -link the proxy is also a model of a network, the same one for
// all contenders that have a server. Before anything else, a plain HTTP client
// measures what that link carries.
//
// It ends with status 1 if a contender failed or did not give back what it was
// given.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/bench/internal/proxy"
)

type config struct {
	scale      scale
	states     []string
	contenders []string // nil means all
	rounds     int
	timeout    time.Duration // for one command
	history    int           // checkpoints
	json       string        // file for everything; "" for none
	dir        string        // where to make a directory for all data
	noProxy    bool
	link       proxy.Link
}

func main() {
	measure.Launcher()
	c, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal asks to stop and tidy up, a second one kills
	if err := run(ctx, c); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var c config
	var size, states, contenders string
	var many int
	f := flag.NewFlagSet("state", flag.ContinueOnError)
	f.StringVar(&size, "scale", "small", "how large the states are: small, to try the program, or full, for figures")
	f.StringVar(&states, "states", "files,pebble,small,history", "what to save, separated by commas; one, a single large file, and many, a great many tiny ones, are to be named if they are wanted")
	f.StringVar(&contenders, "contenders", "", "who takes part, separated by commas (default: all that are there)")
	f.IntVar(&c.rounds, "rounds", 1, "rounds, of which the median counts")
	f.DurationVar(&c.timeout, "timeout", 20*time.Minute, "how long one command may take")
	f.IntVar(&c.history, "history", 0, "how many checkpoints the long history has (default: 1,000 or 100,000, by -scale)")
	f.IntVar(&many, "many", 0, "how many files the state many has (default: 10,000 or 200,000, by -scale)")
	f.StringVar(&c.json, "json", "", "`file` to write everything to that was measured")
	f.StringVar(&c.dir, "dir", "", "`directory` for all data, on a disk, not in memory (default: that for temporary files)")
	f.Func("link", "let the server be behind a `LINK`: rtt=25ms,conn=60MB (a round trip, and bytes a second on each connection) or rtt=10ms,total=125MB (on all together)", func(s string) (err error) {
		c.link, err = proxy.ParseLink(s)
		return err
	})
	f.BoolVar(&c.noProxy, "noproxy", false, "let contenders talk to the server itself; then no requests and bytes are counted")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	err := c.complete(size, states, contenders, f.Args())
	if many != 0 {
		c.scale.many = many
	}
	if err == nil && c.scale.many < 1 {
		err = errors.New("-many must be more than 0")
	}
	return c, err
}

// complete makes sense of what flags alone cannot say.
func (c *config) complete(size, states, contenders string, rest []string) error {
	ok := false
	if c.scale, ok = scales[size]; !ok {
		return fmt.Errorf("-scale is small or full, not %q", size)
	}
	c.states = strings.Split(states, ",")
	for _, name := range c.states {
		if _, ok := recipes[name]; !ok && name != historyName {
			return fmt.Errorf("there is no state %q; choose of files, pebble, small, one, many, history", name)
		}
	}
	if contenders != "" {
		c.contenders = strings.Split(contenders, ",")
	}
	for _, name := range c.contenders {
		if !slices.Contains(contenderNames, name) {
			return fmt.Errorf("there is no contender %q; choose of %s", name, strings.Join(contenderNames, ", "))
		}
	}
	if c.history == 0 {
		c.history = c.scale.history
	}
	switch {
	case c.noProxy && c.link != (proxy.Link{}):
		return errors.New("-link needs the proxy that -noproxy leaves out")
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case c.rounds < 1 || c.history < 1 || c.timeout <= 0:
		return errors.New("-rounds, -history and -timeout must be more than 0")
	}
	return nil
}
