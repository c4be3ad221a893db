package gcs_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/conformance"
	"github.com/holdfast-io/holdfast/gcs"
	"github.com/holdfast-io/holdfast/internal/testreq"
	"github.com/holdfast-io/holdfast/internal/testserver"
)

const (
	suite  = "gcs"
	bucket = "holdfast-test"

	// These characters are allowed in a prefix, but not in a key.
	awkward = "jobs/A b+c=ü&'(1)"
)

// TestConformance runs against the bucket in HOLDFAST_TEST_GCS_URL, or against an
// emulator: by URL over HTTP, and through New over TLS.
//
// The emulator uses this machine's clock, so this test cannot show whose clock a
// ModTime comes from. TestWriteOnTheWire shows it.
func TestConformance(t *testing.T) {
	testreq.Suite(t, suite)
	if root := os.Getenv("HOLDFAST_TEST_GCS_URL"); root != "" {
		conformance.Run(t, below(t, root))
		return
	}
	t.Run("http", func(t *testing.T) {
		s := start(t, false)
		conformance.Run(t, below(t, s.GCSURL(bucket, awkward)))
	})
	t.Run("https", func(t *testing.T) {
		s := start(t, true)
		transport, err := s.Transport()
		if err != nil {
			t.Fatal(err)
		}
		transport.DisableKeepAlives = false
		t.Cleanup(transport.CloseIdleConnections)
		wantHTTP2(t, s, transport)
		conformance.Run(t, func(ctx context.Context, namespace string) (backend.Store, error) {
			return gcs.New(ctx, &http.Client{Transport: transport}, bucket, path.Join(awkward, namespace), gcs.Options{Endpoint: s.Endpoint})
		})
	})
}

// wantHTTP2 fails unless the suite uses HTTP/2. [gcs.New] leaves that to the program;
// the driver's own transport does not use it.
func wantHTTP2(t *testing.T, s *testserver.Server, transport http.RoundTripper) {
	t.Helper()
	resp, err := (&http.Client{Transport: transport}).Head(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.ProtoMajor != 2 {
		t.Fatalf("the emulator speaks %s, %v", resp.Proto, err)
	}
}

// start runs an emulator with a bucket until t ends.
func start(t *testing.T, useTLS bool) *testserver.Server {
	t.Helper()
	s := testserver.Run(t, suite, testserver.FakeGCS, useTLS)
	if err := s.MakeGCSBucket(t.Context(), bucket); err != nil {
		t.Fatal(err)
	}
	return s
}

// below opens namespaces as paths below a URL.
func below(t *testing.T, root string) conformance.Open {
	u, err := url.Parse(root)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, namespace string) (backend.Store, error) {
		place := *u
		place.Path = path.Join("/", u.Path, namespace)
		place.RawPath = ""
		return backend.Open(ctx, place.String())
	}
}

func open(t *testing.T, url string) backend.Store {
	t.Helper()
	s, err := backend.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A plain HTTP client reads what the driver wrote.
func TestOtherClientReads(t *testing.T) {
	server := start(t, false)
	store := open(t, server.GCSURL(bucket, "a b/c"))
	for key, data := range map[string][]byte{
		"empty": {}, "small": []byte("123456789"), "d/large": random(5<<20 + 1),
	} {
		created, err := store.Create(t.Context(), key, data)
		if err != nil {
			t.Fatal(err)
		}
		object := server.Endpoint + "/storage/v1/b/" + bucket + "/o/" + url.PathEscape("a b/c/"+key)
		if got := fetch(t, object+"?alt=media"); !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, want %d", key, len(got), len(data))
		}
		var attrs struct {
			Size, Crc32c, ContentType, CacheControl string
			TimeCreated                             time.Time
		}
		if err := json.Unmarshal(fetch(t, object), &attrs); err != nil {
			t.Fatal(err)
		}
		if attrs.Size != fmt.Sprint(len(data)) || attrs.ContentType != "application/octet-stream" || attrs.CacheControl != "no-store" {
			t.Errorf("%s: %+v", key, attrs)
		}
		if key == "small" && attrs.Crc32c != "4waSgw==" {
			t.Errorf("%s: CRC32C %q, want 4waSgw==", key, attrs.Crc32c)
		}
		if !attrs.TimeCreated.Equal(created.ModTime) {
			t.Errorf("%s: created at %v, and Create returned %v", key, attrs.TimeCreated, created.ModTime)
		}
	}
}

func fetch(t *testing.T, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return body
}

func random(n int) []byte {
	p := make([]byte, n)
	rand.Read(p)
	return p
}

// The emulator answers "Not Found" where the service says what is missing, so Get
// takes a missing bucket for a missing object here. TestAnswers has the service's own
// messages.
func TestMissingBucket(t *testing.T) {
	server := start(t, false)
	store := open(t, server.GCSURL("no-such-bucket", ""))
	_, created := store.Create(t.Context(), "key", []byte("data"))
	_, put := store.Put(t.Context(), "key", []byte("data"))
	var listed error
	for _, err := range store.List(t.Context(), "", "") {
		listed = err
	}
	for verb, err := range map[string]error{"create": created, "put": put, "list": listed} {
		if !errors.Is(err, backend.ErrNoStore) || errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s: got %v, want ErrNoStore", verb, err)
		}
	}
}

// An upload that is cancelled at a random moment leaves the complete object or none,
// also later. The conformance suite does the same with smaller objects and two
// handles. The emulator checks the checksum that is sent first, as the service does,
// and would refuse a truncated object for that reason alone.
// TestCancelledUploadNeverLooksWhole shows that it is never sent one.
func TestCancelledUpload(t *testing.T) {
	server := start(t, false)
	store := open(t, server.GCSURL(bucket, "cancelled"))
	data := random(4 << 20)
	cut, whole := 0, 0
	for i := range 60 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*500*time.Microsecond)
		key := fmt.Sprint("object-", i)
		_, err := store.Create(ctx, key, data)
		cancel()
		p := make([]byte, len(data)+1)
		n, got := store.Get(t.Context(), key, 0, p)
		switch {
		case errors.Is(got, backend.ErrNotExist) && err != nil:
			cut++
		case got == nil && bytes.Equal(p[:n], data):
			whole++
		default:
			t.Errorf("%s: Create gave %v, then Get %d bytes, %v", key, err, n, got)
		}
	}
	t.Logf("%d were cut off, %d are complete", cut, whole)
	for o, err := range store.List(t.Context(), "", "") {
		if err != nil || o.Size != int64(len(data)) {
			t.Errorf("listed %v, %v", o, err)
		}
	}
}
