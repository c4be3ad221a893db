package checkpoint

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// A Ref says which checkpoint of a task is meant: the latest one, which is the zero
// Ref, one by its number, or one by the name of its savepoint.
type Ref struct {
	kind      refKind
	seq       uint64
	savepoint string
}

type refKind int

const (
	latest refKind = iota
	bySeq
	bySavepoint
)

// Seq returns the Ref of the checkpoint with a number.
func Seq(n uint64) Ref { return Ref{kind: bySeq, seq: n} }

// Savepoint returns the Ref of the checkpoint whose savepoint has a name.
func Savepoint(name string) Ref { return Ref{kind: bySavepoint, savepoint: name} }

// ParseRef parses what a person writes: digits are a checkpoint's number, "latest" is the
// latest checkpoint, and anything else is the name of a savepoint, which is never one of
// these. The empty string is an error.
func ParseRef(s string) (Ref, error) {
	if s == "" {
		return Savepoint(""), errNoRef // no checkpoint, in case someone ignores the error
	}
	if s == (Ref{}).String() {
		return Ref{}, nil
	}
	if !isNumber(s) {
		return Savepoint(s), nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return Savepoint(""), backend.Invalidf("checkpoint %.40s: no number is as large; 'holdfast ls' lists what there is", s)
	}
	return Seq(n), nil
}

var errNoRef = backend.Invalidf("which checkpoint? give its number, or the name of a savepoint")

// String returns what ParseRef reads, or "latest".
func (r Ref) String() string {
	switch r.kind {
	case bySeq:
		return strconv.FormatUint(r.seq, 10)
	case bySavepoint:
		return r.savepoint
	}
	return "latest"
}

func (r Ref) check() error {
	if r.kind == bySavepoint && r.savepoint == "" {
		return errNoRef
	}
	return nil
}

// names reports whether r, which is not the latest, means c.
func (r Ref) names(c format.Retained) bool {
	if r.kind == bySeq {
		return c.Seq == r.seq
	}
	return c.Savepoint == r.savepoint
}

// find returns the checkpoint that r means. newest is the task's newest manifest, and all
// are the checkpoints that it lists.
func (t *Task) find(newest *history.Committed, all []format.Retained, r Ref) (format.Retained, error) {
	var why string
	i := slices.IndexFunc(all, r.names)
	switch {
	case r.kind == latest && newest.Current() != nil:
		return all[0], nil
	case r.kind == latest:
		why = " has no checkpoint"
	case i >= 0:
		return all[i], nil
	case r.kind == bySavepoint:
		why = fmt.Sprintf(" has no savepoint %q", r.savepoint)
	case newest != nil && r.seq > 0 && r.seq <= newest.Seq:
		why = fmt.Sprintf(": number %d is not, or no longer, a retained checkpoint", r.seq)
	default:
		why = fmt.Sprintf(": checkpoint %d was never committed", r.seq)
	}
	return format.Retained{}, fmt.Errorf("task %q%s: %w", t.Name(), why, ErrNoCheckpoint)
}
