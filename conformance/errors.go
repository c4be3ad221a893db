package conformance

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// errorValues causes errors of many kinds and checks their type.
func errorValues(ctx context.Context, e *env) error {
	if err := e.populate(ctx, "object"); err != nil {
		return err
	}
	_, taken := e.a.Create(ctx, "object", nil)
	if err := wantError(taken, backend.ErrExist, "create", "object"); err != nil {
		return err
	}
	_, missing := e.a.Get(ctx, "a/missing", 0, make([]byte, 1))
	if err := wantError(missing, backend.ErrNotExist, "get", "a/missing"); err != nil {
		return err
	}
	_, beyond := e.a.Get(ctx, "object", 100, make([]byte, 1))
	if err := wantError(beyond, backend.ErrRange, "get", "object"); err != nil {
		return err
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, v := range verbs {
		if err := wantError(v.call(ctx, e.a, "a//b"), backend.ErrInvalid, v.name, "a//b"); err != nil {
			return err
		}
		if err := wantError(v.call(ended, e.a, "object"), context.Canceled, v.name, "object"); err != nil {
			return err
		}
	}
	if err := e.a.Close(); err != nil {
		return err
	}
	for _, v := range verbs {
		if err := wantError(v.call(ctx, e.a, "object"), backend.ErrClosed, v.name, "object"); err != nil {
			return err
		}
	}
	return nil
}

// wantError checks an error's kind and fields. It accepts a key to which a
// [backend.Prefix] was added, and a Delete without a key: it may fail before it comes
// to one.
func wantError(err, kind error, op, key string) error {
	const contract = "every error is, or wraps, an *Error, which names the operation, the store and the key"
	if err := wantKind(err, kind, "errors.Is tells an error's kind", op+" of "+key); err != nil {
		return err
	}
	var wrapped *backend.Error
	if !errors.As(err, &wrapped) {
		return violation(contract, "%s returned %T, %q", op, err, err)
	}
	named := strings.HasSuffix(wrapped.Key, key) || op == "delete" && wrapped.Key == ""
	if wrapped.Op != op || wrapped.Store == "" || !named || wrapped.Err == nil {
		return violation(contract, "%s of %q returned %+v", op, key, *wrapped)
	}
	return nil
}

func contextEnded(ctx context.Context, e *env) error {
	if err := e.populate(ctx, "old"); err != nil {
		return err
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	withCause, cancelCause := context.WithCancelCause(ctx)
	cancelCause(errors.New("the suite's own cause"))
	late, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Hour))
	defer cancel()

	for _, ended := range []context.Context{cancelled, withCause, late} {
		if err := e.nothingHappens(ctx, ended); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) nothingHappens(ctx, ended context.Context) error {
	const contract = "a method given a context that has ended does nothing and returns the context's error"
	for _, v := range verbs {
		for _, key := range []string{"old", "new"} {
			if err := wantKind(v.call(ended, e.a, key), ended.Err(), contract, v.name); err != nil {
				return err
			}
		}
	}
	return e.wantOnlyOld(ctx, contract)
}
