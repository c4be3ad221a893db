package runner

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// follow makes a runner follow a task, in a directory of another host.
func (w *world) follow(r *Runner, name, host string) *Standby {
	w.t.Helper()
	s, err := r.Follow(context.Background(), name, FollowSpec{Dir: filepath.Join(w.dir, host)})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// promote promotes a standby with a host.
func (w *world) promote(s *Standby) (*Task, *host, error) {
	h := &host{t: w.t}
	task, err := s.Promote(w.t.Context(), Spec{Open: h.open})
	return task, h, err
}

// wantKept fails unless the directory of a standby has a state.
func (w *world) wantKept(s *Standby, n int) {
	w.t.Helper()
	synctest.Wait()
	data, err := os.ReadFile(filepath.Join(s.dir.store(""), "n"))
	if err != nil || string(data) != strconv.Itoa(n) {
		w.t.Errorf("the directory has %q (%v); want %d", data, err, n)
	}
}

// crash is a fault that ends a process at its next call.
var crash = faultstore.Fault{Kind: faultstore.CrashFirst}

// crashing returns a runner, and a function that ends its process without a word.
func (w *world) crashing(opts Options) (*Runner, func()) {
	var store *faultstore.Store
	r := w.runner(w.job(faulty(&store)), opts)
	return r, func() { store.Arm(crash) }
}

// A standby keeps its directory at the newest checkpoint, and sends one request, a read, for
// each look at a task that rests.
func TestStandbyFollows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		job := w.job()
		s := w.follow(w.runner(job, Options{}), "a", "b")
		for n := range 3 {
			for range n { // of several checkpoints, the last
				h.mustAdd(task)
				if _, err := task.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(1500 * time.Millisecond)
			if n > 0 {
				w.wantKept(s, h.sum())
			}
		}
		if c := s.Checkpoint(); c == nil || c.Seq != task.seq {
			t.Errorf("it has checkpoint %v; want %d", c, task.seq)
		}
		if lag := s.Lag(); lag > time.Second {
			t.Errorf("the lag is %v; want less than the interval", lag)
		}
		before := job.Stats()
		time.Sleep(time.Hour)
		now := job.Stats()
		gets, lists := now.Get.Calls-before.Get.Calls, now.List.Calls-before.List.Calls
		if gets < 3500 || gets > 3700 || lists < 30 || lists > 40 || now.Put != before.Put || now.Create != before.Create {
			t.Errorf("an idle hour took %d reads and %d listings: %+v", gets, lists, now)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		w.follow(s.runner, "a", "b") // the directory is free again
	})
}

// A standby whose directory has the last checkpoint already does not read it: it claims, and
// opens. What it lacks is all that it fetches.
func TestPromote(t *testing.T) {
	for name, delta := range map[string]bool{"nothing is missing": false, "the last checkpoint is missing": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				owner, kill := w.crashing(Options{Interval: Manual})
				task, h := w.own(owner, "a")
				h.mustAdd(task)
				if _, err := task.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				s := w.follow(w.runner(w.job(), Options{Interval: Manual}), "a", "b")
				time.Sleep(5 * time.Second)
				if delta {
					h.mustAdd(task)
					if _, err := task.Commit(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				kill()
				before, err := os.Stat(s.dir.store(""))
				if err != nil {
					t.Fatal(err)
				}
				next, heir, err := w.promote(s)
				if err != nil {
					t.Fatal(err)
				}
				after, err := os.Stat(s.dir.store(""))
				if err != nil || os.SameFile(before, after) == delta {
					t.Errorf("the directory was restored once more: %v; want %v (%v)", !os.SameFile(before, after), delta, err)
				}
				if heir.sum() != h.sum() {
					t.Errorf("it goes on from %d; want %d", heir.sum(), h.sum())
				}
				heir.mustAdd(next)
				if _, err := next.Commit(t.Context()); err != nil {
					t.Error(err)
				}
				if _, n := w.latest("a"); n != h.sum()+1 {
					t.Errorf("%d is committed", n)
				}
				<-s.Done()
				if _, _, err := w.promote(s); err == nil {
					t.Error("it was promoted twice")
				}
			})
		})
	}
}

// A standby of a task with named stores keeps each where the task looks for it.
func TestPromoteStores(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stores := []string{"x", "y"}
		spec := func(s *Spec) {
			s.Stores = stores
			s.Open = func(context.Context, *Restored) (Cutter, error) { return storesOf(stores), nil }
		}
		owner, kill := w.crashing(Options{Interval: Manual})
		task, _ := w.own(owner, "a", spec)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := w.follow(w.runner(w.job(), Options{Interval: Manual}), "a", "b")
		time.Sleep(5 * time.Second)
		kill()
		before, err := os.Stat(filepath.Join(s.dir.store("x"), "file"))
		if err != nil {
			t.Fatal(err)
		}
		stores = append(stores, "z") // that one is new
		next, err := s.Promote(t.Context(), Spec{Stores: stores, Open: func(_ context.Context, r *Restored) (Cutter, error) {
			for _, store := range stores {
				data, err := os.ReadFile(filepath.Join(r.Dir(store), "file"))
				if r.IsNew(store) != (store == "z") || !r.IsNew(store) && (err != nil || string(data) != "state of "+store) {
					t.Errorf("store %s has %q (%v), and is new: %v", store, data, err, r.IsNew(store))
				}
			}
			return storesOf(stores), nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(filepath.Join(s.dir.store("x"), "file"))
		if err != nil || !os.SameFile(before, after) {
			t.Errorf("store x was restored once more (%v)", err)
		}
		if _, err := next.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// storesOf is a Cutter of named stores.
type storesOf []string

func (names storesOf) Cut(context.Context) (Cut, error) {
	cut := Cut{Stores: make(map[string]checkpoint.Source)}
	for _, store := range names {
		cut.Stores[store] = checkpoint.Stream("file", strings.NewReader("state of "+store))
	}
	return cut, nil
}

func (storesOf) Close() error { return nil }

// Wait returns when the owner was silent for long enough, and not before, whether it commits
// or sends heartbeats.
func TestWaitForSilence(t *testing.T) {
	for name, opts := range map[string]Options{
		"commits":    {Interval: time.Second},
		"heartbeats": {Interval: Manual, Heartbeat: time.Second},
		"both":       {Interval: 10 * time.Second, Heartbeat: 900 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				owner, kill := w.crashing(opts)
				task, h := w.own(owner, "a")
				s := w.follow(w.runner(w.job(), Options{Interval: Manual}), "a", "b")
				killed := make(chan time.Time, 1)
				go func() {
					for range 100 {
						_ = h.add(t.Context(), task)
						time.Sleep(time.Second)
					}
					kill()
					killed <- time.Now()
				}()
				why, err := s.Wait(t.Context(), 4*time.Second)
				if why != WentSilent || err != nil {
					t.Errorf("%q, %v; want silent", why, err)
				}
				wantAfter(t, <-killed, 2*time.Second, 6*time.Second)
				next, heir, err := w.promote(s)
				if err != nil {
					t.Fatal(err)
				}
				if _, n := w.latest("a"); heir.sum() != n {
					t.Errorf("it goes on from %d of %d", heir.sum(), n)
				}
				heir.mustAdd(next)
			})
		})
	}
}

func TestWaitForAnOrderlyEnd(t *testing.T) {
	for want, end := range map[Why]func(*Task) error{
		WasReleased: func(task *Task) error { return task.Release(context.Background()) },
		WasDeleted: func(task *Task) error {
			in, err := task.runner.job.Task("a")
			if err == nil {
				_, err = in.Delete(context.Background(), checkpoint.DeleteOptions{Fence: true})
			}
			return err
		},
	} {
		t.Run(string(want), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				task, h := w.own(w.runner(w.job(), Options{Interval: Manual, Heartbeat: time.Second}), "a")
				h.mustAdd(task)
				if _, err := task.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				s := w.follow(w.runner(w.job(), Options{Interval: Manual}), "a", "b")
				ended := make(chan time.Time, 1)
				go func() {
					time.Sleep(10 * time.Minute)
					if err := end(task); err != nil {
						t.Error(err)
					}
					ended <- time.Now()
				}()
				if why, err := s.Wait(t.Context(), 0); why != want || err != nil {
					t.Errorf("%q, %v; want %q", why, err, want)
				}
				wantAfter(t, <-ended, 0, time.Second)
				if _, _, err := w.promote(s); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A wrong suspicion is safe: the owner that lives is fenced, and what it acknowledged is what
// the next one goes on from.
func TestWrongSuspicion(t *testing.T) {
	for name, heartbeat := range map[string]time.Duration{"it learns of it by a commit": 0, "it learns of it by a heartbeat": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				task, h := w.own(w.runner(w.job(), Options{Interval: Manual, Heartbeat: heartbeat}), "a")
				h.mustAdd(task)
				if _, err := task.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				s := w.follow(w.runner(w.job(), Options{Interval: Manual}), "a", "b")
				if why, err := s.Wait(t.Context(), 5*time.Second); why != WentSilent || err != nil {
					t.Fatalf("%q, %v", why, err)
				}
				h.mustAdd(task) // it still processes
				next, heir, err := w.promote(s)
				if err != nil {
					t.Fatal(err)
				}
				if heir.sum() != 1 {
					t.Errorf("it goes on from %d; want what was acknowledged, 1", heir.sum())
				}
				if heartbeat > 0 {
					time.Sleep(heartbeat)
				} else if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrFenced) {
					t.Errorf("the owner that was suspected commits: %v", err)
				}
				wantCause(t, task, checkpoint.ErrFenced)
				heir.mustAdd(next)
				if c, err := next.Commit(t.Context()); err != nil || c.Offsets["in"] != "2" {
					t.Errorf("%v, %v", c, err)
				}
			})
		})
	}
}

// What others write is no sign of life of the owner.
func TestNoSignOfLife(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		// The first owner was fenced, and does not know it: it is cut off from the manifests.
		var store *faultstore.Store
		first := w.runner(w.job(faulty(&store)), Options{Interval: Manual})
		task, h := w.own(first, "a")
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		second, kill := w.crashing(Options{Interval: Manual})
		w.own(second, "a", func(s *Spec) { s.Dir += "-2" })
		kill()
		s := w.follow(w.runner(w.job(), Options{Interval: Manual}), "a", "b")
		stop := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			in, err := w.looker.Task("a")
			if err != nil {
				t.Error(err)
			}
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
				}
				unlock := lockOwner(task.owner) // so that it does not look before it beats
				if err := task.owner.Heartbeat(context.Background()); err != nil {
					t.Error(err)
				}
				unlock()
				if _, err := in.Annotate(context.Background(), checkpoint.Ref{}, checkpoint.Note{Text: fmt.Sprint(n)}); err != nil {
					t.Error(err)
				}
			}
		}()
		began := time.Now()
		if why, err := s.Wait(within(t, time.Minute), 10*time.Second); why != WentSilent || err != nil {
			t.Errorf("%q, %v; want silent", why, err)
		}
		wantAfter(t, began, 10*time.Second, 13*time.Second)
		close(stop)
		<-ended
	})
}

// lockOwner keeps an owner in a call until the returned function is called.
func lockOwner(o *checkpoint.Owner) (unlock func()) {
	hold, held, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		state := checkpoint.Stream("n", readerFunc(func([]byte) (int, error) {
			select {
			case <-held:
			default:
				close(held)
			}
			<-hold
			return 0, errHost
		}))
		_, _ = o.Commit(context.Background(), checkpoint.Snapshot{State: state}) // it fails
	}()
	<-held
	return func() {
		close(hold)
		<-ended
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Time in which the standby cannot look is not the owner's silence.
func TestOutageIsNoSilence(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var ownersStore, store *faultstore.Store
		task, _ := w.own(w.runner(w.job(faulty(&ownersStore)), Options{Interval: Manual, Heartbeat: time.Second}), "a")
		reader := sdkmetric.NewManualReader()
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
		s := w.follow(r, "a", "b")
		ctx, cancel := context.WithCancelCause(t.Context())
		waited := make(chan Why)
		go func() {
			why, _ := s.Wait(ctx, time.Minute)
			waited <- why
		}()
		time.Sleep(10 * time.Second)
		for range 5 {
			outage := faultstore.Fault{Kind: faultstore.FailBefore, Err: backend.ErrThrottled}
			store.Arm(outage)
			ownersStore.Arm(outage)
			time.Sleep(5 * time.Minute)
			store.Heal()
			time.Sleep(20 * time.Second) // the standby looks before the owner has told that it lives
			ownersStore.Heal()
			time.Sleep(5 * time.Minute)
		}
		cancel(errHost)
		if why := <-waited; why != "" {
			t.Errorf("the owner was thought %s", why)
		}
		if err := task.Context().Err(); err != nil {
			t.Error(err)
		}
		if n := metrics(t, reader)["holdfast.standby.failures look"]; n < 5 {
			t.Errorf("%v failures were counted", n)
		}
	})
}

// Of two standbys that see the same silence, one takes over, and the other fences nobody.
func TestTwoStandbys(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		owner, kill := w.crashing(Options{Interval: Manual})
		w.own(owner, "a")
		var standbys []*Standby
		for _, host := range []string{"b", "c"} {
			standbys = append(standbys, w.follow(w.runner(w.job(), Options{Interval: Manual}), "a", host))
		}
		kill()
		type result struct {
			task *Task
			err  error
		}
		results := make(chan result)
		var suspect, promoted sync.WaitGroup
		suspect.Add(2)
		promoted.Add(1)
		for i, s := range standbys {
			go func() {
				if why, err := s.Wait(t.Context(), 3*time.Second); why != WentSilent || err != nil {
					t.Errorf("%q, %v", why, err)
				}
				suspect.Done()
				suspect.Wait()
				if i == 1 { // it has even seen that the other one has the task
					promoted.Wait()
					time.Sleep(2 * time.Second)
				}
				task, _, err := w.promote(s)
				if i == 0 {
					promoted.Done()
				}
				results <- result{task, err}
			}()
		}
		a, b := <-results, <-results
		if a.err != nil {
			a, b = b, a
		}
		if a.err != nil || !errors.Is(b.err, checkpoint.ErrConflict) {
			t.Fatalf("%v, %v; want one to win, and ErrConflict", a.err, b.err)
		}
		if _, err := a.task.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		for _, s := range standbys { // whoever lost can follow again
			<-s.Done()
			if _, err := s.runner.Follow(t.Context(), "a", s.spec); (err == nil) == (a.task.runner == s.runner) {
				t.Errorf("following again: %v", err)
			}
		}
	})
}

// An owner gives signs of life while it is restored, while a commit takes long, and until it
// has released the task; and none beside commits that come more often.
func TestHeartbeats(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		job := w.job()
		in, err := job.Task("a")
		if err != nil {
			t.Fatal(err)
		}
		beats := func() uint64 {
			h, err := in.LastHeartbeat(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if h == nil {
				return 0
			}
			return h.N
		}
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, Heartbeat: 2 * time.Second})
		opening := false
		task, h := w.own(r, "a", func(s *Spec) {
			open := s.Open
			s.Open = func(ctx context.Context, restored *Restored) (Cutter, error) {
				opening = true
				time.Sleep(21 * time.Second)
				return open(ctx, restored)
			}
		})
		if n := beats(); !opening || n != 10 {
			t.Errorf("%d heartbeats while it was opened; want 10", n)
		}
		if err := r.SetInterval(1500 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		before := r.job.Stats()
		for range 60 {
			h.mustAdd(task)
			time.Sleep(time.Second)
		}
		if now := r.job.Stats(); now.Put != before.Put || now.Get != before.Get || now.List != before.List {
			t.Errorf("an owner that commits often sent more than its commits: %+v, %+v", before, now)
		}
		if err := r.SetInterval(Manual); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		n := beats()
		h.cutTakes(20 * time.Second)
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if more := beats() - n; more < 9 || more > 11 {
			t.Errorf("%d heartbeats during the last commit; want 10", more)
		}
		n = beats()
		time.Sleep(time.Minute)
		if beats() != n {
			t.Error("it goes on after the release")
		}
	})
}

func TestFollowRefuses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{})
		s := w.follow(r, "a", "x")
		for name, c := range map[string]struct {
			task string
			spec FollowSpec
			want error
		}{
			"no directory":          {"b", FollowSpec{}, backend.ErrInvalid},
			"a bad interval":        {"b", FollowSpec{Dir: w.dir, Interval: -1}, backend.ErrInvalid},
			"a state to adopt":      {"b", FollowSpec{Dir: w.dir, State: &StateDir{Path: w.dir + "2", Job: "mem://a", Adopt: true}}, backend.ErrInvalid},
			"a bad name":            {"\n", FollowSpec{Dir: w.dir}, backend.ErrInvalid},
			"followed already":      {"a", FollowSpec{Dir: filepath.Join(w.dir, "y")}, backend.ErrInvalid},
			"the directory is used": {"b", FollowSpec{Dir: filepath.Join(w.dir, "x")}, ErrDirInUse},
		} {
			if _, err := r.Follow(t.Context(), c.task, c.spec); !errors.Is(err, c.want) {
				t.Errorf("%s: %v; want %v", name, err, c.want)
			}
		}
		for name, spec := range map[string]Spec{
			"no Open":           {},
			"another directory": {Dir: w.dir, Open: (&host{t: t}).open},
			"an epoch":          {IfEpoch: new(uint64(1)), Open: (&host{t: t}).open},
			"another state":     {State: &StateDir{Path: w.dir, Job: "mem://a"}, Open: (&host{t: t}).open},
		} {
			if _, err := s.Promote(t.Context(), spec); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := s.Wait(t.Context(), -1); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("a bad silence: %v", err)
		}
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		<-s.Done()
		if _, err := r.Follow(t.Context(), "b", FollowSpec{Dir: w.dir}); !errors.Is(err, ErrDrained) {
			t.Errorf("after a drain: %v", err)
		}
		if _, _, err := w.promote(s); err == nil {
			t.Error("promoted after a drain")
		}
	})
}

// A standby ends with its context, and its directory is free then.
func TestStandbyEndsWithItsContext(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{})
		ctx, cancel := context.WithCancel(t.Context())
		s, err := r.Follow(ctx, "a", FollowSpec{Dir: filepath.Join(w.dir, "b")})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		cancel()
		if why, err := s.Wait(context.Background(), time.Second); why != "" || !errors.Is(err, context.Canceled) {
			t.Errorf("%q, %v", why, err)
		}
		<-s.Done()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		w.follow(r, "a", "b")
	})
}

// A noisyState is a Cutter whose state is too large for a manifest.
type noisyState struct{ dir string }

func (n noisyState) Cut(context.Context) (Cut, error) {
	return Cut{Stores: map[string]checkpoint.Source{"": checkpoint.Dir(n.dir)}}, nil
}

func (n noisyState) Close() error { return nil }

// Promote waits for a restore that is under way, but not for longer than its context lets it.
func TestPromoteEndsWithItsContext(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		spec := Spec{Dir: filepath.Join(w.dir, "a"), Open: func(_ context.Context, r *Restored) (Cutter, error) {
			noise := make([]byte, 100<<10)
			_, _ = rand.Read(noise)
			return noisyState{r.Dir("")}, os.WriteFile(filepath.Join(r.Dir(""), "f"), noise, 0o600)
		}}
		owner := w.runner(w.job(), Options{Interval: Manual})
		task, err := owner.Own(t.Context(), "a", spec)
		if err == nil {
			_, err = task.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual})
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "get", Key: "segments", For: 24 * time.Hour})
		s := w.follow(r, "a", "b")
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if _, err := s.Promote(ctx, Spec{Open: spec.Open}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v; want a time-out", err)
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}
