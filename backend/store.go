// Package backend defines the Store: the small set of object-store operations that
// checkpoints need. It contains the contract, the kinds of error, the rules for keys,
// the registry that turns a URL into a Store, and decorators that work on any Store.
//
// The contract is written for those who implement a driver. Package conformance tests
// every part of it that can be tested.
package backend

import (
	"context"
	"iter"
	"time"
)

// A Store holds objects under string keys, in one namespace: a bucket and prefix, or
// a directory. By convention, objects are not changed once they are written.
//
// # Concurrency
//
// All methods may be called from many goroutines at the same time. Many independent
// Stores, in many processes, may be open on one namespace, and the guarantees below
// hold across all of them.
//
// # Consistency
//
// Once Create, Put or Delete has returned without an error, every later Get and List
// sees its effect, through any handle on any machine. A List that runs while objects
// are created and deleted returns at least every object that existed during the whole
// List.
//
// # Keys
//
// A key follows the rules of [CheckKey]; with any other key, a method fails with
// ErrInvalid before it does anything. No key is ever the directory part of another
// key in use (as "a" is of "a/b"): a driver need not support that.
//
// # Buffers
//
// The caller owns every slice that it passes. A method does not change data. After it
// has returned, it neither reads data or p nor writes to p, even if it returned early
// because the context ended.
//
// # Contexts
//
// If the context has ended already, a method does nothing and returns the context's
// error. If the context ends while the method runs, it returns soon, with an error
// that wraps the context's. Then the effect of a Create, Put or Delete is unknown: it
// may have happened, and it may still happen after the method has returned.
//
// # Errors
//
// Every error is, or wraps, an [*Error], which names the operation, the store and the
// key. Its cause is one of the kinds in this package, if one fits. The driver's own
// error can be reached by errors.As.
//
// # Requests
//
// One call of Create or Get sends at most one request to the service. No method
// retries: the caller decides what to repeat, and when ([Retry], and the commit
// protocol for Create).
type Store interface {
	// Create makes a new object with the content data.
	//
	// It is exclusive: of all calls of Create with one key, on all handles, at most
	// one succeeds for as long as the object exists. It is atomic: nobody ever sees a
	// part of the object. It is durable: when it returns nil, the object survives the
	// failure of any one machine (on a local disk: a loss of power).
	//
	// It returns ErrExist if, and only if, a durable object exists at key. That
	// object may be the caller's own, from an earlier Create whose reply was lost. If
	// it returns any other error that is not [Retryable], nothing was written and
	// nothing will be. After a retryable error the outcome is unknown, as it is when
	// the context ends.
	//
	// A driver must switch off the retries of its client library: if the library
	// retried and found the object of its own first attempt, a success would become
	// ErrExist.
	Create(ctx context.Context, key string, data []byte) (Object, error)

	// Put makes an object with the content data, and replaces an object that exists
	// at key. It is atomic and durable, as Create is. It may be repeated: after an
	// error, a second Put of the same data leaves the right object.
	Put(ctx context.Context, key string, data []byte) (Object, error)

	// Get reads len(p) bytes of an object into p, starting at offset, and returns the
	// number of bytes read. If the object ends earlier, it returns fewer bytes and no
	// error. (Only in this it differs from io.ReaderAt.) Reading an empty object at
	// offset 0 gives 0 bytes.
	//
	// It returns ErrNotExist if the object does not exist, but never because access
	// was denied or the namespace itself is missing. It returns ErrRange if p is
	// empty, if offset is negative, or if offset is not zero and not less than the
	// object's size. After an error the content of p is undefined.
	Get(ctx context.Context, key string, offset int64, p []byte) (int, error)

	// List yields the objects whose keys begin with prefix and are greater than
	// after, in ascending byte order of their keys. prefix need not end with "/".
	// after need not exist, nor begin with prefix; "" comes before every key. Each
	// range over the sequence is a new listing. A break ends it, without another
	// request. An error is yielded last, with a zero Object. After it the caller may
	// continue with a new List after the last key that it got. If it wraps a
	// [HiddenError], the caller may also continue after the keys that are hidden.
	//
	// A namespace without objects lists as empty, even if nothing was ever written to
	// it, where the service can tell this from a namespace that is missing or cannot
	// be read.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]

	// Delete removes objects. A key that does not exist is not an error. Delete tries
	// every key, in batches if the service has them, and returns the errors of the
	// failed ones, joined. It is not atomic.
	Delete(ctx context.Context, keys ...string) error

	// Close releases what the handle holds: connections, locks, temporary files. It
	// does not wait for calls in progress, which may fail. After it, every other
	// method returns ErrClosed, and a second Close returns nil.
	Close() error
}

// Versioned is a Store whose replies tell whether it keeps objects that were deleted, as
// noncurrent versions.
type Versioned interface {
	// KeepsVersions reports whether a reply so far has told so. It sends no request.
	KeepsVersions() bool
}

// Object describes a stored object.
type Object struct {
	Key  string
	Size int64 // in bytes

	// ModTime is the time at which the object was written, by the store's own clock.
	// The protocol judges age only by it. So it must never come from the clock of the
	// machine on which the driver runs (unless that machine is the store), and must
	// never be earlier than the call of Create or Put. The times of one object from
	// Create, Put and List differ by a few seconds at most; the clock may be that
	// coarse.
	ModTime time.Time
}
