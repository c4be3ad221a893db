package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
)

const (
	smallSize = 2 << 10
	largeSize = 32 << 20

	// warmUp is how many objects are made before the clock counts.
	warmUp = 50
)

// latency makes small objects, one after the other, with the clients in turn,
// so that all see the same server in the same state.
func latency(ctx context.Context, c config, clients []client) error {
	data := make([]byte, smallSize)
	if _, err := rand.Read(data); err != nil {
		return err
	}
	took := make([][]time.Duration, len(clients))
	for i := range c.creates + warmUp {
		for n := range clients {
			n = (n + i) % len(clients)
			began := time.Now()
			if err := clients[n].create(ctx, fmt.Sprint("small-", i), data); err != nil {
				return err
			}
			if i >= warmUp {
				took[n] = append(took[n], time.Since(began))
			}
		}
	}
	fmt.Printf("### Create of 2 KiB, one after the other, %d each\n\n", c.creates)
	fmt.Println("| client | p50 ms | p99 ms | p50, times the driver's |\n| --- | --- | --- | --- |")
	for n, client := range clients {
		slices.Sort(took[n])
		p50 := percentile(took[n], 50)
		fmt.Printf("| %s | %s | %s | %.2f |\n", client.name, ms(p50), ms(percentile(took[n], 99)),
			float64(p50)/float64(percentile(took[0], 50)))
	}
	fmt.Println()
	return nil
}

func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

// A cost is what moving some bytes took this process.
type cost struct{ mbs, cpu, heap float64 } // MB/s, CPU-seconds per GiB, MiB above what was there before

// throughput lets each client write and read large objects, in rounds, so that
// a machine's bad moment does not hit one of them alone.
func throughput(ctx context.Context, c config, clients []client) error {
	data := make([]byte, largeSize)
	if _, err := rand.Read(data); err != nil {
		return err
	}
	buffers := make(chan []byte, c.parallel)
	for range c.parallel {
		buffers <- make([]byte, largeSize)
	}
	puts, gets := make([][]cost, len(clients)), make([][]cost, len(clients))
	for round := range c.rounds {
		for n := range clients {
			n = (n + round) % len(clients)
			client := clients[n]
			put, err := transfer(ctx, c, func(ctx context.Context, key string) error { return client.put(ctx, key, data) })
			if err != nil {
				return fmt.Errorf("%s: %w", client.name, err)
			}
			get, err := transfer(ctx, c, func(ctx context.Context, key string) error {
				p := <-buffers
				defer func() { buffers <- p }()
				return client.get(ctx, key, p)
			})
			if err != nil {
				return fmt.Errorf("%s: %w", client.name, err)
			}
			if _, err := transfer(ctx, c, client.remove); err != nil {
				return fmt.Errorf("%s: %w", client.name, err)
			}
			puts[n], gets[n] = append(puts[n], put), append(gets[n], get)
		}
	}
	fmt.Printf("### %d objects of 32 MiB, %d at a time, median of %d rounds\n\n", c.files, c.parallel, c.rounds)
	fmt.Println("| client | Put MB/s | CPU s/GiB | heap MiB | Get MB/s | CPU s/GiB | heap MiB |\n| --- | --- | --- | --- | --- | --- | --- |")
	for n, client := range clients {
		fmt.Printf("| %s |%s%s\n", client.name, median(puts[n]), median(gets[n]))
	}
	return nil
}

func median(costs []cost) string {
	of := func(field func(cost) float64) float64 {
		values := make([]float64, len(costs))
		for i, c := range costs {
			values[i] = field(c)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return fmt.Sprintf(" %.0f | %.2f | %.0f |",
		of(func(c cost) float64 { return c.mbs }), of(func(c cost) float64 { return c.cpu }), of(func(c cost) float64 { return c.heap }))
}

func transfer(ctx context.Context, c config, call func(context.Context, string) error) (cost, error) {
	runtime.GC()
	peak := watchHeap()
	began, before := time.Now(), measure.Self()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.parallel)
	for i := range c.files {
		g.Go(func() error { return call(ctx, fmt.Sprint("large-", i)) })
	}
	err := g.Wait()
	took, used := time.Since(began), measure.Self()-before
	bytes := float64(c.files) * largeSize
	return cost{
		mbs:  bytes / 1e6 / took.Seconds(),
		cpu:  used.Seconds() / (bytes / (1 << 30)),
		heap: peak(),
	}, err
}

// watchHeap samples the heap until the function that it returns is called,
// which tells by how many MiB it grew at most.
func watchHeap() (peak func() float64) {
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	before, most := inUse(), uint64(0)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				most = max(most, inUse())
			}
		}
	}()
	return func() float64 {
		close(done)
		<-ended
		return float64(max(most, before)-before) / (1 << 20)
	}
}
