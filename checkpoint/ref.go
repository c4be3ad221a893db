package checkpoint

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/backend"
)

// A Ref names one checkpoint of a task: by its number or by the name of its
// savepoint. The zero Ref names the latest one. Refs can be compared with ==.
type Ref struct {
	seq       uint64
	savepoint string
}

// Seq names the checkpoint with a number, as in [Checkpoint.Seq]. Seq(0) is the
// latest one.
func Seq(n uint64) Ref { return Ref{seq: n} }

// Savepoint names the checkpoint that has a savepoint of this name.
func Savepoint(name string) Ref { return Ref{savepoint: name} }

// ParseRef reads what a user wrote: digits are a number, everything else is the
// name of a savepoint. Its error wraps backend.ErrInvalid.
func ParseRef(s string) (Ref, error) {
	if s == "" {
		return Ref{}, backend.Invalidf("which checkpoint? give its number, or the name of a savepoint")
	}
	if !isNumber(s) {
		return Savepoint(s), checkSavepointName(s)
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return Ref{}, backend.Invalidf("checkpoint %s: numbers begin with 1 and have at most 19 digits", s)
	}
	return Seq(n), nil
}

// String returns what ParseRef reads, and "latest" for the zero Ref.
func (r Ref) String() string {
	switch {
	case r.savepoint != "":
		return r.savepoint
	case r.seq != 0:
		return strconv.FormatUint(r.seq, 10)
	}
	return "latest"
}

// isLatest reports whether r names the latest checkpoint.
func (r Ref) isLatest() bool { return r == Ref{} }

// maxSavepointName bounds the name of a savepoint, in bytes: it is in every
// retained list.
const maxSavepointName = 128

// checkSavepointName refuses a name that no savepoint can have. It must not be
// a number, which names a checkpoint already.
func checkSavepointName(name string) error {
	bad := len(name) > maxSavepointName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl)
	if bad || isNumber(name) {
		return backend.Invalidf("savepoint name %q: use up to %d bytes of text that is not a number", name, maxSavepointName)
	}
	return nil
}

// isNumber reports whether a text is meant as a checkpoint's number.
func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }
