package checkpoint

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"sync"

	"github.com/holdfast-io/holdfast/backend"
)

// A lifetime keeps a job's store open for as long as calls need it, and refuses
// new ones once the job is being closed. Calls of many requests begin and end
// here; a request of any other call is one on its own.
type lifetime struct {
	ctx    context.Context    // of the clean-ups
	cancel context.CancelFunc // cuts them short

	mu       sync.Mutex
	closed   bool
	calls    int           // that are under way
	cleanups int           // that they left to the background
	idle     chan struct{} // closed when there is none of either, and there will be none
}

func newLifetime() *lifetime {
	l := &lifetime{idle: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// within marks the context of a call that has begun: what it calls and requests
// belongs to it, and goes on when the job is being closed.
type within struct{ *lifetime }

// begin lets a call in. The call goes on with the context that it returns.
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

// leave runs a clean-up in the background for a call that has begun, and for as long
// as it takes.
func (l *lifetime) leave(to *sync.WaitGroup, cleanup func()) {
	l.mu.Lock()
	l.cleanups++
	l.mu.Unlock()
	to.Go(func() {
		defer l.end(&l.cleanups)
		cleanup()
	})
}

// whenCut has f called when the clean-ups are cut short, unless stop is called before.
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

// close refuses what has not begun yet, and waits for the rest. When ctx ends first,
// the clean-ups are cut short. idle reports whether nothing is under way any more.
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

// cutShort is the error of a clean-up that was ended by ctx.
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

// wrap returns a Store that is asked for nothing once the job is being closed,
// except by calls that had begun.
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

// List is under way while it fetches, not while its consumer works on what it
// yielded: the consumer may close the job.
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
