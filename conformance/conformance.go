// Package conformance is the test suite that every [backend.Store] must pass: the
// contract of package backend, sentence by sentence, as cases that run against a real
// store.
//
// The test of a driver looks like this:
//
//	func TestConformance(t *testing.T) {
//		dir := t.TempDir()
//		conformance.Run(t, func(ctx context.Context, namespace string) (backend.Store, error) {
//			return backend.Open(ctx, "file://"+dir+"/"+namespace)
//		})
//	}
//
// The cases can also run without a test: a program may check a bucket with [Cases]
// before it relies on it. Each case writes to a namespace of its own and removes what
// it wrote. Together they send about 5,000 requests and 50 MiB, and receive 80 MiB.
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

// Open opens a store on the namespace with the given name: a sub-directory or a
// prefix. Each call returns a new handle, which shares nothing with other handles in
// this process except the service. The suite closes it. If the service throttles, the
// store may be a [backend.Retry].
//
// The name follows the rules for a key, and has no slash.
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

// Run runs the case in a new namespace, and cleans up afterwards. It returns nil if
// the store keeps the contract, an error that wraps a [*Violation] if it does not,
// and any other error if this could not be found out.
func (c Case) Run(ctx context.Context, open Open) error {
	return c.RunNoting(ctx, open, func(string, ...any) {})
}

// RunNoting is Run. It also tells note, which is like [fmt.Printf], what is worth knowing
// and no violation: that the store is slow at something, for example.
func (c Case) RunNoting(ctx context.Context, open Open, note func(format string, args ...any)) error {
	e := &env{open: open, namespace: c.Name + "-" + strings.ToLower(rand.Text()), note: note}
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

// env is what a case uses: a namespace, and independent handles on it.
type env struct {
	open       Open
	namespace  string
	a, b       backend.Store // two handles on namespace
	namespaces []string      // all namespaces that were opened
	handles    []backend.Store
	note       func(format string, args ...any) // says something that is no violation
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

// cleanUpTime limits how long a case cleans up after its context has ended.
const cleanUpTime = time.Minute

func (e *env) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	var errs []error
	for _, namespace := range e.namespaces {
		if err := e.emptyAtLast(ctx, namespace); err != nil {
			errs = append(errs, fmt.Errorf("cleaning up namespace %s: %w", namespace, err))
		}
	}
	for _, s := range e.handles {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// emptyAtLast empties a namespace, and tries again where the service throttles: that says
// nothing of the contract. (MinIO with four drives answers a large Delete with
// SlowDownWrite now and then.)
func (e *env) emptyAtLast(ctx context.Context, namespace string) error {
	for n := 1; ; n++ {
		err := e.empty(ctx, namespace)
		if err == nil {
			return nil
		}
		if err := (backend.Backoff{}).Again(ctx, n, err); err != nil {
			return err
		}
	}
}

// empty deletes all objects in a namespace. It opens a handle of its own, because the
// case may have closed the others.
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
