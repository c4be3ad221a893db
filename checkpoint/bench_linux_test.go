package checkpoint_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// The benchmarks use a state of 64 MiB in eight files, half of it noise and half JSON
// lines, and a store in memory. So they measure this package and the file system.
// Compare two versions with benchstat.
const (
	benchFiles = 8
	benchSize  = 8 << 20 // the size of each
)

func newBenchState(b *testing.B) *live {
	b.Helper()
	l := newLive(b)
	for i := range benchFiles {
		data := noise(benchSize + i)
		if i%2 == 1 {
			data = text(benchSize + i)
		}
		l.write(fmt.Sprint(i), data[:benchSize])
	}
	return l
}

func benchTask(b *testing.B, bucket *mem.Bucket) *checkpoint.Task {
	b.Helper()
	_, task := jobOf(b, bucket, checkpoint.Options{
		Retention: checkpoint.Retention{Last: 1}, Logger: slog.New(slog.DiscardHandler),
	})
	return task
}

// writePages overwrites 1 % of a state, in scattered pages of 16 KiB. Each round
// writes other data.
func writePages(l *live, round int) {
	const pages = benchFiles * benchSize / 100 / (16 << 10)
	for i := range pages {
		page := noise(16<<10 + round*pages + i)[:16<<10]
		l.writeAt(fmt.Sprint(i%benchFiles), int64(i*37%(benchSize>>14))<<14, page)
	}
}

func BenchmarkSave(b *testing.B) {
	b.Run("full", func(b *testing.B) {
		l := newBenchState(b)
		b.SetBytes(benchFiles * benchSize)
		b.ReportAllocs()
		for b.Loop() {
			commitIn(b, claim(b, benchTask(b, mem.NewBucket(time.Now))), l)
		}
	})
	b.Run("nothing changed", func(b *testing.B) {
		l := newBenchState(b)
		o := claim(b, benchTask(b, mem.NewBucket(time.Now)))
		commitIn(b, o, l)
		b.ReportAllocs()
		for b.Loop() {
			commitIn(b, o, l)
		}
	})
	b.Run("nothing changed, by a process of its own", func(b *testing.B) {
		l, bucket := newBenchState(b), mem.NewBucket(time.Now)
		commitIn(b, claim(b, benchTask(b, bucket)), l)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := benchTask(b, bucket).Save(b.Context(), l.snapshot(), checkpoint.SaveOptions{Fence: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("1 % changed", func(b *testing.B) {
		l := newBenchState(b)
		o := claim(b, benchTask(b, mem.NewBucket(time.Now)))
		commitIn(b, o, l)
		b.SetBytes(benchFiles * benchSize)
		b.ReportAllocs()
		var sent int64
		round := 0
		for b.Loop() {
			b.StopTimer()
			round++
			settle(b, l.dir)
			writePages(l, round)
			b.StartTimer()
			sent += commitIn(b, o, l).NewBytes
		}
		b.ReportMetric(float64(sent)/float64(b.N), "new-B/op")
	})
}

func commitIn(b *testing.B, o *checkpoint.Owner, l *live) *checkpoint.Checkpoint {
	b.Helper()
	c, err := o.Commit(b.Context(), l.snapshot())
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func BenchmarkRestore(b *testing.B) {
	restore := func(b *testing.B, c *checkpoint.Checkpoint, target string) {
		b.Helper()
		if err := c.Restore(b.Context(), target, checkpoint.RestoreOptions{Replace: true}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("new", func(b *testing.B) {
		l := newBenchState(b)
		c := commitIn(b, claim(b, benchTask(b, mem.NewBucket(time.Now))), l)
		target := filepath.Join(tempDir(b), "state")
		b.SetBytes(benchFiles * benchSize)
		b.ReportAllocs()
		for b.Loop() {
			restore(b, c, target)
			b.StopTimer()
			if err := os.RemoveAll(target); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("over a state of which 1 % is another", func(b *testing.B) {
		l, bucket := newBenchState(b), mem.NewBucket(time.Now)
		_, task := jobOf(b, bucket, checkpoint.Options{})
		o := claim(b, task)
		commitIn(b, o, l)
		settle(b, l.dir)
		writePages(l, 1)
		commitIn(b, o, l)
		job, task := jobOf(b, bucket, checkpoint.Options{})
		list, err := task.List(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		target := filepath.Join(tempDir(b), "state")
		restore(b, list[1], target)
		before := job.Stats().Get.Bytes
		b.SetBytes(benchFiles * benchSize)
		b.ReportAllocs()
		round := 0
		for b.Loop() {
			restore(b, list[round%2], target)
			round++
		}
		b.ReportMetric(float64(job.Stats().Get.Bytes-before)/float64(b.N), "fetched-B/op")
	})
}

// A commit of a small state: what an owner does beside its one request.
func BenchmarkSmallCommit(b *testing.B) {
	o := claim(b, openTask(b, mem.NewBucket(time.Now), checkpoint.Options{}))
	data := noise(1 << 10)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		data[n%len(data)]++
		commit(b, o, checkpoint.Snapshot{State: checkpoint.Stream("state", bytes.NewReader(data))})
	}
}
