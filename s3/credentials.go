package s3

import (
	"context"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/httpclient"
)

// credentials wraps a provider of the SDK and gives its errors a type of their own.
// Otherwise they could not be recognized.
type credentials struct {
	provider aws.CredentialsProvider
	worked   atomic.Bool
}

func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	v, err := c.provider.Retrieve(ctx)
	if err != nil {
		return v, &credentialsError{cause: err, worked: c.worked.Load()}
	}
	c.worked.Store(true)
	return v, nil
}

// renew drops credentials that the service calls expired. It reports whether the
// provider can supply new ones.
func (c *credentials) renew(ctx context.Context) bool {
	if c.provider == nil {
		return false
	}
	cache, ok := c.provider.(interface{ Invalidate() })
	v, err := c.provider.Retrieve(ctx)
	if !ok || err != nil || !v.CanExpire {
		return false
	}
	cache.Invalidate()
	return true
}

type credentialsError struct {
	cause  error
	worked bool // the provider has supplied credentials before
}

func (e *credentialsError) Error() string { return e.cause.Error() }
func (e *credentialsError) Unwrap() error { return e.cause }

// judgeCredentials distinguishes a machine that has no credentials, where another
// attempt is useless, from one that could not renew them for the moment.
func (f *failure) judgeCredentials(ctx context.Context, e *credentialsError) {
	f.text = "no credentials: " + e.Error()
	switch {
	case httpclient.Ended(ctx) != nil:
		f.kind = httpclient.Ended(ctx)
	case !e.worked:
		f.kind = backend.ErrPermission
		f.advise("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or give the machine a role")
	}
}
