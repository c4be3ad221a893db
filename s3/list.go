package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/holdfast-io/holdfast/backend"
)

// The first page is short because a reader of a history needs only its newest entry,
// and there may be 100,000. Whoever needs all of them pays one more request. 1,000 is
// the largest page of S3.
const (
	firstPage = 16
	fullPage  = 1000
)

// List yields objects by requests of ListObjectsV2. It fails with ErrUnsupported if
// the service does not list in the order of bytes, because then the newest entry
// would not come first. A directory bucket of S3 Express lists in no order: List
// reads all of it and sorts it before it yields anything.
//
// List skips objects whose names are not valid keys: they were not written through
// this package.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		if err := s.ready(ctx, "list", prefix, backend.CheckPrefix(prefix)); err != nil {
			yield(backend.Object{}, err)
			return
		}
		objects := s.list(ctx, prefix, after)
		if s.directory {
			objects = s.listSorted(ctx, prefix, after)
		}
		for o, err := range objects {
			if !yield(o, err) {
				return
			}
		}
	}
}

// list yields what the service lists after a key, and checks the order.
func (s *Store) list(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		in := &sdk.ListObjectsV2Input{Prefix: aws.String(s.prefix + prefix)}
		last := ""
		if after != "" {
			last = s.prefix + after
			in.StartAfter = aws.String(last)
		}
		for content, err := range s.pages(ctx, prefix, in) {
			if err != nil {
				yield(backend.Object{}, err)
				return
			}
			key := aws.ToString(content.Key)
			if key <= last || !strings.HasPrefix(key, *in.Prefix) {
				yield(backend.Object{}, s.error("list", prefix, outOfOrder(key, last)))
				return
			}
			last = key
			if !s.yield(content, yield) {
				return
			}
		}
	}
}

func outOfOrder(key, last string) error {
	return fmt.Errorf("the service returned %q after %q, so it does not list in the order of bytes, "+
		"which checkpoints need; use another service (docs/deploy/aws.md lists some): %w", key, last, backend.ErrUnsupported)
}

// yield passes an object on. It returns false if the listing must end.
func (s *Store) yield(content types.Object, yield func(backend.Object, error) bool) bool {
	o := backend.Object{
		Key:     strings.TrimPrefix(aws.ToString(content.Key), s.prefix),
		Size:    aws.ToInt64(content.Size),
		ModTime: aws.ToTime(content.LastModified),
	}
	if backend.CheckKey(o.Key) != nil {
		return true
	}
	if o.ModTime.IsZero() {
		err := fmt.Errorf("the service does not say when it was written: %w", backend.ErrUnsupported)
		yield(backend.Object{}, s.error("list", o.Key, err))
		return false
	}
	return yield(o, nil)
}

// listSorted lists the whole directory of prefix, because a directory bucket can list
// only directories. It selects and sorts the entries that were asked for.
func (s *Store) listSorted(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		full := s.prefix + prefix
		directory := full[:strings.LastIndex(full, "/")+1]
		in := &sdk.ListObjectsV2Input{}
		if directory != "" {
			in.Prefix = &directory
		}
		var found []types.Object
		for content, err := range s.pages(ctx, prefix, in) {
			if err != nil {
				yield(backend.Object{}, err)
				return
			}
			key := aws.ToString(content.Key)
			if strings.HasPrefix(key, full) && (after == "" || key > s.prefix+after) {
				found = append(found, content)
			}
		}
		slices.SortFunc(found, func(a, b types.Object) int { return strings.Compare(*a.Key, *b.Key) })
		for _, content := range found {
			if !s.yield(content, yield) {
				return
			}
		}
	}
}

// pages yields the entries of all pages. Each page is one request. A page that the
// service calls truncated may still be the last one: MinIO says so of every last
// page. An empty page need not be the last: a service may drop deleted versions from
// a page.
func (s *Store) pages(ctx context.Context, prefix string, in *sdk.ListObjectsV2Input) iter.Seq2[types.Object, error] {
	in.Bucket = &s.bucket
	in.MaxKeys = aws.Int32(firstPage)
	in.RequestPayer = s.payer()
	return func(yield func(types.Object, error) bool) {
		for {
			if err := s.ready(ctx, "list", prefix, nil); err != nil {
				yield(types.Object{}, err)
				return
			}
			page, err := s.client.ListObjectsV2(ctx, in, checked(checkListAnswer))
			if err == nil && page.Name == nil && page.KeyCount == nil && page.IsTruncated == nil {
				err = &notS3Error{"it has a listing without a bucket's name, a number of keys, or an end"} // every service sends at least one of the three
			}
			if err != nil {
				yield(types.Object{}, s.failed(ctx, "list", prefix, err))
				return
			}
			for _, content := range page.Contents {
				if !yield(content, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			next := aws.ToString(page.NextContinuationToken)
			if next == "" || next == aws.ToString(in.ContinuationToken) {
				yield(types.Object{}, s.error("list", prefix, errors.New("the service says that there is more, but gives no token to continue")))
				return
			}
			in.ContinuationToken = &next
			in.MaxKeys = aws.Int32(fullPage)
		}
	}
}
