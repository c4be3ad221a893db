package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
)

// A restore of a checkpoint fetches 4 MiB, 8 times at once, and writes at most 1
// MiB at a time (fetchSize, fetches and maxRun in package checkpoint). With 4
// transfers at once, as the others here have, this has as much under way.
const (
	rangeSize = 8 << 20
	pieceSize = 1 << 20
)

// copyFiles does with the driver what the other programs do: "put URL DIR"
// copies the files of a directory to the store, "get URL DIR" the other way.
func copyFiles(ctx context.Context, args []string, parallel int) (err error) {
	if len(args) != 3 {
		return fmt.Errorf("want put or get, a URL and a directory, not %q", args)
	}
	verb, url, dir := args[0], args[1], args[2]
	store, err := backend.Open(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	switch verb {
	case "put":
		return putFiles(ctx, store, dir, parallel)
	case "get":
		return getFiles(ctx, store, dir, parallel)
	}
	return fmt.Errorf("want put or get, not %q", verb)
}

func putFiles(ctx context.Context, store backend.Store, dir string, parallel int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	buffers := newBuffers(parallel, fileSize)
	g, ctx := errgroup.WithContext(ctx)
	for _, entry := range entries {
		buffer := <-buffers
		g.Go(func() error {
			defer func() { buffers <- buffer }()
			return putFile(ctx, store, filepath.Join(dir, entry.Name()), entry.Name(), buffer)
		})
	}
	return g.Wait()
}

func putFile(ctx context.Context, store backend.Store, file, key string, buffer []byte) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.ReadFull(f, buffer)
	if err != nil {
		return err
	}
	_, err = store.Put(ctx, key, buffer[:n])
	return err
}

func getFiles(ctx context.Context, store backend.Store, dir string, parallel int) error {
	objects, err := list(ctx, store)
	if err != nil {
		return err
	}
	buffers := newBuffers(parallel, rangeSize)
	g, ctx := errgroup.WithContext(ctx)
	for _, o := range objects {
		file := filepath.Join(dir, o.Key)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return errors.Join(err, g.Wait())
		}
		for offset := int64(0); offset < o.Size; offset += rangeSize {
			buffer := <-buffers
			g.Go(func() error {
				defer func() { buffers <- buffer }()
				return getRange(ctx, store, o.Key, file, offset, buffer)
			})
		}
	}
	return g.Wait()
}

func getRange(ctx context.Context, store backend.Store, key, file string, offset int64, buffer []byte) error {
	n, err := store.Get(ctx, key, offset, buffer)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for piece := range slices.Chunk(buffer[:n], pieceSize) {
		if _, err := f.WriteAt(piece, offset); err != nil {
			return errors.Join(err, f.Close())
		}
		offset += int64(len(piece))
	}
	return f.Close()
}

// newBuffers returns as many buffers as transfers may be under way.
func newBuffers(n, size int) chan []byte {
	buffers := make(chan []byte, n)
	for range n {
		buffers <- make([]byte, size)
	}
	return buffers
}

func list(ctx context.Context, store backend.Store) ([]backend.Object, error) {
	var objects []backend.Object
	for o, err := range store.List(ctx, "", "") {
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}
