package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A fingerprint changes when a file is written, added or removed.
type fingerprint [sha256.Size]byte

// look takes the fingerprint of a directory, by names, sizes and times. A file that goes
// while it looks is one that changes it: the next look sees that.
func look(dir string) (f fingerprint, err error) {
	h := sha256.New()
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreGone(err)
		}
		_, _ = fmt.Fprintf(h, "%q %v %d %d\n", name, info.Mode(), info.Size(), info.ModTime().UnixNano()) // a hash takes all
		return nil
	})
	return fingerprint(h.Sum(nil)), err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// read returns the content of all files.
func read(tree fs.FS) (map[string]string, error) {
	files := make(map[string]string)
	return files, fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		files[name] = string(data)
		return err
	})
}
