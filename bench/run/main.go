// Command run measures what `holdfast run` costs the program that it runs, beside the program
// alone:
//
//	go run ./bench/run [-scale quick|full] [-dir DIR]
//
// The program has a state of files of 4 MiB, of which it replaces one every 300 ms; beside that
// it computes, in steps of a fifth of a millisecond, on one core. It is run in turns alone, and with a
// checkpoint every two seconds in each of the three ways to a consistent one. Before each window
// the whole state is in a checkpoint.
//
// It prints a table in Markdown: how many steps the program takes, how long it stands still, and
// the processor time and memory of `run` beside it. It needs Linux, Go to build the command, and
// three times the state's size on a disk: all of it is in a directory below -dir, the store too,
// and goes when the program ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
)

// A scale says how much is measured.
type scale struct {
	files  int           // of 4 MiB
	window time.Duration // of each round
	rounds int           // of each way
}

var scales = map[string]scale{
	"quick": {8, 3 * time.Second, 1},
	"full":  {64, 20 * time.Second, 3},
}

// A way is how the program is run.
type way struct {
	name  string
	flags []string // of run; nil for the program alone
}

const every = 2 * time.Second // checkpoints

var ways = []way{
	{"alone", nil},
	{"files may be copied at any time", []string{"--every", every.String(), "--exclude", "*.tmp"}},
	{"`--pause`", []string{"--every", every.String(), "--pause"}},
	{"`--when-asked`", []string{"--when-asked"}},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if len(os.Args) > 1 && os.Args[1] == programArg {
		err = isProgram(os.Args[2:])
	} else {
		err = run(ctx, os.Args[1:])
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench is where all is done.
type bench struct {
	scale
	dir      string
	holdfast string // the command
}

func run(ctx context.Context, args []string) (err error) {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	size := f.String("scale", "quick", "how much is measured: quick, to try the program, or full, for figures")
	dir := f.String("dir", "", "`directory` for all data, on a disk (default: that for temporary files)")
	if err := f.Parse(args); err != nil {
		return err
	}
	var b bench
	ok := false
	if b.scale, ok = scales[*size]; !ok || f.NArg() > 0 {
		return errors.New("-scale is quick or full, and there are no arguments; see -h")
	}
	if runtime.GOOS != "linux" {
		return errors.New("what a process takes is read from /proc, so this needs Linux")
	}
	if b.dir, err = os.MkdirTemp(*dir, "holdfast-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	b.holdfast = filepath.Join(b.dir, "holdfast")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.holdfast, "github.com/holdfast-io/holdfast/cmd/holdfast").CombinedOutput(); err != nil {
		return fmt.Errorf("building the command: %w: %s", err, out)
	}
	load, _ := os.ReadFile("/proc/loadavg") // for the reader alone
	fmt.Printf("%s/%s, %d cores, %s, a state of %d MiB, %d rounds of %v; the load of the machine before: %s\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), b.files*fileSize>>20, b.rounds, b.window, strings.TrimSpace(string(load)))
	return b.measure(ctx)
}

// measure takes turns, and prints the medians.
func (b *bench) measure(ctx context.Context) error {
	results := make([][]result, len(ways))
	for round := range b.rounds {
		for i, w := range ways {
			r, err := b.one(ctx, w, fmt.Sprintf("%d-%d", round, i))
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			results[i] = append(results[i], *r)
		}
	}
	fmt.Println("| the program | steps/s | of that alone | stands still, longest ms, by round | stands still, share | checkpoints | cores of `run` | memory of `run`, peak MiB |")
	fmt.Println("| --- | --: | --: | --: | --: | --: | --: | --: |")
	rate := func(r result) float64 { return float64(r.Steps) / r.Took.Seconds() }
	alone := measure.Median(results[0], rate)
	for i, w := range ways {
		r := results[i]
		var longest []string
		for _, one := range r {
			longest = append(longest, fmt.Sprintf("%.0f", one.Longest.Seconds()*1e3))
		}
		fmt.Printf("| %s | %.0f | %.1f %% | %s | %.2f %% | %.0f | %.2f | %.0f |\n", w.name,
			measure.Median(r, rate), 100*measure.Median(r, rate)/alone, strings.Join(longest, " / "),
			100*measure.Median(r, func(r result) float64 { return r.Still.Seconds() / r.Took.Seconds() }),
			measure.Median(r, func(r result) float64 { return float64(r.checkpoints) }),
			measure.Median(r, func(r result) float64 { return r.cpu.Seconds() / r.Took.Seconds() }),
			measure.Median(r, func(r result) float64 { return float64(r.peak) / (1 << 20) }))
	}
	return nil
}
