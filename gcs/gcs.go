// Package gcs stores objects in Google Cloud Storage. Importing it registers the URL
// scheme "gs"; see [OpenURL] for the URL.
//
// It uses the JSON API through gocloud.dev/blob/gcsblob. For what gocloud's portable
// types cannot express of the contract of [backend.Store], it uses
// cloud.google.com/go/storage. docs/deploy/gcp.md lists the IAM permissions that each
// operation needs, and what this package adds to the size of a program.
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
	// Endpoint is a service other than Google's, as in "http://host:port", or another
	// address of Google's, as in "https://storage-name.p.googleapis.com". If it is
	// empty, New uses STORAGE_EMULATOR_HOST, or else Google's default.
	Endpoint string

	// KMSKeyName is the key to encrypt with, as in
	// "projects/p/locations/l/keyRings/r/cryptoKeys/k"; empty leaves it to the
	// bucket.
	KMSKeyName string

	// StorageClass is the class of the objects; empty means the bucket's
	// default.
	StorageClass string
}

// Store is a [backend.Store] in a bucket. Any number of goroutines may use it at the
// same time.
type Store struct {
	client  *storage.Client
	bucket  *blob.Bucket // uses client
	name    string       // the name of the bucket
	prefix  string       // "", or ends with "/"
	options Options
	closed  atomic.Bool
	release func() // closes the connections that the store owns; nil if it owns none
}

var _ backend.Store = (*Store)(nil)

// New returns the store under prefix in bucket, for programs that configure the
// connection themselves. It uses only the transport of client, which must add the
// credentials to each request: google.golang.org/api/transport/http.NewClient makes
// such a client. Close leaves its connections open. The driver adds its own rules: it
// does not retry, follows no redirect, and ends a request if no byte moves for
// [StallTimeout], or if it is slower than [LowestRate].
//
// (New does not take a *blob.Bucket or a *storage.Client, because these cannot
// distinguish a missing object from a missing bucket, or limit a Get to one request:
// see docs/decisions/0009-azure-and-other-gocloud-stores.md.)
//
// New sends no request. An error wraps backend.ErrInvalid.
func New(ctx context.Context, client *http.Client, bucket, prefix string, o Options) (*Store, error) {
	l := location{bucket: bucket, prefix: prefix, options: o}
	if err := l.check(); err != nil {
		return nil, err
	}
	s := &Store{name: l.bucket, prefix: l.prefix, options: l.options}
	settings := []option.ClientOption{
		option.WithHTTPClient(guard(client)),
		option.WithoutAuthentication(), // client adds the credentials
		// By default, the SDK reads through the XML API, and there it drops what
		// distinguishes a missing object from a missing bucket.
		storage.WithJSONReads(),
	}
	if o.Endpoint != "" {
		settings = append(settings, option.WithEndpoint(strings.TrimRight(o.Endpoint, "/")+"/storage/v1/"))
	}
	var err error
	if s.client, err = storage.NewClient(ctx, settings...); err != nil {
		return nil, l.failed(&failure{kind: backend.ErrInvalid, cause: err, text: err.Error()})
	}
	// If the SDK retried and found the object of its own first attempt, a success
	// would become "condition not met".
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

// upload sends one request, and returns the service's description of the new object.
//
// The checksum is sent before the data, so that the service refuses data that was cut
// off or damaged on its way.
func (s *Store) upload(ctx context.Context, name string, data []byte, sum uint32, exclusive bool) (*storage.ObjectAttrs, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var object *storage.Writer
	w, err := s.bucket.NewWriter(ctx, name, &blob.WriterOptions{
		BufferSize:   -1, // one request, directly from data
		ContentType:  "application/octet-stream",
		CacheControl: "no-store", // otherwise public objects are cached, and can be read after Delete
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
		// Close publishes the object, and also waits for the end of the request.
		// Cancelling first makes sure that it can no longer publish: see package
		// httpclient.
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

// Get reads by one download with a range. If the range is the whole object, Get
// checks its CRC32C.
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
	// The SDK checks this only for requests without a range. CRC32C is 0 if the
	// service gives no checksum.
	whole := int64(n) == part.Attrs.Size
	if stored := part.Attrs.CRC32C; whole && stored != 0 && sum != stored {
		return 0, s.error("get", key, fmt.Errorf("damaged on its way: CRC32C %08x, the service has %08x", sum, stored))
	}
	return n, nil
}

// readFull is io.ReadFull. It also computes the checksum of what it reads, while that
// is in the processor's cache.
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

// expected checks that a response is the part of the object that was asked for, or
// the whole object if offset is 0. It returns how many bytes of it to read.
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

// cutError is a response that ended too early.
type cutError struct {
	got, want int
	cause     error
}

func (e *cutError) Error() string {
	cause := e.cause
	var unsent *url.Error // from the second request, which was refused
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

// ready makes the checks that come before every request. invalid is the error in the
// key or prefix, or nil.
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
