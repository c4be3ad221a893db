// Command gcs measures the GCS driver side by side with what it is built on,
// cloud.google.com/go/storage, used directly, against one emulator on the
// loopback interface, and prints tables in Markdown:
//
//	go run ./bench/gcs
//
// It builds the emulator the first time, which takes some minutes. The figures
// say how the clients compare on one machine in one run: nothing about Google.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"github.com/holdfast-io/holdfast/internal/testserver"
)

type config struct {
	creates  int // objects of 2 KiB for each client
	files    int // objects of 32 MiB for each client in a round
	parallel int
	rounds   int
}

func main() {
	c := config{}
	flag.IntVar(&c.creates, "creates", 1000, "objects of 2 KiB that each client makes")
	flag.IntVar(&c.files, "files", 16, "objects of 32 MiB that each client writes and reads in a round; the emulator keeps one client's in memory")
	flag.IntVar(&c.parallel, "parallel", 4, "transfers at a time")
	flag.IntVar(&c.rounds, "rounds", 5, "rounds, of which the median counts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const bucket = "bench"

func run(ctx context.Context, c config) (err error) {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	server, err := testserver.Start(ctx, testserver.FakeGCS, testserver.Config{Dir: dir})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, server.Stop(), os.RemoveAll(dir)) }()
	if err := server.MakeGCSBucket(ctx, bucket); err != nil {
		return err
	}
	clients, err := open(ctx, server)
	if err != nil {
		return err
	}
	defer func() {
		for _, client := range clients {
			err = errors.Join(err, client.close())
		}
	}()
	if err := latency(ctx, c, clients); err != nil {
		return err
	}
	return throughput(ctx, c, clients)
}

// open returns the driver, and the SDK twice: with one request for each object,
// as the driver uses it, and as it is by default. Each has a transport of its
// own, over HTTP/1.
func open(ctx context.Context, server *testserver.Server) ([]client, error) {
	driver, err := openDriver(ctx, server.GCSURL(bucket, "driver"))
	if err != nil {
		return nil, err
	}
	clients := []client{driver}
	for _, c := range []struct {
		name  string
		chunk int
	}{{"storage, ChunkSize 0", 0}, {"storage, defaults", 16 << 20}} {
		sdk, err := storage.NewClient(ctx, option.WithoutAuthentication(), option.WithEndpoint(server.Endpoint+"/storage/v1/"))
		if err != nil {
			return nil, err
		}
		clients = append(clients, bare(c.name, sdk, c.chunk))
	}
	return clients, nil
}
