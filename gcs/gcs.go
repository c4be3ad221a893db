// Package gcs stores objects in Google Cloud Storage. Importing it registers
// the URL scheme "gs"; see [OpenURL] for the URL.
//
// It speaks the JSON API through gocloud.dev/blob/gcsblob, and through
// cloud.google.com/go/storage where the portable type has no word for what a
// [backend.Store] promises. docs/deploy/gcp.md lists the IAM permissions that
// each verb needs, and what this package adds to a program.
package gcs

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"google.golang.org/api/option"

	"github.com/holdfast-io/holdfast/backend"
)

// Options says where the service is and how objects are written. The zero
// value is right for most buckets.
type Options struct {
	// Endpoint is a service other than Google's, as in "http://host:port", or
	// another way to it, as in "https://storage-name.p.googleapis.com". Empty
	// means what STORAGE_EMULATOR_HOST names, or else Google's.
	Endpoint string

	// KMSKeyName is the key to encrypt with, as in
	// "projects/p/locations/l/keyRings/r/cryptoKeys/k"; empty leaves it to the
	// bucket.
	KMSKeyName string

	// StorageClass is the class of the objects; empty means the bucket's
	// default.
	StorageClass string
}

// Store is a [backend.Store] in a bucket. It may be used from many goroutines
// at once.
type Store struct {
	client  *storage.Client
	bucket  *blob.Bucket // through client
	name    string       // the bucket's
	prefix  string       // "", or ends with "/"
	options Options
	closed  atomic.Bool
	release func() // what Close does; may be nil
}

var _ backend.Store = (*Store)(nil)

// New returns the store under prefix in bucket, for programs that configure
// the connection themselves. It uses nothing of client but the transport, which
// adds the credentials to each request, as
// google.golang.org/api/transport/http.NewClient makes it. Close leaves its
// connections open. What is wrapped around it is the driver's: nothing is tried
// again, no redirect is followed, and a request on which no byte moves for
// [StallTimeout], or that is slower than [LowestRate], is ended.
//
// (It does not take a *blob.Bucket or a *storage.Client, because these give no
// way to tell a missing object from a missing bucket, or to keep a Get to one
// request: see docs/decisions/0009-azure-and-other-gocloud-stores.md.)
//
// It sends no request. An error wraps backend.ErrInvalid.
func New(ctx context.Context, client *http.Client, bucket, prefix string, o Options) (*Store, error) {
	l := location{bucket: bucket, prefix: prefix, options: o}
	if err := l.check(); err != nil {
		return nil, err
	}
	s := &Store{name: l.bucket, prefix: l.prefix, options: l.options}
	settings := []option.ClientOption{
		option.WithHTTPClient(guard(client)),
		option.WithoutAuthentication(), // client's task
		// The XML API is the default for reads alone, and there the SDK drops
		// what tells a missing object from a missing bucket.
		storage.WithJSONReads(),
	}
	if o.Endpoint != "" {
		settings = append(settings, option.WithEndpoint(strings.TrimRight(o.Endpoint, "/")+"/storage/v1/"))
	}
	var err error
	if s.client, err = storage.NewClient(ctx, settings...); err != nil {
		return nil, l.failed(&failure{kind: backend.ErrInvalid, cause: err, text: err.Error()})
	}
	// A second attempt by the SDK that meets the first one's object would turn
	// a success into "condition not met".
	s.client.SetRetry(storage.WithPolicy(storage.RetryNever))
	if s.bucket, err = gcsblob.OpenBucket(ctx, nil, s.name, &gcsblob.Options{Client: s.client}); err != nil {
		return nil, l.failed(&failure{kind: backend.ErrInvalid, cause: err, text: err.Error()})
	}
	return s, nil
}

// Create makes a new object with one multipart upload that carries
// ifGenerationMatch=0.
func (s *Store) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	return s.write(ctx, "create", key, data, true)
}

// Put makes or replaces an object with one multipart upload.
func (s *Store) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	return s.write(ctx, "put", key, data, false)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *Store) write(ctx context.Context, op, key string, data []byte, exclusive bool) (backend.Object, error) {
	if err := s.ready(ctx, op, key, backend.CheckKey(key)); err != nil {
		return backend.Object{}, err
	}
	sum := crc32.Checksum(data, castagnoli)
	attrs, err := s.upload(ctx, s.prefix+key, data, sum, exclusive)
	if err != nil {
		return backend.Object{}, s.failed(ctx, op, key, err)
	}
	if attrs.CRC32C != sum || attrs.Size != int64(len(data)) {
		err := fmt.Errorf("wrote %d bytes with CRC32C %08x, and the service stored %d bytes with CRC32C %08x",
			len(data), sum, attrs.Size, attrs.CRC32C)
		return backend.Object{}, s.error(op, key, err)
	}
	if attrs.Created.IsZero() {
		return backend.Object{}, s.error(op, key, errors.New("written, but the response has no timeCreated to tell the store's time"))
	}
	return backend.Object{Key: key, Size: attrs.Size, ModTime: attrs.Created}, nil
}

// upload sends one request, and returns what the service says of the object
// that it made.
//
// The sum travels ahead of the data, so that the service refuses data that was
// cut short or damaged on its way.
func (s *Store) upload(ctx context.Context, name string, data []byte, sum uint32, exclusive bool) (*storage.ObjectAttrs, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var object *storage.Writer
	w, err := s.bucket.NewWriter(ctx, name, &blob.WriterOptions{
		BufferSize:   -1, // one request, from data itself
		ContentType:  "application/octet-stream",
		CacheControl: "no-store", // without it, objects that anyone may read are cached, and outlive Delete
		IfNotExist:   exclusive,
		BeforeWrite: func(as func(any) bool) error {
			if !as(&object) {
				return errors.New("gcsblob does not show its writer")
			}
			object.CRC32C, object.SendCRC32C = sum, true
			object.KMSKeyName = s.options.KMSKeyName
			object.StorageClass = s.options.StorageClass
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	_, failed := w.Write(data)
	if failed != nil {
		// Close is how a writer publishes. It is also how one waits for the
		// request's end, so take away its voice first: see requestBody.
		cancel()
	}
	if err := w.Close(); failed == nil {
		failed = err
	}
	if failed != nil {
		return nil, failed
	}
	return object.Attrs(), nil
}

// Get reads with one ranged download. When the range turns out to be the whole
// object, its CRC32C is checked.
func (s *Store) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if err := s.ready(ctx, "get", key, backend.CheckKey(key)); err != nil {
		return 0, err
	}
	if len(p) == 0 || offset < 0 || offset > math.MaxInt64-int64(len(p)) {
		return 0, s.error("get", key, backend.ErrRange)
	}
	r, err := s.bucket.NewRangeReader(only(ctx), s.prefix+key, offset, int64(len(p)), nil)
	if err != nil {
		if a, ok := answerOf(err); ok && a.status == http.StatusRequestedRangeNotSatisfiable && offset == 0 {
			return 0, nil // only an empty object has no byte 0
		}
		return 0, s.failed(ctx, "get", key, err)
	}
	defer r.Close()
	var part *storage.Reader
	if !r.As(&part) {
		return 0, s.error("get", key, errors.New("gcsblob does not show its reader"))
	}
	want, err := expected(part, offset, len(p))
	if err != nil {
		return 0, s.error("get", key, err)
	}
	n, sum, err := readFull(r, p[:want])
	if err != nil {
		return 0, s.failed(ctx, "get", key, &cutError{n, want, err})
	}
	// The SDK makes this check for answers to requests without a range alone. It
	// says 0 where the service names no sum.
	whole := int64(n) == part.Attrs.Size
	if stored := part.Attrs.CRC32C; whole && stored != 0 && sum != stored {
		return 0, s.error("get", key, fmt.Errorf("damaged on its way: CRC32C %08x, the service has %08x", sum, stored))
	}
	return n, nil
}

// readFull is io.ReadFull, and sums up what it reads while that is in the
// processor's cache.
func readFull(r io.Reader, p []byte) (n int, sum uint32, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		sum = crc32.Update(sum, castagnoli, p[n:n+m])
		n += m
	}
	if n == len(p) {
		return n, sum, nil
	}
	return n, sum, err
}

// expected returns how many bytes of the response belong to the answer, after
// a check that it is the part of the object that was asked for, or, of a range
// from 0 on, the whole object.
func expected(r *storage.Reader, offset int64, length int) (int, error) {
	size, got := r.Attrs.Size, r.Remain() // of the object, and of the response
	want := min(int64(length), size-offset)
	part := got == want && want > 0
	whole := got == size && offset == 0
	if r.Attrs.StartOffset != offset || !part && !whole {
		return 0, fmt.Errorf("asked for %d bytes from %d on, got %d from %d on, of %d", length, offset, got, r.Attrs.StartOffset, size)
	}
	return int(want), nil
}

// cutError is a response that ended before its time.
type cutError struct {
	got, want int
	cause     error
}

func (e *cutError) Error() string {
	cause := e.cause
	var unsent *url.Error // of the second request that was refused
	if errors.As(cause, &unsent) {
		cause = unsent.Err
	}
	return fmt.Sprintf("response ended after %d of %d bytes: %v", e.got, e.want, cause)
}

func (e *cutError) Unwrap() error { return e.cause }

// Close closes the connections that the store owns.
func (s *Store) Close() error {
	s.closed.Store(true)
	if s.release != nil {
		s.release()
	}
	return nil
}

// ready makes the checks that come before every request. invalid is what is
// wrong with the key or prefix, or nil.
func (s *Store) ready(ctx context.Context, op, key string, invalid error) error {
	switch {
	case s.closed.Load():
		return s.error(op, key, backend.ErrClosed)
	case invalid != nil:
		return s.error(op, key, invalid)
	case ctx.Err() != nil:
		return s.error(op, key, ctx.Err())
	}
	return nil
}

// String returns the store's URL without its query.
func (s *Store) String() string { return storeURL(s.name, s.prefix) }

func storeURL(bucket, prefix string) string {
	return strings.TrimRight("gs://"+bucket+"/"+strings.TrimLeft(prefix, "/"), "/")
}
