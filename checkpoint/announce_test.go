package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A distant store takes one round trip for each request, and applies the request in
// the middle of it. It counts requests.
type distant struct {
	backend.Store
	trip  time.Duration
	mu    *sync.Mutex
	count map[string]int
}

func (d distant) travel(verb string) func() {
	d.mu.Lock()
	d.count[verb]++
	d.mu.Unlock()
	time.Sleep(d.trip / 2)
	return func() { time.Sleep(d.trip / 2) }
}

func (d distant) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	defer d.travel("create")()
	return d.Store.Create(ctx, key, data)
}

func (d distant) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	defer d.travel("put")()
	return d.Store.Put(ctx, key, data)
}

func (d distant) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	defer d.travel("get")()
	return d.Store.Get(ctx, key, offset, p)
}

func (d distant) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		defer d.travel("list")()
		d.Store.List(ctx, prefix, after)(yield)
	}
}

func (d distant) Delete(ctx context.Context, keys ...string) error {
	defer d.travel("delete")()
	return d.Store.Delete(ctx, keys...)
}

// distantTask opens the task on a store with the given round-trip time.
func (w *world) distantTask(trip time.Duration) (*checkpoint.Task, map[string]int) {
	w.Helper()
	count := make(map[string]int)
	job := newJob(w, distant{w.bucket.Open(), trip, new(sync.Mutex), count}, checkpoint.Options{Logger: slog.New(slog.DiscardHandler)})
	w.Cleanup(func() { _ = job.Close(context.Background()) })
	task, err := job.Task("orders/7")
	if err != nil {
		w.Fatal(err)
	}
	return task, count
}

// An owner that commits without a pause lets other writers in.
func TestQuickOwnerLetsOthersIn(t *testing.T) {
	others := map[string]func(w *world, task *checkpoint.Task) error{
		"claim": func(w *world, task *checkpoint.Task) error {
			o, err := task.Claim(w.Context(), checkpoint.ClaimOptions{})
			if err == nil {
				err = o.Close(w.Context())
			}
			return err
		},
		"savepoint": func(w *world, task *checkpoint.Task) error {
			return second(task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{}))
		},
	}
	for what, do := range others {
		for _, trip := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond} {
			t.Run(fmt.Sprint(what, " ", trip), func(t *testing.T) {
				inWorld(t, func(w *world) {
					task, _ := w.distantTask(trip)
					o := claim(w, task)
					stop, ended := make(chan struct{}), make(chan error, 1)
					go func() {
						for n := 1; ; n++ {
							select {
							case <-stop:
								ended <- nil
								return
							default:
							}
							if _, err := o.Commit(w.Context(), at(n)); err != nil {
								ended <- err
								return
							}
						}
					}()
					time.Sleep(time.Second)
					other, _ := w.distantTask(trip)
					start := time.Now()
					if err := do(w, other); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(start); took > 10*time.Second {
						t.Errorf("it took %v", took)
					} else {
						t.Logf("it took %v", took)
					}
					close(stop)
					if err := <-ended; (what == "claim") != errors.Is(err, checkpoint.ErrFenced) {
						t.Errorf("the owner: %v", err)
					}
					if w.exists(format.AnnouncedKey(dir)) {
						t.Error("the announcement still exists")
					}
				})
			})
		}
	}
}

// An owner that commits less often sends no additional requests for this.
func TestSlowOwnerSendsNoExtraRequests(t *testing.T) {
	for pause, lists := range map[time.Duration]int{1100 * time.Millisecond: 0, 100 * time.Millisecond: 3} {
		inWorld(t, func(w *world) {
			task, count := w.distantTask(time.Millisecond)
			o := claim(w, task)
			commit(w, o, at(0))
			time.Sleep(time.Minute)
			synctest.Wait()
			clear(count)
			for n := range 100 {
				commit(w, o, at(n+1))
				time.Sleep(pause)
			}
			if count["create"] != 100 || count["list"] != lists || count["get"]+count["put"] != 0 {
				t.Errorf("100 commits, %v apart, sent %v; want %d lists", pause, count, lists)
			}
		})
	}
}

// An announcement that nobody removes becomes stale after some seconds.
func TestStaleAnnouncement(t *testing.T) {
	inWorld(t, func(w *world) {
		w.write(format.AnnouncedKey(dir), []byte("{}"))
		task, _ := w.distantTask(time.Millisecond)
		o := claim(w, task)
		start := time.Now()
		n := 0
		for ; time.Since(start) < time.Minute; n++ {
			commit(w, o, at(n))
			time.Sleep(10 * time.Millisecond)
		}
		if n < 4800 { // at most 5,400 are possible
			t.Errorf("%d commits in a minute", n)
		}
		r, _ := w.verify(allData)
		if len(r.OtherObjects) > 0 || strings.Contains(fmt.Sprint(r.Problems), "announced") {
			t.Errorf("%+v", r)
		}
	})
}

// An owner that commits in bursts sends no additional requests: only commits in a row count.
func TestBurstsSendNoExtraRequests(t *testing.T) {
	inWorld(t, func(w *world) {
		task, count := w.distantTask(time.Millisecond)
		o := claim(w, task)
		commit(w, o, at(0))
		time.Sleep(time.Minute)
		synctest.Wait()
		clear(count)
		for n := range 100 {
			commit(w, o, at(n+1))
			if n%9 == 8 {
				time.Sleep(5 * time.Second)
			}
		}
		if count["create"] != 100 || count["list"] > 0 {
			t.Errorf("100 commits in bursts of 9 sent %v", count)
		}
	})
}

// Two who wait have one announcement. When the first one is let in, it takes that back, and
// the other makes it again.
func TestAnnouncementIsRenewed(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _ := w.distantTask(50 * time.Millisecond)
		o := claim(w, task)
		ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
		defer cancel()
		var running sync.WaitGroup
		defer running.Wait()
		running.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				if _, err := o.Commit(ctx, at(n)); err != nil {
					return // it is fenced in the end
				}
			}
		})
		time.Sleep(time.Second)
		running.Go(func() {
			for !w.exists(format.AnnouncedKey(dir)) {
				time.Sleep(10 * time.Millisecond)
			}
			w.remove(format.AnnouncedKey(dir))
		})
		other, _ := w.distantTask(50 * time.Millisecond)
		start := time.Now()
		next, err := other.Claim(ctx, checkpoint.ClaimOptions{})
		if took := time.Since(start); err != nil || took > 12*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		if err == nil {
			mustDo(t, next.Close(w.Context()))
		}
		cancel()
	})
}
