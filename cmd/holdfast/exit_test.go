package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

// If a driver gives advice, the command adds no general advice.
func TestAdviceIsGivenOnce(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	for _, test := range []struct {
		name   string
		url    string // with %s in the place of the endpoint
		status int
		body   string
		end    string
	}{
		{"gs, no bucket", "gs://bucket/jobs?endpoint=%s", 404,
			`{"error": {"code": 404, "message": "The specified bucket does not exist.", "errors": [{"reason": "notFound"}]}}`,
			"; create the bucket, or correct its name in the URL"},
		{"gs, denied", "gs://bucket/jobs?endpoint=%s", 403,
			`{"error": {"code": 403, "message": "No.", "errors": [{"reason": "forbidden"}]}}`,
			"and the scope devstorage.read_write to a virtual machine"},
		{"s3, no bucket", "s3://bucket/jobs?region=eu-west-1&endpoint=%s", 404,
			"<Error><Code>NoSuchBucket</Code><Message>No.</Message></Error>",
			"; create the bucket, or correct its name in the URL"},
		{"s3, denied", "s3://bucket/jobs?region=eu-west-1&endpoint=%s", 403,
			"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>",
			"; allow s3:ListBucket on arn:aws:s3:::bucket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			defer server.Close()
			r := runQuietly(t.Context(), "ls", fmt.Sprintf(test.url, server.URL), "orders")
			if what := misfit(r); what != "" || r.code != exitFailed || !strings.HasSuffix(r.stderr, test.end+"\n") {
				t.Errorf("exit code %d, %s%s; want the end %s", r.code, r.stderr, what, test.end)
			}
		})
	}
}

// If the driver gives no advice, the command gives general advice.
func TestGeneralAdvice(t *testing.T) {
	store := func(url string, err error) error { return &backend.Error{Op: "list", Store: url, Err: err} }
	for name, test := range map[string]struct {
		err error
		end string
	}{
		"directory":              {store("file:///a", backend.ErrNoStore), "; make the bucket or directory, or correct the URL"},
		"file below a directory": {store("file:///a", backend.ErrPermission), "; get access to it, or run as a user who has it"},
		"kind without advice":    {store("gs://a", backend.ErrThrottled), "; try again later"},
		"file of the state":      {fs.ErrPermission, "; get access to it, or run as a user who has it"},
		"file of the state, beside the store": {errors.Join(fs.ErrPermission, store("gs://a", io.ErrUnexpectedEOF)),
			"; get access to it, or run as a user who has it"},
	} {
		if text, code := explain(t.Context(), test.err); !strings.HasSuffix(text, test.end) || code != exitFailed {
			t.Errorf("%s: %s, exit code %d; want the end %s", name, text, code, test.end)
		}
	}
}
