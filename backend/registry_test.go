package backend_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

var errOpened = errors.New("opened")

func TestRegistryOpen(t *testing.T) {
	var r backend.Registry
	var opened *url.URL
	for _, scheme := range []string{"s3", "file"} {
		r.Register(scheme, func(_ context.Context, u *url.URL) (backend.Store, error) {
			opened = u
			return nil, errOpened
		})
	}
	for _, tt := range []struct {
		url  string
		want string // the error; "" if Open succeeds
	}{
		{"s3://bucket/jobs?region=x", ""},
		{"S3://bucket/jobs", ""},
		{"file:///var/lib/a%23b", ""},
		{"s4://bucket/jobs", `store URL "s4://bucket/jobs": unknown scheme "s4"; this program knows file, s3`},
		{"s4://bucket/jobs?secret=hunter2", `store URL "s4://bucket/jobs": unknown scheme "s4"; this program knows file, s3`},
		{"/var/lib/orders", `store URL "/var/lib/orders" has no scheme; for a local directory write file:///path`},
		{"", `store URL "" has no scheme; for a local directory write file:///path`},
		{"s3://id:hunter2@bucket/jobs", `store URL "s3://bucket/jobs" holds credentials; leave them to the environment`},
		{"s3://hunter2@bucket/jobs?x=hunter2", `store URL "s3://bucket/jobs" holds credentials; leave them to the environment`},
		{"s3://id:hun/ter2@bucket", "the store URL cannot be parsed; it looks like s3://bucket/path or file:///path"},
		{"s3://bucket/%zz", "the store URL has a % without two hexadecimal digits after it; write %25 for a % in a path"},
		{"s3://bucket/50%", "the store URL has a % without two hexadecimal digits after it; write %25 for a % in a path"},
		{"s3://id:hunter%2@bucket", "the store URL has a % without two hexadecimal digits after it; write %25 for a % in a path"},
		{"s3://arn:aws:s3::111122223333:accesspoint/x.mrap/jobs", "the store URL has an ARN in it; give the name of one bucket, as in s3://bucket/path"},
		{"s3://bucket/a\nb", "the store URL cannot be parsed; it looks like s3://bucket/path or file:///path"},
		{"s3://bucket/jobs#hunter2", `store URL "s3://bucket/jobs" has a fragment (#...); write %23 for a # in a path`},
		{"s3://bucket/jobs#", `store URL "s3://bucket/jobs" has a fragment (#...); write %23 for a # in a path`},
	} {
		opened = nil
		_, err := r.Open(t.Context(), tt.url)
		if tt.want == "" {
			if !errors.Is(err, errOpened) || opened == nil {
				t.Errorf("Open(%q): %v, want it opened", tt.url, err)
			}
			continue
		}
		if !errors.Is(err, backend.ErrInvalid) || err.Error() != tt.want {
			t.Errorf("Open(%q):\n%v, want\n%v", tt.url, err, tt.want)
		}
	}
}

func TestRegistryEmpty(t *testing.T) {
	var r backend.Registry
	_, err := r.Open(t.Context(), "s3://bucket")
	if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), "no driver is linked") {
		t.Error(err)
	}
}

func TestRegisterTwice(t *testing.T) {
	var r backend.Registry
	r.Register("s3", nil)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	r.Register("s3", nil)
}

func TestDefaultRegistry(t *testing.T) {
	if !slices.Contains(backend.Schemes(), "mem") {
		t.Errorf("schemes %q do not include mem, which is imported", backend.Schemes())
	}
	s, err := backend.Open(t.Context(), "mem://registry/jobs")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestParams(t *testing.T) {
	for _, tt := range []struct {
		query, want string
	}{
		{"", ""},
		{"region=x&path_style=true", ""},
		{"path_style=false&region=", ""},
		{"regoin=hunter2", `store URL "s3://bucket/jobs": unknown parameter "regoin"; s3:// takes path_style, region`},
		{"region=x&region=y", `store URL "s3://bucket/jobs": parameter "region" is given 2 times`},
		{"path_style=yes", `store URL "s3://bucket/jobs": parameter "path_style" is "yes", must be true or false`},
		{"path_style", `store URL "s3://bucket/jobs": parameter "path_style" is "", must be true or false`},
		{"region=%zz", `store URL "s3://bucket/jobs": the part after ? cannot be parsed`},
		{"a;b", `store URL "s3://bucket/jobs": the part after ? cannot be parsed`},
	} {
		u := &url.URL{Scheme: "s3", Host: "bucket", Path: "/jobs", RawQuery: tt.query}
		p := backend.NewParams(u)
		region, pathStyle := p.String("region"), p.Bool("path_style")
		err := p.Err()
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, backend.ErrInvalid) || err.Error() != tt.want) {
			t.Errorf("%q:\n%v, want\n%v", tt.query, err, tt.want)
		}
		if strings.HasPrefix(tt.query, "region=x&path_style") && (region != "x" || !pathStyle) {
			t.Errorf("%q: region %q, path_style %t", tt.query, region, pathStyle)
		}
		if tt.query == "" && (region != "" || pathStyle) {
			t.Errorf("defaults: region %q, path_style %t", region, pathStyle)
		}
	}
}

func TestParamsOfDriverWithout(t *testing.T) {
	err := backend.NewParams(&url.URL{Scheme: "mem", Host: "x", RawQuery: "a=1"}).Err()
	if want := `store URL "mem://x": unknown parameter "a"; mem:// takes none`; err == nil || err.Error() != want {
		t.Errorf("%v, want %v", err, want)
	}
}
