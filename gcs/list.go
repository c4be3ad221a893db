package gcs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"github.com/holdfast-io/holdfast/backend"
)

// The first page is short because a reader of a history needs only its newest entry,
// and there may be 100,000. Whoever needs all of them pays one more request. 1,000 is
// the largest page of the service.
const (
	firstPage = 16
	fullPage  = 1000
)

// List yields objects by requests of objects.list. It fails with ErrUnsupported if
// the service does not list in the order of bytes, because then the newest entry
// would not come first.
//
// List skips objects whose names are not valid keys: they were not written through
// this package.
//
// List uses the SDK directly, because gocloud's bucket sorts each page, which would
// hide a wrong order, and sends more requests until a page is full.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		if err := s.ready(ctx, "list", prefix, backend.CheckPrefix(prefix)); err != nil {
			yield(backend.Object{}, err)
			return
		}
		query := &storage.Query{Prefix: s.prefix + prefix, Projection: storage.ProjectionNoACL}
		last := ""
		if after != "" {
			last = s.prefix + after
			query.StartOffset = last // inclusive
		}
		for attrs, err := range s.pages(ctx, prefix, query) {
			if err != nil {
				yield(backend.Object{}, err)
				return
			}
			if attrs.Name == query.StartOffset {
				continue
			}
			if attrs.Name <= last || !strings.HasPrefix(attrs.Name, query.Prefix) {
				yield(backend.Object{}, s.error("list", prefix, outOfOrder(attrs.Name, last)))
				return
			}
			last = attrs.Name
			o := backend.Object{Key: strings.TrimPrefix(attrs.Name, s.prefix), Size: attrs.Size, ModTime: attrs.Created}
			if backend.CheckKey(o.Key) != nil {
				continue
			}
			if o.ModTime.IsZero() {
				err := fmt.Errorf("the service does not say when it was written: %w", backend.ErrUnsupported)
				yield(backend.Object{}, s.error("list", o.Key, err))
				return
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

func outOfOrder(name, last string) error {
	return fmt.Errorf("the service returned %q after %q, so it does not list in the order of bytes, "+
		"which checkpoints need: %w", name, last, backend.ErrUnsupported)
}

// pages yields the entries of all pages. Each page is one request. An empty page need
// not be the last.
func (s *Store) pages(ctx context.Context, prefix string, query *storage.Query) iter.Seq2[*storage.ObjectAttrs, error] {
	return func(yield func(*storage.ObjectAttrs, error) bool) {
		if err := query.SetAttrSelection([]string{"Name", "Size", "Created"}); err != nil {
			yield(nil, s.error("list", prefix, err))
			return
		}
		objects := s.client.Bucket(s.name).Objects(ctx, query)
		objects.PageInfo().MaxSize = firstPage
		for {
			if err := s.ready(ctx, "list", prefix, nil); err != nil {
				yield(nil, err)
				return
			}
			attrs, err := objects.Next()
			if errors.Is(err, iterator.Done) {
				return
			}
			if err != nil {
				yield(nil, s.failed(ctx, "list", prefix, err))
				return
			}
			objects.PageInfo().MaxSize = fullPage
			if !yield(attrs, nil) {
				return
			}
		}
	}
}
