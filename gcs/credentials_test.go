package gcs

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/auth"

	"github.com/holdfast-io/holdfast/backend"
)

// tokenServer gives tokens like Google's OAuth endpoint, its token exchange and the
// metadata server of a machine.
type tokenServer struct {
	*httptest.Server
	asked []*http.Request
}

func startTokenServer(t *testing.T) *tokenServer {
	isolate(t)
	s := &tokenServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		if strings.HasSuffix(r.URL.Path, "/universe-domain") {
			http.NotFound(w, r)
			return
		}
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		s.asked = append(s.asked, r)
		w.Header().Set("Content-Type", "application/json")
		_, err := fmt.Fprintf(w, `{"access_token": "token-%d", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer", "expires_in": 3600}`,
			len(s.asked))
		if err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s
}

// useFile puts the path of a credentials file into the environment.
func useFile(t *testing.T, content map[string]string) {
	t.Helper()
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", writeFile(t, "credentials.json", text))
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var serviceAccountKey = sync.OnceValue(func() string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
})

// useServiceAccount makes the key of a service account the process's credentials.
func useServiceAccount(t *testing.T, s *tokenServer) {
	useFile(t, map[string]string{
		"type": "service_account", "client_email": "job@p.iam.gserviceaccount.com", "private_key_id": "1",
		"private_key": serviceAccountKey(), "token_uri": s.URL + "/token", "quota_project_id": "quota",
	})
}

// authenticated returns a store whose requests go to w with the process's
// credentials.
func (w *wire) authenticated(t *testing.T) *Store {
	t.Helper()
	found, err := detect()
	if err != nil {
		t.Fatal(err)
	}
	return w.as(t, found, "")
}

// as returns a store whose requests go to w with the given credentials.
func (w *wire) as(t *testing.T, who *auth.Credentials, userProject string) *Store {
	t.Helper()
	client, err := authenticate(w, who, userProject)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), client, "bucket", "jobs", Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCredentials(t *testing.T) {
	for _, test := range []struct {
		name string
		use  func(t *testing.T, s *tokenServer)
		form string // a field of the request for a token, and its value
		path string
	}{
		{"service account", useServiceAccount, "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer", "/token"},
		{"workload identity federation", func(t *testing.T, s *tokenServer) {
			source := writeFile(t, "token", []byte("of-another-cloud"))
			text := fmt.Sprintf(`{"type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x",
				"subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": %q, "credential_source": {"file": %q}}`, s.URL+"/exchange", source)
			t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", writeFile(t, "federation.json", []byte(text)))
		}, "subject_token=of-another-cloud", "/exchange"},
		{"metadata server, as on GKE", func(t *testing.T, s *tokenServer) {
			t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(s.URL, "http://"))
		}, "scopes=https://www.googleapis.com/auth/devstorage.read_write", "/computeMetadata/v1/instance/service-accounts/default/token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tokens := startTokenServer(t)
			test.use(t, tokens)
			w := accepting()
			s := w.authenticated(t)
			for range 2 {
				if _, err := s.Create(t.Context(), "key", nil); err != nil {
					t.Fatal(err)
				}
			}
			if got := w.requests[1].Header.Get("Authorization"); got != "Bearer token-1" {
				t.Errorf("Authorization is %q", got)
			}
			if len(tokens.asked) != 1 {
				t.Fatalf("asked for a token %d times, want 1", len(tokens.asked))
			}
			r := tokens.asked[0]
			name, value, _ := strings.Cut(test.form, "=")
			if got := r.Form.Get(name); r.URL.Path != test.path || got != value {
				t.Errorf("asked for a token at %s with %s=%q, want %s", r.URL.Path, name, got, test.form)
			}
		})
	}
}

func TestQuotaProject(t *testing.T) {
	tokens := startTokenServer(t)
	useServiceAccount(t, tokens)
	for _, test := range []struct{ parameter, want string }{{"", "quota"}, {"payer", "payer"}} {
		found, err := detect()
		if err != nil {
			t.Fatal(err)
		}
		w := accepting()
		if _, err := w.as(t, found, test.parameter).Put(t.Context(), "key", nil); err != nil {
			t.Fatal(err)
		}
		if got := w.requests[0].Header.Get("X-Goog-User-Project"); got != test.want {
			t.Errorf("user_project=%s: X-Goog-User-Project is %q, want %q", test.parameter, got, test.want)
		}
	}
}

func TestNoCredentials(t *testing.T) {
	isolate(t)
	for _, file := range []string{filepath.Join(t.TempDir(), "missing.json"), writeFile(t, "bad.json", []byte("{"))} {
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
		s, err := OpenURL(t.Context(), &url.URL{Scheme: "gs", Host: "bucket"})
		if s != nil || !errors.Is(err, backend.ErrPermission) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(fmt.Sprint(err), "gcloud auth") {
			t.Errorf("credentials %s: %v, %v, want ErrPermission with advice", file, s, err)
		}
	}
}

// issuer gives tokens that have already expired.
type issuer struct{ err error }

func (i *issuer) Token(context.Context) (*auth.Token, error) {
	if i.err != nil {
		return nil, i.err
	}
	return &auth.Token{Value: "t", Expiry: time.Now().Add(-time.Hour)}, nil
}

// On a machine whose credentials are refused, another attempt is useless. A machine
// that had a token before waits until the token service is back.
func TestTokenRefused(t *testing.T) {
	answered := func(status int) error {
		return &auth.Error{Response: &http.Response{StatusCode: status}, Body: []byte("what the token service says")}
	}
	for _, test := range []struct {
		name   string
		worked bool
		err    error
		kind   error
	}{
		{"never worked", false, answered(503), backend.ErrPermission},
		{"never reached", false, errors.New("connection refused"), backend.ErrPermission},
		{"worked before", true, answered(503), errAny},
		{"reached before", true, errors.New("connection refused"), errAny},
		{"its own deadline", true, context.DeadlineExceeded, errAny},
		{"revoked", true, answered(400), backend.ErrPermission},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := &issuer{}
			w := accepting()
			s := w.as(t, auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: i}), "")
			if test.worked {
				if _, err := s.Put(t.Context(), "key", nil); err != nil {
					t.Fatal(err)
				}
			}
			before := w.count()
			i.err = test.err
			for verb, call := range verbs {
				err := call(t.Context(), s)
				wantKind(t, err, test.kind)
				if err == nil || !strings.Contains(err.Error(), "no credentials") {
					t.Errorf("%s gave %v", verb, err)
				}
			}
			if w.count() != before {
				t.Errorf("%d requests without a token", w.count()-before)
			}
		})
	}
}

func TestTokenCutShort(t *testing.T) {
	for verb, call := range verbs {
		ctx, cancel := context.WithCancel(t.Context())
		w := &wire{}
		who := auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: waiting(cancel)})
		err := call(ctx, w.as(t, who, ""))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s gave %v, want the end of the context", verb, err)
		}
	}
}

// waiting cancels its context, and gives no token.
type waiting context.CancelFunc

func (cancel waiting) Token(ctx context.Context) (*auth.Token, error) {
	cancel()
	<-ctx.Done()
	return nil, ctx.Err()
}
