package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// A recorder replaces perform. It records each step and, if intervene is set, lets
// that perform the step.
type recorder struct {
	steps     []string
	intervene func(n int, op, name string, do func() error) error
}

var (
	tempFile = regexp.MustCompile(`[0-9a-f]{16}\.[0-9]+$`)
	lockFile = regexp.MustCompile(`[0-9a-f]{16}\.lock$`)
)

func (r *recorder) step(op, name string, do func() error) error {
	n := len(r.steps)
	name = lockFile.ReplaceAllString(tempFile.ReplaceAllString(name, "T"), "L")
	r.steps = append(r.steps, op+" "+name)
	if r.intervene != nil {
		return r.intervene(n, op, name, do)
	}
	return do()
}

func record(s *Store) *recorder {
	r := new(recorder)
	s.step = r.step
	return r
}

// below returns the steps with relative names: those below the store's directory.
func (r *recorder) below() []string {
	return slices.DeleteFunc(slices.Clone(r.steps), func(s string) bool { return strings.Contains(s, " /") })
}

func lines(s string) []string { return strings.Split(strings.Trim(s, "\n"), "\n") }

func wantSteps(t *testing.T, what string, got []string, want string) {
	t.Helper()
	if !slices.Equal(got, lines(want)) {
		t.Errorf("%s took these steps:\n%s\n\nwant\n%s", what, strings.Join(got, "\n"), want)
	}
}

// The order of the steps makes a write atomic and durable.
func TestSteps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openStore(t, dir)
	r := record(s)
	mustCreate(t, s, "a/b/k", "data")
	wantSteps(t, "the first Create", r.below(), `
mkdir .holdfast-tmp
lock .holdfast-tmp/L
mkdir a
syncdir .
mkdir a/b
syncdir a
opendir a/b
create .holdfast-tmp/T
write .holdfast-tmp/T
sync .holdfast-tmp/T
link a/b/k
stat a/b/k
remove .holdfast-tmp/T
syncdir a/b`)

	r.steps = nil
	mustCreate(t, s, "a/b/l", "data")
	wantSteps(t, "the second Create", r.steps, `
opendir a/b
create .holdfast-tmp/T
write .holdfast-tmp/T
sync .holdfast-tmp/T
link a/b/l
stat a/b/l
remove .holdfast-tmp/T
syncdir a/b`)

	r.steps = nil
	if _, err := s.Put(t.Context(), "a/b/k", []byte("other")); err != nil {
		t.Fatal(err)
	}
	wantSteps(t, "Put", r.steps, `
opendir a/b
create .holdfast-tmp/T
write .holdfast-tmp/T
sync .holdfast-tmp/T
rename a/b/k
stat a/b/k
syncdir a/b`)

	r.steps = nil
	_, err := s.Create(t.Context(), "a/b/k", []byte("third"))
	wantKind(t, "Create of a key that is taken", err, backend.ErrExist)
	wantSteps(t, "Create of a key that is taken", r.steps, `
opendir a/b
create .holdfast-tmp/T
write .holdfast-tmp/T
sync .holdfast-tmp/T
link a/b/k
syncdir a/b
remove .holdfast-tmp/T`)

	// Another handle finds the directories, and cannot know whether their names are
	// durable. The second lock belongs to the first handle, which is alive.
	s = openStore(t, dir)
	r = record(s)
	mustCreate(t, s, "a/b/m", "data")
	wantSteps(t, "another handle's first Create", r.below()[:9], `
mkdir .holdfast-tmp
lock .holdfast-tmp/L
lock .holdfast-tmp/L
mkdir a
syncdir .
mkdir a/b
syncdir a
opendir a/b
create .holdfast-tmp/T`)
}

// Every directory above the store's own is fsynced, by the handle that made some of
// them and by one that found them.
func TestStepsAboveTheDirectory(t *testing.T) {
	tmp, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(tmp, link); err != nil {
		t.Fatal(err)
	}
	made := fmt.Sprintf("mkdir %[1]s/a\nmkdir %[1]s/a/b\n", tmp)
	synced := fmt.Sprintf("syncdir %[1]s/a\nsyncdir %[1]s\n", tmp)
	for up := tmp; up != filepath.Dir(up); up = filepath.Dir(up) {
		synced += "syncdir " + filepath.Dir(up) + "\n"
	}
	for i, want := range []string{made + synced, synced} {
		s := openStore(t, filepath.Join(link, "a", "b"))
		r := record(s)
		mustCreate(t, s, fmt.Sprint(i), "data")
		want += "mkdir .holdfast-tmp"
		wantSteps(t, []string{"making", "finding"}[i], r.steps[:len(lines(want))], want)
	}
}

type verb struct {
	name string
	call func(*Store, context.Context, string, []byte) (backend.Object, error)
}

var writes = []verb{{"Create", (*Store).Create}, {"Put", (*Store).Put}}

// A fault is a step that fails, before or after it has taken effect.
type fault struct {
	at    int
	after bool
	err   error
}

func (f fault) intervene(n int, _, _ string, do func() error) error {
	if n != f.at {
		return do()
	}
	if f.after {
		return errors.Join(do(), f.err)
	}
	return f.err
}

// Each step of a write fails once, with and without having its effect. The error must
// be true: a kind that means "not written" requires that there is no object, and
// success requires that it is complete. No temporary file is left, and a second
// attempt succeeds.
func TestEveryStepFails(t *testing.T) {
	for _, v := range writes {
		dry := openStore(t, filepath.Join(t.TempDir(), "store"))
		r := record(dry)
		if _, err := v.call(dry, t.Context(), "a/b/k", []byte("data")); err != nil {
			t.Fatal(err)
		}
		for at, step := range r.steps {
			for _, after := range []bool{false, true} {
				for _, errno := range []error{
					syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EACCES, syscall.EEXIST, syscall.ENOENT,
				} {
					if after && strings.HasPrefix(step, "lock ") {
						continue // there is no lock that fails after it was taken
					}
					name := fmt.Sprintf("%s/%d %s/after=%v/%v", v.name, at, strings.ReplaceAll(step, "/", "_"), after, errno)
					t.Run(name, func(t *testing.T) { failStep(t, v, fault{at, after, errno}) })
				}
			}
		}
	}
}

func failStep(t *testing.T, v verb, f fault) {
	t.Parallel()
	tmp, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(tmp, "store")
	s := openStore(t, dir)
	r := record(s)
	r.intervene = f.intervene
	_, err = v.call(s, t.Context(), "a/b/k", []byte("data"))
	step := r.steps[f.at]
	op, name, _ := strings.Cut(step, " ")
	placing := op == "link" || op == "rename"
	placed := op == "stat" || op == "remove" || step == "syncdir a/b" || placing && f.after
	harmless := op == "remove" || placing && f.after ||
		// Another process may have made the directory.
		op == "mkdir" && f.after && errors.Is(f.err, syscall.EEXIST) ||
		// This handle may have no right to fsync a directory above those that it
		// made.
		op == "syncdir" && filepath.IsAbs(name) && name != filepath.Dir(dir) && (errors.Is(f.err, syscall.EROFS) || errors.Is(f.err, syscall.EACCES))

	there := exists(filepath.Join(dir, "a/b/k"))
	if want := placed || harmless; there != want {
		t.Errorf("object exists: %v, want %v", there, want)
	}
	if harmless != (err == nil) {
		t.Errorf("%s = %v, want success: %v", v.name, err, harmless)
	}
	switch {
	case err == nil:
	case there && !backend.Retryable(err):
		t.Errorf("%v says that nothing was written, but it was", err)
	case errors.Is(err, backend.ErrNotExist):
		t.Errorf("%v: a write cannot find that there is no such object", err)
	case errors.Is(err, backend.ErrExist) && (v.name != "Create" || op != "link"):
		t.Errorf("%v: nothing was there before", err)
	case !there && (errors.Is(f.err, syscall.ENOSPC) || errors.Is(f.err, syscall.EDQUOT)):
		wantKind(t, v.name, err, backend.ErrNoSpace)
	case !there && (errors.Is(f.err, syscall.EROFS) || errors.Is(f.err, syscall.EACCES)):
		wantKind(t, v.name, err, backend.ErrPermission)
	}
	if left := temporary(t, dir); left != nil && op != "remove" {
		t.Errorf("left: %q", left)
	}

	s.step = perform
	if _, err := v.call(s, t.Context(), "a/b/k", []byte("data")); err != nil && (!there || !errors.Is(err, backend.ErrExist)) {
		t.Errorf("second attempt: %v", err)
	}
	if got := content(t, s, "a/b/k"); got != "data" {
		t.Errorf("Get = %q", got)
	}
	mustClose(t, s)
	if left := temporary(t, dir); left != nil {
		t.Errorf("left after Close: %q", left)
	}
}

// The context ends during each step. Before the step that gives the object its key,
// the error is the context's and nothing was written. After it, the write completes.
func TestContextEndsAtEveryStep(t *testing.T) {
	for _, v := range writes {
		dry := openStore(t, filepath.Join(t.TempDir(), "store"))
		r := record(dry)
		if _, err := v.call(dry, t.Context(), "a/k", []byte("data")); err != nil {
			t.Fatal(err)
		}
		placing := slices.IndexFunc(r.steps, func(s string) bool { return s == "link a/k" || s == "rename a/k" })
		for at, step := range r.steps {
			t.Run(fmt.Sprintf("%s/%d %s", v.name, at, strings.ReplaceAll(step, "/", "_")), func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				dir := filepath.Join(t.TempDir(), "store")
				s := openStore(t, dir)
				record(s).intervene = func(n int, _, _ string, do func() error) error {
					if n == at {
						cancel()
					}
					return do()
				}
				_, err := v.call(s, ctx, "a/k", []byte("data"))
				if at < placing {
					wantKind(t, v.name, err, context.Canceled)
				} else {
					wantKind(t, v.name, err, nil)
				}
				if there := exists(filepath.Join(dir, "a/k")); there != (err == nil) {
					t.Errorf("%s = %v, but object exists: %v", v.name, err, there)
				}
				if left := temporary(t, dir); left != nil {
					t.Errorf("left: %q", left)
				}
			})
		}
	}
}

func TestContextEndsBetweenPieces(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := openStore(t, t.TempDir())
	written := 0
	s.step = func(op, _ string, do func() error) error {
		if op == "write" {
			if written++; written == 2 {
				cancel()
			}
		}
		return do()
	}
	_, err := s.Put(ctx, "k", make([]byte, 4*piece))
	wantKind(t, "Put", err, context.Canceled)
	if written != 2 {
		t.Errorf("%d pieces written, want 2", written)
	}
}

// After the file is written and before it is linked, its key is taken by another
// handle or by something that is not an object.
func TestKeyIsTakenMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		take func(t *testing.T, dir string)
		kind error
	}{
		"by an object": {func(t *testing.T, dir string) {
			mustCreate(t, openStore(t, dir), "k", "theirs")
		}, backend.ErrExist},
		"by a directory": {func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "k"), 0o777); err != nil {
				t.Fatal(err)
			}
		}, backend.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			s.step = func(op, _ string, do func() error) error {
				if op == "link" {
					c.take(t, dir)
				}
				return do()
			}
			_, err := s.Create(t.Context(), "k", []byte("ours"))
			wantKind(t, "Create", err, c.kind)
			if left := temporary(t, dir); left != nil {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// A reply was lost: the link was made, and its repetition fails because the key is
// taken. The handle must find that it took the key itself.
func TestLostReply(t *testing.T) {
	for _, v := range writes {
		for _, errno := range []error{syscall.EEXIST, syscall.ENOENT, syscall.EIO} {
			s := openStore(t, t.TempDir())
			s.step = func(op, _ string, do func() error) error {
				if op == "link" || op == "rename" {
					return errors.Join(do(), errno)
				}
				return do()
			}
			if _, err := v.call(s, t.Context(), "k", []byte("ours")); err != nil {
				t.Errorf("%s whose reply is %v = %v, want success", v.name, errno, err)
			}
		}
	}
}

// noHardLinks makes a store behave as on a file system without hard links.
func noHardLinks(op, _ string, do func() error) error {
	if op == "link" {
		return syscall.EPERM
	}
	return do()
}

// Many goroutines on many handles create the same key. One succeeds, and its data is
// stored: with hard links, and with the exclusive rename that replaces them.
func TestCreateRace(t *testing.T) {
	t.Run("link", func(t *testing.T) { race(t, perform) })
	t.Run("rename", func(t *testing.T) {
		probe := openStore(t, t.TempDir())
		probe.step = noHardLinks
		if _, err := probe.Create(t.Context(), "k", nil); errors.Is(err, backend.ErrUnsupported) {
			t.Skip("neither Linux nor macOS, or a file system without exclusive rename")
		}
		race(t, noHardLinks)
	})
}

func race(t *testing.T, step stepFunc) {
	dir := t.TempDir()
	stores := make([]*Store, 4)
	for i := range stores {
		stores[i] = openStore(t, dir)
		stores[i].step = step
	}
	for round := range 60 {
		key := fmt.Sprintf("race/%03d", round)
		var winners atomic.Int32
		var won string
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 2 * len(stores) {
			wg.Go(func() {
				<-start
				data := fmt.Sprint(i)
				switch _, err := stores[i%len(stores)].Create(t.Context(), key, []byte(data)); {
				case err == nil:
					winners.Add(1)
					won = data
				case !errors.Is(err, backend.ErrExist):
					t.Errorf("Create = %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if n := winners.Load(); n != 1 {
			t.Fatalf("%s: %d winners", key, n)
		}
		if got := content(t, stores[0], key); got != won {
			t.Fatalf("%s holds %q, but %q won", key, got, won)
		}
	}
	if left := temporary(t, dir); left != nil {
		t.Errorf("left: %q", left)
	}
}

// tick returns when the file system's clock has advanced. That clock may be as coarse
// as the kernel's timer.
func tick(t *testing.T, dir string) time.Time {
	t.Helper()
	now := func() time.Time {
		name := filepath.Join(dir, "tick")
		if err := errors.Join(os.WriteFile(name, nil, 0o666), os.Chmod(name, 0o600)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return changeTime(info)
	}
	for first := now(); ; {
		if t := now(); t.After(first) {
			return t
		}
	}
}

// An object's time is that at which it got its key. If a process is suspended before
// that moment, the object must not get an earlier time, by which it could be deleted
// too early. If it is suspended afterwards, it must not return a later time, by which
// it would take its commit for newer than it is.
func TestTimeIsThatOfTheKey(t *testing.T) {
	clock := t.TempDir()
	for name, c := range map[string]struct {
		call verb
		wrap stepFunc
	}{
		"Create":                    {writes[0], perform},
		"Create without hard links": {writes[0], noHardLinks},
		"Put":                       {writes[1], perform},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			var before, after time.Time
			s.step = func(op, name string, do func() error) error {
				if op == "remove" {
					tick(t, clock) // files that are touched from here on have a later time than after
				}
				if op != "link" && op != "rename" {
					return c.wrap(op, name, do)
				}
				old := time.Now().Add(-24 * time.Hour)
				temps := temporary(t, dir)
				if err := os.Chtimes(filepath.Join(dir, tempDir, temps[0]), old, old); err != nil {
					t.Error(err)
				}
				before = tick(t, clock)
				err := c.wrap(op, name, do)
				after = tick(t, clock)
				return err
			}
			o, err := c.call.call(s, t.Context(), "k", []byte("data"))
			if err != nil {
				if errors.Is(err, backend.ErrUnsupported) {
					t.Skip(err)
				}
				t.Fatal(err)
			}
			if o.ModTime.Before(before) || o.ModTime.After(after) {
				t.Errorf("time %v is not between %v and %v, when the object got its key", o.ModTime, before, after)
			}
			for listed, err := range s.List(t.Context(), "", "") {
				if err != nil || listed.Size != o.Size || listed.Key != o.Key {
					t.Errorf("listed %v, %v; want %v", listed, err, o)
				}
				if d := listed.ModTime.Sub(o.ModTime); d < 0 || d > 5*time.Second {
					t.Errorf("List says %v, %v after what %s said", listed.ModTime, d, name)
				}
			}
		})
	}
}
