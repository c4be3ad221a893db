package s3

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/holdfast-io/holdfast/backend"
)

// deleteBatch is the most keys that one DeleteObjects takes.
const deleteBatch = 1000

// Delete removes objects by DeleteObjects, 1,000 at a time, or one by one if the
// service has no DeleteObjects. In a versioned bucket it leaves the old versions,
// which the bucket's lifecycle rules must remove.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := s.ready(ctx, "delete", "", nil); err != nil {
		return err
	}
	for _, key := range keys {
		if err := backend.CheckKey(key); err != nil {
			return s.error("delete", key, err)
		}
	}
	var failed []error
	for batch := range slices.Chunk(keys, deleteBatch) {
		failed = append(failed, s.deleteSome(ctx, batch)...)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

func (s *Store) deleteSome(ctx context.Context, keys []string) []error {
	if len(keys) == 1 || s.single.Load() {
		return s.deleteEach(ctx, keys)
	}
	ids := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		ids[i].Key = aws.String(s.prefix + key)
	}
	out, err := s.client.DeleteObjects(ctx, &sdk.DeleteObjectsInput{
		Bucket:       &s.bucket,
		Delete:       &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
		RequestPayer: s.payer(),
	}, checked(checkDeleteAnswer))
	switch errorCode(err) {
	case "NotImplemented", "MethodNotAllowed", // the service has no DeleteObjects
		"MissingContentMD5": // it has DeleteObjects, but does not know the SDK's checksums yet
		s.single.Store(true)
		return s.deleteEach(ctx, keys)
	}
	if err != nil {
		return []error{s.failed(ctx, "delete", commonPrefix(keys), err)}
	}
	return s.deleteErrors(ctx, out)
}

// deleteErrors returns the errors of the keys that a batch could not delete.
func (s *Store) deleteErrors(ctx context.Context, out *sdk.DeleteObjectsOutput) []error {
	var failed []error
	request, _ := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
	for _, e := range out.Errors {
		if aws.ToString(e.Code) == "NoSuchKey" {
			continue
		}
		key := strings.TrimPrefix(aws.ToString(e.Key), s.prefix)
		cause := &keyError{
			GenericAPIError: smithy.GenericAPIError{Code: aws.ToString(e.Code), Message: aws.ToString(e.Message)},
			request:         request,
		}
		failed = append(failed, s.failed(ctx, "delete", key, cause))
	}
	return failed
}

// keyError is the error of one key in a batch. It has the methods by which failed
// recognizes the SDK's errors.
type keyError struct {
	smithy.GenericAPIError
	request string
}

func (e *keyError) ServiceRequestID() string { return e.request }

func (s *Store) deleteEach(ctx context.Context, keys []string) []error {
	var failed []error
	for _, key := range keys {
		_, err := s.client.DeleteObject(ctx, &sdk.DeleteObjectInput{
			Bucket:       &s.bucket,
			Key:          aws.String(s.prefix + key),
			RequestPayer: s.payer(),
		}, checked(checkDeleteAnswer))
		if err == nil || errorCode(err) == "NoSuchKey" {
			continue
		}
		failed = append(failed, s.failed(ctx, "delete", key, err))
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// commonPrefix returns what all keys of a batch begin with, for an error.
func commonPrefix(keys []string) string {
	p := keys[0]
	for _, key := range keys {
		for !strings.HasPrefix(key, p) {
			p = p[:len(p)-1]
		}
	}
	return p
}
