package powerloss

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Remains collects the states that losses of power can leave at many moments. With
// each moment goes a value of type P: what was promised by then. Only one goroutine
// may use it at a time.
type Remains[P any] struct {
	Model Model
	Trim  func(Tree) Tree // removes what does not matter: states that are equal then count as one; may be nil

	// Moments is the number of calls of Look. States is the number of different trees
	// that can be left.
	Moments, States int

	byKey   map[[sha256.Size]byte]*remain[P]
	order   []*remain[P]
	tooMany bool
}

// A remain is a state that a loss of power can leave at some moments.
type remain[P any] struct {
	tree     Tree
	promises []*P // what was promised at these moments
}

// most is the largest number of states at one moment. More than that takes a dozen
// names that are not durable.
const most = 4096

// ErrTooMany means that one moment had too many states, and Look stopped there.
var ErrTooMany = fmt.Errorf("there were more than %d states in one moment", most)

// Look adds the states that a loss of power could leave now. The caller must not
// change *promised afterwards: for another promise it passes another pointer.
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

// Check writes each state to a directory below dir, calls look to inspect it, and
// compares the result with each promise that held at a moment when the state was
// possible. breach describes how a promise was broken, or returns "". Check returns
// the first error, with the state that it is about.
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
		if err := removeAll(base); err != nil {
			return err
		}
	}
	if r.tooMany {
		return ErrTooMany
	}
	return nil
}

// Scratch makes a directory for files that need not be durable: in memory, if the
// system has a file system for that. The caller removes it.
func Scratch() (string, error) {
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-")
	if err != nil {
		dir, err = os.MkdirTemp("", "holdfast-")
	}
	return dir, err
}

// String lists the paths in t, with the sizes of files.
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
