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

// reuse copies what the old directory has of the state: its files are cut and
// hashed as a save would do it. Bytes are copied and not linked, because a
// process that should be dead may still write to the old files. What cannot be
// read there is fetched. There may be no old directory.
func (r *restorer) reuse(ctx context.Context, dir *os.Root) error {
	if dir == nil {
		return nil
	}
	old := dirFS{dir}
	group, ctx := errgroup.WithContext(ctx)
	paths := make(chan string)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			w := reuser{r, &writer{root: r.root, nodes: r.tree.nodes}, make([]byte, 0, blockSize)}
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

// take returns the chunk with a hash if files need it and have not got it yet.
func (r *restorer) take(h format.Hash) (catalog.ID, bool) {
	id, ok := r.tree.Find(h)
	if !ok || r.first[id] == r.first[id+1] {
		return 0, false
	}
	return id, r.have[id].CompareAndSwap(false, true)
}
