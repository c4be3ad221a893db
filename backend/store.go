// Package backend defines the Store: the small set of object-store operations
// that checkpoints are built on. It holds the contract, the kinds of error,
// the rules for keys, the registry that turns a URL into a Store, and the
// decorators that work on any Store.
//
// The contract is written for those who implement a driver. Each sentence of
// it that can be tested is tested by package conformance.
package backend

import (
	"context"
	"iter"
	"time"
)

// A Store holds immutable-by-convention objects under string keys, in one
// namespace: a bucket and prefix, or a directory.
//
// # Concurrency
//
// All methods may be called from many goroutines at once, and many
// independent Stores, in many processes, may be open on one namespace. The
// guarantees below hold across all of them.
//
// # Consistency
//
// Once Create, Put or Delete has returned without an error, every later Get
// and List, through any handle on any machine, sees its effect. A List that
// runs while objects come and go returns at least every object that existed
// from before it began until after it ended.
//
// # Keys
//
// A key follows the rules of [CheckKey]; a method given another key fails with
// ErrInvalid before it does anything. No key in use is ever the directory part
// of another one ("a" and "a/b"): a driver need not support that.
//
// # Buffers
//
// The caller owns every slice that it passes. A method does not change data,
// and reads neither data nor p, nor writes to p, after it has returned, also
// when it returns early because the context ended.
//
// # Contexts
//
// A method given a context that has ended does nothing and returns the
// context's error. When the context ends while it runs, it returns soon, with
// an error that wraps the context's. The effect of a Create, Put or Delete
// that ended this way is unknown: it may have happened, and it may yet happen
// after the method has returned.
//
// # Errors
//
// Every error is, or wraps, an [*Error], which names the operation, the store
// and the key. Its cause is one of the kinds in this package where one fits,
// and the driver's own error stays reachable by errors.As.
//
// # Requests
//
// One call of Create or Get sends at most one request to the service. No
// method tries again by itself: what to try again, and when, is decided by
// the caller ([Retry], and the commit protocol for Create).
type Store interface {
	// Create makes a new object that holds data.
	//
	// It is exclusive: of all calls of Create with one key, on all handles, at
	// most one succeeds for as long as the object exists. It is atomic: no one
	// ever sees a part of the object. It is durable: when it returns nil, the
	// object outlives the failure of any one machine (for a local disk: the
	// loss of power).
	//
	// It returns ErrExist if, and only if, a durable object stands at key. That
	// object may be the caller's own: an earlier Create whose reply was lost.
	// With a kind that [Retryable] refuses, nothing was written and nothing
	// will be. After any other error the outcome is unknown, as it is when the
	// context ends.
	//
	// A driver switches off whatever its client library does to try again: a
	// second attempt that meets the first one's object would turn a success
	// into ErrExist.
	Create(ctx context.Context, key string, data []byte) (Object, error)

	// Put makes an object that holds data, and replaces the one that stands
	// there, if any. It is atomic and durable as Create is. It may be repeated:
	// after an error, a second Put of the same data sets things right.
	Put(ctx context.Context, key string, data []byte) (Object, error)

	// Get reads len(p) bytes of an object, starting at offset, into p, and
	// returns how many it read: less than len(p) only when the object ends
	// there, and then without an error. (It is not an io.ReaderAt in this one
	// way.) Reading an empty object at offset 0 gives 0 bytes.
	//
	// It returns ErrNotExist if there is no such object: never because access
	// was denied, and never because the namespace itself is missing. It
	// returns ErrRange if p is empty, offset is negative, or offset is not zero
	// and not less than the object's size. After an error p's content is
	// undefined.
	Get(ctx context.Context, key string, offset int64, p []byte) (int, error)

	// List yields the objects whose keys begin with prefix and are greater than
	// after, in ascending byte order of their keys. prefix need not end at a
	// "/"; after need not exist, nor begin with prefix, and "" is before every
	// key. Each range over the sequence is a new listing. A break ends it,
	// without another request. After an error, which is yielded last, with a
	// zero Object, the caller may go on with a new List after the last key that
	// it got.
	//
	// A namespace with no objects, even one that nothing was ever written to,
	// lists as empty where the service can tell it from one that is missing or
	// unreadable.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]

	// Delete removes objects. A key that does not exist is no error. It tries
	// every key, in batches where the service offers them, and returns the
	// errors of those that failed, joined. It is not atomic.
	Delete(ctx context.Context, keys ...string) error

	// Close releases what the handle holds: connections, locks, temporary
	// files. It does not wait for calls that are under way, which may fail.
	// Afterwards every other method returns ErrClosed; a second Close returns
	// nil.
	Close() error
}

// Object describes a stored object.
type Object struct {
	Key  string
	Size int64 // in bytes

	// ModTime is the time, by the store's own clock, at which the object came
	// to be. The protocol judges age by it alone, so it must never be the clock
	// of the machine that the driver runs on (unless that is the store), and
	// never be earlier than the moment at which Create or Put was called. Create,
	// Put and List agree about one object to within a few seconds; the clock
	// may be that coarse.
	ModTime time.Time
}
