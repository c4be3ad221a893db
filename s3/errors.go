package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/holdfast-io/holdfast/backend"
)

// A failure is what went wrong with a request, in one line that ends with what
// to do about it. It is of one kind of package backend, or of none. Its cause
// can be reached by errors.As alone: by errors.Is, a token file that is missing
// on this machine would be taken for an object that does not exist, and a time
// limit of the driver's for the caller's.
type failure struct {
	kind  error
	text  string
	cause error
}

func (f *failure) Error() string        { return f.text }
func (f *failure) Unwrap() error        { return f.kind }
func (f *failure) As(target any) bool   { return errors.As(f.cause, target) }
func (f *failure) advise(advice string) { f.text += "; " + advice }

func (s *Store) error(op, key string, err error) error {
	return &backend.Error{Op: op, Store: s.String(), Key: key, Err: err}
}

// failed turns an error of the SDK, or of reading a response, into the store's.
func (s *Store) failed(ctx context.Context, op, key string, err error) error {
	f := &failure{text: plain(err), cause: err}
	var unauthenticated *credentialsError
	switch {
	case errors.As(err, &unauthenticated):
		f.judgeCredentials(ctx, unauthenticated)
	case errorCode(err) != "":
		s.judgeAnswer(ctx, f, op)
	case ended(ctx) != nil:
		f.kind = ended(ctx)
		f.text = f.kind.Error() + " (" + f.text + ")"
	default:
		f.judgeNetwork()
	}
	return s.error(op, key, f)
}

// ended returns why the caller's context ended, or nil. The network may notice
// a deadline a moment before the context does.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// errorCode returns the service's code for err, or "" if the service did not
// answer. The code decides, never the HTTP status: an error may come with
// status 200, which the SDK then calls 500.
func errorCode(err error) string {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		return answer.ErrorCode()
	}
	return ""
}

// plain says what went wrong without the SDK's words around it.
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
	var op *smithy.OperationError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// origin names the response, for those who run the service.
func origin(err error) string {
	var parts []string
	var response interface{ HTTPStatusCode() int }
	if errors.As(err, &response) {
		parts = append(parts, fmt.Sprintf("HTTP %d", response.HTTPStatusCode()))
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

// A meaning is what a service's error code says in the terms of this project.
type meaning struct {
	kind   error // nil means that it is worth another attempt
	advice string
}

const (
	checkKeys             = "check the credentials in the environment or in the profile"
	checkEndpointAndProxy = "check the endpoint (the URL's parameter endpoint, AWS_ENDPOINT_URL) and the proxy (HTTPS_PROXY, HTTP_PROXY)"

	checkRegion = "the bucket is in another region: set the URL's parameter region"
	makeRoom    = "make room, or raise the quota"
	noChecksum  = "if the answer is about the checksum, set the URL's parameter checksum=none"
)

// meanings maps the error codes of S3 and of services like it. A code that is
// not here, or has no kind, is worth another attempt: InternalError,
// RequestTimeout, BadDigest and IncompleteBody (damaged on the way),
// OperationAborted and ConditionalRequestConflict (not "exists": another
// request on the same key was under way, and which of them won is unknown).
// Some codes ("Forbidden", "TooManyRequests") are what the SDK makes of a
// status that comes without a code, from a proxy perhaps. There is none such
// for 404: only NoSuchKey means that there is no such object, and only to a Get.
var meanings = map[string]meaning{
	"NoSuchKey":    {kind: backend.ErrNotExist},
	"InvalidRange": {kind: backend.ErrRange},

	"NoSuchBucket":                       {backend.ErrNoStore, "create the bucket, or mend its name in the URL"},
	"InvalidBucketName":                  {backend.ErrNoStore, "mend the bucket's name in the URL"},
	"PermanentRedirect":                  {backend.ErrNoStore, checkRegion},
	"MovedPermanently":                   {backend.ErrNoStore, checkRegion},
	"AuthorizationHeaderMalformed":       {backend.ErrNoStore, checkRegion},
	"IllegalLocationConstraintException": {backend.ErrNoStore, checkRegion},

	"AccessDenied":          {kind: backend.ErrPermission}, // advice names the action
	"Forbidden":             {kind: backend.ErrPermission},
	"AllAccessDisabled":     {kind: backend.ErrPermission},
	"AccountProblem":        {kind: backend.ErrPermission},
	"NotSignedUp":           {kind: backend.ErrPermission},
	"Unauthorized":          {backend.ErrPermission, checkKeys},
	"InvalidAccessKeyId":    {backend.ErrPermission, checkKeys},
	"XAdminUserNotFound":    {backend.ErrPermission, checkKeys}, // versitygw
	"InvalidSecurity":       {backend.ErrPermission, checkKeys},
	"InvalidToken":          {backend.ErrPermission, checkKeys},
	"SignatureDoesNotMatch": {backend.ErrPermission, checkKeys + "; a proxy that changes requests has this effect too"},
	"ExpiredToken":          {backend.ErrPermission, "renew the session token"},
	"TokenRefreshRequired":  {backend.ErrPermission, "renew the session token"},

	// The SDK corrects its clock by the response, for the next attempt.
	"RequestTimeTooSkewed": {advice: "set this machine's clock (NTP)"},

	"SlowDown":               {kind: backend.ErrThrottled},
	"SlowDownRead":           {kind: backend.ErrThrottled}, // MinIO
	"SlowDownWrite":          {kind: backend.ErrThrottled}, // MinIO
	"ServiceUnavailable":     {kind: backend.ErrThrottled},
	"TooManyRequests":        {kind: backend.ErrThrottled},
	"Throttling":             {kind: backend.ErrThrottled},
	"ThrottlingException":    {kind: backend.ErrThrottled},
	"RequestThrottled":       {kind: backend.ErrThrottled},
	"RequestLimitExceeded":   {kind: backend.ErrThrottled},
	"BandwidthLimitExceeded": {kind: backend.ErrThrottled},

	"NotFound": {advice: "the endpoint does not answer as S3 does: check it"},

	"NotImplemented":   {backend.ErrUnsupported, noChecksum},
	"MethodNotAllowed": {kind: backend.ErrUnsupported},
	"EntityTooLarge":   {backend.ErrUnsupported, "write smaller objects"},
	"InvalidObjectState": {backend.ErrUnsupported, "the object is in an archive: restore it, " +
		"and take this prefix out of the lifecycle rule that moved it there"},
	"InvalidStorageClass":             {backend.ErrInvalid, "mend the URL's parameter storage_class"},
	"InvalidEncryptionAlgorithmError": {backend.ErrInvalid, "mend the URL's parameter sse"},
	"KeyTooLongError":                 {backend.ErrInvalid, "shorten the URL's path"},

	"QuotaExceeded":                  {backend.ErrNoSpace, makeRoom}, // versitygw, Ceph
	"XMinioStorageFull":              {backend.ErrNoSpace, makeRoom},
	"XMinioAdminBucketQuotaExceeded": {backend.ErrNoSpace, makeRoom},
	"InsufficientStorage":            {backend.ErrNoSpace, makeRoom},
	"KMS.DisabledException":          {backend.ErrPermission, "enable the KMS key"},
	"KMS.NotFoundException":          {backend.ErrPermission, "mend the URL's parameter kms_key_id"},
	"KMS.KMSInvalidStateException":   {backend.ErrPermission, "the KMS key can not be used in its state"},
	"KMS.InvalidKeyUsageException":   {backend.ErrPermission, "use a symmetric KMS key"},
	"UnauthorizedAccess":             {backend.ErrPermission, checkKeys},
}

// judgeAnswer says what an answer of the service means.
func (s *Store) judgeAnswer(ctx context.Context, f *failure, op string) {
	code := errorCode(f.cause)
	m := meanings[code]
	f.kind = m.kind
	switch {
	case code == "PreconditionFailed" && op == "create":
		f.kind = backend.ErrExist
	case code == "NoSuchKey" && op != "get": // the bucket itself is taken for a key
		f.kind, m.advice = backend.ErrNoStore, "check that the endpoint does not hold the bucket's name"
	case code == "NotImplemented" && aboutEncryption(f.cause):
		m.advice = "the service can not encrypt as it is asked to: set up its key management, or mend the URL's parameter sse or leave it out"
	case code == "NotImplemented" && op == "create":
		m.advice = "a service that does not offer conditional writes (If-None-Match) would let two owners both commit: " +
			"use another (docs/deploy/aws.md lists some); " + noChecksum
	case code == "ExpiredToken" && s.credentials.renew(ctx):
		f.kind, m.advice = nil, "fetching new credentials"
	case errors.Is(m.kind, backend.ErrPermission) && m.advice == "":
		m.advice = s.neededPermission(op)
	case m.advice == checkRegion && bucketRegion(f.cause) != "":
		m.advice = "the bucket is in another region: set the URL's parameter region=" + bucketRegion(f.cause)
	}
	if m.advice != "" {
		f.advise(m.advice)
	}
}

// aboutEncryption tells a service that has no keys (MinIO: "Server side
// encryption specified but KMS is not configured") from one that lacks what
// else a write asks for, which the code does not.
func aboutEncryption(err error) bool {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return false
	}
	message := strings.ToLower(answer.ErrorMessage())
	return strings.Contains(message, "kms") || strings.Contains(message, "encrypt")
}

// bucketRegion is where the service says that the bucket is.
func bucketRegion(err error) string {
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		return response.Response.Header.Get("X-Amz-Bucket-Region")
	}
	return ""
}

// neededPermission names the IAM action that a verb needs, and on what.
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

// partition is the part of AWS that a region belongs to, as ARNs spell it.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// judgeNetwork adds advice where a failure that got no answer of S3 has a
// known cause.
func (f *failure) judgeNetwork() {
	var unknownHost *net.DNSError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(f.cause, new(*notS3Error)):
		f.advise(checkEndpointAndProxy)
	case errors.As(f.cause, &unknownHost) && unknownHost.IsNotFound:
		f.advise("check the endpoint and the region; a service without a host name for each bucket needs path_style=true")
	case errors.As(f.cause, &untrusted):
		f.advise("set AWS_CA_BUNDLE to a file with the certificate authority of the service")
	}
}
