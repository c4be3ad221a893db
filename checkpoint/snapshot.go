package checkpoint

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A Snapshot is what a job saves: how far it has come in its inputs, and the
// state that belongs to that position. Every part may be absent.
type Snapshot struct {
	// Offsets maps each input partition to a position in it. Both are opaque:
	// "orders/7" -> "4711".
	Offsets map[string]string
	// OffsetsAre records what an offset names; the zero value is NextToRead.
	OffsetsAre OffsetMeaning
	// Labels are the host's own notes, kept with the checkpoint.
	Labels map[string]string
	// Savepoint, if it is not empty, names the checkpoint. Retention does not
	// remove it. The name is unique in the task and is no number.
	Savepoint string
	// SavepointExpiresAfter is after how long the savepoint expires, counted from its commit
	// by the store's clock. From then on retention treats it like any other checkpoint,
	// though it still has its name. It is rounded up to seconds. Zero is never.
	SavepointExpiresAfter time.Duration
	// State is the state's files. It is read before Commit or Save returns.
	State Source
	// Progress, if it is not nil, is called as the save proceeds, from several
	// goroutines but one call at a time. The save waits for it.
	Progress func(Progress)
}

// OffsetMeaning says what an offset names.
type OffsetMeaning string

// What an offset may name.
const (
	NextToRead OffsetMeaning = "next" // the first input that is not in the state
	LastDone   OffsetMeaning = "last" // the last input that is in the state
)

func (s *Snapshot) check(existing []format.Retained) error {
	switch s.OffsetsAre {
	case "", NextToRead, LastDone:
	default:
		return backend.Invalidf("offsets are %q; they must be %q or %q", s.OffsetsAre, NextToRead, LastDone)
	}
	for _, m := range []map[string]string{s.Offsets, s.Labels} {
		for k, v := range m {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return backend.Invalidf("offset or label %q=%q is not valid UTF-8", k, v)
			}
		}
	}
	switch {
	case s.SavepointExpiresAfter < 0:
		return backend.Invalidf("the savepoint is to expire after %v; that must not be negative", s.SavepointExpiresAfter)
	case s.SavepointExpiresAfter > 0 && s.Savepoint == "":
		return backend.Invalidf("what is to expire after %v is no savepoint; name it", s.SavepointExpiresAfter)
	}
	return checkSavepoint(s.Savepoint, existing)
}

// expiresAfter returns in how many seconds the savepoint expires.
func (s *Snapshot) expiresAfter() int64 {
	return min(seconds(s.SavepointExpiresAfter), format.MaxExpiry)
}

// CheckSavepointName returns an error that wraps backend.ErrInvalid if no savepoint can have
// the name. Whether a task has one of that name already, only the commit finds out.
func CheckSavepointName(name string) error {
	bad := len(name) > 128 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl)
	if bad || isNumber(name) || strings.TrimSpace(name) == "" || name == (Ref{}).String() {
		return backend.Invalidf("savepoint name %.140q: use up to 128 bytes of text without control characters, that is not a number, not blank and not %q", name, Ref{})
	}
	return nil
}

func checkSavepoint(name string, existing []format.Retained) error {
	if name == "" {
		return nil
	}
	if err := CheckSavepointName(name); err != nil {
		return err
	}
	i := slices.IndexFunc(existing, func(r format.Retained) bool { return r.Savepoint == name })
	if i >= 0 {
		return fmt.Errorf("%w: savepoint %q exists already, as checkpoint %d; choose another name", ErrConflict, name, existing[i].Seq)
	}
	return nil
}

// isNumber reports whether the name of a checkpoint is its number: it has only digits.
func isNumber(name string) bool { return strings.Trim(name, "0123456789") == "" }

// inlineMax is the size up to which a checkpoint's data is stored inside the manifest, in
// bytes. Such a commit is one request.
const inlineMax = format.MaxPart
