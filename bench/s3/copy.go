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

// copyFiles does with the driver what the other programs do: "put URL DIR"
// copies the files of a directory to the store, "get URL DIR" the other way.
func copyFiles(ctx context.Context, args []string, parallel int) error {
	if len(args) != 3 {
		return fmt.Errorf("want put or get, a URL and a directory, not %q", args)
	}
	verb, url, dir := args[0], args[1], args[2]
	store, err := backend.Open(ctx, url)
	if err != nil {
		return err
	}
	defer store.Close()
	buffers := make(chan []byte, parallel)
	for range parallel {
		buffers <- make([]byte, fileSize)
	}
	names, err := list(ctx, store, verb, dir)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, name := range names {
		g.Go(func() error {
			buffer := <-buffers
			defer func() { buffers <- buffer }()
			if verb == "put" {
				return putFile(ctx, store, filepath.Join(dir, name), name, buffer)
			}
			return getFile(ctx, store, name, filepath.Join(dir, name), buffer)
		})
	}
	return g.Wait()
}

func list(ctx context.Context, store backend.Store, verb, dir string) (names []string, err error) {
	if verb == "put" {
		entries, err := os.ReadDir(dir)
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		return names, err
	}
	for o, err := range store.List(ctx, "", "") {
		if err != nil {
			return nil, err
		}
		names = append(names, o.Key)
	}
	return names, nil
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

func getFile(ctx context.Context, store backend.Store, key, file string, buffer []byte) error {
	n, err := store.Get(ctx, key, 0, buffer)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	// Linux 6.18 spends ten times the CPU on one write of 32 MiB to ext4 when
	// memory is fragmented, because it looks for folios as large.
	for piece := range slices.Chunk(buffer[:n], 1<<20) {
		if _, err := f.Write(piece); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}
