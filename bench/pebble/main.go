// Command pebble measures what checkpoints of a Pebble database cost a job:
//
//	go run ./bench/pebble [-size MiB] [-rate MiB/s] [-cuts N] [-every D] [-memtable MiB] [-dir DIR]
//
// It makes a database of that size and prints two tables in Markdown.
//
// The first one is of the pause: a loop overwrites records, chosen by chance, at
// that rate, and stands still for each cut, while the commit of the cut before is
// under way beside it. Once the cuts are those of engines/pebble, and once the
// loop stands still for the whole of Pebble's Flush and Checkpoint.
//
// The second one is of a commit after one record in a hundred was overwritten:
// with tables that are known by their time of modification, as engines/pebble
// has it, and without.
//
// The store is a directory. It takes three times -size of disk, in a directory
// below -dir that goes when the program ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/bench/internal/records"
	engine "github.com/holdfast-io/holdfast/engines/pebble"
	_ "github.com/holdfast-io/holdfast/local"
)

type config struct {
	size     int           // MiB
	rate     float64       // MiB/s
	cuts     int           // for each way to cut
	every    time.Duration // from one cut to the next
	memtable int           // MiB
	dir      string
}

func main() {
	var c config
	flag.IntVar(&c.size, "size", 1024, "MiB of records in the database")
	flag.Float64Var(&c.rate, "rate", 8, "MiB of records that the loop overwrites in a second")
	flag.IntVar(&c.cuts, "cuts", 200, "how many cuts are measured, for each way to make them")
	flag.DurationVar(&c.every, "every", time.Second, "time from one cut to the next")
	flag.IntVar(&c.memtable, "memtable", 4, "MiB of a memtable; 4 is Pebble's default")
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
	if flag.NArg() > 0 || c.size < 1 || c.rate <= 0 || c.cuts < 1 || c.every <= 0 || c.memtable < 1 {
		return errors.New("there are no arguments, and all numbers are more than 0; see -h")
	}
	if c.dir, err = os.MkdirTemp(c.dir, "holdfast-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	opts := &pebbledb.Options{MemTableSize: uint64(c.memtable) << 20, Logger: quiet{pebbledb.DefaultLogger}}
	e, err := engine.Open(filepath.Join(c.dir, "state"), opts, filepath.Join(c.dir, "cuts"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	s := records.New(e.DB, c.size, 1)
	if err := s.Fill(ctx); err != nil {
		return err
	}
	if err := measurePauses(ctx, c, e, s); err != nil {
		return err
	}
	return measureCommits(ctx, c, e, s)
}

// quiet keeps Pebble's errors and drops its news.
type quiet struct{ pebbledb.Logger }

func (quiet) Infof(string, ...any) {}
