package gcs

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/httptransport"
	"cloud.google.com/go/storage"

	"github.com/holdfast-io/holdfast/backend"
)

const getCredentials = "run gcloud auth application-default login, set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service account"

// detect returns the process's Application Default Credentials.
func detect() (*auth.Credentials, error) {
	found, err := credentials.DetectDefault(&credentials.DetectOptions{Scopes: []string{storage.ScopeReadWrite}})
	if err != nil {
		f := &failure{kind: backend.ErrPermission, cause: err, text: "no credentials: " + oneLine(err.Error())}
		f.advise(getCredentials)
		return nil, f
	}
	return found, nil
}

// authenticate returns a client that sends requests through transport. It adds the
// credentials to each request, unless they are nil.
func authenticate(transport http.RoundTripper, found *auth.Credentials, userProject string) (*http.Client, error) {
	o := &httptransport.Options{
		BaseRoundTripper:      transport,
		DisableAuthentication: found == nil,
		Headers:               make(http.Header),
	}
	if userProject != "" {
		o.Headers.Set("X-Goog-User-Project", userProject)
	}
	if found != nil {
		found.TokenProvider = &tokens{provider: found.TokenProvider}
		o.Credentials = found
	}
	client, err := httptransport.NewClient(o)
	if err != nil {
		return nil, &failure{kind: backend.ErrInvalid, cause: err, text: err.Error()}
	}
	return client, nil
}

// tokens wraps a provider of the SDK and gives its errors a type of their own.
// Otherwise they could not be recognized.
type tokens struct {
	provider auth.TokenProvider
	worked   atomic.Bool
}

func (t *tokens) Token(ctx context.Context) (*auth.Token, error) {
	token, err := t.provider.Token(ctx)
	if err != nil {
		return nil, &credentialsError{cause: err, worked: t.worked.Load()}
	}
	t.worked.Store(true)
	return token, nil
}

type credentialsError struct {
	cause  error
	worked bool // the provider has supplied a token before
}

func (e *credentialsError) Error() string { return e.cause.Error() }
func (e *credentialsError) Unwrap() error { return e.cause }

// judgeCredentials distinguishes a machine that has no credentials, where another
// attempt is useless, from one that could not renew them for the moment.
func (f *failure) judgeCredentials(e *credentialsError) {
	f.text = "no credentials: " + oneLine(e.Error())
	var answered *auth.Error
	refused := errors.As(e.cause, &answered) && !answered.Temporary()
	if refused || !e.worked {
		f.kind = backend.ErrPermission
		f.advise(getCredentials)
	}
}
