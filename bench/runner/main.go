// Command runner measures what checkpoints cost a job that package runner takes
// them of, beside the same job without them:
//
//	go run ./bench/runner [-scale quick|full] [-parts load,kill,standby,tasks] [-rounds N] [-tasks-every D] [-tasks-state KIB] [-tasks-commits N] [-url URL | -link rtt=25ms,conn=60MB] [-dir DIR] [-cpuprofile FILE]
//
// It prints four tables in Markdown.
//
// load: a job with its state in a Pebble database writes, or decodes events and
// reads and writes, in rounds that are by turns with a checkpoint every second and
// without any. It says how long a checkpoint pauses the loop, what that does to the
// steps of the loop, and how much the job gets done.
//
// kill: a process with such a state is killed with SIGKILL, and another one goes on,
// in the directory of the first or in a new one. It says how long it takes from the
// kill to the first step.
//
// standby: the same process is killed while another one, with a directory of its own,
// follows its task, and waits until it gives no sign of life. Each second, one part in a
// hundred of the state is written anew and committed. It says how long it takes from the kill
// to the first step, how much of that is waiting, and what a standby asks of the store.
//
// tasks: a process has many tasks of small state, each of which is committed every
// -tasks-every, or never. It says what that takes of the machine and the store.
//
// The store is a directory, or what -url names: what is put there below a name of its
// own stays. With -link it is a MinIO of its own behind a model of a network, as in
// bench/state. At -scale full it takes 15 minutes, 5 GiB of disk and 1 GiB of memory. All
// of it is in a directory below -dir that goes when the program ends.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/bench/internal/proxy"
	_ "github.com/holdfast-io/holdfast/gcs"
	"github.com/holdfast-io/holdfast/internal/testserver"
	_ "github.com/holdfast-io/holdfast/local"
	"github.com/holdfast-io/holdfast/runner"
	_ "github.com/holdfast-io/holdfast/s3"
)

// A scale says how much is measured.
type scale struct {
	Size   int           // MiB of records in the database
	Round  time.Duration // of a load
	Rounds int           // with checkpoints, and as many without
	Kills  int           // for each kind of host
	Tasks  int
	Window time.Duration // of the tasks, and of what a standby does
}

var scales = map[string]scale{
	"quick": {Size: 64, Round: 3 * time.Second, Rounds: 2, Kills: 1, Tasks: 100, Window: 10 * time.Second},
	"full":  {Size: 1024, Round: 15 * time.Second, Rounds: 5, Kills: 5, Tasks: 1000, Window: time.Minute},
}

const every = time.Second // checkpoints of a load

// A config is what the whole program goes by, and what its children are given.
type config struct {
	scale
	URL  string // of the place for checkpoints
	Keep int    // checkpoints
	Dir  string // for all else

	TasksEvery time.Duration // checkpoints of each of many tasks
	TasksState int           // KiB of each

	TasksCommits int // how many of them commit at once

	Profile string // file for a profile of the loads; "" for none
}

// store returns the URL of a part of the place for checkpoints.
func (c *config) store(name string) (string, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", err
	}
	return u.JoinPath(name).String(), nil
}

func main() {
	measure.Launcher()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := isChild(ctx)
	if errors.Is(err, errNoChild) {
		err = run(ctx, os.Args[1:])
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parts are what can be measured, in their order.
var parts = []struct {
	name    string
	measure func(context.Context, *config) error
}{{"load", measureLoads}, {"kill", measureKills}, {"standby", measureStandbys}, {"tasks", measureTasks}}

func run(ctx context.Context, args []string) (err error) {
	c := config{Keep: 2}
	var link proxy.Link
	f := flag.NewFlagSet("runner", flag.ContinueOnError)
	size := f.String("scale", "quick", "how much is measured: quick, to try the program, or full, for figures")
	wanted := f.String("parts", "load,kill,standby,tasks", "what to measure, separated by commas")
	rounds := f.Int("rounds", 0, "how many rounds of each load with checkpoints, and as many without (default: by -scale)")
	f.DurationVar(&c.TasksEvery, "tasks-every", 10*time.Second, "how often each of many tasks is committed")
	f.IntVar(&c.TasksState, "tasks-state", 1, "`KiB` of state of each of them, about")
	f.IntVar(&c.TasksCommits, "tasks-commits", runner.DefaultCommits, "how many of them commit at once")
	f.Func("link", "let the store be a MinIO behind a `LINK`: rtt=25ms,conn=60MB or rtt=10ms,total=125MB", func(s string) (err error) {
		link, err = proxy.ParseLink(s)
		return err
	})
	f.StringVar(&c.URL, "url", "", "`URL` of a place for checkpoints (default: a directory in -dir)")
	f.StringVar(&c.Dir, "dir", "", "`directory` for all data, on a disk (default: that for temporary files)")
	f.StringVar(&c.Profile, "cpuprofile", "", "`file` for a profile of the processor time of the loads")
	if err := f.Parse(args); err != nil {
		return err
	}
	ok := false
	if c.scale, ok = scales[*size]; !ok || f.NArg() > 0 {
		return errors.New("-scale is quick or full, and there are no arguments; see -h")
	}
	if *rounds < 0 {
		return fmt.Errorf("-rounds is %d; it must be positive", *rounds)
	}
	if c.TasksEvery <= 0 || c.TasksState <= 0 || c.TasksCommits <= 0 {
		return errors.New("-tasks-every, -tasks-state and -tasks-commits must be positive")
	}
	if c.URL != "" && link != (proxy.Link{}) {
		return errors.New("-link is before a MinIO of this program's own; leave out -url")
	}
	c.Rounds = cmp.Or(*rounds, c.Rounds)
	if c.Dir, err = os.MkdirTemp(c.Dir, "holdfast-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.Dir)) }()
	if link != (proxy.Link{}) {
		stop, err := c.startServer(ctx, link)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if err := c.choosePlace(); err != nil {
		return err
	}
	fmt.Printf("%s/%s, %d cores, %s, store %s://; the load of the machine before: %s\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), strings.SplitN(c.URL, ":", 2)[0], machineLoad())
	for _, name := range strings.Split(*wanted, ",") {
		found := false
		for _, p := range parts {
			if p.name == name {
				found = true
				if err := p.measure(ctx, &c); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
		if !found {
			return fmt.Errorf("there is no part %q; choose of load, kill, standby, tasks", name)
		}
	}
	return nil
}

// choosePlace completes the URL.
func (c *config) choosePlace() error {
	if c.URL != "" {
		place, err := c.store("bench-" + strings.ToLower(rand.Text()))
		c.URL = place
		return err
	}
	dir, err := filepath.Abs(filepath.Join(c.Dir, "store"))
	if err != nil {
		return err
	}
	path := "/" + strings.TrimPrefix(filepath.ToSlash(dir), "/") // C:/dir on Windows
	c.URL = (&url.URL{Scheme: "file", Path: path}).String()
	return nil
}

// startServer starts a MinIO behind a link, and makes a bucket there the place for checkpoints.
func (c *config) startServer(ctx context.Context, link proxy.Link) (stop func() error, err error) {
	server, err := testserver.Start(ctx, testserver.MinIO, testserver.Config{Dir: filepath.Join(c.Dir, "server")})
	if err != nil {
		return nil, err
	}
	const bucket = "bench"
	err = server.MakeBucket(ctx, bucket)
	for _, pair := range server.Env() {
		name, value, _ := strings.Cut(pair, "=")
		err = errors.Join(err, os.Setenv(name, value))
	}
	if err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	p, err := proxy.Start(server.Endpoint, link) //nolint:contextcheck // each request has its own
	if err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	c.URL = "s3://" + bucket + "?endpoint=" + p.Endpoint
	return func() error { return errors.Join(p.Close(), server.Stop()) }, nil
}

// machineLoad returns how many processes wanted to run in the last minutes.
func machineLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	words := strings.Fields(string(text))
	if err != nil || len(words) < 3 {
		return "not known"
	}
	return strings.Join(words[:3], " ")
}
