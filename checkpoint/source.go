package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A Source is the state that a save reads: made by [Dir], [FS] or [Stream].
// The zero Source is no state at all.
type Source struct {
	write func(context.Context, *treeWriter) error
}

// Dir is the directory at path: its regular files, directories and symbolic
// links, with permissions and modification times. Links are stored as links
// and never followed, the directory itself excepted. Sockets, devices and
// pipes are refused.
func Dir(path string) Source {
	return Source{func(ctx context.Context, w *treeWriter) error {
		if path == "" {
			return backend.Invalidf("the state's directory has no name")
		}
		root, err := os.OpenRoot(path)
		if err != nil {
			return err
		}
		defer root.Close()
		return w.writeFS(ctx, root.FS(), path)
	}}
}

// FS is everything in fsys. Symbolic links need an fsys that is an
// fs.ReadLinkFS.
func FS(fsys fs.FS) Source {
	return Source{func(ctx context.Context, w *treeWriter) error {
		return w.writeFS(ctx, fsys, "")
	}}
}

// Stream is a single file with the given name, a valid path by io/fs, whose
// content is what r yields until io.EOF. A commit that fails has read some of
// it.
func Stream(name string, r io.Reader) Source {
	return Source{func(ctx context.Context, w *treeWriter) error {
		if !fs.ValidPath(name) || name == "." {
			return backend.Invalidf("stream name %q is not a valid path", name)
		}
		return w.writeStream(ctx, name, r)
	}}
}

// treeWriter turns a Source into chunks and the entries that describe them.
type treeWriter struct {
	packer  *packer
	entries []format.Entry
	buf     []byte // one chunk
}

func (w *treeWriter) writeFS(ctx context.Context, fsys fs.FS, base string) error {
	return fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = w.writeEntry(ctx, fsys, path, d)
		}
		if err == nil || errors.As(err, new(*backend.Error)) {
			return err
		}
		if errors.Is(err, fs.ErrNotExist) && path != "." {
			err = fmt.Errorf("%w: it was removed; save from a copy or a snapshot that nobody writes to", ErrChanged)
		}
		return atPath(base, path, err)
	})
}

// atPath names the file that an error is about, once, and on one line.
func atPath(base, path string, err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) && pe.Error() == err.Error() {
		err = fmt.Errorf("%s: %w", pe.Op, pe.Err)
	}
	name := filepath.Join(base, filepath.FromSlash(path))
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
		name = quoted
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (w *treeWriter) writeEntry(ctx context.Context, fsys fs.FS, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	e := format.Entry{Path: path, Mode: info.Mode(), ModTime: info.ModTime()}
	switch {
	case !fs.ValidPath(path):
		return errors.New("the name is not valid UTF-8, which a checkpoint can not hold; rename it")
	case info.IsDir():
	case e.Mode.Type() == fs.ModeSymlink:
		e.Target, err = readLink(fsys, path)
	case e.Mode.IsRegular():
		err = w.writeFile(ctx, fsys, &e)
	default:
		err = fmt.Errorf("it is a %s, which a checkpoint can not hold; leave it out of the directory", typeName(e.Mode))
	}
	if err != nil {
		return err
	}
	w.entries = append(w.entries, e)
	return nil
}

func readLink(fsys fs.FS, path string) (string, error) {
	if _, ok := fsys.(fs.ReadLinkFS); !ok {
		return "", errors.New("it is a symbolic link, which this file system can not read: it has no ReadLink")
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

// writeFile packs a regular file, and makes sure that it stayed the same all
// the while: a torn file must not be stored.
func (w *treeWriter) writeFile(ctx context.Context, fsys fs.FS, e *format.Entry) error {
	f, err := fsys.Open(e.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return err
	}
	if !before.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no longer a regular file", ErrChanged)
	}
	if err := w.pack(ctx, f, e); err != nil {
		return err
	}
	after, err := f.Stat()
	if err != nil {
		return err
	}
	e.Mode, e.ModTime = after.Mode(), after.ModTime()
	if err := unchanged(before, after, e.Size); err != nil {
		return err
	}
	if changeTime(before) != changeTime(after) {
		return w.readAgain(ctx, fsys, e)
	}
	return nil
}

// errWritten says that a file was written to while it was read.
var errWritten = fmt.Errorf("%w: it was written to; save from a copy or a snapshot that nobody writes to", ErrChanged)

// unchanged compares a file's description before it was read to that after.
func unchanged(before, after fs.FileInfo, read int64) error {
	switch {
	case before.Size() != after.Size() || read != after.Size():
		return fmt.Errorf("%w: %d bytes before, %d read, %d after; save from a copy or a snapshot that nobody writes to",
			ErrChanged, before.Size(), read, after.Size())
	case !before.ModTime().Equal(after.ModTime()):
		return errWritten
	}
	return nil
}

// readAgain reads a file whose change time moved while it was read, and makes
// sure that it has the same content. The time also moves when a hard link to
// the file comes or goes, as happens to a database's snapshot that shares files
// with the database.
func (w *treeWriter) readAgain(ctx context.Context, fsys fs.FS, e *format.Entry) error {
	f, err := fsys.Open(e.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, c := range e.Chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		data := w.buf[:c.Size]
		if _, err := io.ReadFull(f, data); err != nil {
			return fmt.Errorf("%w: it ends earlier than before", ErrChanged)
		}
		if format.Sum(data) != c.Hash {
			return errWritten
		}
	}
	return nil
}

func (w *treeWriter) writeStream(ctx context.Context, name string, r io.Reader) error {
	w.parents(name)
	e := format.Entry{Path: name, Mode: 0o644}
	if err := w.pack(ctx, r, &e); err != nil {
		return fmt.Errorf("stream %q: %w", name, err)
	}
	w.entries = append(w.entries, e)
	return nil
}

// pack cuts what r yields into chunks, and sets e's size.
func (w *treeWriter) pack(ctx context.Context, r io.Reader, e *format.Entry) error {
	for end := false; !end; {
		var n int
		var err error
		if n, end, err = fill(ctx, w.buf, r); err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		c, err := w.packer.add(w.buf[:n])
		if err != nil {
			return err
		}
		e.Chunks = append(e.Chunks, c)
		e.Size += int64(n)
	}
	return nil
}

// fill reads until p is full or r ends. io.ReadFull will not do: it says
// io.ErrUnexpectedEOF for the end, which a reader says itself when its own
// input, a compressed file or a network connection, was cut short.
func fill(ctx context.Context, p []byte, r io.Reader) (n int, end bool, err error) {
	for empty := 0; n < len(p); {
		if err := ctx.Err(); err != nil {
			return n, false, err
		}
		k, err := r.Read(p[n:])
		n += k
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
		if empty++; k > 0 {
			empty = 0
		} else if empty == 100 {
			return n, false, io.ErrNoProgress
		}
	}
	return n, false, nil
}
