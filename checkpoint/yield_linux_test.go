package checkpoint_test

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Several saves that fill a segment each, and then have to read more of the checkpoint before, do not wait
// for one another's memory for ever.
func TestSavesThatReadWhileTheyPack(t *testing.T) {
	const tasks = 8 // as many as there is memory for segments
	const meet = 3  // with lists in memory, there is less: for four
	inWorld(t, func(w *world) {
		l := newLive(w)
		write := func(from, to int, text string) {
			for n := from; n < to; n++ {
				l.write(fmt.Sprintf("d%02d/f%04d", n/100, n), kibibyte(n, text))
			}
			settle(w, l.path(fmt.Sprintf("d%02d/f%04d", (to-1)/100, to-1)))
		}
		write(0, 1200, "first")
		var mu sync.Mutex
		armed, sent, here := false, make(map[string]bool), make(map[string]bool)
		all := make(chan struct{})
		before := func(verb, key string) { // the first reads of saves that have sent something wait for one another
			task, _, _ := strings.Cut(key, "/")
			mu.Lock()
			sent[task] = sent[task] || armed && verb == "put"
			first := verb == "get" && sent[task] && !here[task]
			if first {
				if here[task] = true; len(here) == meet {
					close(all)
				}
			}
			mu.Unlock()
			if first {
				<-all
			}
		}
		job := newJob(w, hooked{hookedWrites{w.bucket.Open(), before}, before}, checkpoint.Options{Memory: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
		state := checkpoint.Snapshot{State: checkpoint.FS(&agedFS{FS: os.DirFS(l.dir)})}
		var owners []*checkpoint.Owner
		for n := range tasks {
			task, err := job.Task(fmt.Sprint("t", n))
			if err != nil {
				w.Fatal(err)
			}
			owners = append(owners, claim(w, task))
			commit(w, owners[n], state)
		}
		synctest.Wait()
		write(0, 1000, "second")
		mu.Lock()
		armed = true
		mu.Unlock()
		var group sync.WaitGroup
		for _, o := range owners {
			group.Go(func() { commit(w, o, state) })
		}
		group.Wait()
		if len(here) < tasks {
			t.Errorf("%d saves have read while they packed, want %d", len(here), tasks)
		}
	})
}

// kibibyte returns 1 KiB that does not compress, of a file by its number.
func kibibyte(n int, text string) (data []byte) {
	for i := range 32 {
		sum := format.Sum(fmt.Append(nil, n, text, i))
		data = append(data, sum[:]...)
	}
	return data
}
