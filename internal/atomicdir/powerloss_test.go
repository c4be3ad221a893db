package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/holdfast-io/holdfast/internal/powerloss"
)

// A tape records the steps on one directory, and after every step all states that a
// loss of power could leave then. The removal of a tree counts as many steps.
type tape struct {
	t    *testing.T
	base string

	mu      sync.Mutex
	disk    *powerloss.Disk
	may     *allowed
	remains powerloss.Remains[allowed]
}

// allowed are the generations that the target may have; "" means no target.
type allowed []string

func newTape(t *testing.T, model powerloss.Model) *tape {
	t.Helper()
	base, err := filepath.EvalSymlinks(tempDir(t))
	if err != nil {
		t.Fatal(err)
	}
	return &tape{t: t, base: base, disk: powerloss.New(nil), remains: powerloss.Remains[allowed]{Model: model}}
}

// expect sets the generations that are allowed from now on.
func (p *tape) expect(generations ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	may := allowed(generations)
	p.may = &may
	p.remains.Look(p.disk, p.may)
}

func (p *tape) step(op, path string, do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, err := filepath.Rel(p.base, path)
	if err != nil {
		p.t.Error(err)
	}
	at = filepath.ToSlash(at)
	asides := p.asides()
	err = do()
	switch {
	case err != nil || strings.HasPrefix(at, ".."):
		return err // all above the base is durable already
	case op == "mkdir":
		p.disk.Mkdir(at)
	case op == "lock" && !p.disk.Has(at):
		p.disk.Create(at)
	case op == "lock", op == "finish":
	case op == "unlock":
		p.disk.Remove(at)
	case op == "sync" && isDir(path):
		p.disk.SyncDir(at)
	case op == "sync":
		p.disk.Sync(at)
	case op == "syncall":
		p.syncAll()
	case op == "exchange":
		p.disk.Exchange(asides[0], at)
	case op == "rename":
		p.disk.Rename(p.vanished(asides, at), at)
	case op == "remove":
		p.removeAll(at)
	default:
		p.t.Errorf("unknown step %s", op)
	}
	p.remains.Look(p.disk, p.may)
	return nil
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// asides returns the directories that the recorded disk has beside the target.
func (p *tape) asides() (paths []string) {
	for _, e := range p.disk.Now() {
		if e.Dir && (strings.HasPrefix(filepath.Base(e.Path), ".x.holdfast-") || filepath.Base(e.Path) == "x") {
			paths = append(paths, e.Path)
		}
	}
	return paths
}

// vanished returns the one of these directories that no longer exists.
func (p *tape) vanished(paths []string, to string) string {
	for _, at := range paths {
		if at != to && !isDir(filepath.Join(p.base, at)) {
			return at
		}
	}
	p.t.Errorf("nothing was renamed to %s", to)
	return ""
}

// syncAll is an fsync of every file and directory.
func (p *tape) syncAll() {
	p.disk.SyncDir("")
	for _, e := range p.disk.Now() {
		if e.Dir {
			p.disk.SyncDir(e.Path)
		} else {
			p.disk.Sync(e.Path)
		}
	}
}

func (p *tape) removeAll(at string) {
	for _, e := range slices.Backward(p.disk.Now()) {
		if e.Path == at || strings.HasPrefix(e.Path, at+"/") {
			p.disk.Remove(e.Path)
			p.remains.Look(p.disk, p.may)
		}
	}
}

// Two files are enough: each further file multiplies the number of states.
var fewFiles = []string{"a", "sub/b"}

// fill is fill, recorded on the tape.
func (p *tape) fill(d *Dir, gen string) {
	if err := fillWith(fewFiles, d.at(), gen); err != nil {
		p.t.Fatal(err)
	}
	at, err := filepath.Rel(p.base, d.at())
	if err != nil {
		p.t.Fatal(err)
	}
	made, err := powerloss.Read(d.at())
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range made {
		path := filepath.ToSlash(filepath.Join(at, e.Path))
		if e.Dir {
			p.disk.Mkdir(path)
			continue
		}
		p.disk.Create(path)
		p.disk.Write(path, e.Data)
	}
	p.remains.Look(p.disk, p.may)
}

func (p *tape) begin(target string, broken wrap) *Dir {
	p.t.Helper()
	d, err := start(target, true, broken(p.step))
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

// commit replaces one generation by another, in a process that is not killed.
func (p *tape) commit(target, before, gen string, broken wrap) {
	p.t.Helper()
	d := p.begin(target, broken)
	p.fill(d, gen)
	p.expect(before, gen)
	if err := d.Commit(nil); err != nil {
		p.t.Fatal(err)
	}
	p.expect(gen)
}

// kill records a process that dies before or after the step that puts its directory
// in place.
func (p *tape) kill(target, before, gen string, after bool) {
	p.t.Helper()
	d := p.begin(target, passOn)
	p.fill(d, gen)
	p.expect(before, gen)
	dead := errors.New("killed")
	record := d.step
	var placed atomic.Bool // atomic, because several goroutines sync files
	d.step = func(op, path string, do func() error) error {
		if (op == "exchange" || op == "rename") && path == target {
			placed.Store(true)
		}
		if placed.Load() && (!after || op == "sync") {
			return dead
		}
		return record(op, path, do)
	}
	if err := errors.Join(d.syncTree(), d.finish(nil)); err != nil {
		p.t.Fatal(err)
	}
	_ = d.publish()
	if err := d.leave(); err != nil {
		p.t.Fatal(err)
	}
}

// A wrap changes a step function, so that some steps are left out or done
// differently.
type wrap func(stepFunc) stepFunc

func passOn(next stepFunc) stepFunc { return next }

// run replaces a directory that does not exist yet, then one that does, then one
// beside which other processes have died.
func (p *tape) run(broken wrap) {
	target := filepath.Join(p.base, "a", "b", "x")
	p.expect("")
	p.commit(target, "", "one", broken)
	p.commit(target, "one", "two", broken)
	p.kill(target, "two", "three", true)
	p.expect("two", "three", "four")
	d := p.begin(target, broken)
	p.fill(d, "four")
	if err := d.Commit(nil); err != nil {
		p.t.Fatal(err)
	}
	p.expect("four")
	p.kill(target, "four", "dead", false)
	p.expect("four", "five")
	p.commit(target, "four", "five", broken)

	// The last fsync fails: the old directory must be kept.
	d = p.begin(target, broken)
	p.fill(d, "six")
	p.expect("five", "six")
	record := d.step
	d.step = func(op, path string, do func() error) error {
		if op == "sync" && path == filepath.Dir(target) {
			return syscall.EIO
		}
		return record(op, path, do)
	}
	if err := d.Commit(nil); !errors.Is(err, syscall.EIO) {
		p.t.Errorf("Commit = %v, want EIO", err)
	}
	p.expect("five", "six", "seven")
	d = p.begin(target, broken)
	p.fill(d, "seven")
	if err := d.Commit(nil); err != nil {
		p.t.Fatal(err)
	}
	p.expect("seven")
}

func (p *tape) check() error {
	p.t.Helper()
	real, err := powerloss.Read(p.base)
	if err != nil {
		return err
	}
	if now := p.disk.Now(); now.Key() != real.Key() {
		p.t.Fatalf("recorded:\n%s\non disk:\n%s", now, real)
	}
	dir, err := powerloss.Scratch()
	if err != nil {
		return err
	}
	p.t.Cleanup(func() {
		if err := removeAll(dir); err != nil {
			p.t.Error(err)
		}
	})
	return p.remains.Check(dir, look)
}

// look finds the generation of the target. It also checks that the next process can
// replace the target, and leaves nothing beside it.
func look(base string) (func(*allowed) string, error) {
	parent := filepath.Join(base, "a", "b")
	target := filepath.Join(parent, "x")
	found := ""
	if _, err := os.Lstat(target); err == nil {
		if found, err = generationOf(fewFiles, target); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	settled := func(op, path string, do func() error) error {
		if op == "sync" {
			return nil // this check itself loses no power
		}
		return do()
	}
	// First a process that sweeps and gives up. Only then the target must have an
	// allowed generation.
	d, err := start(target, true, settled)
	if err == nil {
		err = d.Abort()
	}
	if err != nil {
		return nil, err
	}
	if now, err := generationOf(fewFiles, target); found == "" && err == nil {
		found = now
	}
	if d, err = start(target, true, settled); err == nil {
		err = errors.Join(fillWith(fewFiles, d.at(), "next"), d.Commit(nil))
	}
	if err != nil {
		return nil, err
	}
	if gen, err := generationOf(fewFiles, target); gen != "next" || err != nil {
		return nil, fmt.Errorf("after the next: %q, %w", gen, err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 1 {
		return nil, fmt.Errorf("the next leaves %v, %w", left, err)
	}
	return func(may *allowed) string {
		if !slices.Contains(*may, found) {
			return fmt.Sprintf("the target is %q; it may be %q", found, *may)
		}
		return ""
	}, nil
}

// noExchange is a system that cannot exchange directories.
func noExchange(next stepFunc) stepFunc {
	return func(op, path string, do func() error) error {
		if op == "exchange" {
			return errors.ErrUnsupported
		}
		return next(op, path, do)
	}
}

// TestPowerLoss simulates a loss of power after every step of a replacement. All
// files of the target are of the old generation, or all are of the new one.
func TestPowerLoss(t *testing.T) {
	for name, c := range map[string]struct {
		model  powerloss.Model
		system wrap
	}{
		"directories that lose names by themselves": {powerloss.Independent, passOn},
		"a journal, without exchange":               {powerloss.Ordered, noExchange},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTape(t, c.model)
			p.run(c.system)
			if err := p.check(); err != nil {
				t.Error(err)
			}
			t.Logf("%d moments, %d states", p.remains.Moments, p.remains.States)
		})
	}
}

func TestPowerLossFindsMistakes(t *testing.T) {
	forget := func(op string, which func(path string) bool) wrap {
		return func(next stepFunc) stepFunc {
			return func(o, path string, do func() error) error {
				if o == op && which(path) {
					return nil
				}
				return next(o, path, do)
			}
		}
	}
	named := func(name string) func(string) bool {
		return func(path string) bool { return filepath.Base(path) == name }
	}
	for name, broken := range map[string]wrap{
		"file not fsynced":      forget("sync", func(path string) bool { return strings.HasSuffix(path, "/sub/b") }),
		"directory not fsynced": forget("sync", named("sub")),
		"what is built not fsynced": forget("sync", func(path string) bool {
			return strings.HasPrefix(filepath.Base(path), ".x.holdfast-")
		}),
		"parent not fsynced":     forget("sync", named("b")),
		"a parent's not fsynced": forget("sync", named("a")),
		"what is swept is not settled": func(next stepFunc) stepFunc {
			var mu sync.Mutex
			before := "" // the step
			return func(op, path string, do func() error) error {
				mu.Lock()
				last := before
				before = op
				mu.Unlock()
				if op == "sync" && last == "lock" {
					return nil
				}
				return next(op, path, do)
			}
		},
		"exchange is two steps": func(next stepFunc) stepFunc { return noExchange(next) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newTape(t, powerloss.Independent)
			p.run(broken)
			if what := p.check(); what == nil || errors.Is(what, powerloss.ErrTooMany) {
				t.Errorf("nothing is wrong in %d states; %v", p.remains.States, what)
			} else {
				t.Log(what)
			}
		})
	}
}
