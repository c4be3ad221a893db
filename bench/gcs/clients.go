package main

import (
	"context"
	"errors"
	"io"

	"cloud.google.com/go/storage"

	"github.com/holdfast-io/holdfast/backend"
	_ "github.com/holdfast-io/holdfast/gcs"
)

// A client is a way to make and read objects.
type client struct {
	name   string
	create func(ctx context.Context, key string, data []byte) error // only if absent
	put    func(ctx context.Context, key string, data []byte) error
	get    func(ctx context.Context, key string, p []byte) error
	remove func(ctx context.Context, key string) error
	close  func() error
}

func openDriver(ctx context.Context, url string) (client, error) {
	s, err := backend.Open(ctx, url)
	if err != nil {
		return client{}, err
	}
	return client{
		name: "holdfast",
		create: func(ctx context.Context, key string, data []byte) error {
			_, err := s.Create(ctx, key, data)
			return err
		},
		put: func(ctx context.Context, key string, data []byte) error {
			_, err := s.Put(ctx, key, data)
			return err
		},
		get: func(ctx context.Context, key string, p []byte) error {
			_, err := s.Get(ctx, key, 0, p)
			return err
		},
		remove: func(ctx context.Context, key string) error { return s.Delete(ctx, key) },
		close:  s.Close,
	}, nil
}

func bare(name string, sdk *storage.Client, chunk int) client {
	object := func(key string) *storage.ObjectHandle {
		return sdk.Bucket(bucket).Object(name + "/" + key)
	}
	write := func(ctx context.Context, o *storage.ObjectHandle, data []byte) error {
		w := o.NewWriter(ctx)
		w.ChunkSize = chunk
		w.ContentType = "application/octet-stream"
		_, err := w.Write(data)
		return errors.Join(err, w.Close())
	}
	return client{
		name: name,
		create: func(ctx context.Context, key string, data []byte) error {
			return write(ctx, object(key).If(storage.Conditions{DoesNotExist: true}), data)
		},
		put: func(ctx context.Context, key string, data []byte) error { return write(ctx, object(key), data) },
		get: func(ctx context.Context, key string, p []byte) error {
			r, err := object(key).NewReader(ctx) // without a range, it checks the CRC32C, as the driver does
			if err != nil {
				return err
			}
			_, err = io.ReadFull(r, p)
			return errors.Join(err, r.Close())
		},
		remove: func(ctx context.Context, key string) error { return object(key).Delete(ctx) },
		close:  sdk.Close,
	}
}
