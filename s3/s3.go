// Package s3 stores objects in Amazon S3 and in services that speak its protocol.
// Importing it registers the URL scheme "s3"; see [OpenURL] for the URL.
//
// The service must support If-None-Match on PutObject, because Create depends on it.
// docs/deploy/aws.md lists services that do, and the IAM permissions that each
// operation needs.
package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/holdfast-io/holdfast/backend"
)

// Options says how objects are written. The zero value is right for most
// buckets.
type Options struct {
	// Encryption is the server-side encryption to ask for; empty leaves it to the
	// bucket. KMSKeyID is the key for the two KMS kinds; empty means the account's
	// default key.
	Encryption types.ServerSideEncryption
	KMSKeyID   string

	// StorageClass is the class of the objects; empty means the bucket's
	// default. Classes whose objects cannot be read at once are refused.
	StorageClass types.StorageClass

	// RequesterPays accepts the charges for requests to a bucket whose requesters
	// pay.
	RequesterPays bool

	// Checksum says how data is protected on its way to the server.
	Checksum Checksum
}

// Store is a [backend.Store] in a bucket. Any number of goroutines may use it at the
// same time.
type Store struct {
	client      *sdk.Client
	credentials *credentials
	bucket      string
	prefix      string // "", or ends with "/"
	options     Options
	directory   bool        // a directory bucket of S3 Express, which lists in no order
	single      atomic.Bool // the service has no DeleteObjects
	versions    atomic.Bool // an object had a version's id
	closed      atomic.Bool
	release     func() // closes the connections that the store owns; nil if it owns none
}

var (
	_ backend.Store     = (*Store)(nil)
	_ backend.Versioned = (*Store)(nil)
)

// New returns the store under prefix in bucket, for programs that configure the
// client themselves. It uses the client's settings, with these exceptions:
//
//   - the SDK does not retry;
//   - the driver computes the checksums;
//   - a request is ended if no byte moves for [StallTimeout], or if it is slower than [LowestRate];
//   - the store makes its own sessions with a directory bucket of S3 Express.
//
// The client is not changed, and Close leaves its connections open.
//
// New sends no request. An error wraps backend.ErrInvalid.
func New(client *sdk.Client, bucket, prefix string, o Options) (*Store, error) {
	l := location{bucket: bucket, prefix: prefix, options: o}
	if err := l.check(); err != nil {
		return nil, err
	}
	s := &Store{
		bucket:    l.bucket,
		prefix:    l.prefix,
		options:   l.options,
		directory: strings.HasSuffix(bucket, "--x-s3") || strings.HasSuffix(bucket, "--xa-s3"), // a directory bucket, or an access point of one
	}
	s.client = sdk.New(client.Options(), func(o *sdk.Options) {
		o.HTTPClient = watched{o.HTTPClient}
		s.configure(o)
	})
	return s, nil
}

// configure sets what the driver depends on to be correct.
func (s *Store) configure(o *sdk.Options) {
	// If the SDK retried and found the object of its own first attempt, a success
	// would become PreconditionFailed.
	o.Retryer = aws.NopRetryer{}
	o.RetryMaxAttempts = 0
	// Over TLS, the SDK's own checksums become an aws-chunked trailer. Several
	// services refuse it, and one stores it as data.
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	// The provider of sessions belongs to the client that it was made for. Without
	// this, the SDK would use it for the new client as well.
	o.ExpressCredentials = nil
	s.credentials = &credentials{provider: o.Credentials}
	if o.Credentials != nil { // nil means anonymous requests
		o.Credentials = s.credentials
	}
}

// Create makes a new object with one PutObject that carries If-None-Match: *.
func (s *Store) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	return s.write(ctx, "create", key, data, aws.String("*"))
}

// Put makes or replaces an object with one PutObject.
func (s *Store) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	return s.write(ctx, "put", key, data, nil)
}

func (s *Store) write(ctx context.Context, op, key string, data []byte, ifNoneMatch *string) (backend.Object, error) {
	if err := s.ready(ctx, op, key, backend.CheckKey(key)); err != nil {
		return backend.Object{}, err
	}
	in := &sdk.PutObjectInput{
		Bucket:               &s.bucket,
		Key:                  aws.String(s.prefix + key),
		Body:                 bytes.NewReader(data),
		IfNoneMatch:          ifNoneMatch,
		StorageClass:         s.options.StorageClass,
		ServerSideEncryption: s.options.Encryption,
		RequestPayer:         s.payer(),
	}
	if s.options.KMSKeyID != "" {
		in.SSEKMSKeyId = &s.options.KMSKeyID
	}
	if s.options.Checksum == ChecksumCRC32C {
		in.ChecksumCRC32C = aws.String(crc32c(data))
	}
	out, err := s.client.PutObject(ctx, in, s.options.Checksum.sign, checked(checkWriteAnswer))
	if err != nil {
		return backend.Object{}, s.failed(ctx, op, key, err)
	}
	s.noteVersion(out.VersionId)
	// The Date of the response is the store's clock after the write. A response
	// without it is treated as if it were lost: the error is retryable, and the
	// outcome in doubt. A second Create then finds the object of the first one, and a
	// List gives its time.
	at, ok := awsmiddleware.GetServerTime(out.ResultMetadata)
	if !ok {
		return backend.Object{}, s.error(op, key, errNoDate)
	}
	return backend.Object{Key: key, Size: int64(len(data)), ModTime: at}, nil
}

var errNoDate = errors.New("written, but the response has no valid Date header, by which the store tells its time; " +
	"see whether a proxy removes it")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc32c(data []byte) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli))
	return base64.StdEncoding.EncodeToString(sum)
}

// Get reads by one GetObject with a range.
func (s *Store) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if err := s.ready(ctx, "get", key, backend.CheckKey(key)); err != nil {
		return 0, err
	}
	if len(p) == 0 || offset < 0 || offset > math.MaxInt64-int64(len(p)) {
		return 0, s.error("get", key, backend.ErrRange)
	}
	out, err := s.client.GetObject(ctx, &sdk.GetObjectInput{
		Bucket:       &s.bucket,
		Key:          aws.String(s.prefix + key),
		Range:        aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+int64(len(p))-1)),
		RequestPayer: s.payer(),
	}, checked(checkReadAnswer))
	if err != nil {
		if offset == 0 && errorCode(err) == "InvalidRange" {
			return 0, nil // only an empty object has no byte 0
		}
		return 0, s.failed(ctx, "get", key, err)
	}
	defer out.Body.Close()
	s.noteVersion(out.VersionId)
	want, err := expected(out, offset, len(p))
	if err != nil {
		return 0, s.error("get", key, err)
	}
	n, err := io.ReadFull(out.Body, p[:want])
	if err != nil {
		err = fmt.Errorf("response ended after %d of %d bytes: %w", n, want, err)
		return 0, s.failed(ctx, "get", key, err)
	}
	return n, nil
}

// noteVersion notes the id of an object's version, which S3 tells if the object was written
// while versioning was enabled: it stays as a noncurrent version when it is deleted. What was
// written before that, or while versioning is suspended, has the id "null".
func (s *Store) noteVersion(id *string) {
	if v := aws.ToString(id); v != "" && v != "null" {
		s.versions.Store(true)
	}
}

// KeepsVersions reports whether an object that was written or read had a version.
func (s *Store) KeepsVersions() bool { return s.versions.Load() }

// expected checks that a response is the part of the object that was asked for, and
// returns how many bytes of it to read.
func expected(out *sdk.GetObjectOutput, offset int64, length int) (int, error) {
	if out.ContentRange == nil { // the whole object
		switch {
		case out.ContentLength == nil:
			return 0, errors.New("response without a length")
		case offset > 0 || *out.ContentLength > int64(length):
			return 0, fmt.Errorf("the service ignored the Range header: %w", backend.ErrUnsupported)
		}
		return int(*out.ContentLength), nil
	}
	var first, last, size int64
	if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/%d", &first, &last, &size); err != nil {
		return 0, fmt.Errorf("response with Content-Range %q", *out.ContentRange)
	}
	if end := min(offset+int64(length), size); first != offset || last != end-1 {
		return 0, fmt.Errorf("asked for bytes %d to %d, got Content-Range %q", offset, end-1, *out.ContentRange)
	}
	return int(last - first + 1), nil
}

// Close closes the connections that the store owns.
func (s *Store) Close() error {
	if !s.closed.Swap(true) && s.release != nil {
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

func (s *Store) payer() types.RequestPayer {
	if s.options.RequesterPays {
		return types.RequestPayerRequester
	}
	return ""
}

// String returns the store's URL without its query.
func (s *Store) String() string { return storeURL(s.bucket, s.prefix) }

func storeURL(bucket, prefix string) string {
	return strings.TrimRight("s3://"+bucket+"/"+strings.TrimLeft(prefix, "/"), "/")
}
