package atomicdir

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A fault makes one step fail, before or after the step has taken effect. It records
// all steps.
type fault struct {
	at    int // -1 for none
	after bool
	err   error

	mu    sync.Mutex
	steps []string // op and path; concurrent steps are in the order in which they begin
}

func (f *fault) step(op, path string, do func() error) error {
	f.mu.Lock()
	n := len(f.steps)
	f.steps = append(f.steps, op+" "+path)
	f.mu.Unlock()
	switch {
	case n != f.at:
		return do()
	case f.after:
		return errors.Join(do(), f.err)
	}
	return f.err
}

// replace is build with a step that fails.
func (f *fault) replace(target string, system wrap) error {
	d, err := start(target, true, system(f.step))
	if err != nil {
		return err
	}
	if err := fill(d.at(), "new"); err != nil {
		return errors.Join(err, d.Abort())
	}
	return d.Commit(nil)
}

// A transient directory is built and put in place by the same steps, but for those that
// wait for the disk.
func TestTransientIsNotSynced(t *testing.T) {
	all, transient := &fault{at: -1}, &fault{at: -1}
	for f, system := range map[*fault]wrap{all: passOn, transient: unsynced} {
		target := filepath.Join(oldTarget(t, true), "a", "x")
		if err := f.replace(target, system); err != nil {
			t.Fatal(err)
		}
		wantGeneration(t, target, "new")
	}
	ops := func(f *fault) (ops []string) {
		for _, step := range f.steps {
			op, _, _ := strings.Cut(step, " ")
			ops = append(ops, op)
		}
		return ops
	}
	want := slices.DeleteFunc(ops(all), func(op string) bool { return op == "sync" || op == "syncall" })
	if got := ops(transient); !slices.Equal(got, want) || len(want) == len(all.steps) {
		t.Errorf("%q; want %q, without syncs", got, ops(all))
	}
}

// Each step fails once, with and without having its effect, for each reason that a
// disk may have. Then the target is the old directory, or the new one if the failed
// step put it in place; nothing is left beside it; and a second attempt succeeds.
func TestEveryStepFails(t *testing.T) {
	for name, c := range map[string]struct {
		system wrap
		old    bool
	}{
		"new":              {passOn, false},
		"exchange":         {passOn, true},
		"without exchange": {noExchange, true},
	} {
		dry := &fault{at: -1}
		if err := dry.replace(filepath.Join(oldTarget(t, c.old), "a", "x"), c.system); err != nil {
			t.Fatal(err)
		}
		for at, step := range dry.steps {
			op, path, _ := strings.Cut(step, " ")
			refused := c.old && op == "rename" && slices.Index(dry.steps, step) == at // the target is not empty, so this rename fails anyway
			for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EACCES} {
				for _, after := range []bool{false, true} {
					if after && (refused || !errors.Is(errno, syscall.EIO)) {
						continue
					}
					if op == "lock" && after || op == "unlock" && !after {
						continue // in both cases this process still holds the lock
					}
					t.Run(fmt.Sprintf("%s/%d %s %s/%v/after=%v", name, at, op, filepath.Base(path), errno, after), func(t *testing.T) {
						failStep(t, &fault{at: at, after: after, err: errno}, c.system, c.old)
					})
				}
			}
		}
	}
}

// oldTarget returns a directory. In it, a/x is of generation "old" if old is set.
func oldTarget(t *testing.T, old bool) string {
	parent := tempDir(t)
	if old {
		mustFill(t, filepath.Join(parent, "a", "x"), "old")
	}
	return parent
}

func failStep(t *testing.T, f *fault, system wrap, old bool) {
	parent := oldTarget(t, old)
	target := filepath.Join(parent, "a", "x")
	err := f.replace(target, system)
	op, path, _ := strings.Cut(f.steps[f.at], " ")
	placing := path == target && (op == "exchange" || op == "rename")
	settling := op == "sync" && (path == filepath.Dir(target) || path == parent)
	clearing := op == "remove" || op == "unlock"
	// If a file may not be opened, syncing the whole file system replaces its fsync.
	harmless := clearing || op == "sync" && !settling && errors.Is(f.err, syscall.EACCES)
	if harmless != (err == nil) || err != nil && !errors.Is(err, f.err) {
		t.Errorf("err = %v; want success: %v", err, harmless)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("an error of more than one line: %v", err)
	}
	switch isNew := harmless || settling || placing && f.after; {
	case isNew:
		wantGeneration(t, target, "new")
	case old:
		wantGeneration(t, target, "old")
	case exists(target):
		t.Error("there is a target")
	}
	if !clearing && !settling {
		wantNothingAside(t, parent)
	}
	if err := build(target, "next", true); err != nil {
		t.Errorf("second attempt: %v", err)
	}
	wantGeneration(t, target, "next")
	wantNames(t, filepath.Join(parent, "a"), "x")
}
