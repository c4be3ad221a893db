package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"

	"github.com/holdfast-io/holdfast/backend"
)

func TestCodes(t *testing.T) {
	tests := []struct {
		verb   string
		status int
		code   string
		kind   error
		advice string // a part of the text
	}{
		{"create", 412, "PreconditionFailed", backend.ErrExist, ""},
		{"put", 412, "PreconditionFailed", errAny, ""},
		{"create", 409, "ConditionalRequestConflict", errAny, ""},
		{"create", 409, "OperationAborted", errAny, ""},
		{"create", 501, "NotImplemented", backend.ErrUnsupported, "does not offer conditional writes"},
		{"create", 501, "NotImplemented", backend.ErrUnsupported, "if the answer is about the checksum, set the URL's parameter checksum=none"},
		{"put", 501, "NotImplemented", backend.ErrUnsupported, "if the answer is about the checksum, set the URL's parameter checksum=none"},
		{"get", 404, "NoSuchKey", backend.ErrNotExist, ""},
		{"list", 404, "NoSuchKey", backend.ErrNoStore, "check that the endpoint does not hold the bucket's name"},
		{"put", 404, "NoSuchKey", backend.ErrNoStore, "check that the endpoint"},
		{"get", 404, "NoSuchBucket", backend.ErrNoStore, "create the bucket"},
		{"list", 404, "NoSuchBucket", backend.ErrNoStore, "create the bucket"},
		{"create", 404, "NoSuchBucket", backend.ErrNoStore, "create the bucket"},
		{"create", 403, "AccessDenied", backend.ErrPermission, "allow s3:PutObject on arn:aws:s3:::bucket/jobs/*"},
		{"put", 403, "AccessDenied", backend.ErrPermission, "allow s3:PutObject on arn:aws:s3:::bucket/jobs/*"},
		{"get", 403, "AccessDenied", backend.ErrPermission, "allow s3:GetObject on arn:aws:s3:::bucket/jobs/*, and s3:ListBucket on arn:aws:s3:::bucket,"},
		{"list", 403, "AccessDenied", backend.ErrPermission, "allow s3:ListBucket on arn:aws:s3:::bucket"},
		{"delete", 403, "AccessDenied", backend.ErrPermission, "allow s3:DeleteObject on arn:aws:s3:::bucket/jobs/*"},
		{"get", 403, "InvalidAccessKeyId", backend.ErrPermission, "check the credentials"},
		{"get", 403, "SignatureDoesNotMatch", backend.ErrPermission, "check the credentials"},
		{"get", 400, "ExpiredToken", backend.ErrPermission, "renew the session token"},
		{"get", 400, "AuthorizationHeaderMalformed", backend.ErrNoStore, "set the URL's parameter region"},
		{"get", 301, "PermanentRedirect", backend.ErrNoStore, "set the URL's parameter region"},
		{"put", 400, "InvalidStorageClass", backend.ErrInvalid, "storage_class"},
		{"put", 507, "XMinioStorageFull", backend.ErrNoSpace, "make room"},
		{"put", 403, "QuotaExceeded", backend.ErrNoSpace, "make room"},
		{"get", 403, "InvalidObjectState", backend.ErrUnsupported, "restore it"},
		{"put", 400, "KMS.DisabledException", backend.ErrPermission, "enable the KMS key"},
		{"put", 503, "SlowDown", backend.ErrThrottled, ""},
		{"put", 429, "TooManyRequests", backend.ErrThrottled, ""},
		{"put", 500, "InternalError", errAny, ""},
		{"put", 400, "RequestTimeout", errAny, ""},
		{"put", 400, "BadDigest", errAny, ""},
		{"put", 400, "IncompleteBody", errAny, ""},
		{"put", 400, "XAmzContentChecksumMismatch", errAny, ""},
		{"put", 400, "XAmzContentSHA256Mismatch", errAny, ""},
		{"put", 400, "KMS.ThrottlingException", backend.ErrThrottled, ""},
		{"get", 403, "RequestTimeTooSkewed", errAny, "set this machine's clock"},
		{"put", 400, "NeverHeardOf", backend.ErrUnsupported, "check the endpoint, also whether it is http or https, and the URL's other parameters"},
		{"get", 403, "InvalidTokenId", backend.ErrPermission, "check the credentials"},
		{"get", 403, "NeverHeardOf", backend.ErrPermission, "check the credentials"},
		{"get", 401, "NeverHeardOf", backend.ErrPermission, "check the credentials"},
		{"get", 307, "TemporaryRedirect", backend.ErrNoStore, "check the region, and that the endpoint is the service's own"},
		{"create", 302, "NeverHeardOf", backend.ErrNoStore, "check the region"},
		{"put", 409, "NeverHeardOf", errAny, ""},
		{"put", 500, "NeverHeardOf", errAny, ""},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s/%d/%s", test.verb, test.status, test.code), func(t *testing.T) {
			w := &wire{answer: always(func() *http.Response { return respondError(test.status, test.code) })}
			err := call(t.Context(), w.open(t, Options{}), test.verb)
			wantKind(t, err, test.kind)
			if errors.Is(err, backend.ErrThrottled) && !backend.Retryable(err) {
				t.Errorf("%v must be retryable", err)
			}
			for _, part := range []string{test.verb + " s3://bucket/jobs", test.code, "Words about", "request id REQ42", test.advice} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is missing from %q", part, err)
				}
			}
			var answer smithy.APIError
			if !errors.As(err, &answer) || answer.ErrorCode() != test.code {
				t.Errorf("errors.As does not find the SDK's error: %v", err)
			}
			if w.count() != 1 {
				t.Errorf("%d requests, want 1", w.count())
			}
		})
	}
}

// call calls one method, on the key "key".
func call(ctx context.Context, s backend.Store, verb string) error {
	switch verb {
	case "create":
		_, err := s.Create(ctx, "key", []byte("data"))
		return err
	case "put":
		_, err := s.Put(ctx, "key", []byte("data"))
		return err
	case "get":
		_, err := s.Get(ctx, "key", 0, make([]byte, 4))
		return err
	case "delete":
		return s.Delete(ctx, "key")
	}
	for _, err := range s.List(ctx, "", "") {
		if err != nil {
			return err
		}
	}
	return nil
}

var verbs = []string{"create", "put", "get", "list", "delete"}

func TestText(t *testing.T) {
	w := &wire{answer: always(func() *http.Response { return respondError(404, "NoSuchKey") })}
	_, err := w.open(t, Options{}).Get(t.Context(), "a/b", 0, make([]byte, 1))
	const want = "get s3://bucket/jobs/a/b: NoSuchKey: Words about NoSuchKey (HTTP 404, request id REQ42)"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

// Answers that do not come from S3, but from a proxy or a wrong endpoint.
func TestAnswersWithoutCode(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		verb   string
		kind   error
	}{
		{"error with status 200", 200, errorXML("InternalError"), "put", errAny},
		{"slow down with status 200", 200, errorXML("SlowDown"), "create", backend.ErrThrottled},
		{"condition failed with status 200", 200, errorXML("PreconditionFailed"), "create", backend.ErrExist},
		{"empty 404", 404, "", "get", errAny},
		{"html 404", 404, "<html><body>Not here</body></html>", "get", errAny},
		{"empty 403", 403, "", "get", backend.ErrPermission},
		{"empty 412", 412, "", "create", backend.ErrExist},
		{"empty 429", 429, "", "get", backend.ErrThrottled},
		{"html 503", 503, "<html><body>Busy</body></html>", "get", backend.ErrThrottled},
		{"broken 500", 500, "<Error><Code>Int", "get", errAny},
		{"empty 400", 400, "", "create", backend.ErrUnsupported},
		{"text 400", 400, "Client sent an HTTP request to an HTTPS server.\n", "get", backend.ErrUnsupported},
		{"html 400", 400, "<html><center>The plain HTTP request was sent to HTTPS port<hr></html>", "put", backend.ErrUnsupported},
		{"empty 302", 302, "", "list", backend.ErrNoStore},
		{"html 308", 308, "<html><hr></html>", "delete", backend.ErrNoStore},
		{"html 401", 401, "<html><hr></html>", "get", backend.ErrPermission},
		{"html 502", 502, "<html><hr></html>", "get", errAny},
		{"html list", 200, "<html><p>Log in</html>", "list", errAny},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{answer: always(func() *http.Response { return respond(test.status, test.body) })}
			err := call(t.Context(), w.open(t, Options{}), test.verb)
			wantKind(t, err, test.kind)
			if errors.Is(err, backend.ErrNotExist) {
				t.Errorf("%v is taken for an absent object", err)
			}
			if w.count() != 1 {
				t.Errorf("%d requests, want 1", w.count())
			}
		})
	}
}

// A service without key management and one without conditional writes both answer
// NotImplemented.
func TestEncryptionNotImplemented(t *testing.T) {
	for _, message := range []string{
		"Server side encryption specified but KMS is not configured",
		"A header you provided implies functionality that is not implemented: x-amz-server-side-encryption",
		"KMS is not configured",
	} {
		for _, verb := range []string{"create", "put"} {
			body := "<Error><Code>NotImplemented</Code><Message>" + message + "</Message></Error>"
			w := &wire{answer: always(func() *http.Response { return respond(501, body) })}
			err := call(t.Context(), w.open(t, Options{Encryption: "aws:kms"}), verb)
			wantKind(t, err, backend.ErrUnsupported)
			if !strings.Contains(err.Error(), "the URL's parameter sse") || strings.Contains(err.Error(), "If-None-Match") {
				t.Errorf("%s: bad advice in %q", verb, err)
			}
		}
	}
}

// If a server closes the connection early, its answer may be lost. Without a request
// id, the status decides: then the answer that broke off was not one of S3.
func TestErrorCutOff(t *testing.T) {
	for id, kind := range map[string]error{"": backend.ErrUnsupported, "REQ42": errAny} {
		w := &wire{answer: always(func() *http.Response {
			r := respond(400, "")
			r.Header.Set("X-Amz-Request-Id", id)
			r.Body = io.NopCloser(brokenReader{syscall.ECONNRESET})
			return r
		})}
		s := w.open(t, Options{})
		for _, verb := range verbs {
			wantKind(t, call(t.Context(), s, verb), kind)
		}
	}
}

func TestWrongRegion(t *testing.T) {
	w := &wire{answer: always(func() *http.Response {
		r := respondError(301, "PermanentRedirect")
		r.Header.Set("X-Amz-Bucket-Region", "ap-south-1")
		return r
	})}
	err := call(t.Context(), w.open(t, Options{}), "list")
	wantKind(t, err, backend.ErrNoStore)
	if !strings.HasSuffix(err.Error(), "; the bucket is in another region: set the URL's parameter region=ap-south-1") {
		t.Errorf("no advice in %q", err)
	}
}

func TestPermissionInOtherPartitions(t *testing.T) {
	for region, arn := range map[string]string{"cn-north-1": "arn:aws-cn:s3", "us-gov-west-1": "arn:aws-us-gov:s3"} {
		w := &wire{answer: always(func() *http.Response { return respondError(403, "AccessDenied") })}
		options := testOptions(w)
		options.Region = region
		s := w.openBucket(t, "bucket", options, Options{Encryption: "aws:kms"})
		if err := call(t.Context(), s, "put"); !strings.Contains(err.Error(), arn) || !strings.Contains(err.Error(), "kms:GenerateDataKey") {
			t.Errorf("region %s: %v", region, err)
		}
	}
}

func TestPermissionOnDirectoryBuckets(t *testing.T) {
	for _, bucket := range []string{"bucket--use1-az4--x-s3", "point--use1-az4--xa-s3"} {
		w := &wire{answer: always(func() *http.Response { return respondError(403, "AccessDenied") })}
		options := testOptions(w)
		options.DisableS3ExpressSessionAuth = new(true)
		s := w.openBucket(t, bucket, options, Options{})
		for _, verb := range verbs {
			if err := call(t.Context(), s, verb); !strings.HasSuffix(err.Error(), "; allow s3express:CreateSession on the directory bucket") {
				t.Errorf("no advice in %q", err)
			}
		}
	}
}

// To errors.Is, a time limit of the driver would look like the caller's deadline.
func TestOwnLimitsAreRetryable(t *testing.T) {
	for _, own := range []error{
		context.DeadlineExceeded,
		&net.OpError{Op: "dial", Err: context.DeadlineExceeded},
		os.ErrDeadlineExceeded,
		context.Canceled,
	} {
		w := &wire{answer: func(*request) (*http.Response, error) { return nil, own }}
		s := w.open(t, Options{})
		for _, verb := range verbs {
			wantKind(t, call(t.Context(), s, verb), errAny)
		}
	}
}

func TestContextEnds(t *testing.T) {
	for _, verb := range verbs {
		t.Run(verb, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			w := &wire{answer: func(r *request) (*http.Response, error) {
				cancel()
				<-r.Context().Done()
				return nil, errors.New("connection gone")
			}}
			s := w.open(t, Options{})
			err := call(ctx, s, verb)
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "context canceled (") {
				t.Errorf("got %v, want the context's error", err)
			}
			if err := call(ctx, s, verb); !errors.Is(err, context.Canceled) || w.count() != 1 {
				t.Errorf("after the context ended: %v, %d requests in all", err, w.count())
			}
		})
	}
	t.Run("answer wins", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &wire{answer: func(*request) (*http.Response, error) {
			cancel()
			return respondError(412, "PreconditionFailed"), nil
		}}
		wantKind(t, call(ctx, w.open(t, Options{}), "create"), backend.ErrExist)
	})
	t.Run("while credentials are fetched", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		options := testOptions(&wire{})
		options.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			cancel()
			return aws.Credentials{}, errors.New("no answer")
		})
		s := (&wire{}).openBucket(t, "bucket", options, Options{})
		wantKind(t, call(ctx, s, "get"), context.Canceled)
	})
	t.Run("deadline that the network sees first", func(t *testing.T) {
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		s := (&wire{}).open(t, Options{})
		err := s.failed(ctx, "get", "key", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded})
		wantKind(t, err, context.DeadlineExceeded)
	})
}

func TestNetworkAdvice(t *testing.T) {
	certificate := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	tests := []struct {
		name   string
		cause  error
		kind   error
		advice string // how the text ends
	}{
		{"unknown host", &net.DNSError{Err: "no such host", Name: "bucket.store.test", IsNotFound: true}, errAny, "needs path_style=true"},
		{"no resolver", &net.DNSError{Err: "server misbehaving", Name: "bucket.store.test"}, errAny, "lookup bucket.store.test: server misbehaving"},
		{"unknown authority", certificate(x509.UnknownAuthorityError{}), backend.ErrNoStore,
			"; set AWS_CA_BUNDLE to a file with the certificate authority of the service"},
		{"expired", certificate(x509.CertificateInvalidError{Reason: x509.Expired}), backend.ErrNoStore, "set this machine's clock (NTP)"},
		{"another host's", certificate(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}), backend.ErrNoStore, "needs path_style=true"},
		{"damaged record", tls.RecordHeaderError{Msg: "oversized record received"}, errAny, "oversized record received"},
		{"reset", errors.New("connection reset by peer"), errAny, "request failed: connection reset by peer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{answer: func(*request) (*http.Response, error) { return nil, test.cause }}
			err := call(t.Context(), w.open(t, Options{}), "get")
			wantKind(t, err, test.kind)
			if !strings.HasSuffix(err.Error(), test.advice) {
				t.Errorf("%q does not end with %q", err, test.advice)
			}
		})
	}
}

func TestNoCredentials(t *testing.T) {
	missing := &fs.PathError{Op: "open", Path: "/var/run/token", Err: fs.ErrNotExist}
	works := true
	provider := aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		if !works {
			return aws.Credentials{}, missing
		}
		return testKeys(ctx)
	})
	w := &wire{answer: always(func() *http.Response { return respond(200, "") })}
	options := testOptions(w)
	options.Credentials = provider

	works = false
	s := w.openBucket(t, "bucket", options, Options{})
	for _, verb := range verbs {
		err := call(t.Context(), s, verb)
		wantKind(t, err, backend.ErrPermission)
		if errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s: a missing token file is taken for an absent object: %v", verb, err)
		}
		if !strings.Contains(err.Error(), "no credentials") || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
			t.Errorf("no advice in %q", err)
		}
		var cause *fs.PathError
		if !errors.As(err, &cause) {
			t.Errorf("errors.As does not find the cause: %v", err)
		}
	}
	if w.count() != 0 {
		t.Errorf("%d requests without credentials", w.count())
	}

	// A provider that has worked before fails for the moment.
	works = true
	if err := call(t.Context(), s, "get"); err != nil {
		t.Fatal(err)
	}
	works = false
	err := call(t.Context(), s, "get")
	wantKind(t, err, errAny)
	if errors.Is(err, backend.ErrNotExist) {
		t.Errorf("a missing token file is taken for an absent object: %v", err)
	}
}

// The service calls a token expired that is still valid in the SDK's cache.
func TestExpiredTokenIsRenewed(t *testing.T) {
	fetched := 0
	provider := aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		fetched++
		token := "old"
		if fetched > 1 {
			token = "new"
		}
		return aws.Credentials{
			AccessKeyID: "KEY", SecretAccessKey: "SECRET", SessionToken: token,
			CanExpire: true, Expires: time.Now().Add(time.Hour),
		}, nil
	}))
	w := &wire{answer: func(r *request) (*http.Response, error) {
		if r.Header.Get("X-Amz-Security-Token") == "old" {
			return respondError(400, "ExpiredToken"), nil
		}
		return respond(200, ""), nil
	}}
	options := testOptions(w)
	options.Credentials = provider
	s := w.openBucket(t, "bucket", options, Options{})
	wantKind(t, call(t.Context(), s, "create"), errAny)
	if err := call(t.Context(), s, "create"); err != nil {
		t.Errorf("second attempt: %v", err)
	}
	if w.count() != 2 || fetched != 2 {
		t.Errorf("%d requests, credentials fetched %d times, want 2 and 2", w.count(), fetched)
	}
}

// A token from the environment cannot be renewed.
func TestExpiredTokenThatStays(t *testing.T) {
	w := &wire{answer: always(func() *http.Response { return respondError(400, "ExpiredToken") })}
	options := testOptions(w)
	options.Credentials = aws.NewCredentialsCache(testKeys)
	err := call(t.Context(), w.openBucket(t, "bucket", options, Options{}), "get")
	wantKind(t, err, backend.ErrPermission)
	if !strings.HasSuffix(err.Error(), "; renew the session token") {
		t.Errorf("no advice in %q", err)
	}
}

func TestAnonymous(t *testing.T) {
	w := &wire{answer: always(func() *http.Response { return respond(200, "") })}
	options := testOptions(w)
	options.Credentials = aws.AnonymousCredentials{}
	if err := call(t.Context(), w.openBucket(t, "bucket", options, Options{}), "get"); err != nil {
		t.Fatal(err)
	}
	wantHeaders(t, w.requests[0], map[string]string{"Authorization": ""})
}
