package gcs

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

// isolate hides this machine's configuration from the environment.
func isolate(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "APPDATA": home, "CLOUDSDK_CONFIG": "",
		"GOOGLE_APPLICATION_CREDENTIALS": "", "GOOGLE_CLOUD_QUOTA_PROJECT": "", "GOOGLE_CLOUD_UNIVERSE_DOMAIN": "",
		"STORAGE_EMULATOR_HOST": "",
		"HTTP_PROXY":            "", "HTTPS_PROXY": "", "http_proxy": "", "https_proxy": "",
	} {
		t.Setenv(name, value)
	}
}

func TestOpenRefuses(t *testing.T) {
	isolate(t)
	for _, test := range []struct{ url, mention string }{
		{"gs:///path", "no bucket"},
		{"gs://Bucket/path", "characters"},
		{"gs://buc%20ket/path", "store URL"},
		{"gs://bucket:80/path", "port"},
		{"gs://bucket/a//b", `open gs://bucket/a//b: path "a//b" has a part ""`},
		{"gs://bucket/a/../b", `a part ".."`},
		{"gs://bucket/a../b", `a part "a.."`}, // gocloud would escape "../"
		{"gs://bucket/./b", `a part "."`},
		{"gs://bucket/a%0Ab", "cannot be listed"},
		{"gs://bucket/a%FFb", "cannot be listed"},
		{"gs://bucket/" + strings.Repeat("x", 512), "longer than 511"},
		{"gs://bucket?endpiont=http://x", `unknown parameter "endpiont"; gs:// takes anonymous, endpoint, kms_key_name, storage_class, user_project`},
		{"gs://bucket?endpoint=http://x&endpoint=http://y", "2 times"},
		{"gs://bucket?endpoint=store.test:80", "must look like"},
		{"gs://bucket?endpoint=ftp://store.test", "must look like"},
		{"gs://bucket?endpoint=http://", "must look like"},
		{"gs://bucket?endpoint=http://me:secret@store.test", "credentials"},
		{"gs://bucket?endpoint=http://store.test/storage/v1/", "goes on after the host"},
		{"gs://bucket?endpoint=http://store.test?x=y", "goes on after the host"},
		{"gs://bucket?anonymous=yes", "must be true or false"},
		{"gs://bucket?endpoint=http://store.test&anonymous=false", "in the clear"},
		{"gs://bucket?kms_key_name=key", "kms_key_name"},
	} {
		s, err := backend.Open(t.Context(), test.url)
		if s != nil || !errors.Is(err, backend.ErrInvalid) || !strings.Contains(fmt.Sprint(err), test.mention) {
			t.Errorf("%s gave %v, %v, want ErrInvalid with %q", test.url, s, err, test.mention)
		}
		if strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("%s: the password is in %q", test.url, err)
		}
	}
}

func TestOpenNames(t *testing.T) {
	isolate(t)
	for _, test := range []struct{ url, name, prefix string }{
		{"gs://bucket", "gs://bucket", ""},
		{"gs://bucket/", "gs://bucket", ""},
		{"gs://b.example-1_2/jobs", "gs://b.example-1_2/jobs", "jobs/"},
		{"gs://bucket//jobs/orders/", "gs://bucket/jobs/orders", "jobs/orders/"},
		{"gs://bucket/a%20b?anonymous=true", "gs://bucket/a b", "a b/"},
		{"gs://bucket/" + strings.Repeat("x", 511), "gs://bucket/" + strings.Repeat("x", 511), strings.Repeat("x", 511) + "/"},
	} {
		if !strings.Contains(test.url, "anonymous") {
			test.url += "?anonymous=true"
		}
		s, err := backend.Open(t.Context(), test.url)
		if err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		if got := s.(*Store); got.String() != test.name || got.prefix != test.prefix {
			t.Errorf("%s opened %s with prefix %q", test.url, got, got.prefix)
		}
		shut(t, s)
	}
}

// A service is a server that answers every request as if the object did not exist,
// and records the requests.
type service struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
}

func startService(t *testing.T) *service {
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r)
		s.mu.Unlock()
		http.Error(w, "No such object: bucket/key", http.StatusNotFound)
	}))
	t.Cleanup(s.Close)
	return s
}

// one returns the only request.
func (s *service) one(t *testing.T) *http.Request {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) != 1 {
		t.Fatalf("%d requests, want 1", len(s.requests))
	}
	return s.requests[0]
}

func get(t *testing.T, url string) error {
	t.Helper()
	s, err := backend.Open(t.Context(), url)
	if err != nil {
		return err
	}
	defer s.Close()
	return verbs["get"](t.Context(), s)
}

func TestEndpoints(t *testing.T) {
	for _, test := range []struct {
		name        string
		url         func(s *service) string
		environment func(s *service) string // STORAGE_EMULATOR_HOST
	}{
		{"parameter", func(s *service) string { return "gs://bucket/a?endpoint=" + s.URL }, nil},
		{"with a slash", func(s *service) string { return "gs://bucket/a?endpoint=" + s.URL + "/" }, nil},
		{"environment", func(*service) string { return "gs://bucket/a" }, func(s *service) string { return s.URL }},
		{"environment, no scheme", func(*service) string { return "gs://bucket/a" },
			func(s *service) string { return strings.TrimPrefix(s.URL, "http://") }},
		{"both", func(s *service) string { return "gs://bucket/a?endpoint=" + s.URL },
			func(*service) string { return "127.0.0.1:1" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			isolate(t)
			s := startService(t)
			if test.environment != nil {
				t.Setenv("STORAGE_EMULATOR_HOST", test.environment(s))
			}
			wantKind(t, get(t, test.url(s)), backend.ErrNotExist)
			if r := s.one(t); r.URL.EscapedPath() != "/storage/v1/b/bucket/o/a%2Fkey" || r.Header.Get("Authorization") != "" {
				t.Errorf("asked for %s with %v", r.URL, r.Header)
			}
		})
	}
}

// A client without a transport uses the one of the standard library.
func TestNewWithoutTransport(t *testing.T) {
	isolate(t)
	service := startService(t)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s, err := New(t.Context(), &http.Client{}, "bucket", "", Options{Endpoint: service.URL})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, verbs["get"](t.Context(), s), backend.ErrNotExist)
	service.one(t)
}

func TestUserProject(t *testing.T) {
	isolate(t)
	s := startService(t)
	wantKind(t, get(t, "gs://bucket?user_project=payer&endpoint="+s.URL), backend.ErrNotExist)
	if got := s.one(t).Header.Get("X-Goog-User-Project"); got != "payer" {
		t.Errorf("X-Goog-User-Project is %q", got)
	}
}

func TestAnonymous(t *testing.T) {
	isolate(t)
	for rawURL, want := range map[string]bool{
		"gs://bucket": false,
		"gs://bucket?endpoint=https://store.test":                 false,
		"gs://bucket?endpoint=https://store.test&anonymous=false": false,
		"gs://bucket?endpoint=https://store.test&anonymous=true":  true,
		"gs://bucket?endpoint=http://store.test":                  true,
		"gs://bucket?anonymous=true":                              true,
	} {
		u, err := url.Parse(rawURL)
		if err != nil {
			t.Fatal(err)
		}
		l, err := parse(u)
		if err != nil || l.anonymous != want {
			t.Errorf("%s: anonymous is %v, %v, want %v", rawURL, l.anonymous, err, want)
		}
	}
}

// The proxy is read from the environment once per process, hence the child process.
func TestProxyFromEnvironment(t *testing.T) {
	const child = "HOLDFAST_TEST_GCS_PROXY_CHILD"
	if os.Getenv(child) != "" {
		wantKind(t, get(t, "gs://bucket?endpoint=http://store.invalid"), backend.ErrNotExist)
		return
	}
	isolate(t)
	proxy := startService(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyFromEnvironment$")
	cmd.Env = append(os.Environ(), "HTTP_PROXY="+proxy.URL, child+"=yes")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r := proxy.one(t); r.URL.Host != "store.invalid" {
		t.Errorf("the proxy was asked for %s", r.URL)
	}
}

// The rule is the same for all parameters, with and without the equals sign.
func TestEmptyParameters(t *testing.T) {
	isolate(t)
	for _, name := range []string{"anonymous", "endpoint", "kms_key_name", "storage_class", "user_project"} {
		for _, query := range []string{name + "=", name, name + "=&" + name + "=true"} {
			s, err := backend.Open(t.Context(), "gs://bucket/jobs?"+query)
			want := `open gs://bucket/jobs: parameter "` + name + `" is empty; leave it out to have the default`
			if s != nil || !errors.Is(err, backend.ErrInvalid) || err.Error() != want {
				t.Errorf("%s gave %v, %v, want %s", query, s, err, want)
			}
		}
	}
}

// The table in docs/deploy/gcp.md has a row for each parameter, and no other rows.
func TestParametersAreDocumented(t *testing.T) {
	isolate(t)
	doc, err := os.ReadFile("../docs/deploy/gcp.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(doc), "| parameter | meaning | default |\n| --- | --- | --- |\n")
	table, _, ended := strings.Cut(table, "\n\n")
	if !found || !ended {
		t.Fatal("no table of parameters")
	}
	var documented []string
	for row := range strings.SplitSeq(table, "\n") {
		name, _, _ := strings.Cut(strings.TrimPrefix(row, "| `"), "`")
		documented = append(documented, name)
	}
	slices.Sort(documented)
	_, err = backend.Open(t.Context(), "gs://bucket?none=such")
	if want := "gs:// takes " + strings.Join(documented, ", "); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("documented: %s; %v", want, err)
	}
}
