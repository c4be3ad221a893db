package gcs

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/gcerrors"

	"github.com/holdfast-io/holdfast/backend"
)

func TestAnswers(t *testing.T) {
	const (
		noBucket = "The specified bucket does not exist."
		noObject = "No such object: bucket/jobs/key"
		denied   = "job@p.iam.gserviceaccount.com does not have storage.objects.x access to the Google Cloud Storage object."
		html     = "<!DOCTYPE html>\n<title>Error 404</title>\n<p>The requested URL was not found on this server."
	)
	everyVerb := []string{"create", "put", "get", "list", "delete"}
	writes := []string{"create", "put"}
	for _, test := range []struct {
		name    string
		verbs   []string
		resp    *http.Response
		kind    error  // the expected kind; errAny means retryable
		mention string // what the text must say
	}{
		{"taken", []string{"create"}, notMet(), backend.ErrExist, "pre-conditions"},
		{"taken, in plain text", []string{"create"}, respond(412, "At least one of the pre-conditions you specified did not hold."), backend.ErrExist, ""},
		{"taken, emulator", []string{"create"}, respondError(412, "conditionNotMet", "Precondition failed"), backend.ErrExist, ""},
		{"condition of a Put", []string{"put"}, notMet(), errAny, ""},
		{"condition of another server", everyVerb, respond(412, html), errAny, "HTTP 412"},
		{"policy", everyVerb, respondError(412, "conditionNotMet", "Request violates constraint 'constraints/gcp.resourceLocations'"),
			backend.ErrPermission, "organization"},
		{"policy, by its reason", everyVerb, respondError(412, "orgPolicyConstraintFailed", "No."), backend.ErrPermission, "organization"},

		{"no object", []string{"get"}, respond(404, noObject), backend.ErrNotExist, ""},
		{"no object, as JSON", []string{"get"}, respondError(404, "notFound", noObject), backend.ErrNotExist, ""},
		{"no object, emulator", []string{"get"}, respond(404, "Not Found\n"), backend.ErrNotExist, ""},
		{"no object, deleted", []string{"delete"}, respondError(404, "notFound", noObject), nil, ""},
		{"no bucket, download", []string{"get"}, respond(404, noBucket), backend.ErrNoStore, "create the bucket"},
		{"no bucket", []string{"create", "put", "list", "delete"}, respondError(404, "notFound", noBucket), backend.ErrNoStore, "create the bucket"},
		{"no bucket, emulator", []string{"create", "put", "list"}, respondError(404, "notFound", "Not Found"), backend.ErrNoStore, "create the bucket"},
		{"404 of another server", everyVerb, respond(404, html), backend.ErrNoStore, "check the endpoint"},
		{"404 without a word", everyVerb, respond(404, ""), backend.ErrNoStore, "check the endpoint"},

		{"denied", []string{"create"}, respondError(403, "forbidden", denied), backend.ErrPermission, "storage.objects.create on gs://bucket"},
		{"denied", []string{"put"}, respondError(403, "forbidden", denied), backend.ErrPermission, "storage.objects.delete"},
		{"denied", []string{"get"}, respond(403, denied), backend.ErrPermission, "storage.objects.get"},
		{"denied", []string{"list"}, respondError(403, "forbidden", denied), backend.ErrPermission, "storage.objects.list"},
		{"denied", []string{"delete"}, respondError(403, "forbidden", denied), backend.ErrPermission, "storage.objects.delete"},
		{"denied by a proxy", everyVerb, respond(403, html), backend.ErrPermission, "storage.objects"},
		{"denied, another reason", everyVerb, respondError(403, "insufficientPermissions", denied), backend.ErrPermission, "; grant storage.objects"},
		{"key denied", everyVerb, respondError(403, "forbidden", "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account has been authorized to use this key."),
			backend.ErrPermission, "; grant the key to the service agent"},
		{"perimeter", everyVerb, respondError(403, "forbidden", "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: x"),
			backend.ErrPermission, "; a VPC service perimeter"},
		{"payer denied", everyVerb, respondError(403, "UserProjectAccessDenied", "no"), backend.ErrPermission, "serviceusage.services.use"},
		{"retention", []string{"put", "delete"}, respondError(403, "retentionPolicyNotMet", "Object is subject to bucket's retention policy"),
			backend.ErrPermission, "retention policy"},
		{"hold", []string{"put", "delete"}, respondError(403, "objectUnderActiveHold", "Object is under active hold"), backend.ErrPermission, "retention policy or a hold"},
		{"no billing", everyVerb, respondError(403, "accountDisabled", "The billing account is disabled"), backend.ErrPermission, "billing"},
		{"unauthenticated", everyVerb, respondError(401, "authError", "Invalid Credentials"), backend.ErrPermission, "check the credentials"},

		{"rate", everyVerb, respondError(429, "rateLimitExceeded", "The object exceeded the rate limit"), backend.ErrThrottled, "rate limit"},
		{"rate as 403", everyVerb, respondError(403, "rateLimitExceeded", "Rate limit exceeded"), backend.ErrThrottled, ""},
		{"user's rate", everyVerb, respondError(403, "userRateLimitExceeded", "User rate limit exceeded"), backend.ErrThrottled, ""},
		{"day's quota", everyVerb, respondError(403, "dailyLimitExceeded", "Daily limit exceeded"), backend.ErrThrottled, ""},
		{"quota", everyVerb, respondError(403, "quotaExceeded", "Quota exceeded"), backend.ErrThrottled, ""},
		{"unavailable", everyVerb, respondError(503, "backendError", "Backend Error"), backend.ErrThrottled, ""},
		{"unavailable", everyVerb, respond(503, html), backend.ErrThrottled, "HTTP 503"},

		{"timeout", everyVerb, respondError(408, "", "Request Timeout"), errAny, "HTTP 408"},
		{"conflict", everyVerb, respondError(409, "conflict", "Conflict"), errAny, "HTTP 409, conflict"},
		{"internal", everyVerb, respondError(500, "backendError", "Backend Error"), errAny, "request REQ42"},
		{"gateway", everyVerb, respond(502, html), errAny, "HTTP 502"},
		{"error of another form", everyVerb, respond(500, `{"oops": 1}`), errAny, `{"oops": 1}`},
		{"gateway timeout", everyVerb, respond(504, ""), errAny, "Gateway Timeout"},

		{"damaged", writes, respondError(400, "invalid", "Provided CRC32C \"x\" doesn't match calculated CRC32C \"y\"."), errAny, "CRC32C"},
		{"bad request of a proxy", everyVerb, respond(400, html), errAny, "check the endpoint and the proxy"},
		{"bad request, XML", everyVerb, respond(400, "<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>InvalidArgument</Code>\n<Message>Not &quot;this&quot;.</Message></Error>"),
			errAny, `: InvalidArgument Not "this" (HTTP 400`},
		{"bad request, long page", everyVerb, respond(400, "<html><style>"+strings.Repeat("p { x: y }\n", 100)+"</style><h1>No way"), errAny, ": No way (HTTP 400"},
		{"bad request, no words", everyVerb, respond(400, "<html></html>"), errAny, ": Bad Request (HTTP 400"},
		{"not found, in a page", []string{"get"}, respond(404, "<h1>Not Found</h1>"), backend.ErrNoStore, ": Not Found (HTTP 404"},
		{"plain request to Go's TLS", everyVerb, respond(400, "Client sent an HTTP request to an HTTPS server.\n"), backend.ErrNoStore, "https://"},
		{"plain request to nginx's TLS", everyVerb, respond(400, "<html><title>400 The plain HTTP request was sent to HTTPS port</title>"),
			backend.ErrNoStore, "https://"},
		{"plain request to Apache's TLS", everyVerb, respond(400, "<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />"),
			backend.ErrNoStore, "https://"},
		{"bad class", writes, respondError(400, "invalid", "Invalid argument."), backend.ErrInvalid, "parameters"},
		{"key disabled", everyVerb, respondError(400, "cloudKmsDisabledKey", "Cloud KMS key is disabled."), backend.ErrPermission, "enable the key"},
		{"bad payer", everyVerb, respondError(400, "userProjectInvalid", "User project specified in the request is invalid."), backend.ErrInvalid, "user_project"},
		{"requester pays", everyVerb, respondError(400, "userProjectMissing", "Bucket is a requester pays bucket but no user project provided."),
			backend.ErrInvalid, "user_project"},
		{"too large", writes, respondError(413, "uploadTooLarge", "too large"), backend.ErrUnsupported, "smaller"},
		{"not allowed", everyVerb, respondError(405, "methodNotAllowed", "no"), backend.ErrUnsupported, ""},
		{"not implemented", everyVerb, respondError(501, "notImplemented", "no"), backend.ErrUnsupported, ""},
		{"redirect", everyVerb, redirect(307), backend.ErrNoStore, "endpoint"},
		{"another redirect", everyVerb, redirect(302), backend.ErrNoStore, "endpoint"},
		{"not modified", everyVerb, respond(304, ""), backend.ErrNoStore, "endpoint"},
	} {
		body := readBody(t, test.resp)
		again := func() *http.Response {
			r := *test.resp
			r.Body = nopBody(body)
			return &r
		}
		for _, verb := range test.verbs {
			t.Run(test.name+"/"+verb, func(t *testing.T) {
				w := &wire{answer: always(again)}
				err := verbs[verb](t.Context(), w.open(t, Options{}))
				wantKind(t, err, test.kind)
				if w.count() != 1 {
					t.Errorf("%d requests, want 1", w.count())
				}
				if err == nil {
					return
				}
				wantAnswer(t, err, test.resp.StatusCode)
				if text := err.Error(); !strings.Contains(text, test.mention) || strings.ContainsAny(text, "\n<>") ||
					!strings.HasPrefix(text, verb+" gs://bucket/jobs") {
					t.Errorf("text %q, want one line with %q", text, test.mention)
				}
			})
		}
	}
}

func redirect(status int) *http.Response {
	r := respond(status, "")
	r.Header.Set("Location", "http://elsewhere.test/")
	return r
}

// gocloud's portable type reports "access denied" as "does not exist". A job that
// relied on it would start from nothing when its store could not be read.
func TestDeniedIsNotAbsent(t *testing.T) {
	w := &wire{answer: always(func() *http.Response { return respondError(403, "forbidden", "denied") })}
	s := w.open(t, Options{})
	if there, err := s.bucket.Exists(t.Context(), "jobs/key"); there || err != nil {
		t.Errorf("the portable Exists said %v, %v: the comment on this test is out of date", there, err)
	}
	if _, err := s.bucket.Attributes(t.Context(), "jobs/key"); gcerrors.Code(err) != gcerrors.NotFound {
		t.Errorf("the portable Attributes said %v: the comment on this test is out of date", err)
	}
	for name, call := range verbs {
		err := call(t.Context(), s)
		if !errors.Is(err, backend.ErrPermission) || errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s gave %v, want ErrPermission", name, err)
		}
	}
}

func TestNetworkErrors(t *testing.T) {
	for _, test := range []struct {
		name    string
		err     error
		mention string
	}{
		{"refused", &net.OpError{Op: "dial", Err: errors.New("connection refused")}, "connection refused; is the server running? check the endpoint"},
		{"refused by the proxy", &net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}},
			"; is the proxy running? check HTTPS_PROXY and HTTP_PROXY"},
		{"broken later", &net.OpError{Op: "read", Err: errors.New("connection reset")}, "connection reset"},
		{"a record that is broken later", tls.RecordHeaderError{Msg: "received record with version 0"}, "version 0"},
		{"unknown host", &net.DNSError{Err: "no such host", Name: "store.test", IsNotFound: true}, "check the endpoint"},
		{"untrusted", &tls.CertificateVerificationError{Err: errors.New("unknown authority")}, "certificate authority"},
		{"a file that is missing here", &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, "file does not exist"},
		{"a time limit that is not the caller's", context.DeadlineExceeded, "deadline"},
	} {
		for verb, call := range verbs {
			t.Run(test.name+"/"+verb, func(t *testing.T) {
				w := &wire{answer: func(*request) (*http.Response, error) { return nil, test.err }}
				err := call(t.Context(), w.open(t, Options{}))
				wantKind(t, err, errAny)
				if err == nil || !strings.Contains(err.Error(), ": request failed: ") || !strings.Contains(err.Error(), test.mention) ||
					strings.Contains(err.Error(), "gcerr") || strings.Contains(err.Error(), "http://") {
					t.Errorf("%v does not mention %q", err, test.mention)
				}
				if w.count() != 1 {
					t.Errorf("%d requests, want 1", w.count())
				}
			})
		}
	}
}

func TestContextEnds(t *testing.T) {
	for verb, call := range verbs {
		t.Run("before/"+verb, func(t *testing.T) {
			w := &wire{}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			wantKind(t, call(ctx, w.open(t, Options{})), context.Canceled)
			if w.count() != 0 {
				t.Errorf("%d requests, want none", w.count())
			}
		})
		t.Run("cancelled/"+verb, func(t *testing.T) {
			w := &wire{}
			ctx, cancel := context.WithCancel(t.Context())
			w.answer = func(r *request) (*http.Response, error) {
				cancel()
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			err := call(ctx, w.open(t, Options{}))
			wantKind(t, err, context.Canceled)
			place := "gs://bucket/jobs/key"
			if verb == "list" {
				place = "gs://bucket/jobs"
			}
			if got, want := fmt.Sprint(err), verb+" "+place+": context canceled"; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
		t.Run("deadline/"+verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{answer: func(r *request) (*http.Response, error) {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				wantKind(t, call(ctx, w.open(t, Options{})), context.DeadlineExceeded)
			})
		})
	}
}

// If the context ends, the text also says what it interrupted.
func TestContextEndsInBody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := &wire{answer: func(r *request) (*http.Response, error) {
		resp := respondPart(0, 3, 10, "")
		resp.ContentLength = 4
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("ab"), calling(cancel), &blocked{r.Context()}))
		return resp, nil
	}}
	_, err := w.open(t, Options{}).Get(ctx, "key", 0, make([]byte, 4))
	wantKind(t, err, context.Canceled)
	if got, want := fmt.Sprint(err), "get gs://bucket/jobs/key: context canceled (response ended after 2 of 4 bytes: context canceled)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// calling is an empty reader that calls itself as a function.
type calling func()

func (f calling) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// The network may notice a deadline a moment before the context does. It is still the
// caller's deadline.
func TestDeadlineSeenByTheNetworkFirst(t *testing.T) {
	for verb, call := range verbs {
		w := &wire{answer: func(*request) (*http.Response, error) { return nil, os.ErrDeadlineExceeded }}
		if err := call(late{t.Context()}, w.open(t, Options{})); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s gave %v, want the end of the context", verb, err)
		}
	}
}

// late is a context whose deadline has passed, but which has not ended yet.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

func TestClosed(t *testing.T) {
	w := &wire{}
	s := w.open(t, Options{})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for verb, call := range verbs {
		if err := call(t.Context(), s); !errors.Is(err, backend.ErrClosed) {
			t.Errorf("%s gave %v, want ErrClosed", verb, err)
		}
	}
	if w.count() != 0 {
		t.Errorf("%d requests, want none", w.count())
	}
}

func TestBadKeys(t *testing.T) {
	w := &wire{}
	s := w.open(t, Options{})
	for _, key := range []string{"", "/a", "a//b", "..", "A", "a b", strings.Repeat("x", 600)} {
		_, create := s.Create(t.Context(), key, nil)
		_, put := s.Put(t.Context(), key, nil)
		_, get := s.Get(t.Context(), key, 0, make([]byte, 1))
		for i, err := range []error{create, put, get, s.Delete(t.Context(), "good", key)} {
			if !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("key %q, call %d: %v, want ErrInvalid", key, i, err)
			}
		}
	}
	for _, err := range s.List(t.Context(), "/a", "") {
		wantKind(t, err, backend.ErrInvalid)
	}
	if w.count() != 0 {
		t.Errorf("%d requests, want none", w.count())
	}
}

// The advice comes last. There is none if the service's message says everything.
func TestErrorText(t *testing.T) {
	bare := respond(502, "")
	bare.Header = nil
	for name, test := range map[string]struct {
		resp *http.Response
		want string
	}{
		"with advice": {respondError(403, "forbidden", "Access denied."),
			"Access denied (HTTP 403, forbidden, request REQ42); " +
				"grant storage.objects.create on gs://bucket (the role roles/storage.objectUser has it), " +
				"and the scope devstorage.read_write to a virtual machine"},
		"without advice":      {respondError(403, "accountDisabled", "Access denied."), "Access denied (HTTP 403, accountDisabled, request REQ42)"},
		"without a word":      {bare, "Bad Gateway (HTTP 502)"},
		"not the API's words": {respond(200, "<html>"), "HTTP 200 that is no description of an object: ; this is not an answer of Cloud Storage: check the endpoint and the proxy"},
		"a page of them":      {respond(502, strings.Repeat("wörter ", 1000)), strings.Repeat("wörter ", 57) + "w… (HTTP 502, request REQ42)"},
	} {
		w := &wire{answer: always(func() *http.Response { return test.resp })}
		_, err := w.open(t, Options{}).Create(t.Context(), "a/b", nil)
		if got, want := fmt.Sprint(err), "create gs://bucket/jobs/a/b: "+test.want; got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
}

// No request was sent, and none will succeed, so the error is not retryable.
func TestSchemeOfTheEndpoint(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, test := range []struct{ name, endpoint, mention string }{
		{"https for http", "https://" + plain.Listener.Addr().String(), "may have to begin with http://"},
		{"http for https", "http://" + alerting(t), "should begin with https://"},
	} {
		for verb, call := range verbs {
			t.Run(test.name+"/"+verb, func(t *testing.T) {
				transport := newTransport()
				defer transport.CloseIdleConnections()
				s, err := New(t.Context(), &http.Client{Transport: transport}, "bucket", "", Options{Endpoint: test.endpoint})
				if err != nil {
					t.Fatal(err)
				}
				err = call(t.Context(), s)
				wantKind(t, err, backend.ErrNoStore)
				if err == nil || !strings.Contains(err.Error(), "check the endpoint") || !strings.Contains(err.Error(), test.mention) {
					t.Errorf("%v does not mention %q", err, test.mention)
				}
			})
		}
	}
}

// alerting returns the address of a server that answers a plain request by a TLS
// alert, as OpenSSL does. (Go's TLS server sends the text in TestAnswers, and closes
// the connection without reading the request. The text may be lost then, and the
// failure looks like any other.)
func alerting(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body) // if a part is left unread, the connection is reset
			}
			_, _ = conn.Write([]byte("\x15\x03\x01\x00\x02\x02\x46"))
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		shut(t, l)
		serving.Wait()
	})
	return l.Addr().String()
}
