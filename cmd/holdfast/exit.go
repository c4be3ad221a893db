package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// The exit codes. Scripts rely on them: docs/cli.md promises them.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2 // the command line, or the URL, is wrong
	exitAbsent  = 3 // there is no such task or checkpoint
	exitRival   = 4 // fenced, or another save was first
	exitCorrupt = 5 // the store does not hold what was written to it
)

// kinds says, for the errors that are worth telling apart, how the program
// ends and what to do next, unless the error says so itself. The first that
// matches counts.
var kinds = []struct {
	kind error
	code int
	next string
}{
	{checkpoint.ErrUnknown, exitFailed, "it may have been done: look with 'holdfast ls' before you do it again"},
	{checkpoint.ErrVersion, exitFailed, ""},
	{checkpoint.ErrLost, exitCorrupt, ""}, // the error says what to do
	{checkpoint.ErrCorrupt, exitCorrupt, "bring that object back from a backup; 'holdfast verify' says which checkpoints are intact"},
	{checkpoint.ErrFenced, exitRival, "save again if this state is still wanted"},
	{checkpoint.ErrConflict, exitRival, ""},
	{checkpoint.ErrHeld, exitRival, ""},
	{checkpoint.ErrClaimed, exitRival, "stop and release it first, or give --take-over to fence it"},
	{checkpoint.ErrGone, exitAbsent, "'holdfast ls' shows those that are"},
	{checkpoint.ErrNoCheckpoint, exitAbsent, "'holdfast ls' shows what there is"},
	{checkpoint.ErrNotEmpty, exitFailed, "give --force to replace what is in it"},
	{checkpoint.ErrFileOwners, exitFailed, "leave --owners out to do without"},
	{backend.ErrNoStore, exitFailed, "make the bucket or directory, or correct the URL"},
	{backend.ErrNoSpace, exitFailed, "nothing was saved; make room in the store and try again"},
	{backend.ErrThrottled, exitFailed, "try again later"},
	{syscall.ENOSPC, exitFailed, "make room there and try again"},
	{syscall.EROFS, exitFailed, "mount it for writing, or choose another place"},
	{fs.ErrPermission, exitFailed, "get access to it, or run as a user who has it"},
}

// explain returns one line that says what went wrong and what to do next, and
// the exit code.
func explain(ctx context.Context, err error) (string, int) {
	text, code := explainKind(ctx, err)
	if e := (ended{}); errors.As(err, &e) {
		code = e.code
	} else if errors.As(err, new(ownCode)) {
		code += ownCodes
	}
	return text, code
}

func explainKind(ctx context.Context, err error) (string, int) {
	if isUsage(err) {
		return oneLine(err.Error()), exitUsage
	}
	if c := (changed{}); errors.As(err, &c) {
		return explainChanged(ctx, c.what, err), codeAfterChange(err)
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		if !errors.Is(err, checkpoint.ErrUnknown) {
			return fmt.Sprintf("stopped (%v); %s", context.Cause(ctx), nextAfter(err, "nothing was saved or replaced")), exitFailed
		}
		err = fmt.Errorf("stopped (%w): %w", context.Cause(ctx), err)
	}
	for _, k := range kinds {
		if !errors.Is(err, k.kind) {
			continue
		}
		text := oneLine(err.Error())
		if next := nextAfter(err, k.next); next != "" && !advised(err, k.kind) {
			text += "; " + next
		}
		return text, k.code
	}
	text := oneLine(err.Error())
	if next := nextAfter(err, ""); next != "" {
		text += "; " + next
	}
	return text, exitFailed
}

// A changed is the error of a command that has made the change that was asked for, and has
// failed after that: while it cleaned up, or read or printed the result. What is said of the
// kind of such an error ("nothing was changed", "try again") does not hold then.
type changed struct {
	what string // that was done
	err  error
}

func (c changed) Error() string { return c.what + ", but " + c.err.Error() }
func (c changed) Unwrap() error { return c.err }

func explainChanged(ctx context.Context, what string, err error) string {
	text := oneLine(err.Error())
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		text = fmt.Sprintf("stopped (%v); %s", context.Cause(ctx), oneLine(what))
	}
	if next := nextAfter(err, ""); next != "" {
		text += "; " + next
	}
	return text
}

func codeAfterChange(err error) int {
	if errors.Is(err, checkpoint.ErrCorrupt) {
		return exitCorrupt
	}
	return exitFailed
}

// advised reports whether the driver has said what to do about an error of this
// kind: it knows the name of the permission, or why the bucket cannot be used.
// An error of that kind about a file here, beside one of the store's of another
// kind, is not from the driver.
func advised(err, kind error) bool {
	about := (*backend.Error)(nil)
	return errors.As(err, &about) && errors.Is(about, kind) && about.Advice != ""
}

// advice is an error after which the user is told something better than what is
// said of its kind.
type advice struct {
	err  error
	next string
}

func (a advice) Error() string { return a.err.Error() }
func (a advice) Unwrap() error { return a.err }

// nextAfter returns what to do after err: what its advice is, or else usual.
func nextAfter(err error, usual string) string {
	if a := (advice{}); errors.As(err, &a) {
		return a.next
	}
	return usual
}

// isUsage reports whether the user asked for something that cannot be done.
// An ErrInvalid about an object is not that: something is wrong in the store.
func isUsage(err error) bool {
	if !errors.Is(err, backend.ErrInvalid) {
		return false
	}
	about := (*backend.Error)(nil)
	return !errors.As(err, &about) || about.Op == "open"
}

// oneLine puts a text on one line that does nothing to a terminal: joined
// errors and file names may hold anything.
func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	return escape(strings.Join(lines, "; "))
}

// escape returns s with what is not printable written as Go does.
func escape(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// said is an error with a text of its own.
type said struct {
	text string
	kind error
}

func (e said) Error() string { return e.text }
func (e said) Unwrap() error { return e.kind }
