package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// The kinds of error that a Store returns, tested with errors.Is. The first
// five are those of io/fs, so that errors of the os package need no
// translation.
var (
	ErrExist      = fs.ErrExist      // Create: the key is taken
	ErrNotExist   = fs.ErrNotExist   // Get: no such object
	ErrPermission = fs.ErrPermission // access denied, or no valid credentials
	ErrInvalid    = fs.ErrInvalid    // a key or a URL that breaks the rules
	ErrClosed     = fs.ErrClosed     // use after Close

	// ErrRange means that a Get asked for bytes beyond the object's end.
	ErrRange = errors.New("range outside the object")

	// ErrUnsupported means that the service cannot do what was asked.
	ErrUnsupported = errors.ErrUnsupported

	// ErrNoStore means that the bucket or directory itself is missing or can
	// not be used under this name, as opposed to an object in it.
	ErrNoStore = errors.New("no such store")

	// ErrNoSpace means that the store is full, or over its quota.
	ErrNoSpace = errors.New("no space left in the store")

	// ErrThrottled means that the service asks for fewer requests. It is worth
	// trying again, later.
	ErrThrottled = errors.New("the store asks to slow down")
)

// permanent lists the kinds that trying again does not cure. Everything else,
// known or not, is worth another attempt: network failures come in more
// shapes than can be listed.
var permanent = []error{
	ErrExist, ErrNotExist, ErrPermission, ErrInvalid, ErrClosed,
	ErrRange, ErrUnsupported, ErrNoStore, ErrNoSpace,
	context.Canceled, context.DeadlineExceeded,
}

// Retryable reports whether an operation that failed with err may succeed when
// it is tried again unchanged. It is the one place that decides this.
//
// A driver whose own time limit ended a request must not let
// context.DeadlineExceeded through for it: that is the caller's deadline here.
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

// Error says which operation failed, on which store and key, and what can be
// done about it where the driver knows that.
type Error struct {
	Op    string // the verb in lower case: "create", "put", "get", "list", "delete", "open"
	Store string // the store's URL without its query: "s3://bucket/jobs", "file:///var/lib/orders"
	Key   string // the key, or for "list" the prefix; may be empty
	Err   error  // the cause; never nil

	// Advice says what to do next: "create the bucket, or correct its name in
	// the URL". It comes last in the error's text. It is empty where the driver
	// knows no more than the kind of the error tells.
	Advice string
}

func (e *Error) Error() string {
	text := e.Op + " " + strings.Trim(e.Store+"/"+e.Key, "/") + ": " + e.Err.Error()
	if e.Advice != "" {
		text += "; " + e.Advice
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// invalidError is an ErrInvalid whose text is its own: "invalid argument" at
// the end of a sentence tells a user nothing.
type invalidError string

func (e invalidError) Error() string { return string(e) }
func (e invalidError) Unwrap() error { return ErrInvalid }

// Invalidf returns an error that wraps ErrInvalid and reads as formatted.
func Invalidf(format string, args ...any) error {
	return invalidError(fmt.Sprintf(format, args...))
}
