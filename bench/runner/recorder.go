package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// A recorder keeps what the runner logs of each commit.
type recorder struct {
	mu      sync.Mutex
	commits []commit
}

// A commit is one that succeeded.
type commit struct {
	took, pause time.Duration
	stored      int64 // bytes
}

func (r *recorder) logger() *slog.Logger { return slog.New(r) }

// take returns the commits since the last call.
func (r *recorder) take() []commit {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.commits
	r.commits = nil
	return taken
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorder) WithGroup(string) slog.Handler            { return r }

func (r *recorder) Handle(_ context.Context, said slog.Record) error {
	if said.Message != "committed" {
		if said.Level >= slog.LevelWarn {
			text := said.Message
			said.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
			fmt.Fprintln(os.Stderr, text)
		}
		return nil
	}
	var c commit
	said.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "took":
			c.took = a.Value.Duration()
		case "pause":
			c.pause = a.Value.Duration()
		case "new_bytes":
			c.stored = a.Value.Int64()
		}
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits = append(r.commits, c)
	return nil
}

// figures returns one figure of each of many.
func figures[T, F any](all []T, figure func(T) F) []F {
	values := make([]F, len(all))
	for i, v := range all {
		values[i] = figure(v)
	}
	return values
}

// percentile returns a value that so many percent of all do not exceed, or zero if
// there are none.
func percentile[T time.Duration | int64](values []T, percent float64) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*percent/100))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
