package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// errDiffer means that two trees are not the same.
var errDiffer = errors.New("not the same")

// sameTree compares the regular files of two directories by name and byte. It
// returns an error that wraps errDiffer and names the first difference.
// Directories are compared by what is in them: an object store has no others.
func sameTree(want, got string) error {
	wanted, err := filesIn(want)
	if err != nil {
		return err
	}
	found, err := filesIn(got)
	if err != nil {
		return err
	}
	for path := range found {
		if _, ok := wanted[path]; !ok {
			return fmt.Errorf("%w: %s should not be there", errDiffer, path)
		}
	}
	c := comparer{make([]byte, 1<<20), make([]byte, 1<<20)}
	for path, size := range wanted {
		is, ok := found[path]
		switch {
		case !ok:
			return fmt.Errorf("%w: %s is missing", errDiffer, path)
		case is != size:
			return fmt.Errorf("%w: %s has %d bytes instead of %d", errDiffer, path, is, size)
		}
		if err := c.same(filepath.Join(want, path), filepath.Join(got, path)); err != nil {
			return err
		}
	}
	return nil
}

// filesIn returns the files below dir with their sizes.
func filesIn(dir string) (map[string]int64, error) {
	files := make(map[string]int64)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%w: %s is no regular file", errDiffer, path)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files[rel] = info.Size()
		return err
	})
	return files, err
}

// comparer compares files. Its two buffers are of one size.
type comparer struct{ a, b []byte }

func (c *comparer) same(want, got string) error {
	a, err := os.Open(want)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(got)
	if err != nil {
		return err
	}
	defer b.Close()
	for {
		n, err := io.ReadFull(a, c.a)
		m, berr := io.ReadFull(b, c.b)
		if n != m || !bytes.Equal(c.a[:n], c.b[:m]) {
			return fmt.Errorf("%w: %s has other bytes", errDiffer, got)
		}
		for _, err := range []error{err, berr} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}
