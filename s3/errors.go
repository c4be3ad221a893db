package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/httpclient"
)

// A failure says in one line what went wrong with a request, and what to do about it.
// kind is one of the error kinds of package backend, the end of the caller's context,
// or nil, which means retryable. The cause can be reached by errors.As but not by
// errors.Is: a token file that is missing on this machine would look like an object
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
	switch {
	case errors.As(err, &unauthenticated):
		f.judgeCredentials(ctx, unauthenticated)
	case errorCode(err) != "":
		s.judgeAnswer(ctx, f, op)
	case httpclient.Ended(ctx) != nil:
		f.kind = httpclient.Ended(ctx)
		f.text = f.kind.Error() + " (" + f.text + ")"
	case unreadable(err):
		s.judgeAnswer(ctx, f, op)
	default:
		f.judgeNetwork()
	}
	return s.error(op, key, f)
}

// errorCode returns the service's code for err, or "" if the service did not answer.
// The code decides, and not the HTTP status: an error may come with status 200, which
// the SDK then reports as 500.
func errorCode(err error) string {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		return answer.ErrorCode()
	}
	return ""
}

// unreadable reports whether err is an answer with an error status that is not in
// S3's form: a page, or an answer that breaks off and has no request id. For example,
// an HTTPS server in Go answers a plain HTTP request like this: it closes the
// connection without reading the request, and its answer may be lost.
func unreadable(err error) bool {
	return httpStatus(err) >= 300 && errorCode(err) == "" &&
		(errors.As(err, new(*xml.SyntaxError)) || header(err, "X-Amz-Request-Id") == "")
}

// httpStatus returns the status of the response that err is about, or 0.
func httpStatus(err error) int {
	var response interface{ HTTPStatusCode() int }
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// plain returns the essential text of an error, without what the SDK adds.
func plain(err error) string {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		return strings.TrimRight(answer.ErrorCode()+": "+answer.ErrorMessage(), ":. ") + origin(err)
	}
	var unsent *smithyhttp.RequestSendError
	if errors.As(err, &unsent) {
		return "request failed: " + unsent.Err.Error()
	}
	var strange *notS3Error
	if errors.As(err, &strange) {
		return strange.Error() + origin(err)
	}
	if unreadable(err) {
		return "the answer is not one of S3" + origin(err)
	}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// origin describes the response, for those who run the service.
func origin(err error) string {
	var parts []string
	if status := httpStatus(err); status != 0 {
		parts = append(parts, fmt.Sprintf("HTTP %d", status))
	}
	var request interface{ ServiceRequestID() string }
	if errors.As(err, &request) && request.ServiceRequestID() != "" {
		parts = append(parts, "request id "+request.ServiceRequestID())
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// A meaning translates an error code of a service.
type meaning struct {
	kind   error // nil means retryable
	advice string
}

const (
	checkKeys             = "check the credentials in the environment or in the profile"
	checkEndpointAndProxy = "check the endpoint (the URL's parameter endpoint, AWS_ENDPOINT_URL) and the proxy (HTTPS_PROXY, HTTP_PROXY)"

	checkRegion = "the bucket is in another region: set the URL's parameter region"
	makeRoom    = "make room, or raise the quota"
	noChecksum  = "if the answer is about the checksum, set the URL's parameter checksum=none"
)

// meanings maps the error codes of S3 and of similar services. For codes that are not
// listed here, the status decides: see meaningOf. Codes without a kind are retryable,
// and so are InternalError, OperationAborted and ConditionalRequestConflict. (The
// last one does not mean "exists": another request on the same key was in progress,
// and it is unknown which of the two won.)
//
// Some codes ("Forbidden", "TooManyRequests") are made by the SDK from a status
// without a code, which may come from a proxy. There is none of these for 404: only
// NoSuchKey, and only in reply to a Get, means that the object does not exist.
var meanings = map[string]meaning{
	"NoSuchKey":    {kind: backend.ErrNotExist},
	"InvalidRange": {kind: backend.ErrRange},

	"NoSuchBucket":                       {backend.ErrNoStore, "create the bucket, or correct its name in the URL"},
	"InvalidBucketName":                  {backend.ErrNoStore, "correct the bucket's name in the URL"},
	"PermanentRedirect":                  {backend.ErrNoStore, checkRegion},
	"MovedPermanently":                   {backend.ErrNoStore, checkRegion},
	"AuthorizationHeaderMalformed":       {backend.ErrNoStore, checkRegion},
	"IllegalLocationConstraintException": {backend.ErrNoStore, checkRegion},

	"AccessDenied":          {kind: backend.ErrPermission}, // the advice names the missing action
	"Forbidden":             {kind: backend.ErrPermission},
	"AllAccessDisabled":     {kind: backend.ErrPermission},
	"AccountProblem":        {kind: backend.ErrPermission},
	"NotSignedUp":           {kind: backend.ErrPermission},
	"Unauthorized":          {backend.ErrPermission, checkKeys},
	"InvalidAccessKeyId":    {backend.ErrPermission, checkKeys},
	"XAdminUserNotFound":    {backend.ErrPermission, checkKeys}, // versitygw
	"InvalidSecurity":       {backend.ErrPermission, checkKeys},
	"InvalidToken":          {backend.ErrPermission, checkKeys},
	"InvalidTokenId":        {backend.ErrPermission, checkKeys}, // MinIO
	"SignatureDoesNotMatch": {backend.ErrPermission, checkKeys + "; a proxy that changes requests has this effect too"},
	"ExpiredToken":          {backend.ErrPermission, "renew the session token"},
	"TokenRefreshRequired":  {backend.ErrPermission, "renew the session token"},

	// The SDK corrects its clock from the response, for the next attempt.
	"RequestTimeTooSkewed": {advice: "set this machine's clock (NTP)"},

	// These have status 400 and are still retryable: the request was cut off or
	// damaged on its way.
	"RequestTimeout":              {},
	"IncompleteBody":              {},
	"BadDigest":                   {},
	"XAmzContentChecksumMismatch": {}, // MinIO
	"XAmzContentSHA256Mismatch":   {},

	"SlowDown":                {kind: backend.ErrThrottled},
	"SlowDownRead":            {kind: backend.ErrThrottled}, // MinIO
	"SlowDownWrite":           {kind: backend.ErrThrottled}, // MinIO
	"ServiceUnavailable":      {kind: backend.ErrThrottled},
	"TooManyRequests":         {kind: backend.ErrThrottled},
	"Throttling":              {kind: backend.ErrThrottled},
	"ThrottlingException":     {kind: backend.ErrThrottled},
	"KMS.ThrottlingException": {kind: backend.ErrThrottled},
	"RequestThrottled":        {kind: backend.ErrThrottled},
	"RequestLimitExceeded":    {kind: backend.ErrThrottled},
	"BandwidthLimitExceeded":  {kind: backend.ErrThrottled},

	"NotFound": {advice: "the endpoint does not answer as S3 does: check it"},

	"NotImplemented":   {backend.ErrUnsupported, noChecksum},
	"MethodNotAllowed": {kind: backend.ErrUnsupported},
	"EntityTooLarge":   {backend.ErrUnsupported, "write smaller objects"},
	"InvalidObjectState": {backend.ErrUnsupported, "the object is in an archive: restore it, " +
		"and take this prefix out of the lifecycle rule that moved it there"},
	"InvalidStorageClass":             {backend.ErrInvalid, "correct the URL's parameter storage_class"},
	"InvalidEncryptionAlgorithmError": {backend.ErrInvalid, "correct the URL's parameter sse"},
	"KeyTooLongError":                 {backend.ErrInvalid, "shorten the URL's path"},

	"QuotaExceeded":                  {backend.ErrNoSpace, makeRoom}, // versitygw, Ceph
	"XMinioStorageFull":              {backend.ErrNoSpace, makeRoom},
	"XMinioAdminBucketQuotaExceeded": {backend.ErrNoSpace, makeRoom},
	"InsufficientStorage":            {backend.ErrNoSpace, makeRoom},
	"KMS.DisabledException":          {backend.ErrPermission, "enable the KMS key"},
	"KMS.NotFoundException":          {backend.ErrPermission, "correct the URL's parameter kms_key_id"},
	"KMS.KMSInvalidStateException":   {backend.ErrPermission, "the KMS key cannot be used in its state"},
	"KMS.InvalidKeyUsageException":   {backend.ErrPermission, "use a symmetric KMS key"},
	"UnauthorizedAccess":             {backend.ErrPermission, checkKeys},
}

// meaningOf returns the meaning of a code. If the code is unknown or missing, the
// status decides: a request that the service finds invalid, forbids or redirects will
// not succeed later either.
func meaningOf(code string, status int) meaning {
	m, known := meanings[code]
	switch {
	case known:
		return m
	case status/100 == 3:
		return meaning{backend.ErrNoStore, "check the region, and that the endpoint is the service's own"}
	case status == http.StatusBadRequest:
		return meaning{backend.ErrUnsupported, "check the endpoint, also whether it is http or https, and the URL's other parameters"}
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return meaning{backend.ErrPermission, checkKeys}
	}
	return meaning{}
}

// judgeAnswer sets the kind and the advice for an answer of the service.
func (s *Store) judgeAnswer(ctx context.Context, f *failure, op string) {
	code := errorCode(f.cause)
	m := meaningOf(code, httpStatus(f.cause))
	f.kind = m.kind
	switch {
	case code == "PreconditionFailed" && op == "create":
		f.kind = backend.ErrExist
	case code == "NoSuchKey" && op != "get": // the endpoint contains the bucket, so the bucket is taken for a key
		f.kind, m.advice = backend.ErrNoStore, "check that the endpoint does not hold the bucket's name"
	case code == "NotImplemented" && aboutEncryption(f.cause):
		m.advice = "the service cannot encrypt as it is asked to: set up its key management, or correct the URL's parameter sse or leave it out"
	case code == "NotImplemented" && op == "create":
		m.advice = "a service that does not offer conditional writes (If-None-Match) would let two owners both commit: " +
			"use another (docs/deploy/aws.md lists some); " + noChecksum
	case code == "ExpiredToken" && s.credentials.renew(ctx):
		f.kind, m.advice = nil, "fetching new credentials"
	case errors.Is(m.kind, backend.ErrPermission) && m.advice == "":
		m.advice = s.neededPermission(op)
	case m.advice == checkRegion && header(f.cause, "X-Amz-Bucket-Region") != "":
		m.advice = "the bucket is in another region: set the URL's parameter region=" + header(f.cause, "X-Amz-Bucket-Region")
	case httpStatus(f.cause)/100 == 3 && header(f.cause, "Location") != "":
		m.advice = fmt.Sprintf("the endpoint redirects to %s; check it, and the region", hostOf(header(f.cause, "Location")))
	}
	if m.advice != "" {
		f.advise(m.advice)
	}
}

// aboutEncryption reports whether NotImplemented is about encryption (as with MinIO:
// "Server side encryption specified but KMS is not configured"), which the code does
// not tell.
func aboutEncryption(err error) bool {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return false
	}
	message := strings.ToLower(answer.ErrorMessage())
	return strings.Contains(message, "kms") || strings.Contains(message, "encrypt")
}

// header returns a header of the response that err is about, or "".
func header(err error, name string) string {
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		return response.Response.Header.Get(name)
	}
	return ""
}

// hostOf returns what a message shows of a redirect's target: not the path, which may
// be long, and not the query, which may contain a secret.
func hostOf(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return "another path"
	}
	return u.Scheme + "://" + u.Host
}

// neededPermission names the IAM action that an operation needs, and on which
// resource.
func (s *Store) neededPermission(op string) string {
	if s.directory {
		return "allow s3express:CreateSession on the directory bucket"
	}
	bucket := "arn:" + partition(s.client.Options().Region) + ":s3:::" + s.bucket
	objects := bucket + "/" + s.prefix + "*"
	kms := strings.HasPrefix(string(s.options.Encryption), "aws:kms")
	switch op {
	case "list":
		return "allow s3:ListBucket on " + bucket
	case "delete":
		return "allow s3:DeleteObject on " + objects
	case "get":
		return "allow s3:GetObject on " + objects + ", and s3:ListBucket on " + bucket +
			", without which an object that does not exist looks the same"
	}
	advice := "allow s3:PutObject on " + objects
	if kms {
		advice += ", and kms:GenerateDataKey on the key"
	}
	return advice
}

// partition returns the part of AWS that a region belongs to, as it is written in
// ARNs.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// judgeNetwork handles failures without an answer of S3, and adds advice if the cause
// is known. A failure before the connection was established is permanent if only a
// change on the other side can help.
func (f *failure) judgeNetwork() {
	var unknownHost *net.DNSError
	switch {
	case errors.As(f.cause, new(*notS3Error)):
		f.advise(checkEndpointAndProxy)
	case errors.As(f.cause, &unknownHost) && unknownHost.IsNotFound:
		f.advise("check the endpoint and the region; a service without a host name for each bucket needs path_style=true")
	case errors.Is(f.cause, syscall.ECONNREFUSED):
		f.advise("is the server running? check the endpoint")
	case withoutTLS(f.cause):
		f.kind = backend.ErrNoStore
		f.advise("the endpoint does not speak TLS: check whether it is http or https, and its port")
	case errors.As(f.cause, new(*tls.CertificateVerificationError)):
		f.kind = backend.ErrNoStore
		f.advise(certificateAdvice(f.cause))
	}
}

// withoutTLS reports whether the server does not speak TLS. In an error on a
// connection that was already secured, Conn is nil.
func withoutTLS(err error) bool {
	var record tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) && record.Conn != nil
}

func certificateAdvice(err error) string {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, new(x509.HostnameError)):
		return "check the endpoint; a service without a host name for each bucket needs path_style=true"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate of the service, or set this machine's clock (NTP)"
	}
	return "set AWS_CA_BUNDLE to a file with the certificate authority of the service"
}
