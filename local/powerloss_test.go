package local

import (
	"context"
	"crypto/sha256"
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
	"testing"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/powerloss"
)

// A tape records what stores do to one directory, in the order in which it is
// done. After every step it notes what a loss of power could leave then, and
// what was promised by then. Package powerloss says what can be lost.
//
// The names in the directory of temporary files, which is never fsynced, are lost
// together: all, none, or only what was done to remove them. No name there means
// anything to another, and the data below them is never read.
type tape struct {
	t    testing.TB
	base string // exists and is durable; the store's directory is made in it

	mu       sync.Mutex
	disk     *powerloss.Disk
	written  map[string]int // temporary files, and how much is in them
	promised any            // must hold after a loss of power now; not changed, but replaced
	states   map[[sha256.Size]byte]*remains
	order    []*remains
	moments  int
	tooMany  bool                                // in a moment: it looks no more
	trim     func(powerloss.Tree) powerloss.Tree // nil: states are told apart by all that is in them
}

// remains are what a loss of power can leave at some moments.
type remains struct {
	tree     powerloss.Tree
	promises []any // at these moments
}

func newTape(t testing.TB, promised any) *tape {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &tape{
		t: t, base: base, disk: powerloss.New(nil), written: make(map[string]int),
		promised: promised, states: make(map[[sha256.Size]byte]*remains),
	}
}

func (p *tape) dir() string { return filepath.Join(p.base, "store") }

// open opens the store. What broken does not pass on is not done.
func (p *tape) open(broken func(stepFunc) stepFunc) *Store {
	s, err := Open(p.dir())
	if err != nil {
		p.t.Fatal(err)
	}
	s.step = broken(p.step)
	return s
}

func passOn(next stepFunc) stepFunc { return next }

func (p *tape) step(op, name string, do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := do()
	if p.record(op, name, err) {
		p.look()
	}
	return err
}

// promise replaces what must hold after a loss of power.
func (p *tape) promise(promised any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.promised = promised
	p.look()
}

// record tells the disk what a step has done. It reports whether that was
// something.
func (p *tape) record(op, name string, err error) bool {
	at, real := p.where(name)
	switch {
	case at == ".." || strings.HasPrefix(at, "../"):
		return false // above all that could be lost
	case op == "lock":
		if p.disk.Has(at) || !exists(real) { // it may be there although it was not got
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

// where returns where a step's name is on the recorded disk and on the real one.
func (p *tape) where(name string) (at, real string) {
	if real = name; !filepath.IsAbs(name) {
		real = filepath.Join(p.dir(), name)
	}
	at, err := filepath.Rel(p.base, real)
	if err != nil {
		p.t.Error(err)
	}
	return filepath.ToSlash(at), real
}

func (p *tape) write(at, real string) {
	data, err := os.ReadFile(real)
	if err != nil {
		p.t.Error(err)
	}
	p.disk.Write(at, data[p.written[at]:])
	p.written[at] = len(data)
}

// draftOf returns the temporary file that has got another name.
func (p *tape) draftOf(real string) string {
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
func (p *tape) vanished() string {
	for at := range p.written {
		if !exists(filepath.Join(p.base, at)) {
			return at
		}
	}
	p.t.Error("no temporary file was renamed")
	return ""
}

// most is how many states there may be in one moment. It takes a dozen names
// that are not durable to come to more.
const most = 4096

var errTooMany = fmt.Errorf("not all could be looked at: there were more than %d states in one moment", most)

// look notes what a loss of power could leave now.
func (p *tape) look() {
	if p.tooMany {
		return
	}
	p.moments++
	n := 0
	seen := make(map[[sha256.Size]byte]bool) // in this moment
	for tree := range p.disk.Losses(powerloss.Independent) {
		if n++; n > most {
			p.tooMany = true
			return
		}
		if p.trim != nil {
			tree = p.trim(tree)
		}
		key := tree.Key()
		if seen[key] {
			continue
		}
		seen[key] = true
		state := p.states[key]
		if state == nil {
			state = &remains{tree: tree}
			p.states[key], p.order = state, append(p.order, state)
		}
		if n := len(state.promises); n == 0 || state.promises[n-1] != p.promised {
			state.promises = append(state.promises, p.promised)
		}
	}
}

// check makes each state that was seen, has it looked at, and compares what was
// found with each promise that held when it could come to be. It returns what is
// wrong with the first state with which something is.
func check[F, P any](p *tape, look func(t testing.TB, base string) (F, error), breach func(F, P) string) error {
	p.wantAllSeen()
	base := filepath.Join(scratch(p.t), "base")
	for i, state := range p.order {
		if err := state.tree.Make(base); err != nil {
			return err
		}
		found, err := look(p.t, base)
		if err != nil {
			return fmt.Errorf("state %d: %w\n%s", i, err, listing(state.tree))
		}
		for _, promised := range state.promises {
			if what := breach(found, promised.(P)); what != "" {
				return fmt.Errorf("state %d: %s\n%s", i, what, listing(state.tree))
			}
		}
		if err := os.RemoveAll(base); err != nil {
			return err
		}
	}
	if p.tooMany {
		return errTooMany
	}
	return nil
}

// scratch returns a directory for what need not be durable: in memory, if there
// is a file system for that.
func scratch(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func listing(t powerloss.Tree) string {
	var b strings.Builder
	for _, e := range t {
		fmt.Fprintf(&b, "%s %d\n", e.Path, len(e.Data))
	}
	return b.String()
}

// wantAllSeen makes sure that the recorded disk is what the real one is: nothing
// was done that the seam does not show.
func (p *tape) wantAllSeen() {
	p.t.Helper()
	real, err := powerloss.Read(p.base)
	if err != nil {
		p.t.Fatal(err)
	}
	if now := p.disk.Now(); now.Key() != real.Key() {
		p.t.Fatalf("recorded:\n%s\nthere is:\n%s", listing(now), listing(real))
	}
}

// unsynced is the step function of handles that look at a state: it is looked at
// in this life of the machine.
func unsynced(op, _ string, do func() error) error {
	if op == "sync" || op == "syncdir" {
		return nil
	}
	return do()
}

// An outcome is what may be found at each key.
type outcome map[string]*found

// found are the contents that may be found, and absence.
type found struct {
	data   []string
	absent bool
}

// A script writes through stores, and knows what may be found.
type script struct {
	*tape
	may outcome
}

func newScript(t testing.TB) *script {
	return &script{newTape(t, &outcome{}), outcome{}}
}

// expect replaces what may be found at a key.
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

// write writes an object. Once that is told, it is there; until then it may be.
func (s *script) write(store *Store, v verb, key, data string) {
	before := s.at(key)
	s.expect(key, found{append(before.data, data), before.absent})
	switch _, err := v.call(store, context.Background(), key, []byte(data)); {
	case err == nil:
		s.expect(key, found{data: []string{data}})
	case errors.Is(err, backend.ErrExist):
		// What is there instead is durable: a commit is judged by it.
		others := slices.DeleteFunc(s.at(key).data, func(d string) bool { return d == data })
		s.expect(key, found{data: others})
	default:
		s.t.Errorf("%s %s: %v", v.name, key, err)
	}
}

// delete deletes an object. A loss of power may bring it back.
func (s *script) delete(store *Store, keys ...string) {
	for _, key := range keys {
		s.expect(key, found{s.at(key).data, true})
	}
	if err := store.Delete(context.Background(), keys...); err != nil {
		s.t.Error(err)
	}
}

// atStep does something just before a step.
func atStep(store *Store, op, name string, do func()) {
	next := store.step
	store.step = func(o, n string, step func() error) error {
		if o == op && n == name {
			store.step = next
			do()
		}
		return next(o, n, step)
	}
}

// run is what stores are used for: by handles that come and go, of which some
// write the same key at once.
func (s *script) run(create verb, broken func(stepFunc) stepFunc) {
	put := writes[1]
	large := strings.Repeat("large ", piece/6+10)
	one := s.open(broken)
	s.write(one, create, "a/1", "first")
	s.write(one, put, "a/b/1", large)
	s.write(one, put, "a/b/1", "replaced")
	s.write(one, create, "a/1", "too late")

	// Another process is faster, and has not made that durable when this one
	// finds out.
	two := s.open(broken)
	atStep(two, "syncdir", "c/d", func() { s.write(one, create, "c/d/1", "of one") })
	s.write(two, create, "c/d/1", "of two")
	// It is faster by a moment, in a directory that is as new.
	atStep(two, "link", "e/1", func() { s.write(one, create, "e/1", "of one") })
	s.write(two, create, "e/1", "of two")
	// A third begins while the others are in the midst of it.
	atStep(one, "link", "a/2", func() {
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

// contents returns all that a fresh handle sees, and makes sure that it works and
// removes what others left.
func contents(t testing.TB, base string) (map[string]string, error) {
	dir := filepath.Join(base, "store")
	s, err := Open(dir)
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
		return nil, fmt.Errorf("the next handle leaves %q and %d locks, want its own alone", left, n)
	}
	return all, nil
}

// breach says how what is found is not what was promised.
func breach(all map[string]string, promised *outcome) string {
	for key, data := range all {
		if f := (*promised)[key]; f == nil || !slices.Contains(f.data, data) {
			return fmt.Sprintf("%s is %.20q of %d bytes", key, data, len(data))
		}
	}
	for key, f := range *promised {
		if _, ok := all[key]; !ok && !f.absent {
			return fmt.Sprintf("%s is gone", key)
		}
	}
	return ""
}

// TestPowerLoss takes the power away after every step that writers take. What
// they were told is there, whole, and what can be seen is whole.
func TestPowerLoss(t *testing.T) {
	s := newScript(t)
	s.run(writes[0], passOn)
	if what := check(s.tape, contents, breach); what != nil {
		t.Error(what)
	}
	t.Logf("%d moments, %d states", s.moments, len(s.order))
}

// Mistakes that a store can make, as step functions that do not do what they
// are told.
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

// forget leaves out a step: of the directory, or of all if that is "", or of
// those above the store's if it is "/".
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

// careless is a Create that replaces what is there.
var careless = verb{"Create", func(s *Store, ctx context.Context, key string, data []byte) (backend.Object, error) {
	return s.write(ctx, key, data, (*draft).rename)
}}

// TestPowerLossFindsMistakes makes sure that the test can fail.
func TestPowerLossFindsMistakes(t *testing.T) {
	run := func(name string, create verb, broken func(stepFunc) stepFunc) {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.run(create, broken)
			if what := check(s.tape, contents, breach); what == nil || errors.Is(what, errTooMany) {
				t.Errorf("no promise is broken in %d states; %v", len(s.order), what)
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
