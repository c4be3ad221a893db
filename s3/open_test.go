package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/holdfast-io/holdfast/backend"
)

// isolate hides this machine's AWS configuration, and sets the variables in env.
func isolate(t *testing.T, env ...string) {
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // the SDK takes an empty variable for unset
		}
	}
	env = append([]string{
		"AWS_CONFIG_FILE=" + filepath.Join(t.TempDir(), "none"), "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(t.TempDir(), "none"),
		"AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID=KEY", "AWS_SECRET_ACCESS_KEY=SECRET",
	}, env...)
	for _, pair := range env {
		if name, value, ok := strings.Cut(pair, "="); ok {
			t.Setenv(name, value)
		}
	}
}

func TestOpen(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("[profile far]\nregion = ap-south-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, url, env          string
		store, region, endpoint string
		pathStyle               bool
		options                 Options
	}{
		{name: "aws", url: "s3://bucket/jobs/orders/?region=eu-west-1", store: "s3://bucket/jobs/orders", region: "eu-west-1"},
		{name: "longest path", url: "s3://bucket/" + strings.Repeat("x", 511) + "?region=r", store: "s3://bucket/" + strings.Repeat("x", 511), region: "r"},
		{name: "whole bucket", url: "s3://my.bucket?region=eu-west-1", store: "s3://my.bucket", region: "eu-west-1"},
		{name: "region from the environment", url: "s3://bucket", env: "AWS_REGION=us-west-2", store: "s3://bucket", region: "us-west-2"},
		{name: "url before environment", url: "s3://bucket?region=eu-west-1", env: "AWS_REGION=us-west-2", store: "s3://bucket", region: "eu-west-1"},
		{name: "profile", url: "s3://bucket?profile=far", env: "AWS_CONFIG_FILE=" + config, store: "s3://bucket", region: "ap-south-1"},
		{name: "endpoint", url: "s3://bucket/a%20b?endpoint=http://127.0.0.1:9000", store: "s3://bucket/a b",
			region: "us-east-1", endpoint: "http://127.0.0.1:9000", pathStyle: true},
		{name: "endpoint from the environment", url: "s3://bucket", env: "AWS_ENDPOINT_URL_S3=http://h", store: "s3://bucket",
			region: "us-east-1", endpoint: "http://h", pathStyle: true},
		{name: "host style", url: "s3://bucket?endpoint=https://h&path_style=false", store: "s3://bucket", region: "us-east-1", endpoint: "https://h"},
		{name: "path style", url: "s3://bucket?region=eu-west-1&path_style=true", store: "s3://bucket", region: "eu-west-1", pathStyle: true},
		{name: "writing", url: "s3://bucket?region=r&sse=aws:kms&kms_key_id=alias/k&storage_class=STANDARD_IA&requester_pays=true&checksum=sha256",
			store: "s3://bucket", region: "r",
			options: Options{Encryption: "aws:kms", KMSKeyID: "alias/k", StorageClass: "STANDARD_IA", RequesterPays: true, Checksum: ChecksumSHA256}},
		{name: "checksum", url: "s3://bucket?region=r&checksum=crc32c", store: "s3://bucket", region: "r", options: Options{Checksum: ChecksumCRC32C}},
		{name: "no checksum", url: "s3://bucket?region=r&checksum=none", store: "s3://bucket", region: "r", options: Options{Checksum: ChecksumNone}},
		{name: "retries in the environment", url: "s3://bucket?region=r", env: "AWS_MAX_ATTEMPTS=7", store: "s3://bucket", region: "r"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			isolate(t, test.env)
			opened, err := backend.Open(t.Context(), test.url)
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			s := opened.(*Store)
			test.options.Checksum = cmp.Or(test.options.Checksum, ChecksumCRC32C)
			o := s.client.Options()
			if s.String() != test.store || o.Region != test.region || aws.ToString(o.BaseEndpoint) != test.endpoint ||
				o.UsePathStyle != test.pathStyle || s.options != test.options {
				t.Errorf("%s in %q at %q, path style %t, %+v", s, o.Region, aws.ToString(o.BaseEndpoint), o.UsePathStyle, s.options)
			}
			if o.Retryer.IsErrorRetryable(errors.New("any")) || o.Retryer.MaxAttempts() != 1 {
				t.Error("the SDK retries")
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	notPEM, noBundle := filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "config")
	for file, text := range map[string]string{notPEM: "no PEM", noBundle: "[default]\nca_bundle = " + notPEM + "\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ url, env, text string }{
		{url: "s3://bucket?regoin=eu-west-1", text: `unknown parameter "regoin"; s3:// takes checksum, endpoint, kms_key_id, path_style, profile, region, requester_pays, sse, storage_class`},
		{url: "s3://bucket?region=a&region=b", text: `parameter "region" is given 2 times`},
		{url: "s3://bucket?region=a&path_style=yes", text: `must be true or false`},
		{url: "s3://bucket?region=a&requester_pays=1", text: `must be true or false`},
		{url: "s3://bucket", text: "no region: add ?region=... to the URL or set AWS_REGION"},
		{url: "s3://", text: "no bucket in the URL"},
		{url: "s3:///jobs", text: "no bucket in the URL"},
		{url: "s3://127.0.0.1:9000/bucket?region=r", text: "goes into the parameter endpoint"},
		{url: "s3://buck!et?region=r", text: "has characters that no bucket's name has"},
		{url: "s3://mfzwi23gnjvgw.mrap/jobs?region=r", text: `bucket "mfzwi23gnjvgw.mrap" is a Multi-Region Access Point`},
		{url: "s3://arn:aws:s3::111122223333:accesspoint/mfzwi23gnjvgw.mrap/jobs?region=r", text: "has an ARN in it; give the name of one bucket"},
		{url: "s3://bucket?endpoint=https://mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com", text: "is a Multi-Region Access Point"},
		{url: "s3://bucket?endpoint=127.0.0.1:9000", text: "must look like https://host or http://host:port"},
		{url: "s3://bucket?endpoint=ftp://h", text: "must look like https://host"},
		{url: "s3://bucket?endpoint=http://key:secret@h", text: "holds credentials"},
		{url: "s3://bucket?endpoint=key:secret@h", text: "holds credentials"},
		{url: "s3://bucket?endpoint=http://h:99999", text: "must look like https://host"},
		{url: "s3://bucket?endpoint=http://:9000", text: "must look like https://host"},
		{url: "s3://bucket?endpoint=http://h/%3Ftoken=secret", text: `endpoint "http://h/" has something after a ? or #; leave that out`},
		{url: "s3://bucket?endpoint=http://h%23secret", text: "has something after a ? or #"},
		{url: "s3://bucket", env: "AWS_ENDPOINT_URL=localhost:9000", text: `endpoint (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile's endpoint_url) "localhost:9000" must look like`},
		{url: "s3://bucket", env: "AWS_ENDPOINT_URL_S3=http://h?a=secret", text: `AWS_ENDPOINT_URL or the profile's endpoint_url) "http://h" has something after`},
		{url: "s3://bucket?region=eu west", text: `region "eu west" cannot be one`},
		{url: "s3://bucket?region=eu_west_1&endpoint=http://h", text: "correct the URL's parameter region, AWS_REGION or the profile"},
		{url: "s3://bucket", env: "AWS_REGION=eu/west", text: `region "eu/west" cannot be one`},
		{url: "s3://bucket?region=r&sse=AES", text: `sse is "AES", must be AES256, aws:kms or aws:kms:dsse`},
		{url: "s3://bucket?region=r&kms_key_id=k", text: "kms_key_id needs sse=aws:kms"},
		{url: "s3://bucket?region=r&kms_key_id=k&sse=AES256", text: "kms_key_id needs sse=aws:kms"},
		{url: "s3://bucket?region=r&storage_class=DEEP_ARCHIVE", text: "cannot be read at once"},
		{url: "s3://bucket?region=r&storage_class=GLACIER", text: "cannot be read at once"},
		{url: "s3://bucket?region=r&checksum=md5", text: `checksum is "md5", must be crc32c, sha256 or none`},
		{url: "s3://bucket/a//b?region=r", text: `has a part ""`},
		{url: "s3://bucket/a/../b?region=r", text: `has a part ".."`},
		{url: "s3://bucket/a/./b?region=r", text: `has a part "."`},
		{url: "s3://bucket/a%0Ab?region=r", text: "characters that cannot be listed"},
		{url: "s3://bucket/a%FFb?region=r", text: "characters that cannot be listed"},
		{url: "s3://bucket/" + strings.Repeat("x", 512) + "?region=r", text: "path of 512 bytes, longer than 511"},
		{url: "s3://bucket?profile=nowhere", text: `no profile "nowhere" in the shared AWS configuration; correct the URL's parameter profile or AWS_PROFILE`},
		{url: "s3://bucket?region=r", env: "AWS_PROFILE=nowhere", text: `no profile "nowhere" in the shared AWS configuration; correct the URL's parameter profile or AWS_PROFILE`},
		{url: "s3://bucket?region=r", env: "AWS_CA_BUNDLE=/nonexistent/ca.pem",
			text: "AWS_CA_BUNDLE: open /nonexistent/ca.pem: no such file or directory; correct the variable, or unset it"},
		{url: "s3://bucket?region=r", env: "AWS_CA_BUNDLE=" + notPEM, text: "AWS_CA_BUNDLE: " + notPEM + " holds no certificate in PEM; correct the file"},
		{url: "s3://bucket?region=r", env: "AWS_CONFIG_FILE=" + noBundle, text: "check the shared AWS configuration"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%.60s", test.url), func(t *testing.T) {
			isolate(t, test.env)
			s, err := backend.Open(t.Context(), test.url)
			if err == nil || s != nil || !errors.Is(err, backend.ErrInvalid) || errors.Is(err, backend.ErrNotExist) {
				t.Fatalf("got %v, %v, want ErrInvalid", s, err)
			}
			if !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is missing from %q", test.text, err)
			}
		})
	}
}

// A program that makes its own client may give an ARN in place of the bucket's name. The SDK
// would take it.
func TestNewRefusesARNs(t *testing.T) {
	client := sdk.New(testOptions(&wire{}))
	for bucket, text := range map[string]string{
		"arn:aws:s3::111122223333:accesspoint/mfzwi23gnjvgw.mrap":    "is a Multi-Region Access Point, in which each region would let an owner of its own commit",
		"arn:aws-cn:s3::111122223333:accesspoint/mfzwi23gnjvgw.mrap": "is a Multi-Region Access Point",
		"arn:aws:s3:eu-west-1:111122223333:accesspoint/mine":         "is an ARN; give the bucket's name, or the alias of an access point in one region",
	} {
		if s, err := New(client, bucket, "jobs", Options{}); s != nil || !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v; want %q", bucket, err, text)
		}
	}
	if s, err := New(client, "mine-a1b2c3-s3alias", "jobs", Options{}); err != nil || s == nil {
		t.Errorf("the alias of an access point: %v", err)
	}
}

// A store does not change the client that it was made with.
func TestNew(t *testing.T) {
	w := &wire{answer: always(func() *http.Response { return respondError(500, "InternalError") })}
	options := testOptions(w)
	options.RetryMaxAttempts = 2
	client := sdk.New(options)
	s, err := New(client, "bucket", "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, call(t.Context(), s, "put"), errAny)
	if w.count() != 1 {
		t.Errorf("%d requests, want 1", w.count())
	}
	if o := client.Options(); o.HTTPClient != sdk.HTTPClient(w) || o.Retryer.MaxAttempts() != 2 {
		t.Error("the client was changed")
	}
	if _, err := New(client, "", "a//b", Options{Checksum: "md5"}); !errors.Is(err, backend.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

// A directory bucket needs a session, which the SDK's client makes on demand. The
// store makes its own, so the caller's client, which may be in use, keeps its
// configuration.
func TestSessions(t *testing.T) {
	const bucket = "bucket--use1-az4--x-s3"
	w := &wire{answer: always(func() *http.Response { return respondError(500, "InternalError") })}
	options := testOptions(w)
	options.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = 2
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
	})
	client := sdk.New(options)
	s, err := New(client, bucket, "jobs", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteObject(t.Context(), &sdk.DeleteObjectInput{Bucket: aws.String(bucket), Key: aws.String("key")}); err == nil {
		t.Error("no error")
	}
	if w.count() != 2 || !w.query(0).Has("session") {
		t.Errorf("the caller's client sent %d requests, first %s, want 2 for a session", w.count(), w.requests[0].URL)
	}
	wantKind(t, call(t.Context(), s, "create"), errAny)
	if w.count() != 3 {
		t.Errorf("the store sent %d requests, want 1", w.count()-2)
	}
}

// The proxy is read from the environment once per process, hence the child process.
func TestProxyFromEnvironment(t *testing.T) {
	const child = "HOLDFAST_TEST_S3_PROXY_CHILD"
	if os.Getenv(child) != "" {
		s, err := backend.Open(context.Background(), "s3://bucket?endpoint=http://store.invalid")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := call(t.Context(), s, "put"); err != nil {
			t.Fatal(err)
		}
		return
	}
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		w.Header().Set("ETag", `"0123"`)
		discard(t, r.Body)
	}))
	defer proxy.Close()
	isolate(t, "HTTP_PROXY="+proxy.URL, child+"=yes")
	out, err := exec.Command(os.Args[0], "-test.run=^TestProxyFromEnvironment$").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(asked) != 1 || asked[0] != "http://store.invalid/bucket/key?x-id=PutObject" {
		t.Errorf("the proxy was asked for %q", asked)
	}
}

// The SDK's default logger writes to standard error, for example when a Date is
// malformed.
func TestNothingOnStandardError(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"0123"`)
		w.Header().Set("Date", "yesterday")
	}))
	t.Cleanup(server.Close)
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	real := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = real }()
	isolate(t)
	s, err := backend.Open(t.Context(), "s3://bucket?endpoint="+server.URL)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s)
	wantKind(t, call(t.Context(), s, "put"), errAny)
	if written, err := os.ReadFile(file.Name()); err != nil || len(written) != 0 {
		t.Errorf("on standard error: %q, %v", written, err)
	}
}

// The rule is the same for all parameters.
func TestOpenRefusesEmptyValues(t *testing.T) {
	isolate(t)
	for _, name := range []string{
		"checksum", "endpoint", "kms_key_id", "path_style", "profile", "region", "requester_pays", "sse", "storage_class",
	} {
		for _, value := range []string{name, name + "="} {
			t.Run(value, func(t *testing.T) {
				rawURL := "s3://bucket?" + value
				if name != "region" {
					rawURL = "s3://bucket?region=r&" + value
				}
				_, err := backend.Open(t.Context(), rawURL)
				wantKind(t, err, backend.ErrInvalid)
				if want := fmt.Sprintf("parameter %q has no value; give it one, or leave it out for its default", name); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing from %v", want, err)
				}
			})
		}
	}
}
