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

// A fault is a step that fails, before or after it has taken effect. It notes the
// steps.
type fault struct {
	at    int // -1 for none
	after bool
	err   error

	mu    sync.Mutex
	steps []string // op and path; of several at a time, in the order in which they begin
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

// replace is build, with steps that fail.
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

// Each step fails once, without and with its effect, for each reason that a disk
// may have. The target is as it was, or new if that is the step which failed;
// nothing stays beside it, and a second attempt sets things right.
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
			refused := c.old && op == "rename" && slices.Index(dry.steps, step) == at // the target is not empty
			for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EACCES} {
				for _, after := range []bool{false, true} {
					if after && (refused || !errors.Is(errno, syscall.EIO)) {
						continue
					}
					if op == "lock" && after || op == "unlock" && !after {
						continue // whoever cannot give a lock back has it
					}
					t.Run(fmt.Sprintf("%s/%d %s %s/%v/after=%v", name, at, op, filepath.Base(path), errno, after), func(t *testing.T) {
						failStep(t, &fault{at: at, after: after, err: errno}, c.system, c.old)
					})
				}
			}
		}
	}
}

// oldTarget returns a directory in which a/x is of generation "old".
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
	// A file that may not be opened is made durable by a call for all of them.
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
