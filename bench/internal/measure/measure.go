// Package measure runs a program as a child and says what it took of the
// machine.
//
// On Linux a new process begins with the peak memory of the one that starts it,
// because exec counts the memory that it lets go of. A benchmark that holds much
// would see itself. So there is a process in between, the launcher, which is
// the benchmark's own executable once more and holds little: main calls
// [Launcher] before anything else. What the launcher holds is the smallest peak
// that can be told, some 20 MiB.
package measure

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// A Command says what to run.
type Command struct {
	Args []string // the program, which is looked up as a shell would, and its arguments
	Dir  string   // where; "" means here
	Env  []string // nil means this process's
}

func (c Command) String() string { return strings.Join(c.Args, " ") }

// Usage is what a process took, and the children that it has waited for.
type Usage struct {
	Wall         time.Duration // from its start to its end
	User, System time.Duration // of processor time
	PeakRSS      int64         // largest resident set of any one of them, in bytes; 0 where the system does not tell
}

// CPU returns the processor time.
func (u Usage) CPU() time.Duration { return u.User + u.System }

// report is what the launcher prints.
type report struct {
	Usage
	Failure string // how the program failed; "" if it ended well
}

// launcherArg as the first argument makes an executable the launcher.
const launcherArg = "measure.launcher"

// Launcher does not return in a process that [Run] has started. Programs and
// tests that call Run call it first.
func Launcher() {
	if len(os.Args) > 2 && os.Args[1] == launcherArg {
		os.Exit(launch(os.Args[2:]))
	}
}

func launch(args []string) int {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // stdout is for the report
	endWithParent(cmd)
	began := time.Now()
	err := cmd.Run()
	r := report{Usage: Usage{Wall: time.Since(began)}}
	if err != nil {
		r.Failure = err.Error()
	}
	if p := cmd.ProcessState; p != nil {
		r.User, r.System, r.PeakRSS = p.UserTime(), p.SystemTime(), peakRSS(p)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// killTime is how long a command that was killed may take to go.
const killTime = 10 * time.Second

// Run runs c to its end. The error of a program that fails has the end of what
// it printed. When ctx ends, the program is killed.
func Run(ctx context.Context, c Command) (Usage, error) {
	program, err := exec.LookPath(c.Args[0])
	if err != nil {
		return Usage{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return Usage{}, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{launcherArg, program}, c.Args[1:]...)...)
	cmd.Dir, cmd.Env = c.Dir, c.Env
	cmd.WaitDelay = killTime
	endWithParent(cmd)
	endTogether(cmd)
	var stdout bytes.Buffer
	var printed tail
	cmd.Stdout, cmd.Stderr = &stdout, &printed
	if err := cmd.Run(); err != nil {
		return Usage{}, fmt.Errorf("%s: %w\n%s", c, cmp.Or(ctx.Err(), err), printed)
	}
	var r report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		return Usage{}, fmt.Errorf("%s: what it took: %w", c, err)
	}
	if r.Failure != "" {
		return r.Usage, fmt.Errorf("%s: %w\n%s", c, errors.New(r.Failure), printed)
	}
	return r.Usage, nil
}

// tail keeps the last of what is written to it.
type tail []byte

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p[max(0, len(p)-tailSize):]...)
	*t = slices.Delete(*t, 0, max(0, len(*t)-tailSize))
	return len(p), nil
}

// Median returns the median of one figure of several runs, of which there must
// be one at least.
func Median[T any](runs []T, figure func(T) float64) float64 {
	values := make([]float64, len(runs))
	for i, run := range runs {
		values[i] = figure(run)
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
