package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/atomicdir"
)

// ErrNotEmpty means that a restore's target has something in it, and that
// RestoreOptions.Replace was not set.
var ErrNotEmpty = atomicdir.ErrNotEmpty

// RestoreOptions say how a checkpoint is restored.
type RestoreOptions struct {
	// Replace replaces a target directory that is not empty.
	Replace bool
}

// Restore makes dir the checkpoint's state. It builds the tree in a directory
// beside dir, checks every byte, and puts it in place in one step: when
// Restore fails or the process is killed, dir is as it was. Restore needs
// permission to write to dir's parent.
//
// Permissions and modification times are restored, those of links excepted;
// owners are not.
func (c *Checkpoint) Restore(ctx context.Context, dir string, opts RestoreOptions) error {
	entries, err := c.tree(ctx)
	if err != nil {
		return err
	}
	out, err := atomicdir.Begin(dir, opts.Replace)
	if err != nil {
		return err
	}
	if err := c.fill(ctx, out.Path(), entries); err != nil {
		return errors.Join(err, out.Abort())
	}
	return out.Commit()
}

func (c *Checkpoint) fill(ctx context.Context, dir string, entries []format.Entry) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for i := range entries {
		if err := makeEntry(root, &entries[i]); err != nil {
			return err
		}
	}
	if err := c.writeFiles(ctx, root, entries); err != nil {
		return err
	}
	return setAttributes(root, entries)
}

// makeEntry makes a directory, a link or a file, whose data follows. Each is
// new: where a file system folds the case of names, two files must not become
// one.
func makeEntry(root *os.Root, e *format.Entry) error {
	path, err := filepath.Localize(e.Path)
	if err != nil {
		return fmt.Errorf("%q can not be a file name on this system: %w", e.Path, err)
	}
	switch {
	case e.Path == ".":
		return nil
	case e.Mode.IsDir():
		return root.Mkdir(path, 0o700)
	case e.Mode.Type() == fs.ModeSymlink:
		return root.Symlink(e.Target, path)
	}
	f, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// setAttributes comes last, and goes from the leaves to the root: writing into
// a directory changes its time, and may not be permitted any more.
func setAttributes(root *os.Root, entries []format.Entry) error {
	for _, e := range slices.Backward(entries) {
		if e.Mode.Type() == fs.ModeSymlink {
			continue
		}
		path := filepath.FromSlash(e.Path)
		if !e.ModTime.IsZero() {
			if err := root.Chtimes(path, e.ModTime, e.ModTime); err != nil {
				return err
			}
		}
		if err := root.Chmod(path, e.Mode); err != nil {
			return err
		}
	}
	return nil
}

// A piece is a chunk and the place in a file that it belongs to.
type piece struct {
	chunk  format.Chunk
	path   string
	offset int64
}

// A fetch is one request: a part of a segment, and the pieces in it.
type fetch struct {
	segment      format.SegmentID
	offset, size int64
	pieces       []piece
}

// fetchSize bounds one fetch, in bytes, unless a single chunk is larger.
const fetchSize = 8 << 20

// restoreFetches is how many fetches a restore has under way. Its memory is
// bounded by their product.
const restoreFetches = 8

func (c *Checkpoint) writeFiles(ctx context.Context, root *os.Root, entries []format.Entry) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(restoreFetches)
	for _, f := range plan(entries) {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err() // another one failed, or the caller gave up
			}
			return c.fetch(ctx, root, f)
		})
	}
	return group.Wait()
}

// plan orders the chunks of all files by where they lie, and joins those that
// lie together into few requests.
func plan(entries []format.Entry) []fetch {
	var pieces []piece
	for i := range entries {
		offset := int64(0)
		for _, ch := range entries[i].Chunks {
			pieces = append(pieces, piece{ch, entries[i].Path, offset})
			offset += ch.Size
		}
	}
	slices.SortStableFunc(pieces, func(a, b piece) int {
		return cmp.Or(compareSegments(a.chunk.Segment, b.chunk.Segment), cmp.Compare(a.chunk.Offset, b.chunk.Offset))
	})
	var fetches []fetch
	for _, p := range pieces {
		end := p.chunk.Offset + p.chunk.StoredSize()
		if n := len(fetches) - 1; n >= 0 && fetches[n].takes(p, end) {
			f := &fetches[n]
			f.size = max(f.size, end-f.offset)
			f.pieces = append(f.pieces, p)
			continue
		}
		fetches = append(fetches, fetch{p.chunk.Segment, p.chunk.Offset, p.chunk.StoredSize(), []piece{p}})
	}
	return fetches
}

func (f *fetch) takes(p piece, end int64) bool {
	return p.chunk.Segment == f.segment && p.chunk.Offset <= f.offset+f.size && end-f.offset <= fetchSize
}

func compareSegments(a, b format.SegmentID) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), slices.Compare(a.Writer[:], b.Writer[:]), cmp.Compare(a.N, b.N))
}

func (c *Checkpoint) fetch(ctx context.Context, root *os.Root, f fetch) error {
	stored, err := c.stored(ctx, f.segment, f.offset, f.size)
	if err != nil {
		return err
	}
	for i := range f.pieces {
		p := &f.pieces[i]
		at := p.chunk.Offset - f.offset
		data, err := c.task.checkChunk(&p.chunk, stored[at:at+p.chunk.StoredSize()])
		if err != nil {
			return err
		}
		if err := writeAt(root, p, data); err != nil {
			return err
		}
	}
	return nil
}

func writeAt(root *os.Root, p *piece, data []byte) error {
	f, err := root.OpenFile(filepath.FromSlash(p.path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, p.offset)
	return errors.Join(err, f.Close())
}
