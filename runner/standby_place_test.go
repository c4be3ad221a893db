//go:build linux || darwin

package runner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// follow follows the task with a state outside its run directory.
func (p *placedHost) follow(r *Runner) (*Standby, error) {
	return r.Follow(p.t.Context(), "a", FollowSpec{Dir: p.run, State: &StateDir{Path: p.path, Job: "mem://a"}})
}

// promote makes a standby the owner.
func (p *placedHost) promote(s *Standby) (*Task, error) {
	return s.Promote(p.t.Context(), Spec{Open: func(_ context.Context, restored *Restored) (Cutter, error) {
		if got := restored.Dir(""); got != p.path {
			p.t.Errorf("the state is said to be in %s; want %s", got, p.path)
		}
		return dirCutter(p.path), nil
	}})
}

// TestPromoteToAPlace: the state that a standby has kept in its run directory is at its place
// once it is promoted, whatever was there before; and it is not restored once more.
func TestPromoteToAPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(p *placedHost) // on the standby's machine
		later  func(p *placedHost) // while it follows
		want   string              // part of the state; "" if it is refused
	}{
		{"nothing is there", func(*placedHost) {}, func(*placedHost) {}, "1"},
		{"an empty directory", func(p *placedHost) { _ = os.Mkdir(p.path, 0o700) }, func(*placedHost) {}, "1"},
		{"the state of an earlier run", func(p *placedHost) { p.save("0") }, func(*placedHost) {}, "1"},
		{"another directory since", func(*placedHost) {}, func(p *placedHost) { p.write("mine") }, ""},
		{"what was kept was put there by hand", func(p *placedHost) { p.save("0") },
			func(p *placedHost) { _ = os.Rename(filepath.Join(p.run, stateName), p.path) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				p := newPlacedHost(w)
				c.before(p)
				primary := newPlacedHost(w)
				primary.save("1")
				s, err := p.follow(w.runner(w.job(), Options{Interval: Manual}))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				if entries, err := os.ReadDir(p.path); len(entries) > 0 {
					t.Errorf("while it follows, there is %v, %v", entries, err)
				}
				inside, err := os.Stat(s.dir.store(""))
				if err != nil {
					t.Fatal(err)
				}
				c.later(p)
				before := w.status("a")
				next, err := p.promote(s)
				if c.want == "" {
					if !errors.Is(err, ErrNotState) || w.status("a").Epoch != before.Epoch {
						t.Errorf("%v; epoch %d, then %d", err, before.Epoch, w.status("a").Epoch)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				p.want(c.want)
				if now, err := os.Stat(p.path); err != nil || !os.SameFile(inside, now) {
					t.Errorf("it was restored once more: %v", err)
				}
				if err := next.Release(t.Context()); err != nil {
					t.Error(err)
				}
				// The place is known from then on.
				if err := p.own(nil, true, func(*Task) { p.want(c.want) }); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestFollowRefusesAPlace: what Own refuses is refused before anything is done.
func TestFollowRefusesAPlace(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := newPlacedHost(w)
		p.write("mine")
		if _, err := p.follow(w.runner(w.job(), Options{})); !errors.Is(err, ErrNotState) {
			t.Errorf("%v; want ErrNotState", err)
		}
		p.want("mine")
	})
}

// TestClaimed is about what is known of a claim: which epoch it follows, and which it has.
func TestClaimed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		own := func(epoch uint64, claimed func(uint64) error) error {
			h := &host{t: t}
			task, err := r.Own(t.Context(), "a", Spec{Dir: w.dir, IfEpoch: &epoch, Claimed: claimed, Open: h.open})
			if err == nil {
				err = task.Release(t.Context())
			}
			return err
		}
		var told uint64
		if err := own(0, func(epoch uint64) error { told = epoch; return nil }); err != nil || told != 1 {
			t.Errorf("a new task: %v, and its claim has epoch %d", err, told)
		}
		if err := own(0, nil); !errors.Is(err, checkpoint.ErrConflict) || w.status("a").Epoch != 1 {
			t.Errorf("a task that is new no more: %v, epoch %d", err, w.status("a").Epoch)
		}
		full := errors.New("it cannot be written down")
		if err := own(1, func(uint64) error { return full }); !errors.Is(err, full) || w.status("a").Claimed {
			t.Errorf("%v; claimed: %v", err, w.status("a").Claimed)
		}
		if err := own(2, nil); err != nil {
			t.Error(err)
		}
	})
}
