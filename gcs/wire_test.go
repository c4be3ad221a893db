package gcs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/api/googleapi"

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

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
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

func (w *wire) query(n int) url.Values { return w.requests[n].URL.Query() }

// open returns a store under gs://bucket/jobs whose requests go to w.
func (w *wire) open(t *testing.T, o Options) *Store {
	t.Helper()
	o.Endpoint = "http://store.test"
	s, err := New(t.Context(), &http.Client{Transport: w}, "bucket", "jobs", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	return s
}

func shut(t *testing.T, s io.Closer) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// serverTime is the clock of the simulated service. It is far from this machine's
// clock.
var serverTime = time.Date(2031, 5, 6, 7, 8, 9, 123e6, time.UTC)

func respond(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status,
		Header: http.Header{
			"Content-Type":         {"application/json; charset=UTF-8"},
			"Content-Length":       {strconv.Itoa(len(body))},
			"X-Guploader-Uploadid": {"REQ42"},
		},
		Body:          io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)),
	}
}

func respondError(status int, reason, message string) *http.Response {
	return respond(status, fmt.Sprintf(
		`{"error": {"code": %d, "message": %q, "errors": [{"message": %q, "domain": "global", "reason": %q}]}}`,
		status, message, message, reason))
}

var notMet = func() *http.Response {
	return respondError(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
}

func always(resp func() *http.Response) func(*request) (*http.Response, error) {
	return func(*request) (*http.Response, error) { return resp(), nil }
}

// inOrder answers each request with the next one of the given functions.
func inOrder(t *testing.T, answers ...func() *http.Response) func(*request) (*http.Response, error) {
	var mu sync.Mutex
	return func(r *request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(answers) == 0 {
			t.Errorf("unexpected request %s %s", r.Method, r.URL)
			return respondError(500, "backendError", "unexpected"), nil
		}
		next := answers[0]
		answers = answers[1:]
		return next(), nil
	}
}

// parts returns the two parts of an upload. Transports call it too, on goroutines of
// the SDK; there, t.Fatal would leave the SDK waiting.
func (r *request) parts() (resource map[string]any, media []byte, err error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/related" {
		return nil, nil, fmt.Errorf("%s of %s: %w", r.URL, kind, cmp.Or(err, errors.New("not in two parts")))
	}
	form := multipart.NewReader(bytes.NewReader(r.body), params["boundary"])
	first, err := nextPart(form)
	if err != nil {
		return nil, nil, err
	}
	if media, err = nextPart(form); err != nil {
		return nil, nil, err
	}
	if _, err := form.NextPart(); !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("after the second part: %w", cmp.Or(err, errors.New("a third")))
	}
	return resource, media, json.Unmarshal(first, &resource)
}

func nextPart(r *multipart.Reader) ([]byte, error) {
	part, err := r.NextPart()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(part)
}

// stored returns the service's description of the object that an upload made.
func (r *request) stored() (*http.Response, error) {
	resource, media, err := r.parts()
	if err != nil {
		return nil, err
	}
	resource["size"] = strconv.Itoa(len(media))
	resource["timeCreated"] = serverTime.Format(time.RFC3339Nano)
	resource["updated"] = serverTime.Add(time.Hour).Format(time.RFC3339Nano) // the time of a later change of its metadata
	resource["kind"] = "storage#object"
	resource["name"] = r.URL.Query().Get("name")
	resource["generation"] = "1"
	body, err := json.Marshal(resource)
	return respond(200, string(body)), err
}

// accepting answers every upload as the service does.
func accepting() *wire { return &wire{answer: (*request).stored} }

// objects is a minimal Cloud Storage: a map of objects with ifGenerationMatch=0.
type objects map[string][]byte

func (o objects) answer(r *request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		name := r.URL.Query().Get("name")
		if _, taken := o[name]; taken && r.URL.Query().Get("ifGenerationMatch") == "0" {
			return notMet(), nil
		}
		_, data, err := r.parts()
		if err != nil {
			return nil, err
		}
		o[name] = data
		return r.stored()
	}
	name := strings.TrimPrefix(r.URL.Path, "/storage/v1/b/bucket/o/")
	data, ok := o[name]
	if !ok {
		return respond(404, "No such object: bucket/"+name), nil
	}
	return respondPart(0, len(data)-1, len(data), string(data)), nil
}

func respondPart(first, last, size int, body string) *http.Response {
	r := respond(206, body)
	r.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size))
	r.Header.Set("X-Goog-Generation", "1")
	return r
}

func TestWriteOnTheWire(t *testing.T) {
	for _, test := range []struct {
		verb      string
		call      func(*Store) (backend.Object, error)
		condition string
	}{
		{"create", func(s *Store) (backend.Object, error) { return s.Create(t.Context(), "a/b", []byte("123456789")) }, "0"},
		{"put", func(s *Store) (backend.Object, error) { return s.Put(t.Context(), "a/b", []byte("123456789")) }, ""},
	} {
		t.Run(test.verb, func(t *testing.T) {
			w := accepting()
			o, err := test.call(w.open(t, Options{}))
			if err != nil {
				t.Fatal(err)
			}
			if want := (backend.Object{Key: "a/b", Size: 9, ModTime: serverTime}); o != want {
				t.Errorf("returned %v, want %v", o, want)
			}
			if w.count() != 1 {
				t.Fatalf("%d requests, want 1", w.count())
			}
			r := w.requests[0]
			if r.Method != "POST" || r.URL.Path != "/upload/storage/v1/b/bucket/o" {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			q := r.URL.Query()
			if q.Get("uploadType") != "multipart" || q.Get("name") != "jobs/a/b" || q.Get("ifGenerationMatch") != test.condition {
				t.Errorf("query %v", q)
			}
			resource, media, err := r.parts()
			if err != nil || string(media) != "123456789" {
				t.Errorf("media %q, %v", media, err)
			}
			for name, want := range map[string]any{
				"crc32c":       "4waSgw==", // the check value of CRC-32C, e3069283
				"contentType":  "application/octet-stream",
				"cacheControl": "no-store",
				"storageClass": nil,
			} {
				if resource[name] != want {
					t.Errorf("%s is %v, want %v", name, resource[name], want)
				}
			}
		})
	}
}

// A large segment is one request, too, and not the two or more of a resumable upload.
func TestLargeWriteIsOneRequest(t *testing.T) {
	w := accepting()
	if _, err := w.open(t, Options{}).Put(t.Context(), "segment", make([]byte, 20<<20)); err != nil {
		t.Fatal(err)
	}
	if w.count() != 1 || w.query(0).Get("uploadType") != "multipart" {
		t.Errorf("%d requests, the first of type %s", w.count(), w.query(0).Get("uploadType"))
	}
}

func TestOptionsOnTheWire(t *testing.T) {
	const key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
	w := accepting()
	s := w.open(t, Options{KMSKeyName: key, StorageClass: "NEARLINE"})
	if _, err := s.Put(t.Context(), "key", []byte("data")); err != nil {
		t.Fatal(err)
	}
	if got := w.query(0).Get("kmsKeyName"); got != key {
		t.Errorf("kmsKeyName is %q", got)
	}
	if resource, _, err := w.requests[0].parts(); err != nil || resource["storageClass"] != "NEARLINE" {
		t.Errorf("storageClass is %v, %v", resource["storageClass"], err)
	}
}

// The write reaches the service, but the reply is lost. The driver must not report a
// success, and not ErrExist, and must not repeat the request: only the commit
// protocol can find out, by the token in the data, whose object it is.
func TestReplyLost(t *testing.T) {
	for _, test := range []struct {
		name  string
		reply func() (*http.Response, error)
	}{
		{"connection", func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF }},
		{"reset", func() (*http.Response, error) { return nil, errors.New("read tcp: connection reset by peer") }},
		{"500", func() (*http.Response, error) { return respondError(500, "backendError", "oops"), nil }},
		{"503", func() (*http.Response, error) { return respond(503, ""), nil }},
		{"429", func() (*http.Response, error) { return respondError(429, "rateLimitExceeded", "slow"), nil }},
		{"body", func() (*http.Response, error) { return cut(respond(200, `{"name": "jobs/manifest"}`), 5), nil }},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := objects{}
			lose := true
			w := &wire{}
			w.answer = func(r *request) (*http.Response, error) {
				resp, err := store.answer(r)
				if lose {
					return test.reply()
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
			store["jobs/manifest"] = []byte("theirs")
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

// cut makes a response's body end with an error after n bytes.
func cut(r *http.Response, n int64) *http.Response {
	r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, n), errReader{}))
	return r
}

func readBody(t *testing.T, r *http.Response) []byte {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func nopBody(body []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(body)) }

type errReader struct{}

var errCable = errors.New("connection broken")

func (errReader) Read([]byte) (int, error) { return 0, errCable }

// The service may report that it stored something other than what was sent.
func TestWriteChecksTheAnswer(t *testing.T) {
	for _, test := range []struct{ name, field, value string }{
		{"other bytes", "crc32c", "AAAAAA=="},
		{"fewer bytes", "size", "8"},
		{"no time", "timeCreated", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{}
			w.answer = func(r *request) (*http.Response, error) {
				stored, err := r.stored()
				if err != nil {
					return nil, err
				}
				var resource map[string]any
				if err := json.NewDecoder(stored.Body).Decode(&resource); err != nil {
					return nil, err
				}
				resource[test.field] = test.value
				body, err := json.Marshal(resource)
				return respond(200, string(body)), err
			}
			_, err := w.open(t, Options{}).Create(t.Context(), "key", []byte("123456789"))
			wantKind(t, err, errAny)
		})
	}
}

func TestGetOnTheWire(t *testing.T) {
	const object = "abcdefghij"
	whole := func() *http.Response {
		r := respond(200, object)
		r.Header.Set("X-Goog-Generation", "1")
		return r
	}
	part := func(first, last int, body string) func() *http.Response {
		return func() *http.Response { return respondPart(first, last, len(object), body) }
	}
	beyond := func() *http.Response { return respond(416, "Request range not satisfiable") }
	for _, test := range []struct {
		name   string
		offset int64
		answer func() *http.Response
		want   string
		err    error // the expected kind; errAny means retryable
	}{
		{"part", 2, part(2, 5, "cdef"), "cdef", nil},
		{"to the end", 8, part(8, 9, "ij"), "ij", nil},
		{"range ignored from 0", 0, whole, "abcd", nil},
		{"empty object", 0, beyond, "", nil},
		{"beyond the end", 10, beyond, "", backend.ErrRange},
		{"range ignored", 2, whole, "", errAny},
		{"another range", 2, part(0, 3, "abcd"), "", errAny},
		{"less than asked", 2, part(2, 3, "cd"), "", errAny},
		{"more than asked", 2, part(2, 8, "cdefghi"), "", errAny},
		{"less than asked from 0", 0, part(0, 1, "ab"), "", errAny},
		{"more than asked from 0", 0, part(0, 5, "abcdef"), "", errAny},
		{"without a length", 0, func() *http.Response { r := whole(); r.ContentLength = -1; return r }, "", errAny},
		{"the end with the last byte", 2, func() *http.Response {
			r := part(2, 5, "cdef")()
			r.Body = io.NopCloser(iotest.DataErrReader(r.Body))
			return r
		}, "cdef", nil},
		{"an empty part", 10, part(10, 9, ""), "", errAny},
		{"a part of nothing", 10, part(10, 13, "klmn"), "", errAny},
		{"a part beyond the end", 20, part(20, 29, "uvwxyzabcd"), "", errAny},
		{"a part that ends after the object", 2, part(2, 11, "cdefghijkl"), "", errAny},
		{"body cut", 2, func() *http.Response { return cut(part(2, 5, "cdef")(), 2) }, "", errAny},
		{"body short", 2, func() *http.Response { r := part(2, 5, "cd")(); r.ContentLength = 4; return r }, "", errAny},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{answer: always(test.answer)}
			p := make([]byte, 4)
			n, err := w.open(t, Options{}).Get(t.Context(), "a/b", test.offset, p)
			wantKind(t, err, test.err)
			if err == nil && string(p[:n]) != test.want {
				t.Errorf("got %q, want %q", p[:n], test.want)
			}
			if w.count() != 1 {
				t.Errorf("%d requests, want 1", w.count())
			}
			r := w.requests[0]
			if r.Context().Err() == nil {
				t.Error("the response was left open, and with it the connection")
			}
			if want := fmt.Sprintf("bytes=%d-%d", test.offset, test.offset+3); r.Header.Get("Range") != want {
				t.Errorf("range %q, want %q", r.Header.Get("Range"), want)
			}
			if r.URL.EscapedPath() != "/storage/v1/b/bucket/o/jobs%2Fa%2Fb" || r.URL.Query().Get("alt") != "media" {
				t.Errorf("asked for %s", r.URL)
			}
		})
	}
}

// A body that breaks off gives an error with its cause, and not a second request.
func TestGetCut(t *testing.T) {
	w := &wire{answer: func(*request) (*http.Response, error) { return cut(respondPart(0, 3, 10, "abcd"), 2), nil }}
	_, err := w.open(t, Options{}).Get(t.Context(), "key", 0, make([]byte, 4))
	if want := "get gs://bucket/jobs/key: response ended after 2 of 4 bytes: connection broken"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if w.count() != 1 {
		t.Errorf("%d requests, want 1", w.count())
	}
}

func TestGetChecksWholeObjects(t *testing.T) {
	const object, sum = "123456789", "4waSgw=="
	for _, test := range []struct {
		name, hash string
		first      int
		body       string
		err        error
	}{
		{"good", "crc32c=" + sum, 0, object, nil},
		{"damaged", "crc32c=" + sum, 0, "12345678X", errAny},
		{"damaged, no sum", "md5=abc", 0, "12345678X", nil},
		{"the end", "crc32c=" + sum, 3, "456789", nil},
		{"the beginning", "crc32c=" + sum, 0, "1234", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{answer: func(*request) (*http.Response, error) {
				r := respondPart(test.first, test.first+len(test.body)-1, len(object), test.body)
				r.Header.Set("X-Goog-Hash", test.hash)
				return r, nil
			}}
			p := make([]byte, len(test.body))
			n, err := w.open(t, Options{}).Get(t.Context(), "key", int64(test.first), p)
			wantKind(t, err, test.err)
			if err == nil && string(p[:n]) != test.body {
				t.Errorf("got %q", p[:n])
			}
		})
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

func wantAnswer(t *testing.T, err error, status int) {
	t.Helper()
	var e *googleapi.Error
	if !errors.As(err, &e) || e.Code != status {
		t.Errorf("%v does not lead to the SDK's error with status %d", err, status)
	}
}

// verbs calls each method once.
var verbs = map[string]func(ctx context.Context, s backend.Store) error{
	"create": func(ctx context.Context, s backend.Store) error {
		_, err := s.Create(ctx, "key", []byte("data"))
		return err
	},
	"put": func(ctx context.Context, s backend.Store) error {
		_, err := s.Put(ctx, "key", []byte("data"))
		return err
	},
	"get": func(ctx context.Context, s backend.Store) error {
		_, err := s.Get(ctx, "key", 0, make([]byte, 1))
		return err
	},
	"list": func(ctx context.Context, s backend.Store) error {
		for _, err := range s.List(ctx, "", "") {
			return err
		}
		return nil
	},
	"delete": func(ctx context.Context, s backend.Store) error { return s.Delete(ctx, "key") },
}
