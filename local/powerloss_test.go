package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/powerloss"
)

// A tape records the steps of stores on one directory, in their order. After every
// step it records what a loss of power could leave then, and what was promised by
// then. Package powerloss says what can be lost.
//
// The directory of temporary files is never fsynced. Its names are lost together:
// all, none, or only their removals. No name there depends on another, and the data
// of these files is never read.
type tape[P any] struct {
	t    testing.TB
	base string // exists and is durable; the store's directory is made in it

	handles map[*Store]*handle

	mu       sync.Mutex
	disk     *powerloss.Disk
	written  map[string]int // the temporary files, and how many bytes each has
	promised *P             // what must hold if the power is lost now
	remains  powerloss.Remains[P]
}

func newTape[P any](t testing.TB, promised *P) *tape[P] {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &tape[P]{
		t: t, base: base, disk: powerloss.New(nil), written: make(map[string]int), promised: promised,
		handles: make(map[*Store]*handle),
		remains: powerloss.Remains[P]{Model: powerloss.Independent},
	}
}

func (p *tape[P]) dir() string { return filepath.Join(p.base, "store") }

// open opens the store. broken may leave out steps.
func (p *tape[P]) open(broken func(stepFunc) stepFunc) *Store {
	s, err := New(p.dir())
	if err != nil {
		p.t.Fatal(err)
	}
	h := &handle{next: broken(p.step)}
	s.step, p.handles[s] = h.step, h
	return s
}

// A handle can run a function just before one of its steps.
type handle struct {
	next stepFunc
	at   atomic.Pointer[moment]
}

// A moment is the moment before a step.
type moment struct {
	op, name string
	do       func()
}

// atStep calls do just before the next such step of a store.
func (p *tape[P]) atStep(s *Store, op, name string, do func()) {
	p.handles[s].at.Store(&moment{op, name, do})
}

func (h *handle) step(op, name string, do func() error) error {
	m := h.at.Load()
	if m != nil && m.op == op && m.name == name && h.at.CompareAndSwap(m, nil) {
		m.do()
	}
	return h.next(op, name, do)
}

func passOn(next stepFunc) stepFunc { return next }

func (p *tape[P]) step(op, name string, do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := do()
	if p.record(op, name, err) {
		p.remains.Look(p.disk, p.promised)
	}
	return err
}

// promise sets what must hold after a loss of power from now on.
func (p *tape[P]) promise(promised *P) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.promised = promised
	p.remains.Look(p.disk, p.promised)
}

// record tells the disk what a step has done. It reports whether the step changed
// anything.
func (p *tape[P]) record(op, name string, err error) bool {
	at, real := p.where(name)
	switch {
	case at == ".." || strings.HasPrefix(at, "../"):
		return false // above the directories that can be lost
	case op == "lock":
		if p.disk.Has(at) || !exists(real) { // the lock file may exist even if it could not be locked
			return false
		}
		p.disk.Create(at)
		return true
	case err != nil:
		return false
	}
	switch op {
	case "mkdir":
		p.disk.Mkdir(at)
		if name == tempDir {
			p.disk.Together(at)
		}
	case "create":
		p.disk.Create(at)
		p.written[at] = 0
	case "write":
		p.write(at, real)
	case "sync":
		p.disk.Sync(at)
	case "link":
		p.disk.Link(p.draftOf(real), at)
	case "rename":
		from := p.vanished()
		delete(p.written, from)
		p.disk.Rename(from, at)
	case "remove", "unlock":
		delete(p.written, at)
		p.disk.Remove(at)
	case "syncdir":
		p.disk.SyncDir(at)
	default:
		return false
	}
	return true
}

// where returns the path of a step's name on the recorded disk, and on the real one.
func (p *tape[P]) where(name string) (at, real string) {
	if real = name; !filepath.IsAbs(name) {
		real = filepath.Join(p.dir(), name)
	}
	at, err := filepath.Rel(p.base, real)
	if err != nil {
		p.t.Error(err)
	}
	return filepath.ToSlash(at), real
}

func (p *tape[P]) write(at, real string) {
	data, err := os.ReadFile(real)
	if err != nil {
		p.t.Error(err)
	}
	p.disk.Write(at, data[p.written[at]:])
	p.written[at] = len(data)
}

// draftOf returns the temporary file that has got another name.
func (p *tape[P]) draftOf(real string) string {
	linked, err := os.Lstat(real)
	for at := range p.written {
		if temp, _ := os.Lstat(filepath.Join(p.base, at)); err == nil && temp != nil && os.SameFile(linked, temp) {
			return at
		}
	}
	p.t.Errorf("%s is no temporary file", real)
	return ""
}

// vanished returns the temporary file that has lost its name.
func (p *tape[P]) vanished() string {
	for at := range p.written {
		if !exists(filepath.Join(p.base, at)) {
			return at
		}
	}
	p.t.Error("no temporary file was renamed")
	return ""
}

// check inspects all states that a loss of power could leave.
func (p *tape[P]) check(look func(base string) (func(*P) string, error)) error {
	p.wantAllSeen()
	dir, err := powerloss.Scratch()
	if err != nil {
		return err
	}
	p.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			p.t.Error(err)
		}
	})
	return p.remains.Check(dir, look)
}

// wantAllSeen checks that the recorded disk equals the real one, so that no change
// bypassed the step function.
func (p *tape[P]) wantAllSeen() {
	p.t.Helper()
	real, err := powerloss.Read(p.base)
	if err != nil {
		p.t.Fatal(err)
	}
	if now := p.disk.Now(); now.Key() != real.Key() {
		p.t.Fatalf("recorded:\n%s\non disk:\n%s", now, real)
	}
}

// unsynced is the step function of handles that inspect a state: no power is lost
// while they do.
func unsynced(op, _ string, do func() error) error {
	if op == "sync" || op == "syncdir" {
		return nil
	}
	return do()
}

// An outcome says what may be found at each key.
type outcome map[string]*found

// found lists the contents that may be found, and whether the object may be absent.
type found struct {
	data   []string
	absent bool
}

// A script writes through stores, and knows what may be found afterwards.
type script struct {
	*tape[outcome]
	may outcome
}

func newScript(t testing.TB) *script {
	return &script{newTape(t, &outcome{}), outcome{}}
}

// expect sets what may be found at a key.
func (s *script) expect(key string, f found) {
	s.may = maps.Clone(s.may)
	s.may[key] = &f
	promised := s.may
	s.promise(&promised)
}

func (s *script) at(key string) found {
	if f := s.may[key]; f != nil {
		return found{slices.Clone(f.data), f.absent}
	}
	return found{absent: true}
}

// write writes an object. It may be found from the beginning of the write, and must
// be found once the write has returned.
func (s *script) write(store *Store, v verb, key, data string) {
	before := s.at(key)
	s.expect(key, found{append(before.data, data), before.absent})
	switch _, err := v.call(store, context.Background(), key, []byte(data)); {
	case err == nil:
		s.expect(key, found{data: []string{data}})
	case errors.Is(err, backend.ErrExist):
		// The other object is durable now: a commit may depend on it.
		others := slices.DeleteFunc(s.at(key).data, func(d string) bool { return d == data })
		s.expect(key, found{data: others})
	default:
		s.t.Errorf("%s %s: %v", v.name, key, err)
	}
}

// delete deletes objects. A loss of power may bring them back.
func (s *script) delete(store *Store, keys ...string) {
	for _, key := range keys {
		s.expect(key, found{s.at(key).data, true})
	}
	if err := store.Delete(context.Background(), keys...); err != nil {
		s.t.Error(err)
	}
}

// run uses stores in the usual ways: handles come and go, and some write the same key
// at once.
func (s *script) run(create verb, broken func(stepFunc) stepFunc) {
	put := writes[1]
	large := strings.Repeat("large ", piece/6+10)
	one := s.open(broken)
	s.write(one, create, "a/1", "first")
	s.write(one, put, "a/b/1", large)
	s.write(one, put, "a/b/1", "replaced")
	s.write(one, create, "a/1", "too late")

	// Another process makes the object first, and has not made its name durable when
	// this one finds it.
	two := s.open(broken)
	s.atStep(two, "syncdir", "c/d", func() { s.write(one, create, "c/d/1", "of one") })
	s.write(two, create, "c/d/1", "of two")
	// Another process makes the object just before this one, in a directory that is
	// new too.
	s.atStep(two, "link", "e/1", func() { s.write(one, create, "e/1", "of one") })
	s.write(two, create, "e/1", "of two")
	// A third handle begins while the others are writing.
	s.atStep(one, "link", "a/2", func() {
		three := s.open(broken)
		s.write(three, put, "a/3", "of three")
		s.close(three)
	})
	s.write(one, create, "a/2", "of one")
	s.delete(one, "a/1", "a/b/1")
	s.write(two, put, "a/b/2", "after the deletion")
	s.write(two, create, "a/1", "again")
	s.close(one)
	s.write(two, create, "a/4", "")
	s.close(two)
}

func (s *script) close(store *Store) {
	if err := store.Close(); err != nil {
		s.t.Error(err)
	}
}

// contents returns all that a fresh handle sees. It also checks that the handle
// works, and removes what others left.
func (s *script) contents(base string) (func(*outcome) string, error) {
	all, err := contents(s.t, base)
	return func(promised *outcome) string { return breach(all, *promised) }, err
}

func contents(t testing.TB, base string) (map[string]string, error) {
	dir := filepath.Join(base, "store")
	s, err := New(dir)
	if err != nil {
		return nil, err
	}
	s.step = unsynced
	defer mustClose(t, s)
	all := make(map[string]string)
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			return nil, err
		}
		p := make([]byte, o.Size)
		n := 0
		if o.Size > 0 {
			n, err = s.Get(t.Context(), o.Key, 0, p)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		all[o.Key] = string(p[:n])
	}
	if _, err := s.Create(t.Context(), "z/new", nil); err != nil {
		return nil, err
	}
	if left, n := temporary(t, dir), locks(t, dir); left != nil || n != 1 {
		return nil, fmt.Errorf("the next handle leaves %q and %d locks, want only its own", left, n)
	}
	return all, nil
}

// breach describes the difference between what is found and what was promised, or
// returns "".
func breach(all map[string]string, promised outcome) string {
	for key, data := range all {
		if f := promised[key]; f == nil || !slices.Contains(f.data, data) {
			return fmt.Sprintf("%s is %.20q of %d bytes", key, data, len(data))
		}
	}
	for key, f := range promised {
		if _, ok := all[key]; !ok && !f.absent {
			return fmt.Sprintf("%s is gone", key)
		}
	}
	return ""
}

// TestPowerLoss simulates a loss of power after every step of the writers. Every
// acknowledged object exists, and every object that exists is complete.
func TestPowerLoss(t *testing.T) {
	s := newScript(t)
	s.run(writes[0], passOn)
	if what := s.check(s.contents); what != nil {
		t.Error(what)
	}
	t.Logf("%d moments, %d states", s.remains.Moments, s.remains.States)
}

// Mistakes that a store can make, as step functions that leave out or reorder steps.
var mistakes = map[string]func(stepFunc) stepFunc{
	"file not fsynced":             forget("sync", ""),
	"directory not fsynced":        forget("syncdir", "c/d"),
	"new directory not fsynced":    forget("syncdir", "a"),
	"store's name not fsynced":     forget("syncdir", "/"),
	"store's first not fsynced":    forget("syncdir", "."),
	"not fsynced when it is taken": forget("syncdir", "e"),
	"file fsynced after it has its name": func(next stepFunc) stepFunc {
		var late func()
		return func(op, name string, do func() error) error {
			if op == "sync" {
				late = func() { _ = next(op, name, do) }
				return nil
			}
			err := next(op, name, do)
			if op == "link" && late != nil {
				late()
			}
			return err
		}
	},
	"directory fsynced before the link": func(next stepFunc) stepFunc {
		return func(op, name string, do func() error) error {
			if op == "link" {
				_ = next("syncdir", path.Dir(name), func() error { return nil })
			}
			if op == "syncdir" && name == "e" {
				return nil
			}
			return next(op, name, do)
		}
	},
}

// forget leaves out the step op for a directory: for all directories if dir is "",
// for those above the store's own if it is "/".
func forget(op, dir string) func(stepFunc) stepFunc {
	return func(next stepFunc) stepFunc {
		return func(o, name string, do func() error) error {
			if o == op && (dir == "" || name == dir || dir == "/" && filepath.IsAbs(name)) {
				return nil
			}
			return next(o, name, do)
		}
	}
}

// careless is a Create that replaces an existing object.
var careless = verb{"Create", func(s *Store, ctx context.Context, key string, data []byte) (backend.Object, error) {
	return s.write(ctx, key, data, (*draft).rename)
}}

// TestPowerLossFindsMistakes checks that TestPowerLoss can fail.
func TestPowerLossFindsMistakes(t *testing.T) {
	run := func(name string, create verb, broken func(stepFunc) stepFunc) {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.run(create, broken)
			if what := s.check(s.contents); what == nil || errors.Is(what, powerloss.ErrTooMany) {
				t.Errorf("no promise is broken in %d states; %v", s.remains.States, what)
			} else {
				t.Log(what)
			}
		})
	}
	for name, mistake := range mistakes {
		run(name, writes[0], mistake)
	}
	run("rename instead of link", careless, passOn)
}
