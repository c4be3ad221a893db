package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"
	"gocloud.dev/gcerrors"
)

// wire records requests and answers them.
type wire struct {
	mu       sync.Mutex
	requests []*http.Request
	answer   func(*http.Request) (*http.Response, error)
}

func (w *wire) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, r)
	resp, err := w.answer(r)
	if resp != nil {
		resp.Request = r
	}
	return resp, err
}

// said returns what was asked, one line a request.
func (w *wire) said() string {
	var lines []string
	for _, r := range w.requests {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s comp=%s if-none-match=%s",
			r.Method, r.URL.Query().Get("comp"), r.Header.Get("If-None-Match"))))
	}
	return strings.Join(lines, "\n")
}

func respond(status int, code, body string) *http.Response {
	const date = "Tue, 06 May 2031 07:08:09 GMT"
	h := http.Header{"Last-Modified": {date}, "X-Ms-Creation-Time": {date}, "Etag": {`"1"`}, "Content-Type": {"application/xml"}, "Content-Length": {fmt.Sprint(len(body))}}
	if code != "" {
		h.Set("X-Ms-Error-Code", code)
		body = fmt.Sprintf("<Error><Code>%s</Code></Error>", code)
	}
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)), Header: h,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// open returns a bucket as azureblob opens it, but for its network and, if
// retries is not 0, for how often the SDK tries again (-1: never).
func (w *wire) open(t *testing.T, retries int32) *blob.Bucket {
	t.Helper()
	client, err := container.NewClientWithNoCredential("http://account.test/jobs", &container.ClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: w, Retry: policy.RetryOptions{MaxRetries: retries, RetryDelay: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := azureblob.OpenBucket(t.Context(), client, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bucket.Close() })
	return bucket
}

// create goes by Upload, because Write and Close do not survive a failure: see
// TestFailedWritePanics.
func create(ctx context.Context, b *blob.Bucket, data []byte, buffer int) error {
	return b.Upload(ctx, "manifest", bytes.NewReader(data),
		&blob.WriterOptions{IfNotExist: true, BufferSize: buffer, ContentType: "application/octet-stream"})
}

func accept(*http.Request) (*http.Response, error) { return respond(201, "", ""), nil }

// The conditional write itself is right: one Put Blob with If-None-Match: *, if
// the buffer is larger than the data.
func TestConditionIsSent(t *testing.T) {
	w := &wire{answer: accept}
	if err := create(t.Context(), w.open(t, 0), make([]byte, 1000), 1001); err != nil {
		t.Fatal(err)
	}
	if got, want := w.said(), "PUT comp= if-none-match=*"; got != want {
		t.Errorf("sent\n%s\nwant\n%s", got, want)
	}
}

// With the default buffer of 8 MiB, a segment is several requests, and the
// condition is asked at the last one: after all its bytes have been sent.
func TestLargeWriteIsManyRequests(t *testing.T) {
	w := &wire{answer: accept}
	if err := create(t.Context(), w.open(t, 0), make([]byte, 20<<20), 0); err != nil {
		t.Fatal(err)
	}
	said := w.said()
	if len(w.requests) != 4 || strings.Count(said, "comp=block if-none-match=") != 3 || !strings.HasSuffix(said, "PUT comp=blocklist if-none-match=*") {
		t.Errorf("sent\n%s", said)
	}
}

// The reply to the first request is lost behind a 503. The SDK tries again, as
// it does unless told otherwise, finds its own object, and reports "exists".
func TestOwnWriteIsReportedAsTaken(t *testing.T) {
	service := func() *wire {
		stored := false
		return &wire{answer: func(*http.Request) (*http.Response, error) {
			if stored {
				return respond(409, "BlobAlreadyExists", ""), nil
			}
			stored = true
			return respond(503, "ServerBusy", ""), nil
		}}
	}
	w := service()
	err := create(t.Context(), w.open(t, 0), []byte("mine"), 1<<20)
	if gcerrors.Code(err) != gcerrors.FailedPrecondition || len(w.requests) != 2 {
		t.Errorf("%v after %d requests: the SDK no longer tries a conditional write again", err, len(w.requests))
	}
	w = service()
	err = create(t.Context(), w.open(t, -1), []byte("mine"), 1<<20)
	if gcerrors.Code(err) == gcerrors.FailedPrecondition || len(w.requests) != 1 {
		t.Errorf("without retries: %v after %d requests", err, len(w.requests))
	}
}

// A write that fails makes the portable writer's Close panic: one that the
// service refuses, which for a conditional one is an answer like any other, and
// one that is cancelled.
func TestFailedWritePanics(t *testing.T) {
	taken := func(*http.Request) (*http.Response, error) { return respond(409, "BlobAlreadyExists", ""), nil }
	for name, cancelled := range map[string]bool{"refused": false, "cancelled": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := &wire{answer: taken}
			writer, err := w.open(t, -1).NewWriter(ctx, "manifest", &blob.WriterOptions{IfNotExist: true, ContentType: "application/octet-stream"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := writer.Write([]byte("data")); err != nil {
				t.Fatal(err)
			}
			if cancelled {
				cancel()
			}
			defer func() {
				if recover() == nil {
					t.Error("Close no longer panics")
				}
			}()
			t.Errorf("Close returned %v", writer.Close())
		})
	}
}

// The response to the write says when the object came to be. The portable
// writer has no way to ask for it: it takes a second request, of which the
// answer may be about another writer's object.
func TestTimeOfAWriteCostsARequest(t *testing.T) {
	w := &wire{answer: accept}
	b := w.open(t, 0)
	if err := create(t.Context(), b, []byte("data"), 1<<20); err != nil {
		t.Fatal(err)
	}
	writer, err := b.NewWriter(t.Context(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := any(writer).(interface{ As(any) bool }); ok {
		t.Error("the portable writer shows the service's own now: look again")
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	before := len(w.requests)
	w.answer = func(*http.Request) (*http.Response, error) { return respond(200, "", ""), nil }
	if _, err := b.Attributes(t.Context(), "manifest"); err != nil {
		t.Fatal(err)
	}
	if len(w.requests) != before+1 || w.requests[before].Method != http.MethodHead {
		t.Errorf("sent\n%s", w.said())
	}
}

// A missing container and a missing object are one to the portable type; the
// SDK's error, below it, tells them apart.
func TestMissingContainerLooksLikeMissingObject(t *testing.T) {
	for _, code := range []string{"BlobNotFound", "ContainerNotFound"} {
		w := &wire{answer: func(*http.Request) (*http.Response, error) { return respond(404, code, ""), nil }}
		_, err := w.open(t, -1).ReadAll(t.Context(), "manifest")
		var cause *azcore.ResponseError
		if gcerrors.Code(err) != gcerrors.NotFound || !errors.As(err, &cause) || cause.ErrorCode != code {
			t.Errorf("%s: %v", code, err)
		}
		if there, err := w.open(t, -1).Exists(t.Context(), "manifest"); there || err != nil {
			t.Errorf("%s: Exists said %v, %v", code, there, err)
		}
	}
}

// What has to wait and what will never work are one to the portable type, too.
func TestKindsOfErrorAreLost(t *testing.T) {
	for code, status := range map[string]int{"ServerBusy": 503, "AuthorizationPermissionMismatch": 403, "InternalError": 500} {
		w := &wire{answer: func(*http.Request) (*http.Response, error) { return respond(status, code, ""), nil }}
		if err := create(t.Context(), w.open(t, -1), []byte("data"), 1<<20); gcerrors.Code(err) != gcerrors.Unknown {
			t.Errorf("%s: %v", code, gcerrors.Code(err))
		}
	}
}

// A portable listing begins at the beginning. The service has a parameter to
// start elsewhere and the SDK an option, which gocloud's hook can set; for the
// kind of listing that gocloud asks for, the SDK drops it.
func TestListHasNoStart(t *testing.T) {
	w := &wire{answer: func(*http.Request) (*http.Response, error) {
		return respond(200, "", `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs></Blobs></EnumerationResults>`), nil
	}}
	from := "t/5"
	for _, hook := range []func(func(any) bool) error{nil, func(as func(any) bool) error {
		var o *container.ListBlobsHierarchyOptions
		if !as(&o) {
			return errors.New("no options")
		}
		o.StartFrom = &from
		return nil
	}} {
		_, _, err := w.open(t, -1).ListPage(t.Context(), blob.FirstPageToken, 1, &blob.ListOptions{Prefix: "t/", BeforeList: hook})
		if err != nil {
			t.Fatal(err)
		}
		if got := w.requests[len(w.requests)-1].URL.RawQuery; strings.Contains(strings.ToLower(got), "startfrom") {
			t.Errorf("asked for %s: a listing can start elsewhere now", got)
		}
	}
}
