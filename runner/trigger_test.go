package runner

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// cutTimes are the times of a task's cuts since a moment.
func cutTimes(h *host, since time.Time) (times func() []time.Duration) {
	var list []time.Duration
	h.failWith(func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		list = append(list, time.Since(since))
		return nil
	})
	return func() []time.Duration {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.Clone(list)
	}
}

func TestIntervalAndJitter(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, h := w.own(w.runner(w.job(), Options{}), "a")
		times := cutTimes(h, time.Now())
		time.Sleep(time.Hour)
		list := times()
		if n := len(list); n < 57 || n > 63 {
			t.Fatalf("%d commits in an hour", n)
		}
		gaps := make(map[time.Duration]bool)
		for i := range list[1:] {
			gap := list[i+1] - list[i]
			gaps[gap] = true
			if gap < 57*time.Second || gap > 63*time.Second {
				t.Errorf("%v between two commits; expected 60 s and 5 %% of jitter", gap)
			}
		}
		if len(gaps) < 50 {
			t.Errorf("there are %d different gaps; expected jitter", len(gaps))
		}
	})
}

// The commits of many tasks are spread over the interval, from the first on.
func TestTasksAreSpread(t *testing.T) {
	now := time.Unix(0, 0)
	var places []time.Duration
	for i := range 200 {
		s := newSchedule("task "+strconv.Itoa(i), 1, &Options{Interval: time.Minute}, now)
		at, ok := s.wake()
		if !ok {
			t.Fatal("there is no tick")
		}
		places = append(places, at.Sub(now))
	}
	slices.Sort(places)
	if places[0] <= 0 || places[199] > time.Minute+1 {
		t.Errorf("from %v to %v", places[0], places[199])
	}
	for second := range 60 {
		n := 0
		for _, p := range places {
			if int(p/time.Second) == second {
				n++
			}
		}
		if n > 12 {
			t.Errorf("%d of 200 tasks commit in second %d of the interval", n, second)
		}
	}
	again := newSchedule("task 7", 9, &Options{Interval: time.Minute}, now)
	first := newSchedule("task 7", 1, &Options{Interval: time.Minute}, now)
	if !again.next.Equal(first.next) {
		t.Error("a task's place is not its own")
	}
}

// Tasks that were all committed at once go back to their places in the interval.
func TestTasksAreSpreadAfterACommitOfAll(t *testing.T) {
	start := time.Unix(0, 0)
	all := start.Add(30*time.Minute + 17*time.Second)
	perSecond := make(map[time.Duration]int)
	for i := range 200 {
		s := newSchedule("task "+strconv.Itoa(i), 1, &Options{Interval: time.Minute}, start)
		s.tick(all)
		s.succeeded(all, all.Add(time.Second), 0, false)
		next := s.next.Sub(all)
		if next < 28*time.Second || next > 92*time.Second {
			t.Errorf("the next tick is %v away; expected half an interval to one and a half", next)
		}
		perSecond[(next%time.Minute).Truncate(time.Second)]++
	}
	for second, n := range perSecond {
		if n > 12 {
			t.Errorf("%d of 200 tasks commit in second %v of the interval", n, second)
		}
	}
}

// An interval without a unit is refused: it would be nanoseconds.
func TestIntervalTooShort(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		if _, err := New(w.job(), Options{Interval: 10}); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("an interval of 10 ns: %v", err)
		}
		if err := w.runner(w.job(), Options{}).SetInterval(10); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("an interval of 10 ns: %v", err)
		}
	})
}

// Ticks that were missed are counted, however many they are.
func TestMissedTicks(t *testing.T) {
	start := time.Unix(0, 0)
	s := newSchedule("a", 1, &Options{Interval: time.Millisecond}, start)
	const year = 365 * 24 * time.Hour
	if n := s.tick(start.Add(year)); n < int(year/time.Millisecond)-2 || n > int(year/time.Millisecond) {
		t.Errorf("%d ticks coalesced in a year of milliseconds", n)
	}
	if !s.next.After(start.Add(year)) || s.next.After(start.Add(year+2*time.Millisecond)) {
		t.Errorf("the next tick is %v later", s.next.Sub(start.Add(year)))
	}
}

func TestManual(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, h := w.own(r, "a")
		time.Sleep(24 * time.Hour)
		if cuts, _ := h.counted(); cuts != 0 {
			t.Errorf("%d cuts without a request", cuts)
		}
		h.failWith(func() error { return errHost })
		if _, err := task.Commit(t.Context()); err == nil {
			t.Error("no error")
		}
		time.Sleep(24 * time.Hour)
		if cuts, _ := h.counted(); cuts != 1 {
			t.Errorf("%d cuts after one request that failed", cuts)
		}
		h.mustAdd(task) // and nothing is held back
	})
}

func TestSetInterval(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		_, h := w.own(r, "a")
		count := func(d time.Duration) int {
			before, _ := h.counted()
			time.Sleep(d)
			after, _ := h.counted()
			return after - before
		}
		for _, step := range []struct {
			interval    time.Duration
			least, most int
		}{{10 * time.Second, 56, 66}, {0, 9, 12}, {Manual, 0, 0}, {time.Second, 560, 660}} {
			if err := r.SetInterval(step.interval); err != nil {
				t.Fatal(err)
			}
			if n := count(10 * time.Minute); n < step.least || n > step.most {
				t.Errorf("%d commits in 10 min at an interval of %v", n, step.interval)
			}
		}
		if err := r.SetInterval(-time.Second); err == nil {
			t.Error("a negative interval is accepted")
		}
		_, h2 := w.own(r, "b")
		time.Sleep(10 * time.Second)
		if cuts, _ := h2.counted(); cuts < 8 {
			t.Errorf("%d cuts of a task that came after the change", cuts)
		}
	})
}

// The pause counts from the end of the commit before, for requests too.
func TestMinPause(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: time.Second, MinPause: 10 * time.Second})
		task, h := w.own(r, "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 5 * time.Second})
		times := cutTimes(h, time.Now())
		time.Sleep(50 * time.Second)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Second)
		list := times()
		if len(list) < 6 {
			t.Errorf("%d commits", len(list))
		}
		for i := range list[1:] {
			if gap := list[i+1] - list[i]; gap != 15*time.Second {
				t.Errorf("%v from one commit of 5 s to the next; expected 10 s between them", gap)
			}
		}
		h.mustAdd(task) // the pause does not count as delay
	})
}

// The interval is stretched so that cuts take no more than their share of the loop.
func TestMaxShare(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, h := w.own(w.runner(w.job(), Options{Interval: time.Second, MaxShare: 0.01}), "a")
		h.cutTakes(100 * time.Millisecond)
		times := cutTimes(h, time.Now())
		time.Sleep(100 * time.Second)
		list := times()
		if len(list) < 9 || len(list) > 12 {
			t.Errorf("%d cuts of 100 ms in 100 s; expected about 10, for one part in a hundred", len(list))
		}
		h.cutTakes(0)
		time.Sleep(100 * time.Second)
		if n := len(times()) - len(list); n < 80 {
			t.Errorf("%d cuts of no time in 100 s; expected about one a second again", n)
		}
	})
}

// A cut that is made beside the program for most of its time takes no share of the program's.
func TestMaxShareGoesByThePause(t *testing.T) {
	for _, c := range []struct {
		stood       time.Duration
		least, most int
	}{{0, 80, 100}, {10 * time.Millisecond, 80, 100}, {100 * time.Millisecond, 9, 12}} {
		inWorld(t, func(t *testing.T, w *world) {
			_, h := w.own(w.runner(w.job(), Options{Interval: time.Second, MaxShare: 0.01}), "a")
			h.mu.Lock()
			h.cutFor, h.stood = 100*time.Millisecond, &c.stood
			h.mu.Unlock()
			times := cutTimes(h, time.Now())
			time.Sleep(100 * time.Second)
			if n := len(times()); n < c.least || n > c.most {
				t.Errorf("%d cuts in 100 s, in which the program stood still for %v; expected %d to %d", n, c.stood, c.least, c.most)
			}
		})
	}
}

// A schedule never asks for an attempt while it has nothing due, nor for a time in
// the past that is none, whatever comes in whatever order.
func TestScheduleAnyOrder(t *testing.T) {
	start := time.Unix(1000, 0)
	for seed := range uint64(200) {
		o := &Options{Interval: 10 * time.Second, MinPause: time.Duration(seed%3) * time.Second, MaxDelay: 20 * time.Second, MaxShare: float64(seed%2) / 100}
		if seed%5 == 4 {
			o.Interval = Manual
		}
		s := newSchedule(fmt.Sprint(seed), 1, o, start)
		chance := newSchedule(fmt.Sprint("chance", seed), 1, o, start).chance
		now, ended := start, time.Time{}
		for range 300 {
			s.tick(now)
			at, ok := s.wake()
			if !ok && o.Interval != Manual {
				t.Fatalf("seed %d: it sleeps for good", seed)
			}
			if ok && at.Sub(now) > 2*o.Interval+maxRetry && o.MaxShare == 0 {
				t.Fatalf("seed %d: it sleeps for %v", seed, at.Sub(now))
			}
			if ok && !at.After(now) { // an attempt
				if s.due.IsZero() {
					t.Fatalf("seed %d: an attempt, and nothing is due", seed)
				}
				if !ended.IsZero() && now.Sub(ended) < o.MinPause {
					t.Fatalf("seed %d: an attempt %v after the last", seed, now.Sub(ended))
				}
				began := now
				now = now.Add(time.Duration(chance.IntN(30)) * time.Second)
				if chance.IntN(2) == 0 {
					s.succeeded(began, now, time.Duration(chance.IntN(100))*time.Millisecond, chance.IntN(4) == 0)
				} else {
					s.failed(now, chance.IntN(4) == 0)
				}
				ended = now
				continue
			}
			if chance.IntN(10) == 0 {
				s.request(now)
				if at, ok := s.wake(); !ok || at.After(now.Add(o.MinPause)) {
					t.Fatalf("seed %d: a request waits for %v", seed, at.Sub(now))
				}
			}
			step := time.Duration(chance.IntN(5000)) * time.Millisecond
			if ok {
				step = min(step, max(at.Sub(now), 1))
			}
			now = now.Add(step)
		}
	}
}
