package s3

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/httpclient"
)

func init() { backend.Register("s3", OpenURL) }

// Checksum says how the bytes of an object are protected on their way to the server,
// which refuses damaged data. "" means ChecksumCRC32C.
type Checksum string

const (
	// ChecksumCRC32C sends a CRC32C in a header. The driver computes it before the
	// data reaches the SDK, and the service keeps it with the object.
	ChecksumCRC32C Checksum = "crc32c"

	// ChecksumSHA256 makes a SHA-256 of the data part of the request's signature. It
	// is for buckets whose policy denies unsigned payloads. It costs more CPU time,
	// on both sides.
	ChecksumSHA256 Checksum = "sha256"

	// ChecksumNone sends no checksum. It is for services that refuse the header.
	ChecksumNone Checksum = "none"
)

// sign sets for one PutObject whether the payload is signed. By default the SDK signs
// it over plain HTTP, and not over TLS. A signed payload does not make plain HTTP
// safe: what is read back is not signed.
func (c Checksum) sign(o *sdk.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		if c != ChecksumSHA256 {
			return v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware(stack)
		}
		hash := &v4.ComputePayloadSHA256{}
		_, err := stack.Finalize.Swap(hash.ID(), hash)
		return err
	})
}

// OpenURL opens s3://bucket/prefix. Its parameters:
//
//	region=eu-west-1        the bucket's region; default: AWS_REGION or the profile's; with an endpoint, us-east-1
//	endpoint=https://host   a service other than AWS; default: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL
//	path_style=true|false   address the bucket in the path, not in the host name; default: true with an endpoint
//	profile=name            the profile of the shared AWS configuration; default: AWS_PROFILE
//	sse=AES256|aws:kms|aws:kms:dsse   server-side encryption; default: the bucket's
//	kms_key_id=id           the key for the two KMS kinds; default: the account's
//	storage_class=NAME      the objects' storage class; default: STANDARD. Archive classes are refused
//	requester_pays=true     accept the charges for requests to a bucket of this kind
//	checksum=crc32c|sha256|none   what protects data on its way to the server, see [Checksum]; default: crc32c
//
// A parameter without a value is an error; one that is left out has its default.
//
// Credentials come from the SDK's default chain: environment, shared configuration,
// web identity, container, instance role. A proxy comes from HTTPS_PROXY, HTTP_PROXY
// and NO_PROXY, a private certificate authority from AWS_CA_BUNDLE.
//
// It sends no request. An error in the URL or in the configuration wraps
// backend.ErrInvalid.
func OpenURL(ctx context.Context, u *url.URL) (backend.Store, error) {
	s, err := open(ctx, u)
	if err != nil {
		return nil, err // not s: a nil *Store in an interface is not nil
	}
	return s, nil
}

func open(ctx context.Context, u *url.URL) (*Store, error) {
	l, err := parse(u)
	if err != nil {
		return nil, err
	}
	if err := checkAuthorities(os.Getenv(bundleVariable)); err != nil {
		return nil, l.failed(err)
	}
	// Without this, the SDK writes to standard error. What goes wrong is in the
	// errors.
	l.load = append(l.load, config.WithLogger(logging.Nop{}))
	cfg, err := config.LoadDefaultConfig(ctx, l.load...)
	if err != nil {
		return nil, l.failed(misconfigured(err))
	}
	transport := ownTransport(&cfg)
	client := sdk.NewFromConfig(cfg, l.apply, func(o *sdk.Options) { o.HTTPClient = direct{transport} })
	if err := checkResolved(client.Options()); err != nil {
		return nil, l.failed(err)
	}
	s, err := New(client, l.bucket, l.prefix, l.options)
	if err != nil {
		return nil, err
	}
	s.release = transport.CloseIdleConnections
	return s, nil
}

// bundleVariable names a file with certificate authorities in PEM.
const bundleVariable = "AWS_CA_BUNDLE"

// checkAuthorities checks that file. The SDK's errors about it do not name the
// variable, and some do not name the file.
func checkAuthorities(file string) error {
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return &failure{kind: backend.ErrInvalid, cause: err,
			text: bundleVariable + ": " + err.Error() + "; correct the variable, or unset it"}
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return backend.Invalidf("%s: %s holds no certificate in PEM; correct the file, or unset the variable", bundleVariable, file)
	}
	return nil
}

// misconfigured turns an error from loading the configuration into one of this store.
func misconfigured(err error) error {
	f := &failure{kind: backend.ErrInvalid, cause: err, text: err.Error()}
	var noProfile config.SharedConfigProfileNotExistError
	if !errors.As(err, &noProfile) {
		f.advise("check the shared AWS configuration and the variables AWS_... of the environment")
		return f
	}
	f.text = fmt.Sprintf("no profile %q in the shared AWS configuration", noProfile.Profile)
	f.advise("correct the URL's parameter profile or AWS_PROFILE; aws configure list-profiles shows which there are")
	return f
}

// ownTransport returns a transport for this store alone, with the certificate
// authorities from the configuration.
func ownTransport(cfg *aws.Config) *http.Transport {
	base, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		base = awshttp.NewBuildableClient()
	}
	t := base.GetTransport()
	httpclient.Tune(t)
	return t
}

// location holds what a URL says.
type location struct {
	bucket, prefix string
	options        Options
	load           []func(*config.LoadOptions) error
	endpoint       string
	pathStyle      *bool // nil: true if there is an endpoint
}

func parse(u *url.URL) (*location, error) {
	p := backend.NewParams(u)
	l := &location{bucket: u.Host, prefix: u.Path, endpoint: p.String("endpoint")}
	if region := p.String("region"); region != "" {
		l.load = append(l.load, config.WithRegion(region))
	}
	if profile := p.String("profile"); profile != "" {
		l.load = append(l.load, config.WithSharedConfigProfile(profile))
	}
	if pathStyle := p.Bool("path_style"); u.Query().Has("path_style") {
		l.pathStyle = &pathStyle
	}
	l.options = Options{
		Encryption:    types.ServerSideEncryption(p.String("sse")),
		KMSKeyID:      p.String("kms_key_id"),
		StorageClass:  types.StorageClass(p.String("storage_class")),
		RequesterPays: p.Bool("requester_pays"),
		Checksum:      Checksum(p.String("checksum")),
	}
	if err := cmp.Or(checkValues(u.Query()), p.Err()); err != nil {
		return nil, l.failed(err)
	}
	return l, l.check()
}

// checkValues refuses a parameter without a value: a script may have forgotten to set
// a variable.
func checkValues(parameters url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if slices.Contains(parameters[name], "") {
			return backend.Invalidf("parameter %q has no value; give it one, or leave it out for its default", name)
		}
	}
	return nil
}

// check normalizes the prefix and fills in defaults.
func (l *location) check() error {
	l.options.Checksum = cmp.Or(l.options.Checksum, ChecksumCRC32C)
	var err error
	if l.prefix, err = cleanPrefix(l.prefix); err != nil {
		return l.failed(err)
	}
	if err := cmp.Or(checkBucket(l.bucket), checkEndpoint("endpoint", l.endpoint), l.options.check()); err != nil {
		return l.failed(err)
	}
	return nil
}

func (l *location) failed(err error) error {
	return storeError("open", storeURL(l.bucket, l.prefix), "", err)
}

func (l *location) apply(o *sdk.Options) {
	if l.endpoint != "" {
		o.BaseEndpoint = &l.endpoint
	}
	elsewhere := o.BaseEndpoint != nil
	o.UsePathStyle = elsewhere
	if l.pathStyle != nil {
		o.UsePathStyle = *l.pathStyle
	}
	if elsewhere && o.Region == "" {
		o.Region = "us-east-1" // such services accept it as any region
	}
}

// checkResolved checks settings that may come from the environment or from a profile.
func checkResolved(o sdk.Options) error {
	switch {
	case o.Region == "":
		return backend.Invalidf("no region: add ?region=... to the URL or set AWS_REGION")
	case !smithyhttp.ValidHostLabel(o.Region):
		return backend.Invalidf("region %q cannot be one, it has letters, digits and hyphens; "+
			"correct the URL's parameter region, AWS_REGION or the profile", o.Region)
	}
	return checkEndpoint("endpoint (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile's endpoint_url)", aws.ToString(o.BaseEndpoint))
}

// checkEndpoint checks an endpoint. name tells the user where it was set.
func checkEndpoint(name, endpoint string) error {
	if endpoint == "" {
		return nil
	}
	if strings.Contains(endpoint, "@") {
		return backend.Invalidf("%s holds credentials, before the @; leave them to the environment", name)
	}
	e, err := url.Parse(endpoint)
	if err != nil || e.Hostname() == "" || !validPort(e.Port()) || e.Scheme != "http" && e.Scheme != "https" {
		return backend.Invalidf("%s %q must look like https://host or http://host:port", name, endpoint)
	}
	if strings.HasSuffix(e.Hostname(), ".accesspoint.s3-global.amazonaws.com") {
		return backend.Invalidf("%s %q is a Multi-Region Access Point, in which each region would let an owner of its own commit; use one bucket behind it", name, endpoint)
	}
	if e.RawQuery != "" || e.ForceQuery || e.Fragment != "" {
		e.RawQuery, e.ForceQuery, e.Fragment = "", false, "" // they may contain a secret
		return backend.Invalidf("%s %q has something after a ? or #; leave that out", name, e)
	}
	return nil
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

func (o Options) check() error {
	switch o.Encryption {
	case "", types.ServerSideEncryptionAes256, types.ServerSideEncryptionAwsKms, types.ServerSideEncryptionAwsKmsDsse:
	default:
		return backend.Invalidf("sse is %q, must be AES256, aws:kms or aws:kms:dsse", o.Encryption)
	}
	if o.KMSKeyID != "" && !strings.HasPrefix(string(o.Encryption), "aws:kms") {
		return backend.Invalidf("kms_key_id needs sse=aws:kms or sse=aws:kms:dsse")
	}
	switch o.StorageClass {
	case types.StorageClassGlacier, types.StorageClassDeepArchive:
		return backend.Invalidf("storage_class %q cannot be read at once; choose another, such as GLACIER_IR", o.StorageClass)
	}
	switch o.Checksum {
	case ChecksumCRC32C, ChecksumSHA256, ChecksumNone:
		return nil
	}
	return backend.Invalidf("checksum is %q, must be crc32c, sha256 or none", o.Checksum)
}

func checkBucket(bucket string) error {
	switch {
	case bucket == "":
		return backend.Invalidf("no bucket in the URL; it looks like s3://bucket/path")
	case isMultiRegion(bucket):
		return backend.Invalidf("bucket %q is a Multi-Region Access Point, in which each region would let an owner of its own commit; give the name of one bucket behind it", bucket)
	case strings.HasPrefix(bucket, "arn:"):
		return backend.Invalidf("bucket %q is an ARN; give the bucket's name, or the alias of an access point in one region", bucket)
	case strings.Contains(bucket, ":"):
		return backend.Invalidf("bucket %q has a port; a service other than AWS goes into the parameter endpoint", bucket)
	case strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "":
		return backend.Invalidf("bucket %q has characters that no bucket's name has", bucket)
	}
	return nil
}

// isMultiRegion reports whether a bucket's name is the alias or the ARN of a Multi-Region
// Access Point: both end with .mrap, and the ARN has no region. It sends each request to the
// closest bucket, which knows nothing of what was just created in another.
func isMultiRegion(bucket string) bool {
	return strings.HasSuffix(bucket, ".mrap") || strings.HasPrefix(bucket, "arn:") && strings.Contains(bucket, ":s3::")
}

// maxKeyLen is the length of the longest key that S3 accepts, in bytes.
const maxKeyLen = 1024

// cleanPrefix returns the prefix as it begins keys: "", or without a leading slash
// and with a trailing one.
func cleanPrefix(prefix string) (string, error) {
	clean := strings.Trim(prefix, "/")
	if clean == "" {
		return "", nil
	}
	if n := maxKeyLen - backend.MaxKeyLen - 1; len(clean) > n {
		return "", backend.Invalidf("path of %d bytes, longer than %d", len(clean), n)
	}
	if !utf8.ValidString(clean) || strings.ContainsFunc(clean, unicode.IsControl) {
		return "", backend.Invalidf("path %q has characters that cannot be listed", clean)
	}
	for name := range strings.SplitSeq(clean, "/") {
		if name == "" || name == "." || name == ".." {
			return "", backend.Invalidf("path %q has a part %q, which services and proxies change", clean, name)
		}
	}
	return clean + "/", nil
}
