package checkpoint

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A stateFS is a checkpoint's state as a file system: see [Checkpoint.FS].
type stateFS struct {
	ctx     context.Context
	c       *Checkpoint
	places  format.Places
	catalog *catalog.Catalog   // of the chunks in the list of files
	nodes   map[string]*node   // without the chunks in their tables
	dirs    map[string][]*node // by name
}

var (
	_ fs.ReadDirFS  = (*stateFS)(nil)
	_ fs.StatFS     = (*stateFS)(nil)
	_ fs.ReadLinkFS = (*stateFS)(nil)
)

// FS returns the checkpoint's state as a file system. It fetches the list of files now,
// and their data when it is read, and checks both. When ctx ends, both fail.
//
// The file system implements fs.ReadDirFS, fs.StatFS and fs.ReadLinkFS; its files are
// io.ReaderAt and io.Seeker. The file system and its files may be used from many goroutines
// at once; reads of one file wait for each other. An open directory must be used by one
// goroutine at a time.
func (c *Checkpoint) FS(ctx context.Context) (fs.FS, error) {
	l, err := c.newLoader()
	if err != nil {
		return nil, err
	}
	f := &stateFS{ctx: ctx, c: c, places: l.places, catalog: l.catalog, nodes: make(map[string]*node), dirs: make(map[string][]*node)}
	f.nodes["."] = &node{Entry: format.Entry{Path: ".", Mode: fs.ModeDir | 0o755}}
	err = l.entries(ctx, func(_ *leaf, e *format.Entry) error {
		n, err := l.node(e)
		if err != nil {
			return err
		}
		f.nodes[n.Path] = &n
		if n.Path != "." {
			f.dirs[path.Dir(n.Path)] = append(f.dirs[path.Dir(n.Path)], &n)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Open opens a file or directory, following links inside the checkpoint.
func (f *stateFS) Open(name string) (fs.File, error) {
	e, err := f.follow("open", name)
	if err != nil {
		return nil, err
	}
	info := info{e, path.Base(name)}
	if e.Mode.IsDir() {
		list, err := f.ReadDir(name)
		return &openDir{info, list}, err
	}
	return &openFile{fs: f, info: info}, nil
}

// ReadDir lists a directory by name.
func (f *stateFS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := f.follow("readdir", name)
	if err != nil {
		return nil, err
	}
	if !e.Mode.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errNotDir}
	}
	children := f.dirs[e.Path]
	list := make([]fs.DirEntry, len(children))
	for i, child := range children {
		list[i] = fs.FileInfoToDirEntry(info{child, path.Base(child.Path)})
	}
	return list, nil
}

// Stat describes a file, following links.
func (f *stateFS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.follow("stat", name)
	if err != nil {
		return nil, err
	}
	return info{e, path.Base(name)}, nil
}

// Lstat describes a file, and a link as a link.
func (f *stateFS) Lstat(name string) (fs.FileInfo, error) {
	e, err := f.lookup("lstat", name)
	if err != nil {
		return nil, err
	}
	return info{e, path.Base(name)}, nil
}

// ReadLink returns the target of a link.
func (f *stateFS) ReadLink(name string) (string, error) {
	e, err := f.lookup("readlink", name)
	if err != nil {
		return "", err
	}
	if e.Mode.Type() != fs.ModeSymlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return e.Target, nil
}

// follow returns what name stands for when every link in it is followed.
func (f *stateFS) follow(op, name string) (*node, error) { return f.walk(op, name, true) }

// lookup is like follow, but does not follow the last element of name if it is a link.
func (f *stateFS) lookup(op, name string) (*node, error) { return f.walk(op, name, false) }

// maxLinks bounds the links that are followed for one name, as systems do.
const maxLinks = 40

// walk resolves a name element by element, as an operating system does: ".." leads to
// the parent of the directory that the links before it have led to.
func (f *stateFS) walk(op, name string, followLast bool) (*node, error) {
	fail := func(err error) (*node, error) { return nil, &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	if n := f.nodes[name]; n != nil && (n.Mode.Type() != fs.ModeSymlink || !followLast) {
		return n, nil // no node is below a link, so no earlier element of the name is a link
	}
	at := f.nodes["."]
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch {
		case !at.Mode.IsDir():
			return fail(errNotDir)
		case part == "" || part == ".":
			continue
		case part == ".." && at.Path == ".":
			return fail(errLeadsOut)
		case part == "..":
			at = f.nodes[path.Dir(at.Path)]
			continue
		}
		next := f.nodes[path.Join(at.Path, part)]
		if next == nil {
			return fail(fs.ErrNotExist)
		}
		if next.Mode.Type() != fs.ModeSymlink || len(rest) == 0 && !followLast {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return fail(errors.New("too many links"))
		}
		if path.IsAbs(next.Target) {
			return fail(errLeadsOut)
		}
		rest = append(strings.Split(next.Target, "/"), rest...)
	}
	return at, nil
}

var (
	errNotDir   = errors.New("not a directory")
	errLeadsOut = errors.New("the link leads out of the checkpoint")
)

// info describes an entry under the name by which it was reached.
type info struct {
	e    *node
	name string
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.e.Size }
func (i info) Mode() fs.FileMode  { return i.e.Mode }
func (i info) ModTime() time.Time { return i.e.ModTime }
func (i info) IsDir() bool        { return i.e.Mode.IsDir() }
func (i info) Sys() any           { return nil }

// owner returns who owned the file, if that was saved.
func (i info) owner() *format.Owner { return i.e.Owner }

type openDir struct {
	info info
	rest []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.e.Path, Err: errors.New("is a directory")}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(d.rest)
	} else if len(d.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.rest))
	list := slices.Clone(d.rest[:n])
	d.rest = d.rest[n:]
	return list, nil
}
