package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/holdfast-io/holdfast/backend"
	_ "github.com/holdfast-io/holdfast/s3"
)

// latency makes small objects, one after the other, with the two clients in
// turn, so that both see the same server in the same state.
func (b *bench) latency(ctx context.Context) error {
	store, err := backend.Open(ctx, b.server.URL(bucket, "latency"))
	if err != nil {
		return err
	}
	defer store.Close()
	client, err := minio.New(strings.TrimPrefix(b.server.Endpoint, "http://"), &minio.Options{Creds: credentials.NewEnvAWS()})
	if err != nil {
		return err
	}
	data := make([]byte, 2<<10)
	if _, err := rand.Read(data); err != nil {
		return err
	}
	ours := func(key string) error {
		_, err := store.Create(ctx, key, data)
		return err
	}
	theirs := func(key string) error {
		_, err := client.PutObject(ctx, bucket, "latency/"+key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
		return err
	}
	var took [2][]time.Duration
	for i := range b.creates + warmUp {
		clients := []func(string) error{ours, theirs}
		for _, n := range []int{i % 2, 1 - i%2} {
			began := time.Now()
			if err := clients[n](fmt.Sprintf("%d-%d", n, i)); err != nil {
				return err
			}
			if i >= warmUp {
				took[n] = append(took[n], time.Since(began))
			}
		}
	}
	fmt.Printf("### Objects of 2 KiB, one after the other, %d each, over HTTP\n\n", b.creates)
	fmt.Println("| client | p50 ms | p99 ms |\n| --- | --- | --- |")
	for n, name := range []string{"holdfast Create", "minio-go PutObject"} {
		slices.Sort(took[n])
		fmt.Printf("| %s | %s | %s |\n", name, ms(percentile(took[n], 50)), ms(percentile(took[n], 99)))
	}
	fmt.Printf("\np50: %.2f times minio-go's\n\n", float64(percentile(took[0], 50))/float64(percentile(took[1], 50)))
	return nil
}

// warmUp is how many objects are made before the clock counts.
const warmUp = 50

func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
