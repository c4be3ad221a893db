package powerloss

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Remains collect what losses of power can leave, moment by moment, with what
// was promised by then: a P. They are used by one goroutine at a time.
type Remains[P any] struct {
	Model Model
	Trim  func(Tree) Tree // of what does not matter, unless nil: states are equal without it

	// Moments is how many were looked at. States is how many trees can be left
	// that differ.
	Moments, States int

	byKey   map[[sha256.Size]byte]*remain[P]
	order   []*remain[P]
	tooMany bool
}

// A remain is what a loss of power can leave at some moments.
type remain[P any] struct {
	tree     Tree
	promises []*P // at these moments
}

// most is how many states there may be in one moment. It takes a dozen names
// that are not durable to come to more.
const most = 4096

// ErrTooMany means that not all states were looked at, as there were too many in
// one moment.
var ErrTooMany = fmt.Errorf("there were more than %d states in one moment", most)

// Look notes what a loss of power could leave now. What is promised is not
// changed after that: something else is promised by another value.
func (r *Remains[P]) Look(d *Disk, promised *P) {
	if r.tooMany {
		return
	}
	if r.byKey == nil {
		r.byKey = make(map[[sha256.Size]byte]*remain[P])
	}
	r.Moments++
	n := 0
	for tree := range d.Losses(r.Model) {
		if n++; n > most {
			r.tooMany = true
			return
		}
		if r.Trim != nil {
			tree = r.Trim(tree)
		}
		r.add(tree, promised)
	}
}

func (r *Remains[P]) add(tree Tree, promised *P) {
	key := tree.Key()
	state := r.byKey[key]
	if state == nil {
		state = &remain[P]{tree: tree}
		r.byKey[key], r.order = state, append(r.order, state)
		r.States++
	}
	if n := len(state.promises); n == 0 || state.promises[n-1] != promised {
		state.promises = append(state.promises, promised)
	}
}

// Check makes each state in dir, has it looked at, and compares what was found
// with each promise that held when it could come to be. breach says how a
// promise was broken, or "". Check returns what is wrong with the first state
// with which something is.
func (r *Remains[P]) Check(dir string, look func(base string) (breach func(*P) string, err error)) error {
	base := filepath.Join(dir, "base")
	for i, state := range r.order {
		if err := state.tree.Make(base); err != nil {
			return err
		}
		breach, err := look(base)
		if err != nil {
			return fmt.Errorf("state %d: %w\n%s", i, err, state.tree)
		}
		for _, promised := range state.promises {
			if what := breach(promised); what != "" {
				return fmt.Errorf("state %d: %s\n%s", i, what, state.tree)
			}
		}
		if err := os.RemoveAll(base); err != nil {
			return err
		}
	}
	if r.tooMany {
		return ErrTooMany
	}
	return nil
}

// Scratch makes a directory for what need not be durable, in memory if there is
// a file system for that. The caller removes it.
func Scratch() (string, error) {
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-")
	if err != nil {
		dir, err = os.MkdirTemp("", "holdfast-")
	}
	return dir, err
}

// String lists what is in t, with the sizes of files.
func (t Tree) String() string {
	var b strings.Builder
	for _, e := range t {
		if e.Dir {
			fmt.Fprintf(&b, "%s/\n", e.Path)
		} else {
			fmt.Fprintf(&b, "%s %d\n", e.Path, len(e.Data))
		}
	}
	return b.String()
}
