package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// OpenFunc opens the store at URL u. It reads u's query through [Params], so that a
// misspelt parameter is an error. It takes no credentials from u.
type OpenFunc func(ctx context.Context, u *url.URL) (Store, error)

// A Registry maps URL schemes to drivers. The zero value is empty and ready to use.
// Any number of goroutines may use it at the same time.
//
// Most programs use the package's own registry: importing a driver's package
// registers its scheme there.
type Registry struct {
	mu      sync.RWMutex
	drivers map[string]OpenFunc
}

// Register adds a driver. It panics if the scheme is registered already: two drivers
// for one scheme are an error in the program.
func (r *Registry) Register(scheme string, open OpenFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.drivers[scheme]; taken {
		panic(fmt.Sprintf("backend: scheme %q registered twice", scheme))
	}
	if r.drivers == nil {
		r.drivers = make(map[string]OpenFunc)
	}
	r.drivers[scheme] = open
}

// Schemes returns the registered schemes in alphabetical order.
func (r *Registry) Schemes() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.drivers))
}

// Open opens the store at rawURL. The caller must close it.
//
// An error about the URL itself wraps ErrInvalid.
func (r *Registry) Open(ctx context.Context, rawURL string) (Store, error) {
	u, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	open := r.drivers[u.Scheme]
	r.mu.RUnlock()
	if open == nil {
		return nil, r.unknownScheme(u)
	}
	return open(ctx, u)
}

// parseURL refuses URLs that no driver could use. Its errors do not repeat parts of
// the URL that may be a secret.
func parseURL(rawURL string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if errors.As(err, new(url.EscapeError)) {
		return nil, Invalidf("the store URL has a %% without two hexadecimal digits after it; write %%25 for a %% in a path")
	}
	if strings.Contains(rawURL, "://arn:") {
		return nil, Invalidf("the store URL has an ARN in it; give the name of one bucket, as in s3://bucket/path")
	}
	if err != nil {
		return nil, Invalidf("the store URL cannot be parsed; it looks like s3://bucket/path or file:///path")
	}
	if u.Scheme == "" {
		return nil, Invalidf("store URL %q has no scheme; for a local directory write file:///path", bare(u))
	}
	if u.User != nil {
		return nil, Invalidf("store URL %q holds credentials; leave them to the environment", bare(u))
	}
	if u.Fragment != "" || strings.HasSuffix(rawURL, "#") {
		return nil, Invalidf("store URL %q has a fragment (#...); write %%23 for a # in a path", bare(u))
	}
	return u, nil
}

func (r *Registry) unknownScheme(u *url.URL) error {
	known := strings.Join(r.Schemes(), ", ")
	if known == "" {
		return Invalidf("store URL %q: no driver is linked into this program; import one, such as _ %q",
			bare(u), "github.com/holdfast-io/holdfast/local")
	}
	return Invalidf("store URL %q: unknown scheme %q; this program knows %s", bare(u), u.Scheme, known)
}

// bare returns u without credentials and parameters, which may be secret, for
// messages.
func bare(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Opaque: u.Opaque, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// drivers is the package's own registry.
var drivers Registry

// Register adds a driver to the package's registry. Drivers call it from init.
func Register(scheme string, open OpenFunc) { drivers.Register(scheme, open) }

// Schemes returns the schemes in the package's registry, in alphabetical order.
func Schemes() []string { return drivers.Schemes() }

// Open opens a store by URL with the drivers that the program imports.
func Open(ctx context.Context, rawURL string) (Store, error) { return drivers.Open(ctx, rawURL) }
