package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/holdfast-io/holdfast/backend"
)

// fail returns err as an error of the Store, or nil if err is nil.
func (s *Store) fail(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return &backend.Error{Op: op, Store: s.name, Key: key, Err: classify(err)}
}

// classify adds the contract's kind to an error of the system, if package syscall
// does not know that kind.
func classify(err error) error {
	switch {
	case isAny(err, noSpace):
		return fmt.Errorf("%w: %w", backend.ErrNoSpace, err)
	case isAny(err, readOnly):
		return forbidden{err}
	case errors.Is(err, syscall.EXDEV):
		return fmt.Errorf("%w: the key's directory is on another file system than its store: %w", backend.ErrUnsupported, err)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return fmt.Errorf("%w: the file system takes only shorter names: %w", backend.ErrUnsupported, err)
	case leadsOut(err):
		return backend.Invalidf("a symbolic link is in the way: %v", err)
	}
	return err
}

func isAny(err error, kinds []error) bool {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// leadsOut reports whether err is os.Root's refusal of a path that leads out of the
// root. That error has no exported name. Unlike errors of the system, it has no error
// number.
func leadsOut(err error) bool {
	if errors.As(err, new(unsettled)) || errors.As(err, new(syscall.Errno)) || errors.Is(err, fs.ErrClosed) {
		return false
	}
	return errors.As(err, new(*fs.PathError)) || errors.As(err, new(*os.LinkError))
}

// forbidden is an fs.ErrPermission without the words "permission denied": on a
// read-only file system no permission would help.
type forbidden struct{ error }

func (e forbidden) Is(target error) bool { return target == backend.ErrPermission }
func (e forbidden) Unwrap() error        { return e.error }

// unsettled is an error after which the write is in doubt: the object may exist or
// not. errors.Is finds no kind in it, because a kind such as fs.ErrPermission would
// mean that nothing was written. errors.As still finds its cause.
type unsettled struct{ err error }

func (e unsettled) Error() string { return e.err.Error() + " (whether it was written is unknown)" }

func (e unsettled) As(target any) bool { return errors.As(e.err, target) }
