package natsleases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// Each process gets its part. When one comes or goes, no more tasks move than must.
func TestTasksAreDivided(t *testing.T) {
	inWorld(t, 7, func(t *testing.T, w *world) {
		b := newFakeBucket()
		first := w.join("first", b)
		time.Sleep(expiry)
		w.wantParts("one process", 7)
		second, third := w.join("second", b), w.join("third", b)
		time.Sleep(expiry)
		w.wantParts("three processes", 3, 2, 2)
		before := w.started()
		fourth := w.join("fourth", b)
		time.Sleep(expiry)
		w.wantParts("a fourth one", 2, 2, 2, 1)
		if moved := w.started() - before; moved > 3 {
			t.Errorf("%d tasks moved; at least 1 had to", moved)
		}
		w.leave(second)
		time.Sleep(expiry / 2) // given back, and not expired
		w.wantParts("one left", 3, 2, 2)
		w.crash(third)
		time.Sleep(3 * expiry)
		w.wantParts("one was killed", 4, 3)
		w.leave(first, fourth)
		third.client.setCut(false)
		third.store.Disarm()
		w.leave(third)
		for key, e := range b.entries {
			if h := decode(e.value); e.op == jetstream.KeyValuePut && h.ID != "" {
				t.Errorf("%s is left, of %q", key, h.Name)
			}
		}
	})
}

// Whoever is cut off from NATS goes on until it is fenced: its tasks are others' by then. When
// it is there again it gets its part again.
func TestProcessIsCutOff(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		b := newFakeBucket()
		first, second := w.join("first", b), w.join("second", b)
		time.Sleep(expiry)
		w.wantParts("two processes", 2, 2)
		first.client.setCut(true)
		time.Sleep(3 * expiry)
		w.wantParts("one is cut off", 4)
		if w.fenced != 2 {
			t.Errorf("%d tasks were fenced; want 2", w.fenced)
		}
		first.client.setCut(false)
		time.Sleep(3 * expiry)
		w.wantParts("it is there again", 2, 2)
		w.leave(first, second)
	})
}

// While NATS is not there, all processes go on with what they have.
func TestNobodyReachesNATS(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		b := newFakeBucket()
		first, second := w.join("first", b), w.join("second", b)
		time.Sleep(expiry)
		before := w.started()
		first.client.setCut(true)
		second.client.setCut(true)
		time.Sleep(10 * expiry)
		w.wantParts("NATS is down", 2, 2)
		first.client.setCut(false)
		second.client.setCut(false)
		time.Sleep(3 * expiry)
		w.wantParts("NATS is there again", 2, 2)
		if moved := w.started() - before; moved > 0 {
			t.Errorf("%d tasks were started anew", moved)
		}
		w.leave(first, second)
	})
}

// A request that was applied, and whose reply was lost, costs no lease, whichever it is.
func TestRepliesAreLost(t *testing.T) {
	for n := 1; n < 20; n++ {
		inWorld(t, 3, func(t *testing.T, w *world) {
			b := newFakeBucket()
			client := b.client()
			client.replies = n
			only := w.process("only", client, Options{Expiry: expiry}, "")
			time.Sleep(6 * expiry)
			w.wantParts(fmt.Sprintf("the reply of request %d is lost", n), 3)
			if client.replies != 0 {
				t.Errorf("there are less than %d requests", n)
			}
			if started := w.started(); started != 3 {
				t.Errorf("the reply of request %d is lost: %d starts of 3 tasks", n, started)
			}
			w.leave(only)
		})
	}
}

// The tasks of a process that ends are others' as soon as each is given back: they do not wait
// for the slowest.
func TestSlowTaskHoldsNoOtherUp(t *testing.T) {
	inWorld(t, 6, func(t *testing.T, w *world) {
		b := newFakeBucket()
		first := w.join("first", b)
		time.Sleep(expiry)
		second := w.join("second", b)
		time.Sleep(expiry)
		w.mu.Lock()
		for task, by := range w.works {
			if by["first"] {
				w.slow = task
			}
		}
		w.mu.Unlock()
		first.end()
		time.Sleep(expiry / 2)
		if parts, _ := w.parts(); !slices.Equal(parts, []int{5, 1}) {
			t.Errorf("%v; want that five tasks are the other's, and one is being given back", parts)
		}
		w.leave(first)
		time.Sleep(expiry)
		w.wantParts("all are given back", 6)
		w.mu.Lock()
		w.slow = ""
		w.mu.Unlock()
		time.Sleep(slowCut) // one may be under way
		w.leave(second)
	})
}

// A task that the process whose part it is cannot start is started by another one.
func TestAnotherProcessTakesWhatOneCannotStart(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		b := newFakeBucket()
		first := w.process("first", b.client(), Options{Expiry: expiry}, w.tasks[0])
		time.Sleep(expiry)
		second := w.join("second", b)
		time.Sleep(8 * expiry)
		if _, once := w.parts(); !once {
			t.Error("a task is worked on by nobody")
		}
		w.leave(first, second)
	})
}

// A watch that ends, or that tells nothing any more, is made anew: processes that come later
// are seen.
func TestWatchIsMadeAnew(t *testing.T) {
	for name, end := range map[string]bool{"it ends": true, "it tells nothing": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 4, func(t *testing.T, w *world) {
				b := newFakeBucket()
				first := w.join("first", b)
				time.Sleep(expiry)
				first.client.makeDeaf(end)
				time.Sleep(3 * expiry)
				w.wantParts("nothing is told", 4)
				second := w.join("second", b)
				time.Sleep(2 * expiry)
				w.wantParts("another one has come", 2, 2)
				w.leave(first, second)
			})
		})
	}
}

// A bucket that has lost its keys, and tells nobody, is filled again. No task stops.
func TestBucketLosesItsKeys(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		b := newFakeBucket()
		first, second := w.join("first", b), w.join("second", b)
		time.Sleep(expiry)
		before := w.started()
		b.forget("")
		time.Sleep(3 * expiry)
		w.wantParts("the keys are gone", 2, 2)
		if n := w.started() - before; n > 0 {
			t.Errorf("%d tasks were started anew", n)
		}
		third := w.join("third", b)
		time.Sleep(2 * expiry)
		w.wantParts("another one has come", 2, 1, 1)
		w.leave(first, second)
		time.Sleep(2 * expiry)
		w.wantParts("the others have left", 4)
		w.leave(third)
	})
}

// A process that sleeps for longer than Expiry loses its tasks, and fences nobody when it
// wakes.
func TestProcessSleeps(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		b := newFakeBucket()
		first, second := w.join("first", b), w.join("second", b)
		time.Sleep(expiry)
		first.client.setCut(true)
		time.Sleep(3 * expiry)
		before, fenced := w.started(), w.fenced
		first.client.setCut(false) // all that it has missed comes at once
		time.Sleep(expiry / 2)
		if w.fenced != fenced {
			t.Errorf("%d tasks were fenced by it", w.fenced-fenced)
		}
		time.Sleep(2 * expiry)
		if moved := w.started() - before; moved != 2 {
			t.Errorf("%d tasks moved; want 2", moved)
		}
		w.leave(first, second)
	})
}

// A task that cannot be opened here is given back, and others may have it.
func TestTaskThatCannotBeOpened(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		b := newFakeBucket()
		first := w.process("first", b.client(), Options{Expiry: expiry}, w.tasks[0])
		time.Sleep(3 * expiry)
		if parts, once := w.parts(); once || len(parts) != 1 || parts[0] != 1 {
			t.Errorf("%v, %v; want one task that works", parts, once)
		}
		second := w.join("second", b)
		third := w.join("third", b)
		w.leave(first)
		time.Sleep(3 * expiry)
		w.wantParts("others try", 1, 1)
		w.leave(second, third)
	})
}

// Wrong options are refused before anything is done.
func TestOptionsAreChecked(t *testing.T) {
	for name, opts := range map[string]Options{
		"no tasks":   {},
		"twice":      {Tasks: []string{"a", "b", "a"}},
		"no name":    {Tasks: []string{"a", ""}},
		"too short":  {Tasks: []string{"a"}, Expiry: time.Millisecond},
		"a negative": {Tasks: []string{"a"}, Expiry: -time.Second},
	} {
		if err := assign(t.Context(), newFakeBucket().client(), nil, opts); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%s: %v; want ErrInvalid", name, err)
		}
	}
}

func TestFenced(t *testing.T) {
	other := errors.New("other")
	if err := Fenced(nil)("a", fmt.Errorf("%w", checkpoint.ErrFenced)); err != nil {
		t.Errorf("%v; want nil", err)
	}
	if err := Fenced(nil)("a", other); !errors.Is(err, other) {
		t.Errorf("%v; want what the task ended with", err)
	}
	if err := Fenced(func(string, error) error { return nil })("a", other); err != nil {
		t.Errorf("%v; want what next says", err)
	}
}

// Names of tasks make keys that NATS takes, and no two make the same.
func TestTaskKey(t *testing.T) {
	for task, want := range map[string]string{
		"orders/7": "task.orders/7", "a.b": "task.a=2Eb", "a b": "task.a=20b", "a=2Eb": "task.a=3D2Eb", ">": "task.=3E", "ü": "task.=C3=BC",
	} {
		if got := taskKey(task); got != want {
			t.Errorf("%q: %s; want %s", task, got, want)
		}
	}
}

// serve starts a server of NATS.
func serve(t *testing.T) jetstream.KeyValue {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "leases"})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// eventually waits until the tasks are divided like this.
func (w *world) eventually(when string, want ...int) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		parts, once := w.parts()
		if once && fmt.Sprint(parts) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s: %v, each by one process: %v; want %v", when, parts, once, want)
		}
	}
}

// What a fakeBucket plays, a server of NATS does.
func TestOnAServer(t *testing.T) {
	kv, w := serve(t), newWorld(t, 6)
	opts := Options{Expiry: 2 * time.Second}
	first, second := w.process("first", kv, opts, ""), w.process("second", kv, opts, "")
	w.eventually("two processes", 3, 3)
	third := w.process("third", kv, opts, "")
	w.eventually("three processes", 2, 2, 2)
	w.leave(second)
	w.eventually("one left", 3, 3)
	if _, err := kv.Put(context.Background(), taskKey(w.tasks[0]), holder{ID: "other", Name: "a stranger"}.encode()); err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(context.Background(), taskKey(w.tasks[1])); err != nil {
		t.Fatal(err)
	}
	time.Sleep(opts.Expiry) // both are lost
	w.eventually("leases were taken away", 3, 3)
	w.leave(first, third)
	keys, err := kv.Keys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if e, err := kv.Get(context.Background(), key); err != nil || decode(e.Value()).ID == first.name {
			t.Errorf("%s is left: %v", key, err)
		}
	}
}
