package backend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

func TestErrorText(t *testing.T) {
	cause := errors.New("it broke")
	for _, tt := range []struct {
		err  backend.Error
		want string
	}{
		{backend.Error{Op: "put", Store: "s3://bucket/jobs", Key: "a/b", Err: cause}, "put s3://bucket/jobs/a/b: it broke"},
		{backend.Error{Op: "get", Store: "file:///var/lib/orders", Key: "a", Err: cause}, "get file:///var/lib/orders/a: it broke"},
		{backend.Error{Op: "list", Store: "gs://bucket", Err: cause}, "list gs://bucket: it broke"},
		{backend.Error{Op: "list", Store: "gs://bucket", Key: "a/", Err: cause}, "list gs://bucket/a: it broke"},
		{backend.Error{Op: "delete", Key: "a", Err: cause}, "delete a: it broke"},
		{backend.Error{Op: "open", Store: "s3://", Err: cause}, "open s3://: it broke"},
		{backend.Error{Op: "open", Store: "s3://bucket", Err: cause, Advice: "create it"}, "open s3://bucket: it broke; create it"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%+v reads %q, want %q", tt.err, got, tt.want)
		}
		if !errors.Is(&tt.err, cause) {
			t.Errorf("%v does not wrap its cause", &tt.err)
		}
	}
}

func TestInvalidf(t *testing.T) {
	err := backend.Invalidf("key %q", "A")
	if err.Error() != `key "A"` || !errors.Is(err, backend.ErrInvalid) || !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func TestRetryable(t *testing.T) {
	_, missing := os.Open(t.TempDir() + "/missing")
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("connection reset"), true},
		{io.ErrUnexpectedEOF, true},
		{backend.ErrThrottled, true},
		{backend.ErrExist, false},
		{backend.ErrNotExist, false},
		{missing, false},
		{backend.ErrPermission, false},
		{backend.ErrInvalid, false},
		{backend.Invalidf("bad"), false},
		{backend.ErrClosed, false},
		{backend.ErrRange, false},
		{backend.ErrUnsupported, false},
		{backend.ErrNoStore, false},
		{backend.ErrNoSpace, false},
		{context.Canceled, false},
		{context.DeadlineExceeded, false},
		{fmt.Errorf("wrapped: %w", backend.ErrNoSpace), false},
		{errors.Join(io.EOF, backend.ErrPermission), false},
		{&backend.Error{Op: "get", Err: backend.ErrNotExist}, false},
		{&backend.Error{Op: "get", Err: backend.ErrThrottled}, true},
	} {
		if got := backend.Retryable(tt.err); got != tt.want {
			t.Errorf("Retryable(%v) = %t, want %t", tt.err, got, tt.want)
		}
	}
}
