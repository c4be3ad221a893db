package runner

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// An Engine is an open database of which cuts can be taken. The engines in the
// module's directory engines are, without knowing this package. It may be a [Preparer]
// as well.
type Engine interface {
	// Cut fixes the database as it is now. src is read once, by a commit; remove
	// gives back what the cut holds, and is called when that commit is over.
	Cut(ctx context.Context) (src checkpoint.Source, remove func() error, err error)

	// Close closes the database.
	Close() error
}

// Engines are the databases that a task keeps its state in, by the names of its
// stores; "" is that of a task without named stores. They are a [Cutter]: what
// Spec.Open returns, or what a Cutter or a [Worker] calls in its own methods, and
// adds labels or offsets to.
type Engines map[string]Engine

// Prepare prepares the databases that are Preparers, all at once.
func (es Engines) Prepare(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, e := range es {
		if p, ok := e.(Preparer); ok {
			group.Go(func() error { return p.Prepare(ctx) })
		}
	}
	return group.Wait()
}

// Cut cuts one database after the other, in the order of their names. The loop is
// paused until it returns. If one cannot be cut, those before it are given back.
//
// ctx is that of the Cut that calls it: by it the runner learns what is to be given back
// when the commit is over, whatever its caller does with what is returned.
func (es Engines) Cut(ctx context.Context) (Cut, error) {
	cut, kept := Cut{Stores: make(map[string]checkpoint.Source, len(es))}, &removals{}
	cut.remove = kept.remove
	if all, ok := ctx.Value(removalsKey{}).(*removals); ok {
		all.add(kept.remove)
	}
	for _, store := range slices.Sorted(maps.Keys(es)) {
		src, remove, err := es[store].Cut(ctx)
		if err != nil {
			return Cut{}, errors.Join(err, cut.remove())
		}
		cut.Stores[store] = src
		kept.add(remove)
	}
	return cut, nil
}

// removals give back what a cut holds.
type removals struct {
	mu   sync.Mutex
	list []func() error
}

type removalsKey struct{}

// withRemovals returns a context by which what is called in a cut adds to r.
func withRemovals(ctx context.Context, r *removals) context.Context {
	return context.WithValue(ctx, removalsKey{}, r)
}

func (r *removals) add(remove func() error) {
	if remove == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, remove)
}

// remove calls all of them, each once, however often it is called.
func (r *removals) remove() error {
	r.mu.Lock()
	list := r.list
	r.list = nil
	r.mu.Unlock()
	errs := make([]error, 0, len(list))
	for _, remove := range list {
		errs = append(errs, guard("remove", remove))
	}
	return errors.Join(errs...)
}

// Close closes all of them.
func (es Engines) Close() error {
	errs := make([]error, 0, len(es))
	for _, store := range slices.Sorted(maps.Keys(es)) {
		errs = append(errs, es[store].Close())
	}
	return errors.Join(errs...)
}
