package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/internal/filetimes"
	"github.com/holdfast-io/holdfast/internal/holes"
)

// copyFile copies a regular file, and makes sure that it did not change meanwhile. The copy
// is a new file, so that a commit which remembers the one before sees that it is another.
func (p *pass) copyFile(name string, listed fs.FileInfo) error {
	f, err := p.root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|openFlags, 0)
	if err != nil {
		return ifGone(err)
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(listed, before) || !before.Mode().IsRegular() {
		return errMoving
	}
	now := entry{mode: before.Mode(), size: before.Size(), modTime: before.ModTime()}
	trusted, err := p.trust(f, before)
	if err != nil {
		return err
	}
	if trusted {
		now.changed, now.inode = filetimes.Identity(before)
	}
	tmp := p.to + ".new"
	if err := p.copyTo(tmp, f, before); err != nil {
		return errors.Join(err, removeFile(tmp))
	}
	if err := os.Rename(tmp, p.path(name)); err != nil {
		return errors.Join(err, removeFile(tmp))
	}
	p.have[name] = now
	return nil
}

// removeFile removes a file, if it is there.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// trust makes sure that every later change of a file changes its times. It reports whether
// that is so: see package filetimes.
func (p *pass) trust(f *os.File, before fs.FileInfo) (bool, error) {
	changed, _ := filetimes.Identity(before)
	if changed.IsZero() || !changed.Before(p.began.Add(-filetimes.Tick(changed))) {
		return false, nil
	}
	return filetimes.Catch(f)
}

func (p *pass) copyTo(tmp string, f *os.File, before fs.FileInfo) error {
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := p.copyData(out, f, before)
	if err := errors.Join(err, out.Chmod(before.Mode()), out.Close()); err != nil {
		return err
	}
	after, err := f.Stat()
	if err != nil {
		return err
	}
	if n != before.Size() || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return errMoving
	}
	return os.Chtimes(tmp, before.ModTime(), before.ModTime())
}

// step is how much is copied between two looks at the context.
const step = 8 << 20

// copyData copies a file's data: at once, by sharing its blocks, where the file system
// can.
func (p *pass) copyData(out, f *os.File, before fs.FileInfo) (n int64, err error) {
	if clone(out, f) {
		info, err := out.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	if found := holes.Of(f, before); found != nil {
		if _, err := filetimes.Catch(f); err != nil { // so that a kernel that sees blocks alone sees all data
			return 0, err
		}
		return p.copySparse(out, f, found, before.Size())
	}
	for n <= before.Size() { // one byte more shows that it has grown
		if p.ctx.Err() != nil {
			return n, context.Cause(p.ctx)
		}
		k, err := io.CopyN(out, f, step)
		n += k
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("copying it: %w", err)
		}
	}
	return n, nil
}

// copySparse copies a file that has holes, which the copy has too.
func (p *pass) copySparse(out, f *os.File, found *holes.Finder, size int64) (n int64, err error) {
	if err := out.Truncate(size); err != nil {
		return 0, err
	}
	for n < size {
		if p.ctx.Err() != nil {
			return n, context.Cause(p.ctx)
		}
		length, hole := found.At(n)
		if hole {
			n += length
			continue
		}
		k, err := copyRange(out, f, n, min(step, length))
		n += k
		if errors.Is(err, io.EOF) {
			return n, nil // it has become shorter
		}
		if err != nil {
			return n, fmt.Errorf("copying it: %w", err)
		}
	}
	return n, nil
}

// copyRange copies a part of a file, in the kernel where it can.
func copyRange(out, f *os.File, offset, n int64) (int64, error) {
	for _, file := range []*os.File{out, f} {
		if _, err := file.Seek(offset, io.SeekStart); err != nil {
			return 0, err
		}
	}
	return io.CopyN(out, f, n)
}
