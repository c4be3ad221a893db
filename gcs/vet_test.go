package gcs

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

// An answer with a 2xx status that does not come from Cloud Storage is an error of
// every operation that would rely on it, and never a panic. A write may still have
// happened, so its error leaves the outcome in doubt.
func TestForeignAnswers(t *testing.T) {
	const login = "<!DOCTYPE html>\n<style>p {}</style><title>Sign in</title>\n<p>to go on &amp; on"
	page := func(status int, body string) *http.Response {
		r := respond(status, body)
		r.Header.Set("Content-Type", "text/html; charset=utf-8")
		return r
	}
	pageOf := func(r *http.Response) *http.Response { // a web server can answer with a part of a page
		r.Header.Set("Content-Range", "bytes 0-0/100")
		return r
	}
	all := []string{"create", "put", "get", "list"}
	everyVerb := append([]string{"delete"}, all...)
	reads, writes := []string{"get", "list"}, []string{"create", "put"}
	for _, test := range []struct {
		name    string
		verbs   []string
		resp    func() *http.Response
		mention string
	}{
		{"null", all, func() *http.Response { return respond(200, "null") }, "HTTP 200"},
		{"array", all, func() *http.Response { return respond(200, "[]") }, "HTTP 200"},
		{"empty object", all, func() *http.Response { return respond(200, "{}") }, "HTTP 200"},
		{"empty body", all, func() *http.Response { return respond(200, "") }, "HTTP 200"},
		{"no content", all, func() *http.Response { return respond(204, "") }, "HTTP 204"},
		{"accepted", all, func() *http.Response { return respond(202, "{}") }, "HTTP 202"},
		{"string", all, func() *http.Response { return respond(200, `"ok"`) }, "HTTP 200"},
		{"page", everyVerb, func() *http.Response { return page(200, login) }, "HTTP 200"},
		{"page that is not called one", all, func() *http.Response { return respond(200, login) }, "HTTP 200"},
		{"words of a page", writes, func() *http.Response { return page(200, login) }, "Sign in to go on & on"},
		{"what is empty", []string{"list", "create", "put"}, func() *http.Response { return respond(200, " \n") }, "its body is empty"},
		{"part of a page", []string{"get"}, func() *http.Response { return pageOf(page(206, "<")) }, "HTTP 206"},
		{"listing of buckets", all, func() *http.Response { return respond(200, `{"kind": "storage#buckets"}`) }, "HTTP 200"},
		{"listing, not 200", all, func() *http.Response { return respond(203, `{"kind": "storage#objects"}`) }, "HTTP 203"},
		{"listing with null", reads, func() *http.Response { return respond(200, `{"kind": "storage#objects", "items": [null]}`) }, "HTTP 200"},
		{"listing of an object", writes, func() *http.Response { return respond(200, `{"kind": "storage#objects"}`) }, "HTTP 200"},
		{"object without a name", writes, func() *http.Response { return respond(200, `{"kind": "storage#object"}`) }, "HTTP 200"},
		{"wrong types", all, func() *http.Response { return respond(200, `{"kind": 1, "items": 2}`) }, "HTTP 200"},
	} {
		for _, verb := range test.verbs {
			t.Run(test.name+"/"+verb, func(t *testing.T) {
				w := &wire{answer: always(test.resp)}
				err := verbs[verb](t.Context(), w.open(t, Options{}))
				switch verb {
				case "get", "list":
					wantKind(t, err, backend.ErrNoStore)
				default:
					wantKind(t, err, errAny)
				}
				if err == nil || errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("got %v", err)
				}
				text := err.Error()
				if !strings.Contains(text, test.mention) || strings.Contains(text, "\n") || strings.Contains(text, "<") ||
					!strings.HasSuffix(text, "check the endpoint and the proxy") {
					t.Errorf("text %q, want one line with %q", text, test.mention)
				}
				if w.count() != 1 {
					t.Errorf("%d requests, want 1", w.count())
				}
				if w.requests[0].Context().Err() == nil {
					t.Error("the response was left open, and with it the connection")
				}
			})
		}
	}
}

// An emulator answers a deletion with any JSON.
func TestDeleteTakesAnyJSON(t *testing.T) {
	for _, body := range []string{"", "null\n", "{}", "[]"} {
		w := &wire{answer: always(func() *http.Response { return respond(200, body) })}
		if err := w.open(t, Options{}).Delete(t.Context(), "key"); err != nil {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// The service leaves out all fields that were not requested, also kind. The emulator
// does not.
func TestEmptyListing(t *testing.T) {
	w := &wire{answer: func(r *request) (*http.Response, error) {
		if fields := r.URL.Query().Get("fields"); fields != "" && !strings.Contains(","+fields+",", ",kind,") {
			return respond(200, "{}"), nil
		}
		return respond(200, `{"kind": "storage#objects"}`), nil
	}}
	if keys, err := collect(t, w.open(t, Options{}), "", ""); err != nil || len(keys) != 0 {
		t.Errorf("listed %q, %v, want none", keys, err)
	}
}

// The SDK panics if certain fields of an object are null. vet removes these.
func TestNullInAnAnswer(t *testing.T) {
	const nulls = `"kind": "storage#object", "acl": [null], "contexts": {"custom": {"a": null}}, "owner": null`
	w := &wire{answer: func(r *request) (*http.Response, error) {
		if r.Method == http.MethodGet {
			return respond(200, `{"kind": "storage#objects", "items": [{"name": "jobs/a", "size": "7", "timeCreated": "`+
				serverTime.Format("2006-01-02T15:04:05.000Z")+`", `+nulls+`}]}`), nil
		}
		return respond(200, `{"name": "jobs/key", "size": "4", "timeCreated": null, `+nulls+`}`), nil
	}}
	s := w.open(t, Options{})
	if keys, err := collect(t, s, "", ""); err != nil || len(keys) != 1 {
		t.Errorf("listed %q, %v", keys, err)
	}
	wantKind(t, verbs["create"](t.Context(), s), errAny)
}
