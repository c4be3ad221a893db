package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A fetch is one request: a part of a segment, and the chunks in it.
type fetch struct {
	segment      format.SegmentID
	offset, size int64
	data         int64 // bytes in the chunks, decoded
	chunks       []catalog.ID
}

const (
	// fetchSize bounds one fetch and what is decoded of it, in bytes, unless a
	// single chunk is larger.
	fetchSize = 4 << 20
	// fetchGap is how many bytes that nobody wants a fetch takes along rather
	// than be two. A request costs as much as transferring some 100 KiB.
	fetchGap = 64 << 10
	// fetches is how many are under way at a time. The memory that a restore
	// takes is bounded by their size.
	fetches = 8
)

// got is a chunk that was fetched, and its data.
type got struct {
	id   catalog.ID
	data []byte
}

// fetch reads chunks in the order in which they lie, several requests at a
// time, and checks them. Several goroutines call newUse once each, and hand the
// chunks of one request at a time to what it returns, in that order. The data
// must not be kept.
func (c *Checkpoint) fetch(ctx context.Context, cat *catalog.Catalog, ids []catalog.ID, newUse func() (use func([]got) error)) error {
	return c.eachFetch(ctx, cat, ids, func(ctx context.Context, w *fetcher, f *fetch) error {
		if w.use == nil {
			w.use = newUse()
		}
		if err := w.fetch(ctx, f); err != nil {
			return err
		}
		return w.use(w.got)
	})
}

// eachFetch plans the requests for chunks and calls do with each, from several
// goroutines.
func (c *Checkpoint) eachFetch(ctx context.Context, cat *catalog.Catalog, ids []catalog.ID, do func(context.Context, *fetcher, *fetch) error) error {
	todo := plan(cat, ids)
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(fetches, len(todo)) {
		group.Go(func() error {
			w := fetcher{c: c, catalog: cat}
			for i := next.Add(1) - 1; i < int64(len(todo)); i = next.Add(1) - 1 {
				if ctx.Err() != nil {
					return ctx.Err() // another one failed, or the caller gave up
				}
				if err := do(ctx, &w, &todo[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// plan joins chunks that lie close together into few requests.
func plan(cat *catalog.Catalog, ids []catalog.ID) []fetch {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, cat.Compare)
	ids = slices.Compact(ids)
	var todo []fetch
	first := 0 // of those in the last fetch
	for i, id := range ids {
		ch := cat.Chunk(id)
		end := ch.Offset + ch.StoredSize()
		if n := len(todo) - 1; n >= 0 && todo[n].takes(&ch, end) {
			f := &todo[n]
			f.size = max(f.size, end-f.offset)
			f.data += ch.Size
			f.chunks = ids[first : i+1]
			continue
		}
		first = i
		todo = append(todo, fetch{ch.Segment, ch.Offset, ch.StoredSize(), ch.Size, ids[i : i+1]})
	}
	return todo
}

func (f *fetch) takes(ch *format.Chunk, end int64) bool {
	return ch.Segment == f.segment && ch.Offset <= f.offset+f.size+fetchGap &&
		end-f.offset <= fetchSize && f.data+ch.Size <= fetchSize
}

// A fetcher has the memory for one fetch at a time.
type fetcher struct {
	c       *Checkpoint
	catalog *catalog.Catalog
	stored  []byte
	decoded []byte
	got     []got
	use     func([]got) error // what becomes of got
}

func (w *fetcher) fetch(ctx context.Context, f *fetch) error {
	if err := w.load(ctx, f); err != nil {
		return err
	}
	w.decoded = slices.Grow(w.decoded[:0], int(w.toDecode(f)))
	w.got = w.got[:0]
	for _, id := range f.chunks {
		data, err := w.decode(f, id)
		if err != nil {
			return err
		}
		w.got = append(w.got, got{id, data})
	}
	return nil
}

// load sends the request.
func (w *fetcher) load(ctx context.Context, f *fetch) error {
	w.stored = slices.Grow(w.stored[:0], int(f.size))[:f.size]
	return w.c.stored(ctx, f.segment, f.offset, w.stored)
}

// decode returns the data of one chunk in what was loaded, and checks it.
func (w *fetcher) decode(f *fetch, id catalog.ID) ([]byte, error) {
	ch := w.catalog.Chunk(id)
	at := ch.Offset - f.offset
	return w.c.task.segments.Decode(&w.decoded, &ch, w.stored[at:at+ch.StoredSize()])
}

// toDecode returns how many bytes are made of the chunks that are encoded.
func (w *fetcher) toDecode(f *fetch) (n int64) {
	for _, id := range f.chunks {
		if ch := w.catalog.Chunk(id); ch.Encoding != format.Raw {
			n += ch.Size
		}
	}
	return n
}

// join returns the data of chunks, end to end, in buf if that has room for it.
func (c *Checkpoint) join(ctx context.Context, cat *catalog.Catalog, ids []catalog.ID, buf []byte) ([]byte, error) {
	at := make(map[catalog.ID][]int, len(ids)) // where each begins
	size := 0
	for _, id := range ids {
		at[id] = append(at[id], size)
		size += int(cat.Size(id))
	}
	data := slices.Grow(buf[:0], size)[:size]
	use := func(list []got) error {
		for _, g := range list {
			for _, start := range at[g.id] {
				copy(data[start:], g.data)
			}
		}
		return nil
	}
	err := c.fetch(ctx, cat, ids, func() func([]got) error { return use })
	return data, err
}

// readRun returns the data of chunks that lie end to end, in one request.
func (c *Checkpoint) readRun(ctx context.Context, run []format.Chunk) ([]byte, error) {
	first, last := &run[0], &run[len(run)-1]
	stored := make([]byte, last.Offset+last.StoredSize()-first.Offset)
	if err := c.stored(ctx, first.Segment, first.Offset, stored); err != nil {
		return nil, err
	}
	var all, buf []byte
	for i := range run {
		at := run[i].Offset - first.Offset
		buf = buf[:0]
		data, err := c.task.segments.Decode(&buf, &run[i], stored[at:at+run[i].StoredSize()])
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
	return all, nil
}

// stored reads stored bytes of a segment, or of the inline data, into p.
func (c *Checkpoint) stored(ctx context.Context, id format.SegmentID, offset int64, p []byte) error {
	if id == (format.SegmentID{}) {
		copy(p, c.content.Inline[offset:]) // Places.Check made sure that it is all there
		return nil
	}
	err := c.task.segments.Read(ctx, id, offset, p)
	if errors.Is(err, fs.ErrNotExist) {
		return c.task.log.Missing(ctx, c.Seq, err)
	}
	return err
}
