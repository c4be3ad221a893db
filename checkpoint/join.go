package checkpoint

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
)

// Join combines several states into one. Each part is in a directory of its name, which
// must be one element of a path. A part may be a directory, a stream, or another Join.
// [RestoreOptions.Sub] restores one part alone.
//
// Immutable and WriteOnce of a part hold for that part. Reread, Full and FileOwners of one
// part hold for all. A stream has no owner, so a state with FileOwners cannot have streams.
func Join(parts map[string]Source) Source {
	s := Source{parts: maps.Clone(parts)}
	if s.parts == nil {
		s.parts = map[string]Source{}
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		part := parts[name]
		if part.open != nil {
			s.open = s.openParts
		}
		for _, from := range part.streams {
			s.streams = append(s.streams, stream{path.Join(name, from.name), from.reader})
		}
		s.reread, s.full, s.owners = s.reread || part.reread, s.full || part.full, s.owners || part.owners
	}
	return s
}

func (s *Source) checkParts() error {
	for name, part := range s.parts {
		if !fs.ValidPath(name) || name == "." || strings.Contains(name, "/") {
			return backend.Invalidf("part %q of a state: its name must be one element of a path", name)
		}
		if part.open == nil && len(part.streams) == 0 {
			return backend.Invalidf("part %q of a state has nothing in it: leave it out", name)
		}
		if err := part.check(); err != nil {
			return err
		}
	}
	return nil
}

// locate returns where a file of the state comes from: the directory of its part, and the
// path below that directory.
func (s *Source) locate(name string) (base, below string) {
	first, rest, ok := strings.Cut(name, "/")
	part, isPart := s.parts[first]
	if !isPart {
		return s.base, name
	}
	if !ok {
		rest = "."
	}
	return part.locate(rest)
}

// openParts opens the trees of all parts.
func (s Source) openParts() (fs.FS, func() error, error) {
	joined, closers := make(joinedFS), []func() error(nil)
	closeAll := func() (err error) {
		for _, c := range closers {
			err = errors.Join(err, c())
		}
		return err
	}
	for name, part := range s.parts {
		if part.open == nil {
			continue
		}
		tree, c, err := part.open()
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		joined[name], closers = tree, append(closers, c)
	}
	return joined, closeAll, nil
}

// A joinedFS presents several file systems as one, each in a directory of its name.
type joinedFS map[string]fs.FS

func (j joinedFS) find(op, name string) (tree fs.FS, below string, err error) {
	first, rest, ok := strings.Cut(name, "/")
	if !ok {
		rest = "."
	}
	if tree := j[first]; tree != nil {
		return tree, rest, nil
	}
	return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

func (j joinedFS) Open(name string) (fs.File, error) {
	tree, below, err := j.find("open", name)
	if err != nil {
		return nil, err
	}
	return tree.Open(below)
}

func (j joinedFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		tree, below, err := j.find("readdir", name)
		if err != nil {
			return nil, err
		}
		return fs.ReadDir(tree, below)
	}
	var list []fs.DirEntry
	for _, part := range slices.Sorted(maps.Keys(j)) {
		info, err := fs.Stat(j[part], ".")
		if err != nil {
			return nil, err
		}
		list = append(list, fs.FileInfoToDirEntry(renamed{info, part}))
	}
	return list, nil
}

// Stat describes what a name leads to. The root has the attributes of the part whose
// name sorts first.
func (j joinedFS) Stat(name string) (fs.FileInfo, error) {
	if name == "." {
		name = slices.Min(slices.Collect(maps.Keys(j)))
	}
	tree, below, err := j.find("stat", name)
	if err != nil {
		return nil, err
	}
	return fs.Stat(tree, below)
}

func (j joinedFS) Lstat(name string) (fs.FileInfo, error) {
	if !strings.Contains(name, "/") {
		return j.Stat(name)
	}
	tree, below, err := j.find("lstat", name)
	if err != nil {
		return nil, err
	}
	return fs.Lstat(tree, below)
}

func (j joinedFS) ReadLink(name string) (string, error) {
	tree, below, err := j.find("readlink", name)
	if err != nil {
		return "", err
	}
	return readLink(tree, below)
}

// writeAhead calls writeAhead of those parts that are directories.
func (j joinedFS) writeAhead(names []string) (stop func()) {
	of := make(map[string][]string)
	for _, name := range names {
		if part, below, ok := strings.Cut(name, "/"); ok {
			of[part] = append(of[part], below)
		}
	}
	var stops []func()
	for part, names := range of {
		if dir, ok := j[part].(dirFS); ok {
			stops = append(stops, dir.writeAhead(names))
		}
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// hasUnkept is that of the part that a directory is in.
func (j joinedFS) hasUnkept(dir string) bool {
	tree, below, err := j.find("open", dir)
	part, ok := tree.(dirFS)
	return err == nil && ok && part.hasUnkept(below)
}

// renamed is a FileInfo under another name.
type renamed struct {
	fs.FileInfo
	name string
}

func (r renamed) Name() string { return r.name }
