package backend

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Params reads the query of a store's URL. A driver asks for each parameter that it
// knows, and then calls Err. Err reports the first bad value, or a parameter that the
// driver did not ask for, with the list of those that it did. Only one goroutine may
// use Params at a time.
type Params struct {
	url    *url.URL
	values url.Values
	known  []string
	err    error
}

// NewParams returns the parameters of u.
func NewParams(u *url.URL) *Params {
	values, err := url.ParseQuery(u.RawQuery)
	p := &Params{url: u, values: values}
	if err != nil {
		p.fail("the part after ? cannot be parsed")
	}
	return p
}

// String returns the value of a parameter, or "" if it is absent.
func (p *Params) String(name string) string {
	p.known = append(p.known, name)
	values := p.values[name]
	if len(values) > 1 {
		p.fail(fmt.Sprintf("parameter %q is given %d times", name, len(values)))
	}
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// Bool returns the value of a parameter that is "true" or "false", or false if
// it is absent.
func (p *Params) Bool(name string) bool {
	v := p.String(name)
	if p.values.Has(name) && v != "true" && v != "false" {
		p.fail(fmt.Sprintf("parameter %q is %q, must be true or false", name, v))
	}
	return v == "true"
}

// Err returns an error that wraps ErrInvalid if a value was bad or a parameter
// is unknown.
func (p *Params) Err() error {
	for _, name := range slices.Sorted(maps.Keys(p.values)) {
		if !slices.Contains(p.known, name) {
			p.fail(p.unknown(name))
		}
	}
	return p.err
}

func (p *Params) unknown(name string) string {
	if len(p.known) == 0 {
		return fmt.Sprintf("unknown parameter %q; %s:// takes none", name, p.url.Scheme)
	}
	slices.Sort(p.known)
	return fmt.Sprintf("unknown parameter %q; %s:// takes %s", name, p.url.Scheme, strings.Join(p.known, ", "))
}

func (p *Params) fail(what string) {
	if p.err == nil {
		p.err = Invalidf("store URL %q: %s", bare(p.url), what)
	}
}
