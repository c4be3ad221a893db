package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/s3"
)

// A client makes one small object.
type client struct {
	name string
	make func(ctx context.Context, key string) error
	took []time.Duration
}

// latency makes small objects, one after the other, with each client in turn,
// so that all see the same server in the same state. A conditional request
// costs the server more than a plain one; so both are measured, with both SDKs.
func (b *bench) latency(ctx context.Context) (err error) {
	store, err := backend.Open(ctx, b.server.URL(bucket, "latency"))
	if err != nil {
		return err
	}
	defer store.Close()
	eye, err := minio.New(strings.TrimPrefix(b.server.Endpoint, "http://"), &minio.Options{Creds: credentials.NewEnvAWS()})
	if err != nil {
		return err
	}
	data := make([]byte, 2<<10)
	if _, err := rand.Read(data); err != nil {
		return err
	}
	var plain, conditional minio.PutObjectOptions
	conditional.SetMatchETagExcept("*")
	minioPut := func(o minio.PutObjectOptions) func(context.Context, string) error {
		return func(ctx context.Context, key string) error {
			_, err := eye.PutObject(ctx, bucket, "latency/"+key, bytes.NewReader(data), int64(len(data)), o)
			return err
		}
	}
	job, err := checkpoint.Open(ctx, b.server.URL(bucket, "commits"), checkpoint.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	owner, err := claim(ctx, job)
	if err != nil {
		return err
	}
	clients := []*client{
		{name: "minio-go PutObject", make: minioPut(plain)},
		{name: "holdfast Put", make: func(ctx context.Context, key string) error { _, err := store.Put(ctx, key, data); return err }},
		{name: "minio-go PutObject with If-None-Match: *", make: minioPut(conditional)},
		{name: "holdfast Create", make: func(ctx context.Context, key string) error { _, err := store.Create(ctx, key, data); return err }},
		{name: "holdfast commit of a state of 1 KiB", make: func(ctx context.Context, key string) error {
			copy(data, key) // so it is another state
			_, err := owner.Commit(ctx, checkpoint.Snapshot{State: checkpoint.Stream("state", bytes.NewReader(data[:1<<10]))})
			return err
		}},
	}
	for i := range warmUp + b.creates {
		for n := range clients {
			if err := clients[(i+n)%len(clients)].measure(ctx, i); err != nil {
				return err
			}
		}
	}
	fmt.Printf("### Objects of 2 KiB, one after the other, %d each, over HTTP\n\n", b.creates)
	fmt.Println("| client | p50 ms | p99 ms | p50 to minio-go's PutObject |\n| --- | --- | --- | --- |")
	for _, c := range clients {
		fmt.Printf("| %s | %s | %s | %.2f |\n", c.name, ms(c.percentile(50)), ms(c.percentile(99)),
			float64(c.percentile(50))/float64(clients[0].percentile(50)))
	}
	fmt.Println()
	return nil
}

// claim claims a task.
func claim(ctx context.Context, job *checkpoint.Job) (*checkpoint.Owner, error) {
	task, err := job.Task("task")
	if err != nil {
		return nil, err
	}
	return task.Claim(ctx, checkpoint.ClaimOptions{})
}

func (c *client) measure(ctx context.Context, i int) error {
	key := fmt.Sprintf("%s-%06d", strings.ToLower(strings.Map(letter, c.name)), i)
	began := time.Now()
	if err := c.make(ctx, key); err != nil {
		return err
	}
	if i >= warmUp {
		c.took = append(c.took, time.Since(began))
	}
	return nil
}

func letter(r rune) rune {
	if unicode.IsLetter(r) {
		return r
	}
	return '-'
}

func (c *client) percentile(p int) time.Duration {
	slices.Sort(c.took)
	return c.took[min(len(c.took)-1, len(c.took)*p/100)]
}

// warmUp is how many objects are made before the clock counts.
const warmUp = 50

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
