package gcs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// respondPage returns a page of a listing. Its objects have size 7.
func respondPage(next string, names ...string) func() *http.Response {
	type item struct {
		Name    string    `json:"name"`
		Size    string    `json:"size"`
		Created time.Time `json:"timeCreated"`
	}
	page := struct {
		Kind  string `json:"kind"`
		Next  string `json:"nextPageToken,omitempty"`
		Items []item `json:"items"`
	}{Kind: "storage#objects", Next: next}
	for _, name := range names {
		page.Items = append(page.Items, item{name, "7", serverTime})
	}
	return func() *http.Response {
		body, err := json.Marshal(page)
		if err != nil {
			panic(err)
		}
		return respond(200, string(body))
	}
}

func collect(t *testing.T, s backend.Store, prefix, after string) (keys []string, err error) {
	t.Helper()
	for o, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			return keys, err
		}
		if o.Size != 7 || !o.ModTime.Equal(serverTime) {
			t.Errorf("listed %v", o)
		}
		keys = append(keys, o.Key)
	}
	return keys, nil
}

func TestListOnTheWire(t *testing.T) {
	w := &wire{answer: inOrder(t,
		respondPage("t1", "jobs/t/a", "jobs/t/b"),
		respondPage("t2"), // an empty page is not the last
		respondPage("", "jobs/t/c"),
	)}
	keys, err := collect(t, w.open(t, Options{}), "t/", "t/Z")
	if err != nil || !slices.Equal(keys, []string{"t/a", "t/b", "t/c"}) {
		t.Fatalf("listed %q, %v", keys, err)
	}
	for n, want := range []struct{ token, max string }{{"", "16"}, {"t1", "1000"}, {"t2", "1000"}} {
		q := w.query(n)
		if q.Get("pageToken") != want.token || q.Get("maxResults") != want.max {
			t.Errorf("request %d asked for %v, want %v", n, q, want)
		}
		if q.Get("prefix") != "jobs/t/" || q.Get("startOffset") != "jobs/t/Z" || q.Get("delimiter") != "" || q.Get("projection") != "noAcl" {
			t.Errorf("request %d asked for %v", n, q)
		}
		if fields := strings.Split(q.Get("fields"), ","); !slices.Contains(fields, "kind") {
			t.Errorf("request %d asked for the fields %s: an empty listing would be {}", n, fields)
		}
		for _, field := range []string{"nextPageToken", "name", "size", "timeCreated"} {
			if !strings.Contains(q.Get("fields"), field) {
				t.Errorf("request %d asked for the fields %s, without %s", n, q.Get("fields"), field)
			}
		}
	}
}

// startOffset is inclusive, but after is exclusive.
func TestListAfterIsExclusive(t *testing.T) {
	for _, test := range []struct {
		after string
		want  []string
	}{
		{"b", []string{"b0", "c"}},
		{"a", []string{"b", "b0", "c"}},
		{"", []string{"b", "b0", "c"}},
	} {
		w := &wire{answer: inOrder(t, respondPage("", "jobs/b", "jobs/b0", "jobs/c"))}
		keys, err := collect(t, w.open(t, Options{}), "", test.after)
		if err != nil || !slices.Equal(keys, test.want) {
			t.Errorf("after %q: %q, %v, want %q", test.after, keys, err, test.want)
		}
		start := ""
		if test.after != "" {
			start = "jobs/" + test.after
		}
		if got := w.query(0).Get("startOffset"); got != start {
			t.Errorf("startOffset is %q, want %q", got, start)
		}
	}
}

func TestListRefusesWrongOrder(t *testing.T) {
	for _, test := range []struct {
		name  string
		pages []func() *http.Response
		keys  []string
	}{
		{"in a page", []func() *http.Response{respondPage("", "jobs/b", "jobs/a")}, []string{"b"}},
		{"between pages", []func() *http.Response{respondPage("t", "jobs/b"), respondPage("", "jobs/a")}, []string{"b"}},
		{"twice the same", []func() *http.Response{respondPage("t", "jobs/b"), respondPage("t", "jobs/b")}, []string{"b"}},
		{"another prefix", []func() *http.Response{respondPage("", "other/a")}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{answer: inOrder(t, test.pages...)}
			keys, err := collect(t, w.open(t, Options{}), "", "")
			wantKind(t, err, backend.ErrUnsupported)
			if !slices.Equal(keys, test.keys) {
				t.Errorf("listed %q before, want %q", keys, test.keys)
			}
		})
	}
}

func TestListPassesOverForeignObjects(t *testing.T) {
	w := &wire{answer: inOrder(t, respondPage("", "jobs/", "jobs/.hidden", "jobs/A", "jobs/a", "jobs/a b", "jobs/b/", "jobs/c"))}
	keys, err := collect(t, w.open(t, Options{}), "", "")
	if err != nil || !slices.Equal(keys, []string{"a", "c"}) {
		t.Errorf("listed %q, %v", keys, err)
	}
}

func TestListWithoutTimes(t *testing.T) {
	w := &wire{answer: always(func() *http.Response {
		return respond(200, `{"kind": "storage#objects", "items": [{"name": "jobs/a", "size": "7"}]}`)
	})}
	_, err := collect(t, w.open(t, Options{}), "", "")
	wantKind(t, err, backend.ErrUnsupported)
}

func TestListBreakSendsNoMore(t *testing.T) {
	w := &wire{answer: inOrder(t, respondPage("t1", "jobs/a", "jobs/b"))}
	n := 0
	for _, err := range w.open(t, Options{}).List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
	if w.count() != 1 {
		t.Errorf("%d requests, want 1", w.count())
	}
}

// If a page fails, backend.Retry requests only that page again. The SDK does not
// retry.
func TestListPageFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := func() *http.Response { return respondError(503, "backendError", "Backend Error") }
		w := &wire{answer: inOrder(t,
			respondPage("t1", "jobs/a", "jobs/b"), fail, fail, respondPage("", "jobs/b", "jobs/c"))}
		s := w.open(t, Options{})
		keys, err := collect(t, backend.Retry(s, backend.Backoff{}), "", "")
		if err != nil || !slices.Equal(keys, []string{"a", "b", "c"}) {
			t.Errorf("listed %q, %v", keys, err)
		}
		for n, want := range []struct{ start, token string }{{"", ""}, {"", "t1"}, {"jobs/b", ""}, {"jobs/b", ""}} {
			q := w.query(n)
			if q.Get("startOffset") != want.start || q.Get("pageToken") != want.token {
				t.Errorf("request %d asked for %v, want %v", n, q, want)
			}
		}
	})
}

func TestListAfterCloseWhileListing(t *testing.T) {
	w := &wire{answer: inOrder(t, respondPage("t1", "jobs/a"))}
	s := w.open(t, Options{})
	var last error
	for _, err := range s.List(t.Context(), "", "") {
		last = err
		shut(t, s)
	}
	wantKind(t, last, backend.ErrClosed)
}

func TestDeleteInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := 0, 0
		w := &wire{answer: func(*request) (*http.Response, error) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return respond(204, ""), nil
		}}
		keys := make([]string, 3*deleteParallel)
		for i := range keys {
			keys[i] = fmt.Sprintf("%03d", i)
		}
		began := time.Now()
		if err := w.open(t, Options{}).Delete(t.Context(), keys...); err != nil {
			t.Fatal(err)
		}
		if most != deleteParallel || time.Since(began) != 3*time.Second {
			t.Errorf("%d at a time in %v, want %d in 3s", most, time.Since(began), deleteParallel)
		}
		names := make(map[string]bool)
		for _, r := range w.requests {
			if r.Method != "DELETE" {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			names[r.URL.Path] = true
		}
		if len(names) != len(keys) || !names["/storage/v1/b/bucket/o/jobs/000"] {
			t.Errorf("%d objects were deleted, want %d", len(names), len(keys))
		}
	})
}

// Every key is tried, and the errors of all failed ones are joined.
func TestDeletePartialFailure(t *testing.T) {
	w := &wire{answer: func(r *request) (*http.Response, error) {
		switch r.URL.Path[len(r.URL.Path)-1] {
		case 'b':
			return respondError(403, "forbidden", "denied"), nil
		case 'c':
			return respondError(500, "backendError", "oops"), nil
		case 'd':
			return respondError(404, "notFound", "No such object: bucket/jobs/d"), nil
		}
		return respond(204, ""), nil
	}}
	err := w.open(t, Options{}).Delete(t.Context(), "a", "b", "c", "d", "e")
	if w.count() != 5 {
		t.Errorf("%d requests, want 5", w.count())
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || len(joined.Unwrap()) != 2 {
		t.Fatalf("got %v, want two errors", err)
	}
	for i, key := range []string{"b", "c"} {
		var e *backend.Error
		if !errors.As(joined.Unwrap()[i], &e) || e.Key != key || e.Op != "delete" {
			t.Errorf("error %d is %v", i, e)
		}
	}
	wantKind(t, err, backend.ErrPermission)
}

// When its context ends, a Delete leaves the remaining keys alone.
func TestDeleteCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := &wire{answer: func(r *request) (*http.Response, error) {
		cancel()
		<-r.Context().Done()
		return nil, r.Context().Err()
	}}
	keys := make([]string, 10*deleteParallel)
	for i := range keys {
		keys[i] = fmt.Sprintf("%03d", i)
	}
	err := w.open(t, Options{}).Delete(ctx, keys...)
	wantKind(t, err, context.Canceled)
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || len(joined.Unwrap()) > 2*deleteParallel {
		t.Errorf("got %v, want no more errors than keys under way", err)
	}
}

// What was asked for is deleted, and the rest is not, and that is told.
func TestDeleteCutShort(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int32
	w := &wire{answer: func(*request) (*http.Response, error) {
		if asked.Add(1) == deleteParallel {
			cancel() // and all that are under way succeed
		}
		return respond(204, ""), nil
	}}
	keys := make([]string, 10*deleteParallel)
	for i := range keys {
		keys[i] = fmt.Sprintf("%03d", i)
	}
	err := w.open(t, Options{}).Delete(ctx, keys...)
	wantKind(t, err, context.Canceled)
}

func TestDeleteNothing(t *testing.T) {
	w := &wire{}
	if err := w.open(t, Options{}).Delete(t.Context()); err != nil || w.count() != 0 {
		t.Errorf("%v, %d requests", err, w.count())
	}
}
