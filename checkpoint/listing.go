package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/filetimes"
)

// A node is one file, directory or link of a state in memory.
type node struct {
	format.Entry // its Chunks and Table are not used
	chunks       []catalog.ID
	table        []catalog.ID // the chunks of the table that lists chunks, if there is one
}

// A scan is a state that was opened, and what was found in it, in the order of
// format.ComparePaths. What is in leaves of the checkpoint before in which nothing changed is
// not in memory.
type scan struct {
	*Source
	fsys  fs.FS
	close func() error
	began time.Time
	found []*found
	spans []span
	again bool     // it lists the state once more, to compare
	kept  Progress // of the leaves in which nothing changed: AllFiles and AllBytes

	unkept      int    // how many have attributes that a checkpoint does not keep
	firstUnkept string // the first of these
}

// A found is what a scan has found.
type found struct {
	node
	seen fileStamp
}

// A fileStamp is what this save has seen of a file. Its change time and inode tell whether
// the file was replaced or written to during the save. The node has a copy of them only if
// later saves may rely on them.
type fileStamp struct {
	changed time.Time // change time (ctime); zero if it is not known
	inode   uint64
	stream  io.Reader // of the content, if that does not come from a file
	made    bool      // it is in no file system: a stream, or a directory that contains one
	read    bool      // its content was read for this save
}

// scan opens the state. list lists what is in it.
func (s *Source) scan() (*scan, error) {
	now := time.Now() //nolint:forbidigo // what is compared with it are files' times, not the protocol's
	w := &scan{Source: s, began: now, close: func() error { return nil }}
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.open == nil {
		return w, nil
	}
	var err error
	w.fsys, w.close, err = s.open()
	return w, err
}

// list lists what is in the state. It leaves out the leaves of a tree that m finds unchanged.
func (w *scan) list(ctx context.Context, m *matcher) error {
	m.begin(w)
	if w.open != nil {
		err := fs.WalkDir(w.fsys, ".", func(path string, d fs.DirEntry, err error) error {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return w.fail(path, err)
			}
			if err := m.enter(path); err != nil {
				return err
			}
			if err := w.add(path, d); err != nil {
				return w.fail(path, err)
			}
			return m.add(w.found[len(w.found)-1])
		})
		if err != nil {
			return err
		}
	}
	w.addStreams()
	return m.end()
}

// another returns a scan that lists what is in the file system once more.
func (w *scan) another() *scan {
	files := *w.Source
	files.streams = nil
	return &scan{Source: &files, fsys: w.fsys, began: w.began, again: true}
}

// total returns a Progress with the number and size of all regular files.
func (w *scan) total() Progress {
	p := w.kept
	for _, f := range w.found {
		p.count(&f.Entry)
	}
	return p
}

// add adds what is at path.
func (w *scan) add(path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	f := &found{node: node{Entry: format.Entry{Path: path}}}
	w.found = append(w.found, f)
	w.describe(f, info)
	switch {
	case !fs.ValidPath(path):
		return errors.New("the name is not valid UTF-8, which a checkpoint cannot hold; rename it")
	case f.Mode.IsDir():
	case f.Mode.Type() == fs.ModeSymlink:
		f.Target, err = readLink(w.fsys, path)
	case f.Mode.IsRegular(), w.again: // what has come since is told by its name
	default:
		err = fmt.Errorf("it is a %s, which a checkpoint cannot hold; leave it out of the directory", typeName(f.Mode))
	}
	return err
}

// describe copies what info says into f. A file that changed less than a tick before the
// scan began may be written to again without another change time, so its change time is
// treated as unknown.
func (w *scan) describe(f *found, info fs.FileInfo) {
	f.Mode, f.ModTime = info.Mode(), info.ModTime()
	f.Owner = w.ownerOf(info)
	f.seen.changed, f.seen.inode = filetimes.Identity(info)
	f.Size, f.ChangeTime, f.Inode = 0, time.Time{}, 0
	if !f.Mode.IsRegular() {
		return
	}
	f.Size = info.Size()
	if f.seen.changed.Before(w.began.Add(-filetimes.Tick(f.seen.changed))) {
		f.ChangeTime, f.Inode = f.seen.changed, f.seen.inode
	}
}

// fail returns err, which occurred at path, with the name of the file.
func (w *scan) fail(path string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) && path != "." {
		err = errRemoved
	}
	base, path := w.locate(path)
	return atPath(base, path, err)
}

// atPath adds the name of the file to an error, unless the error has it already, and on
// one line. Errors of the store are not about a file, and stay as they are.
func atPath(base, path string, err error) error {
	if errors.As(err, new(*backend.Error)) {
		return err
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) && pe.Error() == err.Error() {
		err = fmt.Errorf("%s: %w", pe.Op, pe.Err)
	} else if base == "" && path == "." {
		return err // it is about an fs.FS as a whole, which has no name
	}
	name := filepath.Join(base, filepath.FromSlash(path))
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
		name = quoted
	}
	return fmt.Errorf("%s: %w", name, err)
}

func readLink(fsys fs.FS, path string) (string, error) {
	if _, ok := fsys.(fs.ReadLinkFS); !ok {
		return "", errors.New("it is a symbolic link, which this file system cannot read: it has no ReadLink")
	}
	return fs.ReadLink(fsys, path)
}

func typeName(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "file of an unknown kind"
}
