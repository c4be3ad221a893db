package gcs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
)

// A foreignError is an answer with a 2xx status that does not come from Cloud
// Storage, but from another server or from a proxy that wants a login. The SDK takes
// `{}` or a status 204 for an empty listing and any page for an object, and panics at
// `null`.
type foreignError struct {
	status int
	lacks  string // what the answer should have been
	begins string // the beginning of its body, if that was read
}

func (e *foreignError) Error() string {
	return fmt.Sprintf("HTTP %d that is no %s%s", e.status, e.lacks, e.begins)
}

// vet returns a *foreignError if resp has a 2xx status, but does not have what Cloud
// Storage sends in reply to req. In a listing and in the description of an object,
// vet keeps only the fields that it has checked.
func vet(req *http.Request, resp *http.Response) error {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil // the SDK turns it into an error
	}
	switch {
	case req.Method == http.MethodPost:
		return vetJSON(resp, "description of an object", (*description).valid)
	case isListing(req):
		return vetJSON(resp, "listing", (*listing).valid)
	case req.Method == http.MethodGet:
		return vetDownload(resp)
	}
	return vetDelete(resp)
}

// A listing is the part of an answer to objects.list that List needs. See
// https://docs.cloud.google.com/storage/docs/json_api/v1/objects/list.
type listing struct {
	Kind          string        `json:"kind"`
	NextPageToken string        `json:"nextPageToken,omitempty"`
	Items         []description `json:"items,omitempty"`
}

func (l *listing) valid() bool {
	for _, item := range l.Items {
		if item.Name == "" {
			return false
		}
	}
	return l.Kind == "storage#objects"
}

// A description is the part of an object's resource that this package needs. See
// https://docs.cloud.google.com/storage/docs/json_api/v1/objects#resource.
type description struct {
	Kind    string `json:"kind,omitempty"` // not requested in a listing
	Name    string `json:"name"`
	Size    string `json:"size,omitempty"`
	CRC32C  string `json:"crc32c,omitempty"`
	Created string `json:"timeCreated,omitempty"`
}

func (d *description) valid() bool { return d.Kind == "storage#object" && d.Name != "" }

// vetJSON replaces the body by the fields that T has.
func vetJSON[T any](resp *http.Response, what string, valid func(*T) bool) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer T
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil || !valid(&answer) {
		return &foreignError{resp.StatusCode, what, beginning(body)}
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if body, err = json.Marshal(answer); err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

func beginning(body []byte) string {
	const most = 200 // bytes
	if len(bytes.TrimSpace(body)) == 0 {
		return ": its body is empty"
	}
	return ": " + words(string(body[:min(len(body), most)]))
}

// vetDownload checks the headers by which Cloud Storage describes objects: the
// content may be anything, and a web server may also answer with a part of a page.
func vetDownload(resp *http.Response) error {
	ok := resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent
	if ok && (resp.Header.Get("X-Goog-Generation") != "" || resp.Header.Get("X-Goog-Hash") != "") {
		return nil
	}
	return &foreignError{resp.StatusCode, "object of Cloud Storage's, which have the headers X-Goog-Generation and X-Goog-Hash", ""}
}

// vetDelete refuses an HTML page. The service answers with 204, an emulator with 200
// and any JSON.
func vetDelete(resp *http.Response) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "text/html" {
		return nil
	}
	return &foreignError{resp.StatusCode, "answer to a deletion, but a page", ""}
}

func isListing(req *http.Request) bool {
	return req.Method == http.MethodGet && req.URL.Query().Get("alt") != "media"
}

// askForKind makes a listing contain its kind. The SDK requests only certain fields,
// and cannot be told to add this one, so an empty listing would be `{}`. It changes
// req, but not what req shares with others.
func askForKind(req *http.Request) {
	query := req.URL.Query()
	fields := query.Get("fields")
	if fields == "" || !isListing(req) {
		return
	}
	query.Set("fields", "kind,"+fields)
	u := *req.URL
	u.RawQuery = query.Encode()
	req.URL = &u
}
