package s3

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/holdfast-io/holdfast/backend"
)

// page returns a ListObjectsV2 result. If next is not "", it is the token of the next
// page.
func page(next string, keys ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<ListBucketResult><IsTruncated>%t</IsTruncated>", next != "")
	if next != "" {
		fmt.Fprintf(&b, "<NextContinuationToken>%s</NextContinuationToken>", next)
	}
	for _, key := range keys {
		fmt.Fprintf(&b, "<Contents><Key>%s</Key><Size>7</Size><LastModified>2031-05-06T07:08:09.000Z</LastModified></Contents>", key)
	}
	return b.String() + "</ListBucketResult>"
}

func respondPage(next string, keys ...string) func(*request) (*http.Response, error) {
	return always(func() *http.Response { return respond(200, page(next, keys...)) })
}

func collect(t *testing.T, s backend.Store, prefix, after string) (keys []string, err error) {
	t.Helper()
	for o, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			if o != (backend.Object{}) {
				t.Errorf("%v came with an error", o)
			}
			return keys, err
		}
		if o.Size != 7 || !o.ModTime.Equal(serverTime) {
			t.Errorf("listed %v", o)
		}
		keys = append(keys, o.Key)
	}
	return keys, nil
}

// query returns the query of the n-th request.
func (w *wire) query(n int) url.Values { return w.requests[n].URL.Query() }

func TestListPages(t *testing.T) {
	w := &wire{answer: inOrder(t,
		respondPage("t1", "jobs/a/1", "jobs/a/2"),
		respondPage("t2"), // empty after deleted versions were dropped
		respondPage("t3", "jobs/a/3"),
		respondPage(""), // MinIO calls the last page truncated
	)}
	keys, err := collect(t, w.open(t, Options{}), "a/", "a/0")
	if err != nil || !slices.Equal(keys, []string{"a/1", "a/2", "a/3"}) {
		t.Errorf("listed %q, %v", keys, err)
	}
	for n, want := range []url.Values{
		{"list-type": {"2"}, "prefix": {"jobs/a/"}, "max-keys": {"16"}, "start-after": {"jobs/a/0"}},
		{"max-keys": {"1000"}, "continuation-token": {"t1"}},
		{"max-keys": {"1000"}, "continuation-token": {"t2"}},
		{"max-keys": {"1000"}, "continuation-token": {"t3"}},
	} {
		for name := range want {
			if got := w.query(n).Get(name); got != want.Get(name) {
				t.Errorf("request %d: %s is %q, want %q", n, name, got, want.Get(name))
			}
		}
	}
}

func TestListNewestTakesOneShortPage(t *testing.T) {
	w := &wire{answer: inOrder(t, respondPage("more", "jobs/a", "jobs/b"))}
	for o, err := range w.open(t, Options{}).List(t.Context(), "", "") {
		if err != nil || o.Key != "a" {
			t.Fatal(o, err)
		}
		break
	}
	if w.count() != 1 {
		t.Errorf("%d requests, want 1", w.count())
	}
}

// Other programs put objects under the prefix, such as the marker that consoles make
// for a folder.
func TestListPassesOverForeignObjects(t *testing.T) {
	w := &wire{answer: inOrder(t, respondPage("", "jobs/", "jobs/README.md", "jobs/a", "jobs/a//b", "jobs/z/"))}
	keys, err := collect(t, w.open(t, Options{}), "", "")
	if err != nil || !slices.Equal(keys, []string{"a"}) {
		t.Errorf("listed %q, %v", keys, err)
	}
}

func TestListRefusesDisorder(t *testing.T) {
	tests := []struct {
		name string
		keys []string
	}{
		{"out of order", []string{"jobs/b/1", "jobs/b-1"}},
		{"twice the same", []string{"jobs/b/1", "jobs/b/1"}},
		{"not after", []string{"jobs/a", "jobs/b/1"}},
		{"the key after itself", []string{"jobs/b"}},
		{"another prefix", []string{"other/b/1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{answer: inOrder(t, respondPage("", test.keys...))}
			_, err := collect(t, w.open(t, Options{}), "", "b")
			wantKind(t, err, backend.ErrUnsupported)
			if !strings.Contains(err.Error(), "does not list in the order of bytes") {
				t.Errorf("no reason in %q", err)
			}
		})
	}
}

// A listing that cannot be continued is an error: it must not be taken for a short
// one.
func TestListDoesNotGoOn(t *testing.T) {
	noToken := strings.Replace(page("", "jobs/a"), "false", "true", 1)
	tests := map[string]func(*request) (*http.Response, error){
		"same page again": inOrder(t, respondPage("t1", "jobs/a"), respondPage("t1")),
		"no token":        inOrder(t, always(func() *http.Response { return respond(200, noToken) })),
		"no token later":  inOrder(t, respondPage("t1"), always(func() *http.Response { return respond(200, noToken) })),
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			keys, err := collect(t, (&wire{answer: answer}).open(t, Options{}), "", "")
			wantKind(t, err, errAny)
			if !slices.Equal(keys, []string{"a"}) {
				t.Errorf("listed %q", keys)
			}
		})
	}
}

// A token on the last page has no meaning.
func TestListEnds(t *testing.T) {
	last := strings.Replace(page("t1", "jobs/a"), "true", "false", 1)
	w := &wire{answer: inOrder(t, always(func() *http.Response { return respond(200, last) }))}
	keys, err := collect(t, w.open(t, Options{}), "", "")
	if err != nil || !slices.Equal(keys, []string{"a"}) {
		t.Errorf("listed %q, %v", keys, err)
	}
}

func TestListWithoutTimes(t *testing.T) {
	noTime := strings.ReplaceAll(page("", "jobs/a"), "LastModified", "Modified")
	w := &wire{answer: always(func() *http.Response { return respond(200, noTime) })}
	_, err := collect(t, w.open(t, Options{}), "", "")
	wantKind(t, err, backend.ErrUnsupported)
}

// If a page fails twice, only that page is requested again.
func TestListPageFailsTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := always(func() *http.Response { return respondError(500, "InternalError") })
		w := &wire{answer: inOrder(t,
			respondPage("t1", "jobs/a", "jobs/b"),
			fail, fail,
			respondPage("t2", "jobs/c"),
			fail,
			respondPage("", "jobs/d"),
		)}
		s := backend.Retry(w.open(t, Options{}), backend.Backoff{})
		keys, err := collect(t, s, "", "")
		if err != nil || !slices.Equal(keys, []string{"a", "b", "c", "d"}) {
			t.Errorf("listed %q, %v", keys, err)
		}
		for n, want := range []struct{ after, token string }{
			{"", ""}, {"", "t1"}, {"jobs/b", ""}, {"jobs/b", ""}, {"jobs/b", "t2"}, {"jobs/c", ""},
		} {
			q := w.query(n)
			if q.Get("start-after") != want.after || q.Get("continuation-token") != want.token {
				t.Errorf("request %d asked for %v, want %v", n, q, want)
			}
		}
	})
}

// Directory buckets list in no order, ignore start-after, and accept only a prefix
// that ends with a slash.
func TestListDirectoryBucket(t *testing.T) {
	w := &wire{answer: inOrder(t,
		respondPage("t1", "jobs/t/d", "jobs/t/a"),
		respondPage("", "jobs/t/c", "jobs/t/b", "jobs/t/ab"),
	)}
	options := testOptions(w)
	options.DisableS3ExpressSessionAuth = new(true)
	s := w.openBucket(t, "bucket--use1-az4--x-s3", options, Options{})
	keys, err := collect(t, s, "t/a", "t/a")
	if err != nil || !slices.Equal(keys, []string{"t/ab"}) {
		t.Errorf("listed %q, %v", keys, err)
	}
	if q := w.query(0); q.Get("prefix") != "jobs/t/" || q.Has("start-after") {
		t.Errorf("asked for %v", q)
	}

	w.answer = inOrder(t, respondPage("", "jobs/c", "jobs/b", "jobs/a"))
	keys, err = collect(t, s, "", "")
	if err != nil || !slices.Equal(keys, []string{"a", "b", "c"}) {
		t.Errorf("listed %q, %v", keys, err)
	}

	whole, err := New(sdk.New(options), "bucket--use1-az4--x-s3", "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.answer = inOrder(t, respondPage("", "b", "a"))
	keys, err = collect(t, whole, "", "")
	if err != nil || !slices.Equal(keys, []string{"a", "b"}) {
		t.Errorf("listed %q, %v", keys, err)
	}
	if q := w.query(3); q.Has("prefix") {
		t.Errorf("asked for %v", q)
	}
}

func TestListAfterCloseWhileListing(t *testing.T) {
	w := &wire{answer: inOrder(t, respondPage("t1", "jobs/a"))}
	s := w.open(t, Options{})
	var last error
	for _, err := range s.List(t.Context(), "", "") {
		last = errors.Join(err, s.Close())
	}
	wantKind(t, last, backend.ErrClosed)
}

var _ sdk.HTTPClient = (*wire)(nil)
