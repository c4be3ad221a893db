package checkpoint

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"sync"

	"github.com/holdfast-io/holdfast/backend"
)

// A lifetime keeps a job's store open for as long as calls need it, and refuses new calls
// once the job is being closed. A call that writes begins and ends here, and may send many
// requests in between. Each request that is not part of such a call counts as a call of
// its own.
type lifetime struct {
	ctx    context.Context    // of the clean-ups
	cancel context.CancelFunc // cuts them short

	mu       sync.Mutex
	closed   bool
	calls    int           // how many calls are under way
	cleanups int           // how many clean-ups are under way in the background
	idle     chan struct{} // closed when there are no calls and clean-ups, and there will be none
}

func newLifetime() *lifetime {
	l := &lifetime{idle: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// within is the key that marks the context of a call that has begun. Calls and requests
// with such a context are part of that call, and are let through when the job is being
// closed.
type within struct{ *lifetime }

// begin registers a call, or refuses it if the job is being closed. The call must use the
// context that begin returns.
func (l *lifetime) begin(ctx context.Context) (_ context.Context, end func(), err error) {
	if ctx.Value(within{l}) != nil {
		return ctx, func() {}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ctx, nil, errJobClosed
	}
	l.calls++
	return context.WithValue(ctx, within{l}, true), func() { l.end(&l.calls) }, nil
}

// leave runs a clean-up in the background. It must be called by a call that has begun.
func (l *lifetime) leave(to *sync.WaitGroup, cleanup func()) {
	l.mu.Lock()
	l.cleanups++
	l.mu.Unlock()
	to.Go(func() {
		defer l.end(&l.cleanups)
		cleanup()
	})
}

// whenCut arranges for f to be called when the clean-ups are interrupted, unless stop is
// called before.
func (l *lifetime) whenCut(f func()) (stop func() bool) { return context.AfterFunc(l.ctx, f) }

// end ends one of the calls or clean-ups that n counts.
func (l *lifetime) end(n *int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*n--
	l.checkIdle()
}

func (l *lifetime) checkIdle() {
	if !l.closed || l.calls > 0 || l.cleanups > 0 {
		return
	}
	select {
	case <-l.idle:
	default:
		close(l.idle)
	}
}

// close refuses new calls, and waits for those under way and for the clean-ups. When ctx
// ends first, it interrupts the clean-ups. idle reports whether nothing is under way any
// more.
func (l *lifetime) close(ctx context.Context) (idle bool, err error) {
	l.mu.Lock()
	l.closed = true
	l.checkIdle()
	l.mu.Unlock()
	select {
	case <-l.idle:
		return true, nil
	default:
	}
	select {
	case <-l.idle:
		return true, nil
	case <-ctx.Done():
	}
	l.cancel()
	l.mu.Lock()
	calls := l.calls
	l.mu.Unlock()
	if calls > 0 {
		return false, fmt.Errorf("the job cannot be closed yet, because calls are under way (%d): end their contexts, and close it again: %w",
			calls, context.Cause(ctx))
	}
	<-l.idle
	return true, cutShort(ctx)
}

// cutShort returns the error for a clean-up that was interrupted because ctx ended.
func cutShort(ctx context.Context) error {
	return fmt.Errorf("clean-up was cut short: %w", context.Cause(ctx))
}

// A closedError is an fs.ErrClosed with a text of its own.
type closedError string

func (e closedError) Error() string { return string(e) }
func (e closedError) Unwrap() error { return fs.ErrClosed }

const (
	errJobClosed   = closedError("the job is closed")
	errOwnerClosed = closedError("the owner is closed")
)

// wrap returns a Store that refuses requests once the job is being closed, except those of
// calls that had begun before.
func (l *lifetime) wrap(store backend.Store) backend.Store { return &living{store, l} }

type living struct {
	store backend.Store
	life  *lifetime
}

func (s *living) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	ctx, end, err := s.life.begin(ctx)
	if err != nil {
		return backend.Object{}, err
	}
	defer end()
	return s.store.Create(ctx, key, data)
}

func (s *living) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	ctx, end, err := s.life.begin(ctx)
	if err != nil {
		return backend.Object{}, err
	}
	defer end()
	return s.store.Put(ctx, key, data)
}

func (s *living) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	ctx, end, err := s.life.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	return s.store.Get(ctx, key, offset, p)
}

// List counts as under way while it fetches, but not while its consumer works on an
// object: the consumer may close the job.
func (s *living) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		_, end, err := s.life.begin(ctx)
		if err != nil {
			yield(backend.Object{}, err)
			return
		}
		defer func() { end() }()
		for o, err := range s.store.List(ctx, prefix, after) {
			end()
			end = func() {}
			if !yield(o, err) {
				return
			}
			_, again, err := s.life.begin(ctx)
			if err != nil {
				yield(backend.Object{}, err)
				return
			}
			end = again
		}
	}
}

func (s *living) Delete(ctx context.Context, keys ...string) error {
	ctx, end, err := s.life.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return s.store.Delete(ctx, keys...)
}

func (s *living) Close() error { return s.store.Close() }
