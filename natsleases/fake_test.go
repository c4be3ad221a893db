package natsleases

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A fakeBucket is a bucket in memory, for tests whose clock jumps. TestOnAServer holds it
// against a real one.
type fakeBucket struct {
	mu       sync.Mutex
	revision uint64
	entries  map[string]fakeEntry
	watchers []*fakeWatcher
}

// forget takes a key away, or all of them if it is "", without a word to who watches.
func (b *fakeBucket) forget(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.entries {
		if key == "" || k == key {
			delete(b.entries, k)
		}
	}
}

type fakeEntry struct {
	key      string
	value    []byte
	revision uint64
	op       jetstream.KeyValueOp
}

func (e fakeEntry) Bucket() string                  { return "fake" }
func (e fakeEntry) Key() string                     { return e.key }
func (e fakeEntry) Value() []byte                   { return e.value }
func (e fakeEntry) Revision() uint64                { return e.revision }
func (e fakeEntry) Created() time.Time              { return time.Time{} }
func (e fakeEntry) Delta() uint64                   { return 0 }
func (e fakeEntry) Operation() jetstream.KeyValueOp { return e.op }

// A fakeClient is a connection to a fakeBucket.
type fakeClient struct {
	*fakeBucket
	cut     bool // no request gets through, and no update comes
	replies int  // how many requests are applied before one loses its reply; 0 for no such
}

// A fakeWatcher is a watch of a fakeClient.
type fakeWatcher struct {
	*fakeClient
	updates chan jetstream.KeyValueEntry
	late    []fakeEntry // updates that come when the connection is there again
	ended   bool        // updates is closed
}

func (w *fakeWatcher) end() {
	if !w.ended {
		close(w.updates)
	}
	w.ended = true
}

func newFakeBucket() *fakeBucket { return &fakeBucket{entries: make(map[string]fakeEntry)} }

func (b *fakeBucket) client() *fakeClient { return &fakeClient{fakeBucket: b} }

var errNoReply = errors.New("no reply")

// setCut cuts the connection, or brings it back.
func (c *fakeClient) setCut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut = cut; cut {
		return
	}
	for _, w := range c.watchers {
		if w.fakeClient == c {
			for _, e := range w.late {
				w.updates <- e
			}
			w.late = nil
		}
	}
}

// makeDeaf has all present watches of the connection tell nothing any more; or end them.
func (c *fakeClient) makeDeaf(end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers = slices.DeleteFunc(c.watchers, func(w *fakeWatcher) bool {
		if w.fakeClient == c && end {
			w.end()
		}
		return w.fakeClient == c
	})
}

// write writes a key if allowed says so of what it has.
func (c *fakeClient) write(ctx context.Context, key string, value []byte, op jetstream.KeyValueOp, refused error, allowed func(was fakeEntry) bool) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.wait(ctx); err != nil {
		return 0, err
	}
	if !allowed(c.entries[key]) {
		return 0, refused
	}
	c.revision++
	e := fakeEntry{key, value, c.revision, op}
	c.entries[key] = e
	for _, w := range c.watchers {
		if w.cut {
			w.late = append(w.late, e)
		} else {
			w.updates <- e
		}
	}
	if c.replies > 0 {
		if c.replies--; c.replies == 0 {
			return 0, errNoReply
		}
	}
	return e.revision, nil
}

// wait waits for the time-out of a request that does not get through. It is called with mu
// held, which it gives up meanwhile.
func (c *fakeClient) wait(ctx context.Context) error {
	if !c.cut {
		return ctx.Err()
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	return ctx.Err()
}

func (c *fakeClient) Bucket() string { return "fake" }

func (c *fakeClient) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.wait(ctx); err != nil {
		return nil, err
	}
	if e, ok := c.entries[key]; ok && e.op == jetstream.KeyValuePut {
		return e, nil
	}
	return nil, jetstream.ErrKeyNotFound
}

func (c *fakeClient) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return c.write(ctx, key, value, jetstream.KeyValuePut, nil, func(fakeEntry) bool { return true })
}

func (c *fakeClient) Create(ctx context.Context, key string, value []byte, _ ...jetstream.KVCreateOpt) (uint64, error) {
	return c.write(ctx, key, value, jetstream.KeyValuePut, jetstream.ErrKeyExists, func(was fakeEntry) bool {
		return was.revision == 0 || was.op != jetstream.KeyValuePut
	})
}

func (c *fakeClient) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return c.write(ctx, key, value, jetstream.KeyValuePut, jetstream.ErrKeyRevisionMismatch, func(was fakeEntry) bool { return was.revision == revision })
}

func (c *fakeClient) Delete(ctx context.Context, key string, _ ...jetstream.KVDeleteOpt) error {
	_, err := c.write(ctx, key, nil, jetstream.KeyValueDelete, nil, func(fakeEntry) bool { return true })
	return err
}

func (c *fakeClient) WatchAll(ctx context.Context, _ ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.wait(ctx); err != nil {
		return nil, err
	}
	w := &fakeWatcher{fakeClient: c, updates: make(chan jetstream.KeyValueEntry, 1<<16)}
	for _, e := range c.entries {
		w.updates <- e
	}
	w.updates <- nil
	c.watchers = append(c.watchers, w)
	return w, nil
}

func (w *fakeWatcher) Updates() <-chan jetstream.KeyValueEntry { return w.updates }

// Stop closes the channel, as that of NATS does.
func (w *fakeWatcher) Stop() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watchers = slices.DeleteFunc(w.watchers, func(o *fakeWatcher) bool { return o == w })
	w.end()
	return nil
}
