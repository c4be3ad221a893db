package s3

import (
	"context"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/httpclient"
)

// credentials passes on what a provider of the SDK gives, and marks its errors,
// which the SDK does not make recognisable.
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

// renew drops credentials that the service calls expired, and reports whether
// the provider can give others.
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
	worked bool // the provider has given credentials before
}

func (e *credentialsError) Error() string { return e.cause.Error() }
func (e *credentialsError) Unwrap() error { return e.cause }

// judgeCredentials tells a machine that has no credentials, where trying again
// is vain, from one that has a moment's trouble in renewing them.
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
