package gcs

import (
	"cmp"
	"context"
	"maps"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"cloud.google.com/go/auth"

	"github.com/holdfast-io/holdfast/backend"
)

func init() { backend.Register("gs", OpenURL) }

// OpenURL opens gs://bucket/prefix. Its parameters:
//
//	endpoint=https://host   a service other than Google's, or another address of Google's; default: STORAGE_EMULATOR_HOST
//	anonymous=true|false    send no credentials; default: true with an http:// endpoint, where others could read them
//	user_project=id         the project that pays, for a bucket whose requesters pay; default: the credentials' quota project
//	kms_key_name=projects/p/locations/l/keyRings/r/cryptoKeys/k   the key to encrypt with; default: the bucket's
//	storage_class=NAME      the objects' storage class; default: the bucket's
//
// A parameter without a value is an error; one that is left out has its default.
//
// Credentials are Application Default Credentials: the file that
// GOOGLE_APPLICATION_CREDENTIALS names (a service account's key, or a configuration
// of workload identity federation), those of gcloud auth application-default login,
// or the service account of the virtual machine or, by workload identity, of the
// Kubernetes pod. A proxy comes from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
//
// OpenURL sends no request to the bucket. An error in the URL wraps
// backend.ErrInvalid, a lack of credentials backend.ErrPermission.
func OpenURL(ctx context.Context, u *url.URL) (backend.Store, error) {
	l, err := parse(u)
	if err != nil {
		return nil, err
	}
	var found *auth.Credentials
	if !l.anonymous {
		if found, err = detect(); err != nil {
			return nil, l.failed(err)
		}
	}
	transport := newTransport()
	client, err := authenticate(transport, found, l.userProject)
	if err != nil {
		return nil, l.failed(err)
	}
	s, err := New(ctx, client, l.bucket, l.prefix, l.options)
	if err != nil {
		return nil, err
	}
	s.release = transport.CloseIdleConnections
	return s, nil
}

// location holds what a URL says.
type location struct {
	bucket, prefix string
	options        Options
	anonymous      bool
	userProject    string
}

func parse(u *url.URL) (*location, error) {
	p := backend.NewParams(u)
	l := &location{
		bucket: u.Host,
		prefix: u.Path,
		options: Options{
			Endpoint:     cmp.Or(p.String("endpoint"), emulator()),
			KMSKeyName:   p.String("kms_key_name"),
			StorageClass: p.String("storage_class"),
		},
		anonymous:   p.Bool("anonymous"),
		userProject: p.String("user_project"),
	}
	if err := cmp.Or(checkValues(u.Query()), p.Err()); err != nil {
		return nil, l.failed(err)
	}
	readable := strings.HasPrefix(l.options.Endpoint, "http://")
	if readable && u.Query().Has("anonymous") && !l.anonymous {
		return nil, l.failed(backend.Invalidf("anonymous=false sends credentials to %s in the clear; use https://", l.options.Endpoint))
	}
	l.anonymous = l.anonymous || readable
	return l, l.check()
}

// checkValues refuses a parameter without a value: most often it is a variable that
// was not set, and the default is not what was meant.
func checkValues(values url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if slices.Contains(values[name], "") {
			return backend.Invalidf("parameter %q is empty; leave it out to have the default", name)
		}
	}
	return nil
}

// emulator returns the endpoint in STORAGE_EMULATOR_HOST. As with Google's SDKs, it
// is a host and port, with or without a scheme.
func emulator() string {
	host := os.Getenv("STORAGE_EMULATOR_HOST")
	if host == "" || strings.Contains(host, "://") {
		return host
	}
	return "http://" + host
}

// check normalizes the prefix.
func (l *location) check() error {
	prefix, err := cleanPrefix(l.prefix)
	if err != nil {
		return l.failed(err)
	}
	l.prefix = prefix
	if err := cmp.Or(checkBucket(l.bucket), checkEndpoint(l.options.Endpoint), l.options.check()); err != nil {
		return l.failed(err)
	}
	return nil
}

func (l *location) failed(err error) error {
	return storeError("open", storeURL(l.bucket, l.prefix), "", err)
}

func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	e, err := url.Parse(endpoint)
	if err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https" {
		return backend.Invalidf("endpoint %q must look like https://host or http://host:port", endpoint)
	}
	if e.User != nil {
		return backend.Invalidf("endpoint %q holds credentials; leave them to the environment", e.Redacted())
	}
	if strings.Trim(e.Path, "/") != "" || e.RawQuery != "" {
		return backend.Invalidf("endpoint %q goes on after the host; the API's path is known", endpoint)
	}
	return nil
}

func (o Options) check() error {
	if o.KMSKeyName == "" {
		return nil
	}
	const form = "projects/*/locations/*/keyRings/*/cryptoKeys/*"
	if ok, err := path.Match(form, o.KMSKeyName); err != nil || !ok {
		return backend.Invalidf("kms_key_name is %q, must look like %s", o.KMSKeyName, form)
	}
	return nil
}

func checkBucket(bucket string) error {
	switch {
	case bucket == "":
		return backend.Invalidf("no bucket in the URL; it looks like gs://bucket/path")
	case strings.Contains(bucket, ":"):
		return backend.Invalidf("bucket %q has a port; a service other than Google's goes into the parameter endpoint", bucket)
	case strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "":
		return backend.Invalidf("bucket %q has characters that no bucket's name has", bucket)
	}
	return nil
}

// maxNameLen is the length of the longest object name that the service accepts, in
// bytes.
const maxNameLen = 1024

// cleanPrefix returns the prefix as it begins names: "", or without a leading slash
// and with a trailing one.
func cleanPrefix(prefix string) (string, error) {
	clean := strings.Trim(prefix, "/")
	if clean == "" {
		return "", nil
	}
	if n := maxNameLen - backend.MaxKeyLen - 1; len(clean) > n {
		return "", backend.Invalidf("path of %d bytes, longer than %d", len(clean), n)
	}
	if !utf8.ValidString(clean) || strings.ContainsFunc(clean, unicode.IsControl) {
		return "", backend.Invalidf("path %q has characters that cannot be listed", clean)
	}
	for name := range strings.SplitSeq(clean, "/") {
		if name == "" || name == "." || strings.HasSuffix(name, "..") {
			return "", backend.Invalidf("path %q has a part %q, which services and proxies change", clean, name)
		}
	}
	return clean + "/", nil
}
