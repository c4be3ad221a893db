//go:build linux || darwin

package runner

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A placedHost is a task whose state is a directory outside its run directory.
type placedHost struct {
	*world
	path, run string
}

func newPlacedHost(w *world) *placedHost {
	dir := w.t.TempDir()
	return &placedHost{w, filepath.Join(dir, "state"), filepath.Join(dir, ".state.holdfast")}
}

// own claims the task with a runner of its own, and calls do before it is drained. saves
// says whether there is a last commit.
func (p *placedHost) own(edit func(*StateDir), saves bool, do func(*Task)) error {
	p.t.Helper()
	r, err := New(p.job(), Options{Interval: Manual, Logger: silent})
	if err != nil {
		p.t.Fatal(err)
	}
	where := &StateDir{Path: p.path, Job: "mem://a"}
	if edit != nil {
		edit(where)
	}
	task, err := r.Own(p.t.Context(), "a", Spec{Dir: p.run, State: where, Open: func(_ context.Context, restored *Restored) (Cutter, error) {
		if got := restored.Dir(""); got != p.path {
			p.t.Errorf("the state is said to be in %s; want %s", got, p.path)
		}
		return dirCutter(p.path), nil
	}})
	if err == nil {
		if do != nil {
			do(task)
		}
		if !saves {
			err = task.ReleaseAsIs(p.t.Context())
		}
	}
	return errors.Join(err, r.Drain(p.t.Context()))
}

func (p *placedHost) write(text string) {
	p.t.Helper()
	if err := errors.Join(os.MkdirAll(p.path, 0o700), os.WriteFile(filepath.Join(p.path, "n"), []byte(text), 0o600)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *placedHost) want(text string) {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.path, "n"))
	if text == "" && errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil || string(data) != text {
		p.t.Errorf("the state is %q, %v; want %q", data, err, text)
	}
}

// save makes a first checkpoint with a text.
func (p *placedHost) save(text string) {
	p.t.Helper()
	if err := p.own(nil, true, func(*Task) { p.write(text) }); err != nil {
		p.t.Fatal(err)
	}
}

// TestPlace is about what may be at Spec.State when a task is owned, and what becomes of
// it.
func TestPlace(t *testing.T) {
	adopt := func(s *StateDir) { s.Adopt = true }
	aside := func(s *StateDir) { s.Aside = s.Path + ".aside" }
	for _, c := range []struct {
		name   string
		before func(p *placedHost)
		edit   func(*StateDir)
		want   string // of the state while it is owned
		err    string // part of the error; "" for none
		after  string // of the state, if it is refused
	}{
		{"absent, no checkpoint", func(*placedHost) {}, nil, "", "", ""},
		{"empty, no checkpoint", func(p *placedHost) { _ = os.Mkdir(p.path, 0o700) }, nil, "", "", ""},
		{"another's, no checkpoint", func(p *placedHost) { p.write("mine") }, nil, "", "not known as the task's state", "mine"},
		{"another's, adopted", func(p *placedHost) { p.write("mine") }, adopt, "mine", "", ""},
		{"absent, a checkpoint", func(p *placedHost) { p.save("1"); _ = os.RemoveAll(p.path) }, nil, "1", "", ""},
		{"empty, a checkpoint", func(p *placedHost) {
			p.save("1")
			_, _ = os.RemoveAll(p.path), os.Mkdir(p.path, 0o700)
		}, nil, "1", "", ""},
		{"its own, changed since", func(p *placedHost) { p.save("1"); p.write("2") }, nil, "1", "", ""},
		{"its own, never saved", func(p *placedHost) {
			if err := p.own(nil, false, func(*Task) { p.write("1") }); err != nil {
				p.t.Fatal(err)
			}
		}, nil, "1", "", ""},
		{"its own, never saved, and perhaps half written", func(p *placedHost) {
			if err := p.own(nil, false, func(*Task) { p.write("1") }); err != nil {
				p.t.Fatal(err)
			}
		}, aside, "", "", ""},
		{"its own, saved, and perhaps half written", func(p *placedHost) { p.save("1"); p.write("2") }, aside, "1", "", ""},
		{"another's, and a place for what is half written", func(p *placedHost) { p.write("mine") }, aside, "", "not known as the task's state", "mine"},
		{"another directory in place of its own", func(p *placedHost) {
			p.save("1")
			_ = os.RemoveAll(p.path)
			p.write("mine")
		}, nil, "", "not known as the task's state", "mine"},
		{"another directory, adopted, and a checkpoint", func(p *placedHost) {
			p.save("1")
			_ = os.RemoveAll(p.path)
			p.write("mine")
		}, adopt, "", "the task has checkpoints already", "mine"},
		{"its own, and adopted again", func(p *placedHost) { p.save("1"); p.write("2") }, adopt, "1", "", ""},
		{"of another job", func(p *placedHost) { p.save("1") }, func(s *StateDir) { s.Job = "mem://b" }, "", "it is that of task", "1"},
		{"a store that has lost its checkpoints", func(p *placedHost) {
			p.save("1")
			task, err := p.looker.Task("a")
			if err == nil {
				_, err = task.Delete(p.t.Context(), checkpoint.DeleteOptions{})
			}
			if err != nil {
				p.t.Fatal(err)
			}
		}, nil, "", "look whether this is the right store", "1"},
		{"a task that began again with nothing, never saved", func(p *placedHost) {
			p.save("1")
			task, err := p.looker.Task("a")
			if err == nil {
				_, err = task.Delete(p.t.Context(), checkpoint.DeleteOptions{})
			}
			if err = errors.Join(err, os.RemoveAll(p.path), p.own(nil, false, func(*Task) { p.write("2") })); err != nil {
				p.t.Fatal(err)
			}
		}, nil, "2", "", ""},
		{"a file", func(p *placedHost) { _ = os.WriteFile(p.path, nil, 0o600) }, nil, "", "is no directory", ""},
		{"killed before the restore", func(p *placedHost) {
			p.save("1")
			_ = os.Rename(p.path, filepath.Join(p.run, stateName))
		}, nil, "1", "", ""},
		{"killed before the restore, and another directory", func(p *placedHost) {
			p.save("1")
			_ = os.Rename(p.path, filepath.Join(p.run, stateName))
			p.write("mine")
		}, nil, "", "not known as the task's state", "mine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				p := newPlacedHost(w)
				c.before(p)
				err := p.own(c.edit, true, func(*Task) { p.want(c.want) })
				if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
					t.Errorf("error %v; want %q", err, c.err)
				}
				looked, _ := w.looker.Task("a")
				if status, err := looked.Status(t.Context()); err != nil || status.Claimed {
					t.Errorf("the task is claimed: %v, %v", status.Claimed, err)
				}
				if info, _ := os.Lstat(p.path); c.err != "" && info != nil && info.IsDir() {
					p.want(c.after)
				}
			})
		})
	}
}

// TestForeignDirectoryFencesNobody: it is refused before the claim.
func TestForeignDirectoryFencesNobody(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, _ := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		p := newPlacedHost(w)
		p.write("mine")
		if err := p.own(nil, true, nil); !errors.Is(err, ErrNotState) {
			t.Errorf("it was not refused: %v", err)
		}
		if _, err := task.Commit(t.Context()); err != nil {
			t.Errorf("the owner was fenced: %v", err)
		}
	})
}

// TestRestoreThatFailsLeavesTheState: what was there before is there again.
func TestRestoreThatFailsLeavesTheState(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := newPlacedHost(w)
		p.save("1")
		p.write("2")
		place := &place{path: p.path, dir: &runDir{path: p.run}}
		id, err := identify(p.path)
		if err != nil {
			t.Fatal(err)
		}
		place.is.State = id
		failure := errors.New("no")
		if err := place.restored(false, func() error { return failure }); !errors.Is(err, failure) {
			t.Errorf("error %v", err)
		}
		p.want("2")
	})
}

// TestReleaseAsIs releases the task without a last commit.
func TestReleaseAsIs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		cuts := h.cuts
		if err := task.ReleaseAsIs(t.Context()); err != nil {
			t.Error(err)
		}
		looked, err := w.looker.Task("a")
		if err != nil {
			t.Fatal(err)
		}
		status, err := looked.Status(t.Context())
		if err != nil || status.Claimed || h.cuts != cuts || !h.closed {
			t.Errorf("claimed %v, %d cuts after %d, closed %v, %v", status.Claimed, h.cuts, cuts, h.closed, err)
		}
	})
}

// TestIdentity: a directory is known by its inode and its time of birth, never by one of them.
func TestIdentity(t *testing.T) {
	known := identity{Device: 1, Inode: 7, Born: "5.000000001"}
	for _, c := range []struct {
		name  string
		id    identity
		known identity
		want  bool
	}{
		{"the same", known, known, true},
		{"another device number, as after a restart", identity{2, 7, "5.000000001"}, known, true},
		{"another inode", identity{1, 8, "5.000000001"}, known, false},
		{"an inode that was used again", identity{1, 7, "6.000000000"}, known, false},
		{"no time of birth is told", identity{1, 7, ""}, identity{1, 7, ""}, false},
		{"none is told any more", identity{1, 7, ""}, known, false},
	} {
		if got := c.id.is(c.known); got != c.want {
			t.Errorf("%s: %v; want %v", c.name, got, c.want)
		}
	}
}

// TestWithoutTimeOfBirth: where the file system does not tell it, a directory that is not empty
// may be anyone's.
func TestWithoutTimeOfBirth(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := newPlacedHost(w)
		p.save("1")
		p.write("mine")
		forgetBirth(t, p.run)
		err := p.own(nil, true, func(*Task) { t.Error("it was accepted") })
		if !errors.Is(err, ErrNotState) || !strings.Contains(err.Error(), "does not tell when a directory was made") {
			t.Errorf("error %v", err)
		}
		p.want("mine")
		_, _ = os.RemoveAll(p.path), os.Mkdir(p.path, 0o700)
		if err := p.own(nil, true, func(*Task) { p.want("1") }); err != nil {
			t.Errorf("an empty one is refused: %v", err)
		}
	})
}

// forgetBirth makes what is recorded of a place what it is on a file system without times of
// birth.
func forgetBirth(t *testing.T, run string) {
	t.Helper()
	name := filepath.Join(run, placeName)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var is placed
	if err := json.Unmarshal(data, &is); err != nil {
		t.Fatal(err)
	}
	is.State.Born = ""
	if data, err = json.Marshal(is); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
