package gcs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"google.golang.org/api/googleapi"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/httpclient"
)

// A failure says in one line what went wrong with a request, and what to do about it.
// kind is one of the error kinds of package backend, the end of the caller's context,
// or nil, which means retryable. The cause can be reached by errors.As but not by
// errors.Is: a key file that is missing on this machine would look like an object
// that does not exist, and a time limit of the driver like one of the caller.
type failure struct {
	kind   error
	text   string
	advice string
	cause  error
}

func (f *failure) Error() string      { return f.text }
func (f *failure) Unwrap() error      { return f.kind }
func (f *failure) As(target any) bool { return errors.As(f.cause, target) }

// advise adds to the advice.
func (f *failure) advise(advice string) {
	if f.advice != "" {
		advice = f.advice + "; " + advice
	}
	f.advice = advice
}

// storeError returns the error of an operation on the store with the URL store.
func storeError(op, store, key string, err error) error {
	e := &backend.Error{Op: op, Store: store, Key: key, Err: err}
	if f := (*failure)(nil); errors.As(err, &f) {
		e.Advice = f.advice
	}
	return e
}

func (s *Store) error(op, key string, err error) error {
	return storeError(op, s.String(), key, err)
}

// failed turns an error of the SDK, or of reading a response, into one of this store.
func (s *Store) failed(ctx context.Context, op, key string, err error) error {
	f := &failure{text: plain(err), cause: err}
	var unauthenticated *credentialsError
	var foreign *foreignError
	a, answered := answerOf(err)
	switch {
	case answered:
		f.judgeAnswer(a, op, s.name)
	case errors.As(err, &foreign):
		f.judgeForeign(op)
	case httpclient.Ended(ctx) != nil:
		f.judgeEnd(httpclient.Ended(ctx))
	case errors.As(err, &unauthenticated):
		f.judgeCredentials(unauthenticated)
	default:
		f.judgeNetwork()
	}
	return s.error(op, key, f)
}

// judgeEnd puts the end of the caller's context at the beginning of the text. The SDK
// often reports nothing else.
func (f *failure) judgeEnd(reason error) {
	f.kind = reason
	if text := reason.Error(); f.text != text {
		f.text = text + " (" + f.text + ")"
	}
}

// answer is an error response of the service.
type answer struct {
	status  int
	reason  string // such as "forbidden"; empty if the answer is not JSON
	message string // its beginning, in one line; with markup, if it is a page or XML
	told    string // the message without markup, for people
	request string // the service's id of the request
}

// answerOf returns the service's answer that is in err. After a failed download, the
// answer is plain text (with an emulator, JSON or XML). All other answers are JSON.
func answerOf(err error) (answer, bool) {
	var e *googleapi.Error
	if !errors.As(err, &e) {
		return answer{}, false
	}
	a := answer{status: e.Code, message: e.Message, request: e.Header.Get("X-Guploader-Uploadid")}
	items := e.Errors
	if a.message == "" {
		a.message = e.Body
		var reply struct{ Error googleapi.Error }
		if json.Unmarshal([]byte(e.Body), &reply) == nil && reply.Error.Message != "" {
			a.message, items = reply.Error.Message, reply.Error.Errors
		}
	}
	a.message, a.told = oneLine(a.message), words(a.message)
	if len(items) > 0 {
		a.reason = items[0].Reason
	}
	return a, true
}

// oneLine returns the beginning of a text as one line. The text may be the page of a
// proxy.
func oneLine(text string) string {
	const most = 400 // characters
	line := []rune(strings.Join(strings.Fields(text), " "))
	if len(line) > most {
		return string(line[:most]) + "…"
	}
	return string(line)
}

// markup matches everything in a page except its text.
var markup = regexp.MustCompile(`(?is)<(script|style)\b.*?(</(script|style)>|$)|<[^>]*(>|$)`)

// words returns the beginning of an answer that is not JSON, without the markup of a
// page or of XML.
func words(text string) string {
	if !strings.HasPrefix(strings.TrimSpace(text), "<") {
		return oneLine(text)
	}
	return oneLine(html.UnescapeString(markup.ReplaceAllString(text, " ")))
}

func (a answer) String() string {
	origin := fmt.Sprintf("HTTP %d", a.status)
	if a.reason != "" {
		origin += ", " + a.reason
	}
	if a.request != "" {
		origin += ", request " + a.request
	}
	text := strings.TrimRight(a.told, ":. ")
	if text == "" {
		text = http.StatusText(a.status)
	}
	return text + " (" + origin + ")"
}

// plain returns the essential text of an error, without what the SDKs add.
func plain(err error) string {
	var cut *cutError
	if errors.As(err, &cut) {
		return cut.Error()
	}
	if a, ok := answerOf(err); ok {
		return a.String()
	}
	var foreign *foreignError
	if errors.As(err, &foreign) {
		return foreign.Error()
	}
	var unsent *url.Error
	if errors.As(err, &unsent) {
		return "request failed: " + unsent.Err.Error()
	}
	var portable interface{ Unwrap() []error } // gocloud's error: the cause comes first
	if errors.As(err, &portable) && len(portable.Unwrap()) > 0 {
		return plain(portable.Unwrap()[0])
	}
	return err.Error()
}

// judgeAnswer sets the kind and the advice for an answer of the service. For the
// statuses and reasons, see
// https://docs.cloud.google.com/storage/docs/json_api/v1/status-codes.
//
// What is not listed here is retryable: 408, 500, 502, 504, and 409, which does not
// mean "exists" but "another request was in progress".
func (f *failure) judgeAnswer(a answer, op, bucket string) {
	switch status := a.status; {
	case status == http.StatusBadRequest:
		f.judgeBadRequest(a)
	case status == http.StatusUnauthorized:
		f.kind = backend.ErrPermission
		f.advise("check the credentials: gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS")
	case status == http.StatusForbidden:
		f.judgeForbidden(a, op, bucket)
	case status == http.StatusNotFound:
		f.judgeNotFound(a, op)
	case status == http.StatusPreconditionFailed:
		f.judgePrecondition(a, op)
	case status == http.StatusRequestedRangeNotSatisfiable:
		f.kind = backend.ErrRange
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		f.kind = backend.ErrThrottled
	case status == http.StatusRequestEntityTooLarge:
		f.kind = backend.ErrUnsupported
		f.advise("write smaller objects")
	case status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented:
		f.kind = backend.ErrUnsupported
	case status >= 300 && status < 400:
		f.kind = backend.ErrNoStore
		f.advise("the service is elsewhere: correct the URL's parameter endpoint")
	}
}

// judgeBadRequest takes a refusal for permanent only if it comes from the service
// itself, and is not about data that was damaged on its way.
func (f *failure) judgeBadRequest(a answer) {
	switch {
	case a.reason == "" && wantsTLS(a.message):
		f.kind = backend.ErrNoStore
		f.advise(speaksTLS)
	case a.reason == "":
		f.advise(checkWhoAnswers)
	case strings.Contains(a.message, "CRC32C"):
	case strings.HasPrefix(a.reason, "cloudKms"):
		f.kind = backend.ErrPermission
		f.advise("correct or enable the key of the bucket, or of the URL's parameter kms_key_name")
	case a.reason == "userProjectMissing":
		f.kind = backend.ErrInvalid
		f.advise("the bucket's readers pay: set the URL's parameter user_project")
	case a.reason == "userProjectInvalid":
		f.kind = backend.ErrInvalid
		f.advise("correct the URL's parameter user_project, or the credentials' quota project")
	default:
		f.kind = backend.ErrInvalid
		f.advise("check the URL's bucket and parameters")
	}
}

// judgeForbidden gives advice if it is known what is missing. Otherwise the service's
// message must be enough.
func (f *failure) judgeForbidden(a answer, op, bucket string) {
	f.kind = backend.ErrPermission
	switch a.reason {
	case "rateLimitExceeded", "userRateLimitExceeded", "dailyLimitExceeded", "quotaExceeded":
		f.kind = backend.ErrThrottled
	case "retentionPolicyNotMet", "objectUnderActiveHold":
		f.advise("the bucket's retention policy or a hold forbids it: docs/deploy/gcp.md says what to do")
	case "UserProjectAccessDenied":
		f.advise("grant serviceusage.services.use on the project that pays, " +
			"which is the URL's parameter user_project or the credentials' quota project")
	case "forbidden", "insufficientPermissions", "": // a download or a proxy gives no reason
		f.advise(missing(a.message, op, bucket))
	}
}

// missing says what to do about a missing permission. Only the message shows whether
// it is one on the bucket, on the key or of the organization.
func missing(message, op, bucket string) string {
	switch {
	case strings.Contains(message, "KMS key"):
		return "grant the key to the service agent of Cloud Storage: docs/deploy/gcp.md says how"
	case strings.Contains(message, "organization's policy"):
		return "a VPC service perimeter or another policy of the organization forbids it"
	}
	return "grant " + neededPermission(op) + " on gs://" + bucket +
		" (the role roles/storage.objectUser has it), and the scope devstorage.read_write to a virtual machine"
}

// neededPermission names the IAM permission that an operation needs.
func neededPermission(op string) string {
	switch op {
	case "list":
		return "storage.objects.list"
	case "delete":
		return "storage.objects.delete"
	case "get":
		return "storage.objects.get, and storage.objects.list, without which an object that does not exist looks the same,"
	case "put":
		return "storage.objects.create, and storage.objects.delete, to replace an object,"
	}
	return "storage.objects.create"
}

// judgeNotFound distinguishes a missing object from a missing bucket by the message,
// because status and reason are the same: "No such object: ..." and "The specified
// bucket does not exist." (An emulator may answer "Not Found" for both, as Google's
// reference says for an object.) A 404 with another message does not come from the
// service: it must not make a job start from nothing.
func (f *failure) judgeNotFound(a answer, op string) {
	ofObject := strings.HasPrefix(a.message, "No such object") || a.message == "Not Found"
	switch {
	case ofObject && (op == "get" || op == "delete"):
		f.kind = backend.ErrNotExist
	case strings.Contains(a.message, "bucket") || ofObject:
		f.kind = backend.ErrNoStore
		f.advise("create the bucket, or correct its name in the URL")
	default:
		f.kind = backend.ErrNoStore
		f.advise(checkWhoAnswers)
	}
}

const checkWhoAnswers = "this is not an answer of Cloud Storage: check the endpoint and the proxy"

// judgeForeign leaves the outcome of a write in doubt: the request may have reached
// the service, and only the answer may have been replaced.
func (f *failure) judgeForeign(op string) {
	if op == "list" || op == "get" {
		f.kind = backend.ErrNoStore
	}
	f.advise(checkWhoAnswers)
}

// judgePrecondition reports ErrExist only if the service says that the condition on
// the key did not hold. A policy of the organization gives the same status, and
// perhaps the same reason, but its message names a constraint.
func (f *failure) judgePrecondition(a answer, op string) {
	switch {
	case a.reason == "orgPolicyConstraintFailed", strings.Contains(a.message, "constraint"):
		f.kind = backend.ErrPermission
		f.advise("a policy of the organization forbids it")
	case op == "create" && (a.reason == "conditionNotMet" || strings.Contains(a.message, "pre-condition")):
		f.kind = backend.ErrExist
	}
}

// A schemeError says that a request failed before the service could read it, because
// one end of the connection speaks TLS and the other does not.
type schemeError struct {
	cause  error
	advice string
}

func (e *schemeError) Error() string { return e.cause.Error() }
func (e *schemeError) Unwrap() error { return e.cause }

const (
	speaksTLS   = "the server speaks TLS: check the endpoint, which should begin with https://"
	speaksPlain = "the server does not speak TLS: check the endpoint, which may have to begin with http://, and the proxy"
)

// wantsTLS reports whether an answer that is not JSON comes from a TLS server that
// got a plain request. Go answers "Client sent an HTTP request to an HTTPS server.",
// nginx "The plain HTTP request was sent to HTTPS port", and Apache "You're speaking
// plain HTTP to an SSL-enabled server port."
func wantsTLS(message string) bool {
	return strings.Contains(message, "HTTP request to an HTTPS server") ||
		strings.Contains(message, "plain HTTP request was sent to HTTPS port") ||
		strings.Contains(message, "speaking plain HTTP to an SSL-enabled server")
}

// judgeNetwork adds advice to a failure without an answer, if the cause is known.
func (f *failure) judgeNetwork() {
	var unknownHost *net.DNSError
	var untrusted *tls.CertificateVerificationError
	var wrong *schemeError
	var unreached *net.OpError
	switch {
	case errors.As(f.cause, &unknownHost):
		f.advise("check the endpoint and this machine's DNS")
	case errors.As(f.cause, &untrusted):
		f.advise("add the certificate authority of the service or the proxy to this machine's")
	case errors.As(f.cause, &wrong):
		f.kind = backend.ErrNoStore
		f.advise(wrong.advice)
	case errors.As(f.cause, &unreached) && unreached.Op == "proxyconnect":
		f.advise("is the proxy running? check HTTPS_PROXY and HTTP_PROXY")
	case errors.As(f.cause, &unreached) && unreached.Op == "dial":
		f.advise("is the server running? check the endpoint")
	}
}
