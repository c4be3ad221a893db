package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/backend"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A wire replaces the network: it records each request with its body, and calls
// answer for the response.
type wire struct {
	answer func(*request) (*http.Response, error)

	mu       sync.Mutex
	requests []*request
}

type request struct {
	*http.Request
	body []byte
}

func (w *wire) Do(r *http.Request) (*http.Response, error) {
	req := &request{Request: r}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
		req.body = body
	}
	w.mu.Lock()
	w.requests = append(w.requests, req)
	w.mu.Unlock()
	resp, err := w.answer(req)
	if resp != nil {
		resp.Request = r
	}
	return resp, err
}

func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.requests)
}

// serverTime is the clock of the simulated service. It is far from this machine's
// clock.
var serverTime = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

func respond(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status,
		Header: http.Header{
			"Date":             {serverTime.Format(http.TimeFormat)},
			"Content-Length":   {strconv.Itoa(len(body))},
			"X-Amz-Request-Id": {"REQ42"},
			"Etag":             {`"0123456789abcdef"`},
		},
		Body:          io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)),
	}
}

func respondError(status int, code string) *http.Response {
	return respond(status, errorXML(code))
}

func errorXML(code string) string {
	return fmt.Sprintf("<Error><Code>%s</Code><Message>Words about %s.</Message><RequestId>REQ42</RequestId></Error>", code, code)
}

func always(resp func() *http.Response) func(*request) (*http.Response, error) {
	return func(*request) (*http.Response, error) { return resp(), nil }
}

// inOrder answers each request with the next one of the given functions.
func inOrder(t *testing.T, answers ...func(*request) (*http.Response, error)) func(*request) (*http.Response, error) {
	var mu sync.Mutex
	return func(r *request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(answers) == 0 {
			t.Errorf("unexpected request %s %s", r.Method, r.URL)
			return respondError(500, "InternalError"), nil
		}
		next := answers[0]
		answers = answers[1:]
		return next(r)
	}
}

var testKeys = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "KEY", SecretAccessKey: "SECRET"}, nil
})

func testOptions(client sdk.HTTPClient) sdk.Options {
	return sdk.Options{
		Region:       "eu-west-1",
		BaseEndpoint: aws.String("http://store.test"),
		UsePathStyle: true,
		Credentials:  testKeys,
		HTTPClient:   client,
		// The SDK's defaults, which the driver must replace.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	}
}

// open returns a store under s3://bucket/jobs whose requests go to w.
func (w *wire) open(t *testing.T, o Options) *Store {
	t.Helper()
	return w.openBucket(t, "bucket", testOptions(w), o)
}

func (w *wire) openBucket(t *testing.T, bucket string, client sdk.Options, o Options) *Store {
	t.Helper()
	s, err := New(sdk.New(client), bucket, "jobs", o)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s)
	return s
}

func closeAfter(t *testing.T, s backend.Store) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// objects is a minimal S3: a map of objects with conditional PUT.
type objects map[string][]byte

func (o objects) answer(r *request) (*http.Response, error) {
	key := r.URL.Path
	switch r.Method {
	case http.MethodPut:
		if _, taken := o[key]; taken && r.Header.Get("If-None-Match") == "*" {
			return respondError(412, "PreconditionFailed"), nil
		}
		o[key] = r.body
		return respond(200, ""), nil
	case http.MethodGet:
		data, ok := o[key]
		if !ok {
			return respondError(404, "NoSuchKey"), nil
		}
		return respond(200, string(data)), nil
	}
	return respondError(501, "NotImplemented"), nil
}

func TestCreateOnTheWire(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			w := &wire{answer: always(func() *http.Response { return respond(200, "") })}
			options := testOptions(w)
			options.BaseEndpoint = aws.String(scheme + "://store.test")
			s := w.openBucket(t, "bucket", options, Options{})
			o, err := s.Create(t.Context(), "a/b", []byte("123456789"))
			if err != nil {
				t.Fatal(err)
			}
			if want := (backend.Object{Key: "a/b", Size: 9, ModTime: serverTime}); o != want {
				t.Errorf("Create returned %v, want %v", o, want)
			}
			if w.count() != 1 {
				t.Fatalf("%d requests, want 1", w.count())
			}
			r := w.requests[0]
			if r.Method != "PUT" || r.URL.Path != "/bucket/jobs/a/b" || string(r.body) != "123456789" || r.ContentLength != 9 {
				t.Errorf("%s %s, length %d, body %q", r.Method, r.URL, r.ContentLength, r.body)
			}
			wantHeaders(t, r, map[string]string{
				"If-None-Match":         "*",
				"X-Amz-Checksum-Crc32c": "4waSgw==", // the check value of CRC-32C, e3069283
				"X-Amz-Content-Sha256":  "UNSIGNED-PAYLOAD",
				"Content-Encoding":      "", // no aws-chunked
				"X-Amz-Trailer":         "",
			})
			if signed := r.Header.Get("Authorization"); !strings.Contains(signed, "if-none-match;") || !strings.Contains(signed, "x-amz-checksum-crc32c;") {
				t.Errorf("the condition and the checksum must be signed: %s", signed)
			}
		})
	}
}

func wantHeaders(t *testing.T, r *request, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got := r.Header.Get(name); got != value {
			t.Errorf("%s %s: header %s is %q, want %q", r.Method, r.URL, name, got, value)
		}
	}
}

func TestOptionsOnTheWire(t *testing.T) {
	const crc32c = "4waSgw=="
	const sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225" // of the data 123456789
	tests := []struct {
		name    string
		options Options
		put     map[string]string
	}{
		{"default", Options{}, map[string]string{
			"If-None-Match": "", "X-Amz-Request-Payer": "", "X-Amz-Storage-Class": "", "X-Amz-Server-Side-Encryption": "",
			"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD", "X-Amz-Checksum-Crc32c": crc32c, "Content-Type": "application/octet-stream",
		}},
		{"encrypted", Options{Encryption: "aws:kms", KMSKeyID: "alias/jobs"}, map[string]string{
			"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "alias/jobs",
		}},
		{"class", Options{StorageClass: "STANDARD_IA"}, map[string]string{"X-Amz-Storage-Class": "STANDARD_IA"}},
		{"payer", Options{RequesterPays: true}, map[string]string{"X-Amz-Request-Payer": "requester"}},
		{"checked", Options{Checksum: ChecksumCRC32C}, map[string]string{"X-Amz-Checksum-Crc32c": crc32c}},
		{"checked as in a URL", Options{Checksum: "crc32c"}, map[string]string{"X-Amz-Checksum-Crc32c": crc32c}},
		{"signed", Options{Checksum: ChecksumSHA256}, map[string]string{
			"X-Amz-Content-Sha256": sha256, "X-Amz-Checksum-Crc32c": "",
		}},
		{"bare", Options{Checksum: ChecksumNone}, map[string]string{
			"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD", "X-Amz-Checksum-Crc32c": "", "X-Amz-Checksum-Crc32": "",
		}},
	}
	for _, scheme := range []string{"http", "https"} {
		for _, test := range tests {
			t.Run(scheme+"/"+test.name, func(t *testing.T) {
				w := &wire{answer: always(func() *http.Response { return respond(200, "") })}
				options := testOptions(w)
				options.BaseEndpoint = aws.String(scheme + "://store.test")
				s := w.openBucket(t, "bucket", options, test.options)
				if _, err := s.Put(t.Context(), "key", []byte("123456789")); err != nil {
					t.Fatal(err)
				}
				wantHeaders(t, w.requests[0], test.put)
			})
		}
	}
}

func TestRequesterPaysOnEveryVerb(t *testing.T) {
	w := &wire{answer: func(r *request) (*http.Response, error) {
		switch {
		case r.Method == "POST":
			return respond(200, "<DeleteResult/>"), nil
		case r.URL.Query().Has("list-type"):
			return respond(200, page("")), nil
		}
		return respond(200, ""), nil
	}}
	s := w.open(t, Options{RequesterPays: true})
	for _, verb := range verbs {
		if err := call(t.Context(), s, verb); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), "key", "other"); err != nil {
		t.Fatal(err)
	}
	if w.count() != 6 {
		t.Fatalf("%d requests, want 6", w.count())
	}
	for _, r := range w.requests {
		wantHeaders(t, r, map[string]string{"X-Amz-Request-Payer": "requester"})
	}
}

// The write reaches the service, but the reply is lost. The driver must not report a
// success, and not ErrExist, and must not repeat the request: only the commit
// protocol can find out, by the token in the data, whose object it is.
func TestReplyLost(t *testing.T) {
	tests := []struct {
		name  string
		reply func(*http.Response) (*http.Response, error)
	}{
		{"connection", func(*http.Response) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }},
		{"500", func(*http.Response) (*http.Response, error) { return respondError(500, "InternalError"), nil }},
		{"503", func(*http.Response) (*http.Response, error) { return respond(503, ""), nil }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			store := objects{}
			lose := true
			w := &wire{}
			w.answer = func(r *request) (*http.Response, error) {
				resp, err := store.answer(r)
				if lose {
					return test.reply(resp)
				}
				return resp, err
			}
			s := w.open(t, Options{})
			_, err := s.Create(t.Context(), "manifest", []byte("mine"))
			if !backend.Retryable(err) || errors.Is(err, backend.ErrExist) {
				t.Fatalf("a lost reply gave %v, want a retryable error", err)
			}
			if w.count() != 1 {
				t.Fatalf("%d requests, want 1", w.count())
			}
			lose = false
			wantTaken(t, s, "mine")

			// The same, but another writer comes in between.
			store["/bucket/jobs/manifest"] = []byte("theirs")
			wantTaken(t, s, "theirs")
		})
	}
}

// wantTaken expects ErrExist from Create on "manifest", and reads who holds it.
func wantTaken(t *testing.T, s backend.Store, holder string) {
	t.Helper()
	if _, err := s.Create(t.Context(), "manifest", []byte("mine")); !errors.Is(err, backend.ErrExist) || backend.Retryable(err) {
		t.Fatalf("Create on a taken key gave %v, want ErrExist", err)
	}
	p := make([]byte, 100)
	n, err := s.Get(t.Context(), "manifest", 0, p)
	if err != nil || string(p[:n]) != holder {
		t.Fatalf("read back %q, %v, want %q", p[:n], err, holder)
	}
}

func TestGetOnTheWire(t *testing.T) {
	part := func(contentRange, body string) func() *http.Response {
		return func() *http.Response {
			r := respond(206, body)
			r.Header.Set("Content-Range", contentRange)
			return r
		}
	}
	tests := []struct {
		name   string
		offset int64
		answer func() *http.Response
		want   string
		err    error // the kind of error; errAny means retryable
	}{
		{"part", 2, part("bytes 2-5/10", "cdef"), "cdef", nil},
		{"to the end", 8, part("bytes 8-9/10", "ij"), "ij", nil},
		{"whole object", 0, func() *http.Response { return respond(200, "abc") }, "abc", nil},
		{"empty object with status 200", 0, func() *http.Response { return respond(200, "") }, "", nil},
		{"range from 0 ignored", 0, func() *http.Response { return respond(200, "abcdefghij") }, "", backend.ErrUnsupported},
		{"empty object", 0, func() *http.Response { return respondError(416, "InvalidRange") }, "", nil},
		{"beyond the end", 10, func() *http.Response { return respondError(416, "InvalidRange") }, "", backend.ErrRange},
		{"range ignored", 2, func() *http.Response { return respond(200, "abcdefghij") }, "", backend.ErrUnsupported},
		{"all of a short object, in place of its end", 2, func() *http.Response { return respond(200, "abc") }, "", backend.ErrUnsupported},
		{"no length", 0, func() *http.Response {
			r := respond(200, "abcdefghij")
			r.Header.Del("Content-Length")
			return r
		}, "", errAny},
		{"another range", 2, part("bytes 0-3/10", "abcd"), "", errAny},
		{"more in front", 2, part("bytes 1-5/10", "bcdef"), "", errAny},
		{"less than asked", 2, part("bytes 2-3/10", "cd"), "", errAny},
		{"more than asked", 2, part("bytes 2-9/10", "cdefghij"), "", errAny},
		{"no range", 2, part("elephants", "cdef"), "", errAny},
		{"body cut", 2, part("bytes 2-5/10", "cd"), "", errAny},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body := &closable{}
			w := &wire{answer: always(func() *http.Response {
				r := test.answer()
				body.ReadCloser, r.Body = r.Body, body
				return r
			})}
			s := w.open(t, Options{})
			p := make([]byte, 4)
			n, err := s.Get(t.Context(), "key", test.offset, p)
			wantKind(t, err, test.err)
			if !body.closed {
				t.Error("the response's body was left open")
			}
			if err == nil && string(p[:n]) != test.want {
				t.Errorf("got %q, want %q", p[:n], test.want)
			}
			wantHeaders(t, w.requests[0], map[string]string{
				"Range": fmt.Sprintf("bytes=%d-%d", test.offset, test.offset+3), "X-Amz-Checksum-Mode": "",
			})
			if w.count() != 1 {
				t.Errorf("%d requests, want 1", w.count())
			}
		})
	}
}

type closable struct {
	io.ReadCloser
	closed bool
}

func (c *closable) Close() error {
	c.closed = true
	return c.ReadCloser.Close()
}

// errAny stands for an error without a kind, which is retryable.
var errAny = errors.New("retryable")

func wantKind(t *testing.T, err, kind error) {
	t.Helper()
	if errors.Is(kind, errAny) {
		if !backend.Retryable(err) {
			t.Errorf("got %v, want a retryable error", err)
		}
	} else if !errors.Is(err, kind) {
		t.Errorf("got %v, want %v", err, kind)
	}
	var e *backend.Error
	if err != nil && !errors.As(err, &e) {
		t.Errorf("%v is no *backend.Error", err)
	}
}

func TestGetRefusesBadRanges(t *testing.T) {
	w := &wire{}
	s := w.open(t, Options{})
	for _, test := range []struct {
		offset int64
		length int
	}{{0, 0}, {-1, 1}, {1<<63 - 2, 10}} {
		if _, err := s.Get(t.Context(), "key", test.offset, make([]byte, test.length)); !errors.Is(err, backend.ErrRange) {
			t.Errorf("Get of %d bytes at %d gave %v, want ErrRange", test.length, test.offset, err)
		}
	}
	if w.count() != 0 {
		t.Errorf("%d requests, want none", w.count())
	}
}

// A write whose response does not give the store's time is treated as if its reply
// were lost: the object exists, and a List gives the time.
func TestDateMissing(t *testing.T) {
	for _, date := range []string{"", "yesterday"} {
		for _, verb := range []string{"create", "put"} {
			t.Run(verb+"/"+date, func(t *testing.T) {
				store := objects{}
				w := &wire{answer: func(r *request) (*http.Response, error) {
					resp, err := store.answer(r)
					resp.Header.Set("Date", date)
					return resp, err
				}}
				s := w.open(t, Options{})
				err := call(t.Context(), s, verb)
				wantKind(t, err, errAny)
				if !strings.Contains(err.Error(), "no valid Date header") {
					t.Errorf("no reason in %q", err)
				}
				if w.count() != 1 || string(store["/bucket/jobs/key"]) != "data" {
					t.Errorf("%d requests, stored %q", w.count(), store)
				}
				wantKind(t, call(t.Context(), s, "create"), backend.ErrExist)
			})
		}
	}
}

// The SDK learns the service's clock from the response, and signs the second attempt
// with a time that the service accepts.
func TestClockSkew(t *testing.T) {
	w := &wire{}
	w.answer = func(r *request) (*http.Response, error) {
		signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil {
			return nil, err
		}
		if signed.Sub(serverTime).Abs() > 15*time.Minute {
			return respondError(403, "RequestTimeTooSkewed"), nil
		}
		return respond(200, ""), nil
	}
	s := w.open(t, Options{})
	_, err := s.Create(t.Context(), "key", nil)
	wantKind(t, err, errAny)
	if !strings.Contains(err.Error(), "NTP") {
		t.Errorf("no advice in %q", err)
	}
	if _, err := s.Create(t.Context(), "key", nil); err != nil {
		t.Errorf("second attempt: %v", err)
	}
	if w.count() != 2 {
		t.Errorf("%d requests, want 2", w.count())
	}
}

func TestDeleteBatches(t *testing.T) {
	var sizes []int
	w := &wire{answer: nil}
	w.answer = func(r *request) (*http.Response, error) {
		sizes = append(sizes, bytes.Count(r.body, []byte("<Key>")))
		if r.Method == "POST" && !bytes.Contains(r.body, []byte("<Quiet>true</Quiet>")) {
			t.Errorf("batch is not quiet: %.200s", r.body)
		}
		return respond(200, "<DeleteResult></DeleteResult>"), nil
	}
	keys := make([]string, 2001)
	for i := range keys {
		keys[i] = fmt.Sprintf("%05d", i)
	}
	if err := w.open(t, Options{}).Delete(t.Context(), keys...); err != nil {
		t.Fatal(err)
	}
	if want := []int{1000, 1000, 0}; !slices.Equal(sizes, want) {
		t.Errorf("keys in batches: %v, want %v", sizes, want)
	}
	if last := w.requests[2]; last.Method != "DELETE" || last.URL.Path != "/bucket/jobs/02000" {
		t.Errorf("last key: %s %s", last.Method, last.URL)
	}
}

func TestDeletePartialFailure(t *testing.T) {
	const result = `<DeleteResult>
		<Error><Key>jobs/b</Key><Code>AccessDenied</Code><Message>no</Message></Error>
		<Error><Key>jobs/c</Key><Code>InternalError</Code><Message>oops</Message></Error>
		<Error><Key>jobs/d</Key><Code>NoSuchKey</Code><Message>gone</Message></Error>
	</DeleteResult>`
	w := &wire{answer: always(func() *http.Response { return respond(200, result) })}
	err := w.open(t, Options{}).Delete(t.Context(), "a", "b", "c", "d")
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 2 {
		t.Fatalf("got %v, want two errors joined", err)
	}
	denied, failed := joined.Unwrap()[0], joined.Unwrap()[1]
	wantKind(t, denied, backend.ErrPermission)
	wantKind(t, failed, errAny)
	const want = "delete s3://bucket/jobs/b: AccessDenied: no (request id REQ42); allow s3:DeleteObject on arn:aws:s3:::bucket/jobs/*"
	if denied.Error() != want {
		t.Errorf("got  %s\nwant %s", denied, want)
	}
}

func TestDeleteWithoutBatches(t *testing.T) {
	for _, code := range []string{"NotImplemented", "MethodNotAllowed", "MissingContentMD5"} {
		t.Run(code, func(t *testing.T) {
			var deleted []string
			w := &wire{}
			w.answer = func(r *request) (*http.Response, error) {
				if r.Method == "POST" {
					return respondError(501, code), nil
				}
				deleted = append(deleted, r.URL.Path)
				if r.URL.Path == "/bucket/jobs/b" {
					return respondError(404, "NoSuchKey"), nil
				}
				return respond(204, ""), nil
			}
			s := w.open(t, Options{})
			for range 2 {
				if err := s.Delete(t.Context(), "a", "b"); err != nil {
					t.Fatal(err)
				}
			}
			want := []string{"/bucket/jobs/a", "/bucket/jobs/b", "/bucket/jobs/a", "/bucket/jobs/b"}
			if !slices.Equal(deleted, want) || w.count() != 5 {
				t.Errorf("%d requests, deleted %q", w.count(), deleted)
			}
		})
	}
}

// When the context ends, Delete sends no more requests and returns one error.
func TestDeleteEndsWithContext(t *testing.T) {
	keys := make([]string, 2500)
	for i := range keys {
		keys[i] = fmt.Sprintf("%05d", i)
	}
	for _, single := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		w := &wire{answer: func(*request) (*http.Response, error) {
			cancel()
			return nil, errors.New("connection gone")
		}}
		s := w.open(t, Options{})
		s.single.Store(single)
		err := s.Delete(ctx, keys...)
		wantKind(t, err, context.Canceled)
		if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 1 || w.count() != 1 {
			t.Errorf("one by one %t: %d requests, %v", single, w.count(), err)
		}
	}
}

// After a failed batch, Delete still tries the others.
func TestDeleteGoesOn(t *testing.T) {
	w := &wire{answer: inOrder(t,
		always(func() *http.Response { return respondError(500, "InternalError") }),
		always(func() *http.Response { return respond(200, "<DeleteResult/>") }),
	)}
	keys := make([]string, 1500)
	for i := range keys {
		keys[i] = fmt.Sprintf("segments/%05d", i)
	}
	err := w.open(t, Options{}).Delete(t.Context(), keys...)
	wantKind(t, err, errAny)
	if w.count() != 2 || !strings.Contains(err.Error(), "segments/00") {
		t.Errorf("%d requests, %v", w.count(), err)
	}
}

// A redirect is not followed: that would be a second request, and its target would
// not accept the signature.
func TestRedirectNotFollowed(t *testing.T) {
	for _, status := range []int{301, 307} {
		w := &wire{answer: always(func() *http.Response {
			r := respondError(status, "TemporaryRedirect")
			r.Header.Set("Location", "http://elsewhere.test/path?token=secret")
			return r
		})}
		transport := &http.Transport{}
		transport.RegisterProtocol("http", doer(w.Do))
		s := w.openBucket(t, "bucket", testOptions(direct{transport}), Options{})
		_, err := s.Get(t.Context(), "key", 0, make([]byte, 1))
		wantKind(t, err, backend.ErrNoStore)
		if !strings.Contains(err.Error(), "redirects to http://elsewhere.test;") {
			t.Errorf("no target in %q", err)
		}
		if w.count() != 1 {
			t.Errorf("status %d: %d requests, want 1", status, w.count())
		}
	}
}

// A doer is a function in the place of an HTTP client or a transport.
type doer func(*http.Request) (*http.Response, error)

func (f doer) Do(r *http.Request) (*http.Response, error)        { return f(r) }
func (f doer) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
