package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// The kinds of error that a Store returns, to be tested with errors.Is. The first
// five are those of io/fs, so errors of package os need no translation.
var (
	ErrExist      = fs.ErrExist      // Create: there is an object at the key
	ErrNotExist   = fs.ErrNotExist   // Get: no such object
	ErrPermission = fs.ErrPermission // access denied, or no valid credentials
	ErrInvalid    = fs.ErrInvalid    // a key or URL that breaks the rules
	ErrClosed     = fs.ErrClosed     // use after Close

	// ErrRange means that a Get asked for bytes beyond the object's end.
	ErrRange = errors.New("range outside the object")

	// ErrUnsupported means that the service cannot do what was asked.
	ErrUnsupported = errors.ErrUnsupported

	// ErrNoStore means that the bucket or directory itself is missing or cannot
	// be used under this name, as opposed to an object in it.
	ErrNoStore = errors.New("no such store")

	// ErrNoSpace means that the store is full, or over its quota.
	ErrNoSpace = errors.New("no space left in the store")

	// ErrThrottled means that the service asks for fewer requests. It is retryable,
	// after a wait.
	ErrThrottled = errors.New("the store asks to slow down")
)

// permanent lists the kinds for which another attempt is useless. Every other error
// is retryable, known or not: network failures are too varied to be listed.
var permanent = []error{
	ErrExist, ErrNotExist, ErrPermission, ErrInvalid, ErrClosed,
	ErrRange, ErrUnsupported, ErrNoStore, ErrNoSpace,
	context.Canceled, context.DeadlineExceeded,
}

// Retryable reports whether an operation that failed with err may succeed if it is
// tried again unchanged. Only this function decides that.
//
// If a driver ends a request because of its own time limit, its error must not wrap
// context.DeadlineExceeded: here, that means the caller's deadline.
func Retryable(err error) bool {
	if err == nil {
		return false
	}
	for _, kind := range permanent {
		if errors.Is(err, kind) {
			return false
		}
	}
	return true
}

// Error says which operation failed, on which store and key, and what can be done
// about it, if the driver knows.
type Error struct {
	Op    string // the operation: "create", "put", "get", "list", "delete", "open"
	Store string // the store's URL without its query: "s3://bucket/jobs", "file:///var/lib/orders"
	Key   string // the key, or the prefix of a List; may be empty
	Err   error  // the cause; never nil

	// Advice says what to do, as in "create the bucket, or correct its name in the
	// URL". It is the last part of the error's text. It is empty if the driver knows
	// nothing beyond the kind of the error.
	Advice string
}

func (e *Error) Error() string {
	where := strings.Trim(e.Store+"/"+e.Key, "/")
	if strings.HasSuffix(where, ":") { // of a URL that has nothing but its scheme
		where += "//"
	}
	text := e.Op + " " + where + ": " + e.Err.Error()
	if e.Advice != "" {
		text += "; " + e.Advice
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// A HiddenError says that a List cannot see the keys that begin with Prefix, as if a user may
// not enter one directory. Those after them can be listed.
type HiddenError struct {
	Prefix string // it ends with "/"
	Err    error  // the cause; never nil
}

func (e *HiddenError) Error() string { return e.Err.Error() }
func (e *HiddenError) Unwrap() error { return e.Err }

// invalidError is an ErrInvalid with a text of its own: "invalid argument" at the end
// of a message does not help a user.
type invalidError string

func (e invalidError) Error() string { return string(e) }
func (e invalidError) Unwrap() error { return ErrInvalid }

// Invalidf returns an error with the formatted text that wraps ErrInvalid.
func Invalidf(format string, args ...any) error {
	return invalidError(fmt.Sprintf(format, args...))
}
