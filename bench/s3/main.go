// Command s3 measures the S3 driver side by side with other clients, against
// one MinIO on the loopback interface, and prints tables in Markdown:
//
//	go run ./bench/s3
//
// It builds MinIO, rclone, s5cmd and mc the first time, which takes some
// minutes. The figures say how clients compare on one machine in one run. They
// say little about a real network, and nothing about AWS.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/internal/testserver"
)

type config struct {
	dir      string // for the server's data and the files to copy
	creates  int    // objects of 2 KiB for each client
	files    int    // objects of 32 MiB for each round
	parallel int
	rounds   int
}

func main() {
	measure.Launcher()
	c := config{}
	flag.StringVar(&c.dir, "dir", "", "directory for all data, of some GiB; not in memory, which MinIO fills: it deletes at leisure (default: that for temporary files)")
	flag.IntVar(&c.creates, "creates", 1000, "objects of 2 KiB that each client makes")
	flag.IntVar(&c.files, "files", 16, "objects of 32 MiB that each client copies in a round")
	flag.IntVar(&c.parallel, "parallel", 4, "transfers at a time")
	flag.IntVar(&c.rounds, "rounds", 3, "rounds, of which the median counts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if flag.NArg() > 0 {
		err = copyFiles(ctx, flag.Args(), c.parallel) // this program as its own contender
	} else {
		err = run(ctx, c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) (err error) {
	dir, err := os.MkdirTemp(c.dir, "holdfast-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{config: c, dir: dir, source: filepath.Join(dir, "source")}
	if err := b.makeFiles(); err != nil {
		return err
	}
	if err := b.withServer(ctx, false, func() error {
		if err := b.latency(ctx); err != nil {
			return err
		}
		return b.throughput(ctx, "32 MiB objects over HTTP")
	}); err != nil {
		return err
	}
	return b.withServer(ctx, true, func() error {
		return b.throughput(ctx, "32 MiB objects over TLS")
	})
}

// bench is one run.
type bench struct {
	config
	dir, source string
	server      *testserver.Server
}

const bucket = "bench"

func (b *bench) withServer(ctx context.Context, useTLS bool, measure func() error) (err error) {
	dir, err := os.MkdirTemp(b.dir, "server-")
	if err != nil {
		return err
	}
	b.server, err = testserver.Start(ctx, testserver.MinIO, testserver.Config{Dir: dir, TLS: useTLS})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.server.Stop(), os.RemoveAll(dir)) }()
	if err := b.server.MakeBucket(ctx, bucket); err != nil {
		return err
	}
	for _, pair := range b.server.Env() {
		if err := setenv(pair); err != nil {
			return err
		}
	}
	return measure()
}
