package checkpoint

import (
	"context"
	"io/fs"
	"iter"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// reuse copies data that the old directory has in common with the state. To find it, it
// divides the old files into chunks and hashes them, as a save does. It copies the data
// rather than linking files, because a process that should have ended may still write to
// the old files. Data of files that cannot be read is fetched. dir is nil if there is no
// old directory. If what is restored is the whole state, data is found in any old file;
// otherwise, in the old file of the same name.
func (r *restorer) reuse(ctx context.Context, dir *os.Root, whole bool) error {
	if dir == nil {
		return nil
	}
	old := dirFS{dir}
	group, ctx := errgroup.WithContext(ctx)
	paths := make(chan string)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			w := reuser{r, &folder{root: dir}, r.writer(), make([]byte, 0, blockSize)}
			defer w.old.close()
			for path := range paths {
				if err := w.reuse(ctx, path); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for path := range r.oldFiles(old, whole) {
		select {
		case paths <- path:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(paths)
	return group.Wait()
}

// oldFiles yields the files of the old directory in which data may be found.
func (r *restorer) oldFiles(old dirFS, whole bool) iter.Seq[string] {
	if !whole {
		return func(yield func(string) bool) {
			for _, n := range r.tree.nodes {
				if n.Size > 0 && !yield(n.Path) {
					return
				}
			}
		}
	}
	return func(yield func(string) bool) {
		_ = fs.WalkDir(old, ".", func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !yield(path) {
				return fs.SkipAll
			}
			return nil
		})
	}
}

// A reuser has the memory for one file of the old directory at a time.
type reuser struct {
	*restorer
	old    *folder
	writer *writer
	buf    []byte
}

func (w *reuser) reuse(ctx context.Context, path string) error {
	f, err := w.old.open(path, os.O_RDONLY|openFlags)
	if err != nil {
		return nil
	}
	info, err := regular(f)
	if err != nil {
		return nil
	}
	defer f.Close()
	from := withoutHoles(f, info)
	sparse, _ := from.(*sparseReader)
	buf := w.buf[:0]
	for end := false; !end; {
		if chunks, _ := sparse.skip(len(buf)); chunks > 0 {
			buf = buf[:0]
		}
		var n int
		n, end, err = fill(ctx, buf[len(buf):cap(buf)], from)
		if err != nil {
			return ctx.Err()
		}
		rest := buf[:len(buf)+n]
		var found []got
		for n := cut.Data.Next(rest, end); n > 0; n = cut.Data.Next(rest, end) {
			if id, ok := w.take(format.Sum(rest[:n])); ok {
				found = append(found, got{id, rest[:n]})
			}
			rest = rest[n:]
		}
		if err := w.write(w.writer, found); err != nil {
			return err
		}
		buf = buf[:copy(buf[:cap(buf)], rest)]
	}
	return nil
}

// take returns the chunk with a hash if the state needs it, and no other call has taken
// it.
func (r *restorer) take(h format.Hash) (catalog.ID, bool) {
	id, ok := r.tree.Find(h)
	if !ok || r.first[id] == r.first[id+1] {
		return 0, false
	}
	return id, r.have[id].CompareAndSwap(false, true)
}
