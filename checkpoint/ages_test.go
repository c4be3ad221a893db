package checkpoint_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

const day = 24 * time.Hour

// In a skewed world, the test sets the clocks of the store and the machine: how far
// they are ahead of the bubble's clock, which is the real time.
type skewed struct {
	*world
	store, wall shift
	n           int
	owner       *checkpoint.Owner // nil if checkpoints are saved by one-off saves
}

// A shift is the error of a clock. Clean-ups read the clocks in the background, so it
// is atomic.
type shift struct{ by atomic.Int64 }

func (s *shift) get() time.Duration   { return time.Duration(s.by.Load()) }
func (s *shift) set(by time.Duration) { s.by.Store(int64(by)) }

func inSkewedWorld(t *testing.T, f func(*skewed)) {
	inWorld(t, func(w *world) { f(skew(w)) })
}

func skew(w *world) *skewed {
	s := &skewed{world: w}
	w.bucket = mem.NewBucket(func() time.Time { return time.Now().Add(s.store.get()) })
	w.machine = func() time.Time { return time.Now().Add(s.wall.get()) }
	return s
}

// byBoth runs f with one owner that commits again and again, and with one-off saves.
func byBoth(t *testing.T, keep checkpoint.Retention, f func(*testing.T, *skewed)) {
	opts := checkpoint.Options{Memory: 1 << 20, Retention: keep}
	t.Run("an owner", func(t *testing.T) {
		inSkewedWorld(t, func(s *skewed) {
			s.owner, _ = s.ownerWith(opts)
			f(t, s)
		})
	})
	t.Run("saves", func(t *testing.T) {
		inSkewedWorld(t, func(s *skewed) { f(t, s) })
	})
}

// save commits the next checkpoint. If savepoint is not "", it is a savepoint of that
// name.
func (s *skewed) save(keep checkpoint.Retention, savepoint string, expires time.Duration) {
	s.Helper()
	s.n++
	snapshot := at(s.n)
	snapshot.Savepoint, snapshot.SavepointExpiresAfter = savepoint, expires
	var err error
	if s.owner != nil {
		_, err = s.owner.Commit(s.Context(), snapshot)
	} else {
		task, _, _ := s.open(checkpoint.Options{Retention: keep})
		_, err = task.Save(s.Context(), snapshot, checkpoint.SaveOptions{})
	}
	if err != nil {
		s.Fatal(err)
	}
}

// saveAt commits one checkpoint while the store's clock is ahead by the given time.
func (s *skewed) saveAt(keep checkpoint.Retention, ahead time.Duration) {
	s.Helper()
	s.store.set(s.store.get() + ahead)
	s.save(keep, "", 0)
	s.store.set(s.store.get() - ahead)
}

// If one commit has a time far in the future, no checkpoint is removed because of it,
// and it is not kept longer than others.
func TestOneTimeFarAhead(t *testing.T) {
	keep := checkpoint.Retention{Within: 7 * day}
	for _, ahead := range []time.Duration{8 * day, 365 * day, 100 * 365 * day} {
		byBoth(t, keep, func(t *testing.T, s *skewed) {
			s.save(keep, "release", 30*day) // 1
			for range 3 {
				time.Sleep(day)
				s.save(keep, "", 0)
			}
			time.Sleep(day)
			s.saveAt(keep, ahead) // 5
			for range 3 {
				time.Sleep(day)
				s.save(keep, "", 0) // the checkpoints before decide what this one drops
			}
			s.wantHistory("8 7 6 5 4 3 2 1")
			for range 7 {
				time.Sleep(day)
				s.save(keep, "", 0)
			}
			s.wantHistory("15 14 13 12 11 10 9 8 7 1") // number 5 was removed together with the one after it
			for range 19 {
				time.Sleep(day)
				s.save(keep, "", 0)
			}
			if h := s.history(); strings.HasSuffix(h, " 1") {
				t.Errorf("the savepoint of 30 days is there after 33: %s", h)
			}
		})
	}
}

// A savepoint with a time far in the future expires when it should.
func TestSavepointFarAhead(t *testing.T) {
	keep := checkpoint.Retention{Last: 2}
	byBoth(t, keep, func(t *testing.T, s *skewed) {
		s.save(keep, "", 0)
		s.store.set(365 * day)
		s.save(keep, "night", 3*day) // 2
		s.store.set(0)
		var days int
		for days = 1; days < 10; days++ {
			time.Sleep(day)
			s.save(keep, "", 0)
			if !strings.Contains(s.history()+" ", " 2 ") {
				break
			}
		}
		if days < 4 || days > 6 {
			t.Errorf("a savepoint of 3 days was dropped on day %d", days)
		}
	})
}

// If one commit has a time far in the past, nothing is removed because of it, and it
// is not removed too early.
func TestOneTimeFarBack(t *testing.T) {
	keep := checkpoint.Retention{Within: 7 * day}
	for _, back := range []time.Duration{3 * day, 365 * day, 29 * 365 * day} {
		byBoth(t, keep, func(t *testing.T, s *skewed) {
			s.save(keep, "release", 30*day) // 1
			for range 3 {
				time.Sleep(day)
				s.save(keep, "", 0)
			}
			time.Sleep(day)
			s.saveAt(keep, -back) // 5
			for range 3 {
				time.Sleep(day)
				s.save(keep, "", 0)
			}
			s.wantHistory("8 7 6 5 4 3 2 1")
			for range 7 {
				time.Sleep(day)
				s.save(keep, "", 0)
			}
			s.wantHistory("15 14 13 12 11 10 9 8 7 1")
		})
	}
}

// A savepoint with a time far in the past does not expire at once.
func TestSavepointFarBack(t *testing.T) {
	keep := checkpoint.Retention{Last: 2}
	byBoth(t, keep, func(t *testing.T, s *skewed) {
		s.save(keep, "", 0)
		s.store.set(-29 * 365 * day)
		s.save(keep, "night", 3*day) // 2
		s.store.set(0)
		for range 3 {
			time.Sleep(day)
			s.save(keep, "", 0)
		}
		s.wantHistory("5 4 2")
		for range 3 {
			time.Sleep(day)
			s.save(keep, "", 0)
		}
		s.wantHistory("8 7")
	})
}

// The store's clock is set back permanently, from a year ahead to the right time, or
// from the right time to a year behind. The existing checkpoints are kept as if they
// had been made at that moment, and later ones age normally.
func TestStoreClockIsSetBack(t *testing.T) {
	keep := checkpoint.Retention{Within: 7 * day, Daily: 3}
	for _, c := range []struct{ before, after time.Duration }{{365 * day, 0}, {0, -365 * day}, {2 * day, 0}, {0, -2 * day}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			byBoth(t, keep, func(t *testing.T, s *skewed) {
				s.store.set(c.before)
				for range 8 {
					time.Sleep(day)
					s.save(keep, "", 0)
				}
				s.wantHistory("8 7 6 5 4 3 2 1")
				s.store.set(c.after)
				for range 4 {
					time.Sleep(day)
					s.save(keep, "", 0)
				}
				for _, n := range []string{" 8 ", " 7 ", " 6 "} {
					if !strings.Contains(s.history(), n) {
						t.Errorf("after 4 days%sis gone: %s", n, s.history())
					}
				}
				for range 16 {
					time.Sleep(day)
					s.save(keep, "", 0)
				}
				if n := len(strings.Fields(s.history())); n > 11 {
					t.Errorf("after 20 days there are %d: %s", n, s.history())
				}
			})
		})
	}
}

// The machine of the owner is also the store. Its clock is a year ahead for an hour.
// The owner's measure of elapsed time does not jump.
func TestOwnerOutlivesAWrongClock(t *testing.T) {
	keep := checkpoint.Retention{Within: 7 * day, Last: 1}
	inSkewedWorld(t, func(s *skewed) {
		s.owner, _ = s.ownerWith(checkpoint.Options{Retention: keep})
		s.save(keep, "release", 30*day) // 1
		for range 6 {
			time.Sleep(day)
			s.save(keep, "", 0)
		}
		s.store.set(365 * day)
		s.wall.set(365 * day)
		for range 60 {
			time.Sleep(time.Minute)
			s.save(keep, "", 0)
		}
		s.store.set(0)
		s.wall.set(0)
		for range 2 {
			time.Sleep(time.Minute)
			s.save(keep, "", 0)
		}
		synctest.Wait()
		if h := s.history(); !strings.HasSuffix(h, " 7 6 5 4 3 2 1") {
			t.Errorf("what a week had kept is gone: %s", h)
		}
		time.Sleep(8 * day)
		s.save(keep, "", 0)
		s.save(keep, "", 0)
		if n := len(strings.Fields(s.history())); n > 65 {
			t.Errorf("a week later %d are there: %s", n, s.history())
		}
		time.Sleep(8 * day)
		s.save(keep, "", 0)
		s.save(keep, "", 0)
		s.save(keep, "", 0)
		s.wantHistory("74 73 72 1")
	})
}

// After a machine was suspended, its owner learns the store's time again.
func TestOwnerThatWasSuspended(t *testing.T) {
	keep := checkpoint.Retention{Within: 2 * day, Last: 1}
	inSkewedWorld(t, func(s *skewed) {
		s.owner, _ = s.ownerWith(checkpoint.Options{Retention: keep})
		s.save(keep, "", 0)
		s.store.set(10 * day) // no time has passed for the process
		s.wall.set(10 * day)
		for range 24 {
			time.Sleep(12 * time.Hour)
			s.save(keep, "", 0)
		}
		if n := len(strings.Fields(s.history())); n > 6 {
			t.Errorf("12 days later there are %d: %s", n, s.history())
		}
	})
}

// A machine's clock that is always wrong does not change what is kept.
func TestMachineWithAWrongClock(t *testing.T) {
	keep := checkpoint.Retention{Within: 3 * day, Daily: 2}
	for _, wall := range []time.Duration{-20 * 365 * day, -5 * day, -time.Hour, time.Hour, 365 * day} {
		byBoth(t, keep, func(t *testing.T, s *skewed) {
			s.wall.set(wall)
			for range 10 {
				time.Sleep(day)
				s.save(keep, "", 0)
			}
			h := s.history()
			if !strings.HasPrefix(h, "10 9 8 7") || len(strings.Fields(h)) > 6 {
				t.Errorf("with the machine's clock %v ahead there are %s", wall, h)
			}
		})
	}
}

// A time far in the future or past takes the place of one hour, day, week or month,
// and no more.
func TestPeriodsOutliveOneTime(t *testing.T) {
	for _, ahead := range []time.Duration{365 * day, -365 * day} {
		keep := checkpoint.Retention{Daily: 5}
		byBoth(t, keep, func(t *testing.T, s *skewed) {
			for range 6 {
				time.Sleep(day)
				s.save(keep, "", 0)
			}
			s.wantHistory("6 5 4 3 2 1")
			time.Sleep(day)
			s.saveAt(keep, ahead) // 7
			for range 2 {
				time.Sleep(day)
				s.save(keep, "", 0)
			}
			// Before day 9, the checkpoints of days 8, 6, 5 and 4 are kept.
			for _, n := range []string{"9", " 8", " 6", " 5", " 4"} {
				if !strings.Contains(s.history(), n) {
					t.Errorf("number%s is gone: %s", n, s.history())
				}
			}
		})
	}
}

// After a rollback, checkpoints no longer count in the order in which they were
// committed.
func TestOneWrongTimeInATaskThatWasRolledBack(t *testing.T) {
	keep := checkpoint.Retention{Within: 7 * day}
	for _, ahead := range []time.Duration{365 * day, -365 * day} {
		byBoth(t, keep, func(t *testing.T, s *skewed) {
			for range 4 {
				s.save(keep, "", 0)
				time.Sleep(day)
			}
			third := s.n // as an offset
			back := func(offset int) {
				t.Helper()
				task, _, _ := s.open(checkpoint.Options{Retention: keep})
				list, err := task.List(s.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range list {
					if c.Offsets["in"] != fmt.Sprint(offset) {
						continue
					}
					if _, err := task.Rollback(s.Context(), checkpoint.Seq(c.Seq), checkpoint.RollbackOptions{Fence: true}); err != nil {
						t.Fatal(err)
					}
				}
				if s.owner != nil {
					s.owner = claim(s, task)
				}
			}
			back(2)
			s.saveAt(keep, ahead) // 5
			time.Sleep(day)
			back(third)
			for range 2 {
				s.save(keep, "", 0)
				time.Sleep(time.Hour)
			}
			s.wantHistory("7 6 4 5 2 3 1")
			time.Sleep(8 * day)
			for range 3 {
				s.save(keep, "", 0)
			}
			s.wantHistory("10 9 8")
		})
	}
}

// The corrected time of a checkpoint is still known after a rollback to it.
func TestCorrectedTimeStaysKnown(t *testing.T) {
	keep := checkpoint.Retention{Within: 7 * day}
	inSkewedWorld(t, func(s *skewed) {
		s.save(keep, "", 0)
		time.Sleep(day)
		s.save(keep, "", 0)
		s.saveAt(keep, -20*365*day) // 3
		for range 2 {
			time.Sleep(day)
			s.save(keep, "", 0)
		}
		task, _, _ := s.open(checkpoint.Options{Retention: keep})
		if _, err := task.Rollback(s.Context(), checkpoint.Seq(3), checkpoint.RollbackOptions{}); err != nil { // this makes manifest 6
			t.Fatal(err)
		}
		for range 3 {
			s.save(keep, "", 0)
			time.Sleep(day)
		}
		s.wantHistory("8 7 6 3 5 4 2 1")
	})
}

// A clock that is set back permanently does not take hours or days away from earlier
// checkpoints.
func TestPeriodsOutliveAClockThatIsSetBack(t *testing.T) {
	keep := checkpoint.Retention{Daily: 4}
	byBoth(t, keep, func(t *testing.T, s *skewed) {
		s.store.set(365 * day)
		for range 6 {
			time.Sleep(day)
			s.save(keep, "", 0)
		}
		s.store.set(0)
		for n, want := range []string{"7 6 5 4 3", "8 7 6 5 4", "9 8 7 6 5", "10 9 8 7 6", "11 10 9 8 7"} {
			time.Sleep(day)
			s.save(keep, "", 0)
			if got := s.history(); got != want {
				t.Errorf("after %d days there are %s, want %s", n+1, got, want)
			}
		}
	})
}

// The same with real commits, by owners and by one-off saves: one wrong time does not
// remove anything.
func TestOneWrongTimeByCommits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) { run(t, oneWrongTimeByCommits) })
	})
}

func oneWrongTimeByCommits(w *world) {
	t := w.tester.(*rapid.T)
	s := skew(w)
	keep := checkpoint.Retention{
		Last:   rapid.IntRange(2, 3).Draw(t, "last"), // at least 2: only a second checkpoint can show that a time is wrong
		Within: rapid.SampledFrom([]time.Duration{time.Hour, 3 * day}).Draw(t, "within"),
	}
	gap := rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Minute, 5 * time.Hour, day, 9 * day})
	n := rapid.IntRange(3, 12).Draw(t, "commits")
	wrong := rapid.IntRange(1, n-1).Draw(t, "which")
	by := rapid.SampledFrom([]time.Duration{-29 * 365 * day, -20 * day, 20 * day, 365 * day, 250 * 365 * day}).Draw(t, "by")
	if rapid.Bool().Draw(t, "owned") {
		s.owner, _ = s.ownerWith(checkpoint.Options{Retention: keep})
	}
	var ideal []dot
	for i := range n {
		time.Sleep(gap.Draw(t, "gap"))
		if s.owner != nil && rapid.IntRange(0, 3).Draw(t, "heir") == 0 {
			s.owner, _ = s.ownerWith(checkpoint.Options{Retention: keep})
		}
		d := dot{seq: uint64(s.n + 1), time: time.Now()}
		name := ""
		if rapid.IntRange(0, 3).Draw(t, "named") == 0 {
			d.savepoint, name, d.expires = true, fmt.Sprint("n", i), rapid.SampledFrom([]time.Duration{0, time.Minute, 5 * day}).Draw(t, "expires")
		}
		if i == wrong {
			s.store.set(by)
		}
		s.save(keep, name, d.expires)
		s.store.set(0)
		ideal = modelKept(keep, append([]dot{d}, ideal...))
	}
	have := " " + s.history() + " "
	for _, d := range ideal {
		if !strings.Contains(have, fmt.Sprintf(" %d ", d.seq)) {
			t.Errorf("commit %d is gone; number %d was told by %v wrong: %s", d.seq, wrong+1, by, have)
		}
	}
}
