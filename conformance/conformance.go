// Package conformance holds what every [backend.Store] must pass: the contract
// of package backend, sentence by sentence, as cases that run against a real
// store.
//
// A driver's test joins in like this:
//
//	func TestConformance(t *testing.T) {
//		dir := t.TempDir()
//		conformance.Run(t, func(ctx context.Context, namespace string) (backend.Store, error) {
//			return backend.Open(ctx, "file://"+dir+"/"+namespace)
//		})
//	}
//
// The cases themselves need no test: a program may run [Cases] against a bucket
// that it is about to trust.
// A case writes to a namespace of its own and removes what it wrote. Together
// they send about 5,000 requests and 50 MiB, and receive 80 MiB.
package conformance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// Open opens a store on a namespace: a sub-directory, or a prefix, that has
// the given name. Each call returns a new handle that shares nothing with
// others in this process but the service behind it. The suite closes it. Where
// the service throttles, it may be a [backend.Retry].
//
// A namespace follows the rules for a key with one name in it.
type Open func(ctx context.Context, namespace string) (backend.Store, error)

// A Case checks one part of the contract.
type Case struct {
	Name string
	run  func(ctx context.Context, e *env) error
}

// Cases returns all cases, the simple ones first.
func Cases() []Case {
	return []Case{
		{"untouched", untouched},
		{"create", create},
		{"put-replaces", putReplaces},
		{"sizes", sizes},
		{"ranges", ranges},
		{"keys-accepted", keysAccepted},
		{"keys-refused", keysRefused},
		{"delete", deletes},
		{"delete-batch", deleteBatch},
		{"list-order", listOrder},
		{"list-prefix-after", listPrefixAfter},
		{"list-again", listAgain},
		{"list-many", listMany},
		{"read-after-write", readAfterWrite},
		{"list-after-write", listAfterWrite},
		{"namespaces", namespaces},
		{"times", times},
		{"errors", errorValues},
		{"context-ended", contextEnded},
		{"closed", closed},
		{"close-other", closeOther},
		{"buffers-changed", buffersChanged},
		{"buffers-kept", buffersKept},
		{"buffers-cancelled", buffersCancelled},
		{"torn-put", tornPut},
		{"torn-create", tornCreate},
		{"create-race", createRace},
	}
}

// Run runs the case in a fresh namespace, and cleans up after it. It returns
// nil if the store keeps the contract, an error that wraps a [*Violation] if
// it does not, and any other error if that could not be found out.
func (c Case) Run(ctx context.Context, open Open) error {
	e := &env{open: open, namespace: c.Name + "-" + strings.ToLower(rand.Text())}
	return errors.Join(c.check(ctx, e), e.cleanUp(ctx))
}

func (c Case) check(ctx context.Context, e *env) (err error) {
	if e.a, err = e.handle(ctx, e.namespace); err != nil {
		return err
	}
	if e.b, err = e.handle(ctx, e.namespace); err != nil {
		return err
	}
	return c.run(ctx, e)
}

// env is what a case works with: a namespace, and independent handles on it.
type env struct {
	open       Open
	namespace  string
	a, b       backend.Store // two handles on namespace
	namespaces []string      // all that were opened
	handles    []backend.Store
}

// handle opens another handle, which is closed after the case.
func (e *env) handle(ctx context.Context, namespace string) (backend.Store, error) {
	s, err := e.open(ctx, namespace)
	if err != nil {
		return nil, err
	}
	e.handles = append(e.handles, s)
	if !slices.Contains(e.namespaces, namespace) {
		e.namespaces = append(e.namespaces, namespace)
	}
	return s, nil
}

// cleanUpTime bounds the time that a case takes to clean up after its context
// has ended.
const cleanUpTime = time.Minute

func (e *env) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	var errs []error
	for _, namespace := range e.namespaces {
		if err := e.empty(ctx, namespace); err != nil {
			errs = append(errs, fmt.Errorf("cleaning up namespace %s: %w", namespace, err))
		}
	}
	for _, s := range e.handles {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// empty uses a handle of its own: the case may have left the others closed.
func (e *env) empty(ctx context.Context, namespace string) error {
	s, err := e.open(ctx, namespace)
	if err != nil {
		return err
	}
	defer s.Close()
	objects, err := list(ctx, s, "", "")
	if err != nil {
		return err
	}
	return s.Delete(ctx, keys(objects)...)
}
