package s3

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

const loginPage = "<!DOCTYPE html><html><head><title>Log in</title></head><body><p>Your name?</body></html>"

// Bodies of answers that are not listings.
var noListings = map[string]string{
	"empty":          "",
	"blank":          " \n",
	"page":           loginPage,
	"broken page":    "<p>Log in <br> & go on",
	"text":           "OK",
	"object of JSON": "{}",
	"null of JSON":   "null",
	"array of JSON":  "[]",
	"list of others": "<ListAllMyBucketsResult><Owner/><Buckets/></ListAllMyBucketsResult>",
	"versions":       "<ListVersionsResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListVersionsResult>",
	"declaration":    `<?xml version="1.0" encoding="UTF-8"?>`,
	"empty result":   "<ListBucketResult/>",
	"result of none": "<ListBucketResult><MaxKeys>16</MaxKeys></ListBucketResult>",
	"endless":        strings.Repeat(" ", maxProlog) + page(""),
}

// An answer that is not a listing must not be taken for an empty one: a job would
// start from nothing.
func TestNoListing(t *testing.T) {
	for _, status := range []int{200, 204} {
		for name, body := range noListings {
			t.Run(fmt.Sprintf("%d/%s", status, name), func(t *testing.T) {
				wantNotS3(t, "list", func() *http.Response { return respond(status, body) })
			})
		}
	}
	for _, status := range []int{201, 202, 203, 204, 206} {
		t.Run(fmt.Sprintf("%d/listing", status), func(t *testing.T) {
			wantNotS3(t, "list", func() *http.Response { return respond(status, page("")) })
		})
	}
}

// wantNotS3 expects a retryable error that says that the answer did not come from S3,
// and what to check.
func wantNotS3(t *testing.T, verb string, answer func() *http.Response) {
	t.Helper()
	w := &wire{answer: always(answer)}
	err := call(t.Context(), w.open(t, Options{}), verb)
	if err == nil {
		t.Fatal("the answer was taken for one of S3")
	}
	wantKind(t, err, errAny)
	for _, part := range []string{"the answer is not one of S3", "check the endpoint", "and the proxy"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing from %q", part, err)
		}
	}
	if w.count() != 1 {
		t.Errorf("%d requests, want 1", w.count())
	}
}

// Real services leave fields out, or add a declaration, a comment or a namespace.
func TestListingsOfServices(t *testing.T) {
	for name, body := range map[string]string{
		"name":      "<ListBucketResult><Name>bucket</Name></ListBucketResult>",
		"count":     "<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>",
		"end":       "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
		"namespace": `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name></ListBucketResult>`,
		"prefixed":  `<s:ListBucketResult xmlns:s="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name></s:ListBucketResult>`,
		"declared":  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- page -->\n<ListBucketResult><Name>bucket</Name></ListBucketResult>",
	} {
		t.Run(name, func(t *testing.T) {
			w := &wire{answer: always(func() *http.Response { return respond(200, body) })}
			keys, err := collect(t, w.open(t, Options{}), "", "")
			if err != nil || len(keys) != 0 {
				t.Errorf("listed %q, %v", keys, err)
			}
		})
	}
}

// Finding the root element of a long listing does not change it.
func TestLongListing(t *testing.T) {
	var want, listed []string
	for i := range 1000 {
		want = append(want, fmt.Sprintf("%0200d", i))
		listed = append(listed, "jobs/"+want[i])
	}
	w := &wire{answer: respondPage("", listed...)}
	keys, err := collect(t, w.open(t, Options{}), "", "")
	if err != nil || !slices.Equal(keys, want) {
		t.Errorf("listed %d keys, %v", len(keys), err)
	}
}

// A listing that breaks off is an error, wherever that happens, even before its root
// element.
func TestListingCut(t *testing.T) {
	whole := page("", "jobs/a")
	for n := range len(whole) {
		w := &wire{answer: always(func() *http.Response { return respond(200, whole[:n]) })}
		_, err := collect(t, w.open(t, Options{}), "", "")
		wantKind(t, err, errAny)
	}
	broken := errors.New("connection gone")
	w := &wire{answer: always(func() *http.Response {
		r := respond(200, "")
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader("<?xml"), brokenReader{broken}))
		return r
	})}
	if _, err := collect(t, w.open(t, Options{}), "", ""); !strings.Contains(err.Error(), broken.Error()) || !backend.Retryable(err) {
		t.Errorf("got %v, want the error of the connection", err)
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// A write counts as done only if the answer has all that S3 always sends.
func TestNoWrite(t *testing.T) {
	tests := map[string]func() *http.Response{
		"no ETag":             without("ETag", 200, ""),
		"no ETag, no content": without("ETag", 204, ""),
		"page":                without("ETag", 200, loginPage),
		"page with an ETag":   func() *http.Response { return respond(200, loginPage) },
		"JSON with an ETag":   func() *http.Response { return respond(200, "{}") },
		"accepted":            func() *http.Response { return respond(202, "") },
		"no content":          func() *http.Response { return respond(204, "") },
	}
	for name, answer := range tests {
		for _, verb := range []string{"create", "put"} {
			t.Run(verb+"/"+name, func(t *testing.T) { wantNotS3(t, verb, answer) })
		}
	}
}

func without(header string, status int, body string) func() *http.Response {
	return func() *http.Response {
		r := respond(status, body)
		r.Header.Del(header)
		return r
	}
}

func TestNoRead(t *testing.T) {
	tests := map[string]func() *http.Response{
		"no ETag":             without("ETag", 200, "data"),
		"no content":          func() *http.Response { return respond(204, "") },
		"part of what":        func() *http.Response { return respond(206, "data") },
		"non-authoritative":   func() *http.Response { return respond(203, "data") },
		"page without ETag":   without("ETag", 200, loginPage),
		"short page and ETag": withType("Text/HTML; charset=utf-8", "<p>"),
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) { wantNotS3(t, "get", answer) })
	}
}

func withType(kind, body string) func() *http.Response {
	return func() *http.Response {
		r := respond(200, body)
		r.Header.Set("Content-Type", kind)
		return r
	}
}

func TestNoDeletion(t *testing.T) {
	for name, body := range map[string]string{"page": loginPage, "JSON": "{}", "text": "OK"} {
		t.Run(name, func(t *testing.T) {
			wantNotS3(t, "delete", func() *http.Response { return respond(200, body) })
			w := &wire{answer: always(func() *http.Response { return respond(200, body) })}
			wantKind(t, w.open(t, Options{}).Delete(t.Context(), "a", "b"), errAny)
		})
	}
	for name, body := range map[string]string{"nothing": "", "result": "<DeleteResult/>"} {
		t.Run(name, func(t *testing.T) {
			w := &wire{answer: always(func() *http.Response { return respond(200, body) })}
			if err := w.open(t, Options{}).Delete(t.Context(), "a", "b"); err != nil {
				t.Error(err)
			}
		})
	}
}

// An error that comes with status 200 keeps its code, on every operation whose answer
// is not data.
func TestErrorsWithStatus200(t *testing.T) {
	for _, verb := range []string{"create", "put", "list", "delete"} {
		w := &wire{answer: always(func() *http.Response { return respond(200, errorXML("SlowDown")) })}
		wantKind(t, call(t.Context(), w.open(t, Options{}), verb), backend.ErrThrottled)
	}
}
