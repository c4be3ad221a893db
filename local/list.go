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
		if err := w.run(); err != nil && !errors.Is(err, fs.SkipAll) {
			yield(backend.Object{}, s.fail("list", prefix, err))
		}
	}
}

// A walk is one listing. It reads a directory when it comes to it and asks for
// the attributes of a file when it yields it, no sooner: a listing that ends
// after one key has cost one directory and one file. Its methods return
// fs.SkipAll when the consumer has had enough.
type walk struct {
	ctx           context.Context
	store         *Store
	root          *os.Root
	prefix, after string
	yield         func(backend.Object) bool
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
	w.root, err = w.store.look()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever written
	}
	if err != nil {
		return err
	}
	// The directory that prefix names: below it, every key that has the prefix
	// has it in its first name.
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

// walk yields what is in dir, which ends with "/" unless it is the root, "".
//
// The entries are taken in byte order. One that turns out to be a directory
// goes back to where "/" at its end puts it: behind "name-" and "name.", say.
func (w *walk) walk(dir string) error {
	names, err := w.read(dir)
	if absent(err) && dir != "" {
		return nil // gone since its parent was read
	}
	if err != nil {
		return err
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

func (w *walk) goOn() error {
	if w.store.isClosed() {
		return backend.ErrClosed
	}
	return w.ctx.Err()
}

// read returns the names in dir, sorted, that may lead to wanted keys. It does
// without the types of the entries, for which package os would ask one by one.
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
			w.store.saw(cmp.Or(strings.TrimSuffix(dir, "/"), "."))
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// wants reports whether key, or a key that begins with it if it ends with "/",
// belongs to the listing.
func (w *walk) wants(key string) bool {
	return strings.HasPrefix(key, w.prefix) &&
		(key > w.after || strings.HasSuffix(key, "/") && strings.HasPrefix(w.after, key))
}

// visit yields the object at key, or those below it if it ends with "/". It
// reports that key is a directory, which must come again with a "/". What can
// not be a key is not of this store.
func (w *walk) visit(key string) (isDir bool, err error) {
	if strings.HasSuffix(key, "/") {
		return false, w.walk(key)
	}
	if backend.CheckKey(key) != nil {
		return false, nil
	}
	info, err := w.root.Lstat(key)
	if absent(err) {
		return false, nil // gone since the directory was read
	}
	if err != nil {
		return false, err
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
