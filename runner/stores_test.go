package runner

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// stores is a state of several stores, each its directory.
type stores struct {
	restored *Restored
	names    []string
	edit     func(map[string]checkpoint.Source)
}

func (s *stores) Cut(context.Context) (Cut, error) {
	cut := make(map[string]checkpoint.Source)
	for _, name := range s.names {
		cut[name] = checkpoint.Dir(s.restored.Dir(name))
	}
	if s.edit != nil {
		s.edit(cut)
	}
	return Cut{Stores: cut, Labels: map[string]string{"kind": "stores"}}, nil
}

func (s *stores) Close() error { return nil }

func ownStores(t *testing.T, r *Runner, dir string, edit func(*Spec), names ...string) (*Task, *stores, error) {
	s := &stores{names: names}
	spec := Spec{Dir: dir, Stores: names, Open: func(_ context.Context, restored *Restored) (Cutter, error) {
		s.restored = restored
		return s, nil
	}}
	if edit != nil {
		edit(&spec)
	}
	task, err := r.Own(t.Context(), "a", spec)
	return task, s, err
}

func (s *stores) write(t *testing.T, name string, size int) {
	t.Helper()
	data := []byte(strings.Repeat(name[:1], size))
	if err := os.WriteFile(filepath.Join(s.restored.Dir(name), "data"), data, 0o666); err != nil {
		t.Fatal(err)
	}
}

func (s *stores) size(name string) int64 {
	info, err := os.Stat(filepath.Join(s.restored.Dir(name), "data"))
	if err != nil {
		return -1
	}
	return info.Size()
}

// Named stores are restored each for itself: a new one begins empty, and one that
// is configured away is dropped only when asked.
func TestNamedStores(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, s, err := ownStores(t, r, w.dir, nil, "big", "small")
		if err != nil || !s.restored.IsNew("big") {
			t.Fatal(err)
		}
		s.write(t, "big", 1000)
		s.write(t, "small", 10)
		c, err := task.Commit(t.Context())
		if err != nil || c.Labels["kind"] != "stores" {
			t.Fatal(c, err)
		}
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}

		_, _, err = ownStores(t, r, t.TempDir(), nil, "small", "new")
		if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), "big") {
			t.Errorf("a store would be lost: %v", err)
		}
		drop := func(s *Spec) { s.Dropped = []string{"big"} }
		task, s, err = ownStores(t, r, t.TempDir(), drop, "small", "new")
		if err != nil {
			t.Fatal(err)
		}
		if s.restored.IsNew("small") || !s.restored.IsNew("new") || s.size("small") != 10 || s.size("new") != -1 {
			t.Errorf("small %d, new %d", s.size("small"), s.size("new"))
		}
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, _, err = ownStores(t, r, t.TempDir(), nil, "small", "new"); err != nil {
			t.Errorf("what was dropped is asked for again: %v", err)
		}
	})
}

// Stores are dropped only when asked, by a task that is to have no names for its state
// too; and a state without names does not become one of stores.
func TestStoresAndNone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, s, err := ownStores(t, r, w.dir, nil, "y", "x")
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, "x", 10)
		s.write(t, "y", 10)
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if got := w.newest("a").Labels; got[storesLabel] != "x/y" || got["kind"] != "stores" {
			t.Errorf("labels %q", got)
		}

		_, _, err = w.tryOwn(r, "a", func(s *Spec) { s.Dropped = []string{"x"} })
		if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), "lose: y;") {
			t.Errorf("a store would be lost: %v", err)
		}
		task, h := w.own(r, "a", func(s *Spec) { s.Dropped = []string{"x", "y"} })
		if !h.restored.IsNew("") {
			t.Error("the state is not new")
		}
		if entries, err := os.ReadDir(h.restored.Dir("")); err != nil || len(entries) > 0 {
			t.Errorf("it begins with %v, %v", entries, err)
		}
		h.mustAdd(task)
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}

		_, _, err = ownStores(t, r, w.dir, nil, "x")
		if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), `file "n"`) {
			t.Errorf("a state without stores would be lost: %v", err)
		}
		if _, h = w.own(r, "a"); h.sum() != 1 {
			t.Errorf("the state is %d", h.sum())
		}
	})
}

// A cut that lacks a store, or has another, is not committed.
func TestCutWithOtherStores(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, s, err := ownStores(t, r, w.dir, nil, "one", "two")
		if err != nil {
			t.Fatal(err)
		}
		for name, edit := range map[string]func(map[string]checkpoint.Source){
			"lacks":   func(cut map[string]checkpoint.Source) { delete(cut, "one") },
			"too":     func(cut map[string]checkpoint.Source) { cut["three"] = checkpoint.Dir(w.dir) },
			"unnamed": func(cut map[string]checkpoint.Source) { cut[""] = checkpoint.Dir(w.dir) },
		} {
			s.edit = edit
			if _, err := task.Commit(t.Context()); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		s.edit = nil
		if _, err := task.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The smallest store is restored first, unless an order is asked for; and each is
// reported on.
func TestRestoreOrderAndProgress(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual, Restores: 1})
		names := []string{"large", "small", "medium"}
		task, s, err := ownStores(t, r, w.dir, nil, names...)
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			s.write(t, name, []int{3000, 10, 200}[i])
		}
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		for _, inOrder := range []bool{false, true} {
			plan, err := (&Task{spec: Spec{Stores: names, InOrder: inOrder}}).plan(t.Context(), w.newest("a"))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range plan {
				got = append(got, p.store)
			}
			want := []string{"small", "medium", "large"}
			if inOrder {
				want = names
			}
			if !slices.Equal(got, want) {
				t.Errorf("in order: %v: %v", inOrder, got)
			}
		}
	})
}

// Stores are restored in the plan's order, one after the other if there is one place.
func TestRestoreOrder(t *testing.T) {
	names := []string{"large", "small", "medium", "empty"}
	for _, inOrder := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			r := w.runner(w.job(), Options{Interval: Manual, Restores: 1})
			task, s, err := ownStores(t, r, w.dir, nil, names...)
			if err != nil {
				t.Fatal(err)
			}
			for i, name := range names[:3] {
				s.write(t, name, []int{3000, 10, 200}[i])
			}
			if err := task.Release(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
			want := []string{"empty", "small", "medium", "large"}
			if inOrder {
				want = names
			}
			for range 10 {
				var got []string
				var mu sync.Mutex
				task, _, err := ownStores(t, r, t.TempDir(), func(s *Spec) {
					s.InOrder = inOrder
					s.Progress = func(store string, _ checkpoint.Progress) {
						mu.Lock()
						defer mu.Unlock()
						if !slices.Contains(got, store) {
							got = append(got, store)
						}
					}
				}, names...)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want) {
					t.Errorf("in order: %v: %v; expected %v", inOrder, got, want)
				}
				if err := task.Release(within(t, time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A store that is first in its task's order waits for the smaller ones of other tasks.
func TestOrderIsAmongTheStoresOfATask(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual, Restores: 1})
		task, s, err := ownStores(t, r, w.dir, nil, "large")
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, "large", 3000)
		small, h := w.own(r, "small")
		h.mustAdd(small)
		if err := errors.Join(task.Release(within(t, time.Minute)), small.Release(within(t, time.Minute))); err != nil {
			t.Fatal(err)
		}
		give, err := r.restores.take(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		restored := make(chan string, 2)
		progress := func(task string) func(string, checkpoint.Progress) {
			return func(string, checkpoint.Progress) {
				select {
				case restored <- task:
				default:
				}
			}
		}
		var own sync.WaitGroup
		own.Go(func() {
			_, _, err := ownStores(t, r, t.TempDir(), func(s *Spec) { s.InOrder, s.Progress = true, progress("large") }, "large")
			if err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		own.Go(func() {
			if _, _, err := w.tryOwn(r, "small", func(s *Spec) { s.Dir, s.Progress = t.TempDir(), progress("small") }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		give()
		if first := <-restored; first != "small" {
			t.Errorf("%s is restored first", first)
		}
		own.Wait()
	})
}

// A Spec that is refused costs nothing of what the directory has: a store that it has
// forgotten is used again when it is named again.
func TestRefusedSpecKeepsWhatIsThere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, s, err := ownStores(t, r, w.dir, nil, "a", "b")
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, "a", 10)
		s.write(t, "b", 10)
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ownStores(t, r, w.dir, nil, "a"); !errors.Is(err, backend.ErrInvalid) {
			t.Error(err)
		}
		if s.size("b") != 10 {
			t.Error("what was restored of the store that was forgotten is gone")
		}
	})
}

func (w *world) newest(name string) *checkpoint.Checkpoint {
	task, err := w.looker.Task(name)
	if err != nil {
		w.t.Fatal(err)
	}
	status, err := task.Status(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return status.Latest
}

// No more tasks upload at once than Options say, and none has a cut that waits for
// its turn: memory and disk are bounded however many tasks there are.
func TestUploadsAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const tasks, most = 50, 3
		job := w.job(func(s backend.Store) backend.Store {
			return &tap{Store: s, before: func(string, string) { time.Sleep(time.Second) }}
		})
		r := w.runner(job, Options{Interval: Manual, Commits: most})
		var hosts []*host
		var mu sync.Mutex
		atOnce := 0
		for i := range tasks {
			_, h := w.own(r, strconv.Itoa(i))
			h.failWith(func() error {
				time.Sleep(time.Millisecond) // for those that cut at the same time
				n := 1
				for _, h := range hosts {
					_, inUse := h.counted()
					n += inUse
				}
				mu.Lock()
				defer mu.Unlock()
				atOnce = max(atOnce, n)
				return nil
			})
			hosts = append(hosts, h)
		}
		began := time.Now()
		if err := r.CommitAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if atOnce != most {
			t.Errorf("%d cuts at once; expected %d", atOnce, most)
		}
		wantAfter(t, began, tasks/most*time.Second, (tasks/most+2)*time.Second)
	})
}

func TestPool(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := newPool(1)
		give, err := p.take(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		var all sync.WaitGroup
		for i, rank := range []int64{3, 1, 2, 1} {
			all.Go(func() {
				give, err := p.take(context.Background(), rank)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				give()
				give() // once more does nothing
			})
			time.Sleep(time.Second)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errHost)
		defer cancel()
		if _, err := p.take(ctx, 0); !errors.Is(err, errHost) {
			t.Error(err)
		}
		give()
		all.Wait()
		if !slices.Equal(order, []int{1, 3, 2, 0}) {
			t.Errorf("%v", order)
		}
		if p.free != 1 || len(p.waiting) != 0 {
			t.Errorf("%d places are free, %d wait", p.free, len(p.waiting))
		}
	})
}

// A place that comes when its waiter gives up goes to the next.
func TestPoolPassesOn(t *testing.T) {
	p := newPool(1)
	w := &waiter{turn: make(chan struct{})}
	p.free, p.waiting = 0, []*waiter{w}
	p.give() // it is w's
	p.giveUp(w)
	if p.free != 1 {
		t.Errorf("%d places are free", p.free)
	}
}

// The turn to upload ends when the cut is gone, and before the hook after it, which
// may take long.
func TestTurnEndsWithTheCut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual, Commits: 1})
		free := func() int {
			r.commits.mu.Lock()
			defer r.commits.mu.Unlock()
			return r.commits.free
		}
		cutter := cutterFunc(func(context.Context) (Cut, error) {
			return Cut{Done: func(*checkpoint.Checkpoint, error) {
				if free() != 0 {
					t.Error("others have a cut before this one is gone")
				}
			}}, nil
		})
		task, err := r.Own(t.Context(), "a", Spec{
			Dir:  w.dir,
			Open: func(context.Context, *Restored) (Cutter, error) { return cutter, nil },
			Hooks: Hooks{After: func(context.Context, *checkpoint.Checkpoint) error {
				if free() != 1 {
					t.Error("others wait for the hook")
				}
				return nil
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := task.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A cutterFunc has offsets only, or whatever it returns.
type cutterFunc func(context.Context) (Cut, error)

func (f cutterFunc) Cut(ctx context.Context) (Cut, error) { return f(ctx) }
func (f cutterFunc) Close() error                         { return nil }

// No more stores are restored at once than Options say, whatever tasks they are of.
func TestRestoresAreBounded(t *testing.T) {
	const tasks = 6
	for _, most := range []int{1, 3} {
		inWorld(t, func(t *testing.T, w *world) {
			var store *faultstore.Store
			r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, Restores: most})
			data := make([]byte, 200<<10)
			rand.Read(data)
			own := func(i int, dir string) (*Task, error) {
				return r.Own(context.Background(), strconv.Itoa(i), Spec{
					Dir: filepath.Join(dir, strconv.Itoa(i)),
					Open: func(_ context.Context, restored *Restored) (Cutter, error) {
						file := filepath.Join(restored.Dir(""), "data")
						return dirCutter(restored.Dir("")), os.WriteFile(file, data, 0o666)
					},
				})
			}
			for i := range tasks {
				task, err := own(i, w.dir)
				if err != nil {
					t.Fatal(err)
				}
				if err := task.Release(within(t, time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "get", Key: "/segments/", For: time.Second})
			elsewhere := t.TempDir()
			began := time.Now()
			var all sync.WaitGroup
			for i := range tasks {
				all.Go(func() {
					if _, err := own(i, elsewhere); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			each := time.Since(began) * time.Duration(most) / tasks
			if each < time.Second || each > 4*time.Second || each%time.Second != 0 {
				t.Errorf("%d at once: %v for each restore; expected a few requests of 1 s", most, each)
			}
			store.Disarm()
		})
	}
}
