package main

import (
	"net/url"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
)

// checkApart refuses a directory that holds the store or lies in it: a save
// would save its own segments, and a restore could replace the store.
func checkApart(rawURL, dir string) error {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "file" || u.Path == "" || u.Host != "" && u.Host != "localhost" {
		return nil // opening it says what is wrong with it, if anything is
	}
	store := u.Path
	if runtime.GOOS == "windows" {
		store = strings.TrimPrefix(store, "/")
	}
	store, dir = real(store), real(dir)
	switch {
	case holds(dir, store):
		return backend.Invalidf("the store %s lies in the directory %s; choose another directory", store, dir)
	case holds(store, dir):
		return backend.Invalidf("the directory %s lies in the store %s; choose another directory", dir, store)
	}
	return nil
}

func holds(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// real returns the absolute path that path leads to. What does not exist yet is
// taken to be no link.
func real(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	for dir, rest := abs, ""; ; {
		if found, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(found, rest)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return abs
		}
		dir, rest = parent, filepath.Join(filepath.Base(dir), rest)
	}
}
