package local

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/holdfast-io/holdfast/backend"
)

// List yields objects in the order of their keys.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		w := &walk{ctx: ctx, store: s, prefix: prefix, after: after}
		w.yield = func(o backend.Object) bool { return yield(o, nil) }
		err := w.run()
		if err == nil || errors.Is(err, fs.SkipAll) {
			return
		}
		err = classify(err)
		if len(w.hidden) > len(prefix) {
			err = &backend.HiddenError{Prefix: w.hidden, Err: err}
		}
		yield(backend.Object{}, &backend.Error{Op: "list", Store: s.name, Key: prefix, Err: err})
	}
}

// A walk is one listing, in progress. It reads a directory only when it enters it, and the
// attributes of a file only when it yields it. So a listing that ends after one key has
// read one directory and one file. Its methods return fs.SkipAll when the consumer has
// ended the listing.
type walk struct {
	ctx           context.Context
	store         *Store
	root          *os.Root
	prefix, after string
	yield         func(backend.Object) bool
	hidden        string // the directory that could not be read, with "/" at its end
}

func (w *walk) run() error {
	if err := w.store.enter(w.ctx); err != nil {
		return err
	}
	defer w.store.leave()
	err := backend.CheckPrefix(w.prefix)
	if err != nil {
		return err
	}
	w.root, err = w.store.openedRoot()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever written
	}
	if err != nil {
		return err
	}
	// start is the directory part of prefix. Only keys below it can have the prefix.
	start := w.prefix[:strings.LastIndexByte(w.prefix, '/')+1]
	if start == "" {
		return w.walk("")
	}
	info, err := w.root.Lstat(strings.TrimSuffix(start, "/"))
	if absent(err) || err == nil && !info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	return w.walk(start)
}

// absent reports whether err says that there is nothing by that name.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// walk yields what is in dir, which is "" for the root, and ends with "/" otherwise.
//
// It visits the entries in byte order. A directory is visited in the order of its
// name with a "/" at the end: after "name-" and "name.", for example.
func (w *walk) walk(dir string) error {
	names, err := w.read(dir)
	if absent(err) && dir != "" {
		return nil // it disappeared after its parent was read
	}
	if err != nil {
		return w.hides(dir, err)
	}
	for len(names) > 0 {
		if err := w.goOn(); err != nil {
			return err
		}
		name := names[0]
		isDir, err := w.visit(dir + name)
		if err != nil {
			return err
		}
		if isDir {
			i, _ := slices.BinarySearch(names, name+"/")
			copy(names, names[1:i])
			names[i-1] = name + "/"
		} else {
			names = names[1:]
		}
	}
	return nil
}

// hides notes that the system does not let a directory be read, if that is what err says.
func (w *walk) hides(dir string, err error) error {
	if errors.As(err, new(*fs.PathError)) {
		w.hidden = dir
	}
	return err
}

func (w *walk) goOn() error {
	if w.store.isClosed() {
		return backend.ErrClosed
	}
	return w.ctx.Err()
}

// read returns, sorted, the names in dir that may lead to wanted keys. It does not
// ask for the types of the entries: package os would need one system call for each.
func (w *walk) read(dir string) ([]string, error) {
	f, err := w.root.Open(cmp.Or(strings.TrimSuffix(dir, "/"), "."))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for {
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		some, err := f.Readdirnames(1024)
		for _, name := range some {
			if w.wants(dir+name) || w.wants(dir+name+"/") {
				names = append(names, name)
			}
		}
		if err == io.EOF {
			w.store.recordFound(cmp.Or(strings.TrimSuffix(dir, "/"), "."))
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// wants reports whether the listing needs key or, if key ends with "/", any key below
// it.
func (w *walk) wants(key string) bool {
	return strings.HasPrefix(key, w.prefix) &&
		(key > w.after || strings.HasSuffix(key, "/") && strings.HasPrefix(w.after, key))
}

// visit yields the object at key or, if key ends with "/", the objects below it. It
// returns true for a directory, which must then be visited again with a "/". Files
// whose names cannot be keys are skipped.
func (w *walk) visit(key string) (isDir bool, err error) {
	if strings.HasSuffix(key, "/") {
		return false, w.walk(key)
	}
	if backend.CheckKey(key) != nil {
		return false, nil
	}
	info, err := w.root.Lstat(key)
	if absent(err) {
		return false, nil // it disappeared after the directory was read
	}
	if err != nil {
		return false, w.hides(key[:strings.LastIndexByte(key, '/')+1], err)
	}
	if info.IsDir() {
		return w.wants(key + "/"), nil
	}
	if !info.Mode().IsRegular() || !w.wants(key) {
		return false, nil
	}
	if !w.yield(backend.Object{Key: key, Size: info.Size(), ModTime: changeTime(info)}) {
		return false, fs.SkipAll
	}
	return false, nil
}
