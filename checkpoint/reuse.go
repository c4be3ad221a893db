package checkpoint

import (
	"context"
	"io/fs"
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
// old directory.
func (r *restorer) reuse(ctx context.Context, dir *os.Root) error {
	if dir == nil {
		return nil
	}
	old := dirFS{dir}
	group, ctx := errgroup.WithContext(ctx)
	paths := make(chan string)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			w := reuser{r, r.writer(), make([]byte, 0, blockSize)}
			for path := range paths {
				if err := w.reuse(ctx, old, path); err != nil {
					return err
				}
			}
			return nil
		})
	}
	_ = fs.WalkDir(old, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		select {
		case paths <- path:
			return nil
		case <-ctx.Done():
			return fs.SkipAll
		}
	})
	close(paths)
	return group.Wait()
}

// A reuser has the memory for one file of the old directory at a time.
type reuser struct {
	*restorer
	writer *writer
	buf    []byte
}

func (w *reuser) reuse(ctx context.Context, old fs.FS, path string) error {
	f, _, err := openRegular(old, path)
	if err != nil {
		return nil
	}
	defer f.Close()
	buf := w.buf[:0]
	for end := false; !end; {
		var n int
		n, end, err = fill(ctx, buf[len(buf):cap(buf)], f)
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
