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
	"syscall"
	"testing"

	"github.com/holdfast-io/holdfast/internal/powerloss"
)

// A stage is a directory that other users may write to. It holds a target that is
// replaced, and a directory "precious". Nothing may touch precious, nor the directory
// "victim" elsewhere.
type stage struct {
	parent, target    string
	victim, precious  *os.Root // held open, so they are the same directories whatever their names are
	victimPath        string
	victimIs, isThere string // digests
}

func newStage(t *testing.T) *stage {
	t.Helper()
	base, err := powerloss.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeAll(base); err != nil {
			t.Error(err)
		}
	})
	s := &stage{parent: filepath.Join(base, "shared"), victimPath: filepath.Join(base, "victim")}
	s.target = filepath.Join(s.parent, "x")
	mustFill(t, s.target, "old")
	for path, root := range map[string]**os.Root{s.victimPath: &s.victim, filepath.Join(s.parent, "precious"): &s.precious} {
		mustFill(t, path, "precious")
		r, err := os.OpenRoot(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		*root = r
	}
	if err := os.Chmod(s.parent, 0o777); err != nil {
		t.Fatal(err)
	}
	dead, err := Begin(s.target, true) // a process that died and left its directory
	if err == nil {
		err = errors.Join(fillRoot(dead.Root(), "dead"), dead.leave())
	}
	if err != nil {
		t.Fatal(err)
	}
	s.victimIs, s.isThere = digest(t, s.victim), digest(t, s.precious)
	return s
}

// digest describes a directory and all that is in it.
func digest(t *testing.T, root *os.Root) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			data, _ := fs.ReadFile(root.FS(), p)
			fmt.Fprintf(&b, "%s %v %v %q\n", p, info.Mode(), info.ModTime(), data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// check fails if the victim or precious was touched.
func (s *stage) check(t *testing.T) {
	t.Helper()
	if now := digest(t, s.victim); now != s.victimIs {
		t.Errorf("the victim is\n%s\nwant\n%s", now, s.victimIs)
	}
	if now := digest(t, s.precious); now != s.isThere {
		t.Errorf("precious is\n%s\nwant\n%s", now, s.isThere)
	}
}

// fillRoot is fill for an open directory.
func fillRoot(root *os.Root, generation string) error {
	for _, name := range generationFiles {
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(name, []byte(generation), 0o644); err != nil {
			return err
		}
	}
	return root.Chmod("sub", 0o555)
}

// play replaces the target.
func (s *stage) play(step stepFunc) error {
	d, err := start(s.target, true, step)
	if err != nil {
		return err
	}
	if err := fillRoot(d.Root(), "new"); err != nil {
		return errors.Join(err, d.Abort())
	}
	return d.Commit(func(dir *os.Root) error { return dir.Chmod(".", 0o750) })
}

// A trick gives a name to something else, and returns a function that undoes this.
type trick func(s *stage, name string) (undo func())

func giveTo(put func(s *stage, path string) error, takeBack func(s *stage, path string) error) trick {
	return func(s *stage, name string) func() {
		path, stolen := filepath.Join(s.parent, name), filepath.Join(s.parent, "stolen")
		if os.Rename(path, stolen) != nil {
			return func() {}
		}
		_ = put(s, path) // if it fails, the name is free, which is a trick too
		return func() { _ = errors.Join(takeBack(s, path), os.Rename(stolen, path)) }
	}
}

func removeLink(_ *stage, path string) error { return os.Remove(path) }

var tricks = map[string]trick{
	"a link elsewhere": giveTo(func(s *stage, path string) error { return os.Symlink(s.victimPath, path) }, removeLink),
	"a link beside":    giveTo(func(_ *stage, path string) error { return os.Symlink("precious", path) }, removeLink),
	"another directory": giveTo(
		func(s *stage, path string) error { return os.Rename(filepath.Join(s.parent, "precious"), path) },
		func(s *stage, path string) error { return os.Rename(path, filepath.Join(s.parent, "precious")) }),
	"a file of mine": giveTo(func(_ *stage, path string) error { return os.WriteFile(path, nil, 0o600) }, removeLink),
}

// An adversary plays a trick on a name before one step, after it, or during it.
// "During" means that the trick is undone as soon as the step is done.
type adversary struct {
	s     *stage
	at    int
	when  string
	name  func(s *stage) string
	trick trick

	mu    sync.Mutex
	steps []string
}

func (a *adversary) step(op, path string, do func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.steps)
	a.steps = append(a.steps, op+" "+path)
	if n != a.at {
		return do()
	}
	if a.when == "after" {
		err := do()
		a.trick(a.s, a.name(a.s))
		return err
	}
	undo := a.trick(a.s, a.name(a.s))
	err := do()
	if a.when == "during" {
		undo()
	}
	return err
}

// find returns the last name beside the target that has the given suffix.
func find(suffix string) func(*stage) string {
	return func(s *stage) (found string) {
		entries, _ := os.ReadDir(s.parent)
		for _, e := range entries {
			rest, ok := strings.CutPrefix(e.Name(), ".x.holdfast-")
			if ok && len(rest) == 26+len(suffix) && strings.HasSuffix(rest, suffix) {
				found = e.Name()
			}
		}
		if found == "" {
			return "no such file"
		}
		return found
	}
}

var victims = map[string]func(*stage) string{
	"what is built": find(""), "what was old": find(oldSuffix), "the lock": find(lockSuffix),
	"the target": func(*stage) string { return "x" },
}

// A play is one trick at one step.
type play struct {
	at                int
	when, name, trick string
}

// plays returns all tricks at all steps.
func plays(steps []string) (list []play) {
	for at := range steps {
		for name := range victims {
			// Before Begin looks, a change of the target is no attack: Begin replaces
			// whatever it finds.
			if name == "the target" && at < lookedAt(steps) {
				continue
			}
			for trick := range tricks {
				for _, when := range []string{"before", "during", "after"} {
					list = append(list, play{at, when, name, trick})
				}
			}
		}
	}
	return list
}

// run plays the trick, and returns the error of the replacement.
func (p play) run(t *testing.T, system wrap, steps []string) error {
	t.Helper()
	s := newStage(t)
	a := &adversary{s: s, at: p.at, when: p.when, name: victims[p.name], trick: tricks[p.trick]}
	err := s.play(system(a.step))
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("an error of more than one line: %v", err)
	}
	if d, err := Begin(s.target, false); err == nil { // sweeps what is left
		_ = d.Abort()
	}
	s.check(t)
	if err == nil && p.at < placedAt(steps) {
		wantGeneration(t, s.target, "new")
	}
	return err
}

// A user who may change names beside the target plays each trick on each name,
// before, during and after each step. Nothing but the new directory and the old
// target is touched.
func TestTricksAtEveryStep(t *testing.T) {
	for name, system := range map[string]wrap{"exchange": passOn, "without exchange": noExchange} {
		dry := &adversary{at: -1}
		if err := newStage(t).play(system(dry.step)); err != nil {
			t.Fatal(err)
		}
		failed, all := 0, plays(dry.steps)
		for _, p := range all {
			err := p.run(t, system, dry.steps)
			if err != nil {
				failed++
			}
			if t.Failed() {
				t.Fatalf("%s, %s step %d, %s: %s is given to %s; err = %v", name, p.when, p.at, dry.steps[p.at], p.name, p.trick, err)
			}
		}
		t.Logf("%s: %d tricks, of which %d made it fail", name, len(all), failed)
	}
}

// lookedAt returns the first step after Begin has looked at the target.
func lookedAt(steps []string) int {
	return slices.IndexFunc(steps, func(step string) bool { return strings.HasPrefix(step, "mkdir ") })
}

// placedAt returns the first step that gives the target's name to another directory.
func placedAt(steps []string) int {
	return slices.IndexFunc(steps, func(step string) bool { return strings.HasPrefix(step, "rename ") })
}

// All tricks are played in parallel, at random moments, also between steps.
func TestAdversaryAtAnyMoment(t *testing.T) {
	failed := 0
	for range 150 {
		s := newStage(t)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for _, trick := range tricks {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						trick(s, find("")(s))()
					}
				}
			})
		}
		if err := s.play(perform); err != nil {
			failed++
		}
		close(stop)
		wg.Wait()
		s.check(t)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d of 150 failed", failed)
}

// In a directory that other users may write to, the name alone does not show that a
// dead process left a directory.
func TestOnlyWhatIsNotedIsSwept(t *testing.T) {
	s := newStage(t)
	const name = ".x.holdfast-aaaaaaaaaaaaaaaaaaaaaaaaaa"
	for _, suffix := range []string{"", oldSuffix} {
		for _, lock := range []bool{false, true} {
			if lock {
				if err := os.WriteFile(filepath.Join(s.parent, name+lockSuffix), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Rename(filepath.Join(s.parent, "precious"), filepath.Join(s.parent, name+suffix)); err != nil {
				t.Fatal(err)
			}
			if err := s.play(perform); err != nil {
				t.Error(err)
			}
			s.check(t)
			wantNames(t, s.parent, name+suffix, "x")
			if err := os.Rename(filepath.Join(s.parent, name+suffix), filepath.Join(s.parent, "precious")); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantGeneration(t, s.target, "new")
}

// A note counts only if nobody else can have written it.
func TestForgedNotesAreNotBelieved(t *testing.T) {
	const name = ".x.holdfast-aaaaaaaaaaaaaaaaaaaaaaaaaa"
	for _, c := range []struct {
		name  string
		mode  fs.FileMode
		owner int
		swept bool
	}{
		{"one's own", 0o600, os.Geteuid(), true},
		{"one that others may write", 0o666, os.Geteuid(), false},
		{"another user's", 0o600, 12345, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.owner != os.Geteuid() && os.Geteuid() != 0 {
				t.Skip("only root may give files away")
			}
			s := newStage(t)
			info, err := s.precious.Stat(".")
			if err != nil {
				t.Fatal(err)
			}
			id, lock := identityOf(info), filepath.Join(s.parent, name+lockSuffix)
			for _, err := range []error{
				os.WriteFile(lock, fmt.Appendf(nil, noteLine, id.dev, id.ino), 0o600),
				os.Chown(lock, c.owner, -1),
				os.Chmod(lock, c.mode),
				os.Rename(filepath.Join(s.parent, "precious"), filepath.Join(s.parent, name)),
				s.play(perform),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if exists(filepath.Join(s.parent, name)) == c.swept {
				t.Errorf("swept: %v, want %v", !c.swept, c.swept)
			}
		})
	}
}

// A link that another user may have made is not followed.
func TestLinksOfOthersAreNotFollowed(t *testing.T) {
	me, other := os.Geteuid(), 12345
	for _, c := range []struct {
		name       string
		link, dir  int // owners
		mode       fs.FileMode
		isFollowed bool
	}{
		{"one's own", me, me, 0o755, true},
		{"one's own, in a directory of a group", me, me, 0o775, true},
		{"one's own, in a directory like /tmp", me, me, fs.ModeSticky | 0o777, true},
		{"one's own, in a directory of all", me, me, 0o777, false},
		{"one's own, in a directory of another's", me, other, 0o755, false},
		{"another's", other, other, 0o755, false},
		{"another's, in a directory like /tmp", other, me, fs.ModeSticky | 0o777, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if me != 0 && (c.link == other || c.dir == other) {
				t.Skip("only root may give files away")
			}
			base := tempDir(t)
			in, elsewhere := filepath.Join(base, "in"), filepath.Join(base, "elsewhere")
			mustFill(t, elsewhere, "old")
			for _, err := range []error{
				os.Mkdir(in, 0o755),
				os.Symlink(elsewhere, filepath.Join(in, "x")),
				os.Lchown(filepath.Join(in, "x"), c.link, -1),
				os.Chown(in, c.dir, -1),
				os.Chmod(in, c.mode),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			err := build(filepath.Join(in, "x"), "new", true)
			if c.isFollowed != (err == nil) || err != nil && !strings.Contains(err.Error(), "give the directory that it names") {
				t.Errorf("err = %v; want success: %v", err, c.isFollowed)
			}
			want := "old"
			if c.isFollowed {
				want = "new"
			}
			wantGeneration(t, elsewhere, want)
		})
	}
}

// A link may lead to another link.
func TestLinksToLinks(t *testing.T) {
	base := tempDir(t)
	mustFill(t, filepath.Join(base, "d", "x"), "old")
	for name, to := range map[string]string{
		"l1": "l2", "l2": filepath.Join(base, "in", "l3"), "in": "d/../d", "d/l3": "../in/x", "up": "d/x/sub/..", "dot": "d/x/.", "slash": "d/x/",
		"far": "in/up/l1", "d/up": "..", "missing": "d/new/x",
	} {
		if err := os.Symlink(to, filepath.Join(base, name)); err != nil {
			t.Fatal(err)
		}
	}
	for n, name := range []string{"l1", "up", "dot", "slash", "far"} {
		gen := fmt.Sprint(n)
		if err := build(filepath.Join(base, name), gen, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantGeneration(t, filepath.Join(base, "d", "x"), gen)
		wantNames(t, filepath.Join(base, "d"), "x", "l3", "up")
	}
	if err := build(filepath.Join(base, "missing"), "new", true); err == nil || !strings.Contains(err.Error(), "to nothing") {
		t.Errorf("missing: %v", err)
	}
}

// Processes that replace the same shared target at the same time may make each other
// fail, and do no other harm.
func TestManyReplaceOneSharedTarget(t *testing.T) {
	s := newStage(t)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for k := range 5 {
				err := build(s.target, fmt.Sprint(n, " ", k), true)
				if err != nil && !strings.Contains(err.Error(), "has become another file") {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := generation(s.target); err != nil {
		t.Error(err)
	}
	if err := build(s.target, "last", true); err != nil {
		t.Error(err)
	}
	wantNames(t, s.parent, "precious", "x")
	s.check(t)
}

// The old directory may have subdirectories that nobody may write or enter. The
// targets of symbolic links in it are not removed.
func TestRemovalOfReadOnlyDirectories(t *testing.T) {
	for _, mode := range []fs.FileMode{0o777, 0o755} { // of the parent
		base := tempDir(t)
		for dir := base; dir != os.TempDir(); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(mode.String(), func(t *testing.T) {
			asOrdinaryUser(t)
			parent, victim := filepath.Join(base, "p"), filepath.Join(base, "victim")
			target := filepath.Join(parent, "x")
			mustFill(t, victim, "victim")
			mustFill(t, target, "old")
			for _, err := range []error{
				os.Chmod(victim, 0o500),
				os.MkdirAll(filepath.Join(target, "in", "deep"), 0o755),
				os.Symlink(victim, filepath.Join(target, "in", "deep", "link")),
				os.Symlink(".", filepath.Join(target, "loop")),
				os.Chmod(filepath.Join(target, "in", "deep"), 0),
				os.Chmod(filepath.Join(target, "in"), 0o300),
				os.Chmod(target, 0o555),
				os.Chmod(parent, mode),
				build(target, "new", true),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			wantGeneration(t, target, "new")
			wantNames(t, parent, "x")
			wantGeneration(t, victim, "victim")
			if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o500 {
				t.Errorf("the victim has mode %v, %v", info.Mode(), err)
			}
		})
	}
}

// The final permissions may keep everybody out. The directory is still removed if it
// cannot be put in place.
func TestAbortOfWhatIsFinished(t *testing.T) {
	parent := tempDir(t)
	for dir := parent; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	asOrdinaryUser(t)
	target := filepath.Join(parent, "x")
	d := begin(t, target, false)
	mustFill(t, target, "someone's")
	if err := fillRoot(d.Root(), "new"); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(func(dir *os.Root) error { return dir.Chmod(".", 0) }); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("err = %v, want ErrNotEmpty", err)
	}
	wantNames(t, parent, "x")
	wantGeneration(t, target, "someone's")
}

// An error of the system is returned as it is.
func TestFinishFails(t *testing.T) {
	parent := tempDir(t)
	d := begin(t, filepath.Join(parent, "x"), false)
	if err := d.Commit(func(*os.Root) error { return syscall.EPERM }); !errors.Is(err, syscall.EPERM) {
		t.Errorf("err = %v, want EPERM", err)
	}
	wantNames(t, parent)
}
