package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"math/bits"
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
	chunks       []catalog.ID
}

// fetchGap is the largest gap between two chunks for which one request is sent
// rather than two. The bytes in the gap are fetched in vain, but a request costs as
// much as transferring some 100 KiB.
const fetchGap = 128 << 10

// got is a chunk that was fetched, and its data.
type got struct {
	id   catalog.ID
	data []byte
}

// fetch reads chunks, with several requests at a time, and checks them. Each of several
// goroutines calls newUse once, and calls the function that it returns with some chunks at
// a time, which are stored in that order. That function must not keep the data.
func (c *Checkpoint) fetch(ctx context.Context, cat *catalog.Catalog, ids []catalog.ID, newUse func() (use func([]got) error)) error {
	return c.eachFetch(ctx, cat, ids, func(ctx context.Context, w *fetcher, f *fetch) error {
		if w.use == nil {
			w.use = newUse()
		}
		return w.fetch(ctx, f)
	})
}

// eachFetch plans the requests for chunks and calls do with each, from as many goroutines
// as there is memory for. How many requests are under way is for the store to say, which
// has a limit: see [backend.Limit].
func (c *Checkpoint) eachFetch(ctx context.Context, cat *catalog.Catalog, ids []catalog.ID, do func(context.Context, *fetcher, *fetch) error) error {
	data := c.task.job.data
	defer data.open()()
	todo := plan(cat, ids, storedMost(data.fetch))
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(data.fits(int64(data.fetch)), len(todo)) {
		group.Go(func() error {
			w := fetcher{c: c, catalog: cat, memory: data}
			for i := next.Add(1) - 1; i < int64(len(todo)); i = next.Add(1) - 1 {
				if ctx.Err() != nil {
					return ctx.Err() // another goroutine failed, or the caller gave up
				}
				if err := w.with(ctx, &todo[i], do); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// A fetch's buffer has room for what is received, and for some of that after it is decoded.
func storedMost(buffer int) int64 { return int64(buffer - decodedMost(buffer)) }
func decodedMost(buffer int) int  { return buffer / 4 }

// plan returns the requests that fetch some chunks. Chunks that are stored close together
// share a request, which fetches up to most bytes, unless a single chunk has more.
func plan(cat *catalog.Catalog, ids []catalog.ID, most int64) []fetch {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, cat.Compare)
	ids = slices.Compact(ids)
	var todo []fetch
	first := 0 // index of the last fetch's first chunk
	for i, id := range ids {
		ch := cat.Chunk(id)
		end := ch.Offset + ch.StoredSize()
		if n := len(todo) - 1; n >= 0 && todo[n].takes(&ch, end, most) {
			f := &todo[n]
			f.size = max(f.size, end-f.offset)
			f.chunks = ids[first : i+1]
			continue
		}
		first = i
		todo = append(todo, fetch{ch.Segment, ch.Offset, ch.StoredSize(), ids[i : i+1]})
	}
	return todo
}

func (f *fetch) takes(ch *format.Chunk, end, most int64) bool {
	return ch.Segment == f.segment && ch.Offset <= f.offset+f.size+fetchGap && end-f.offset <= most
}

// A fetcher has the memory for one fetch at a time.
type fetcher struct {
	c       *Checkpoint
	catalog *catalog.Catalog
	memory  *memory
	stored  []byte // both are parts of one buffer
	decoded []byte
	got     []got
	use     func([]got) error // is called with got
}

// with calls do with a fetch, for which w has memory meanwhile.
func (w *fetcher) with(ctx context.Context, f *fetch, do func(context.Context, *fetcher, *fetch) error) error {
	buf, err := w.memory.take(ctx, w.bufferSize(f))
	if err != nil {
		return err
	}
	defer w.memory.give(buf)
	defer w.forget()
	w.stored, w.decoded = buf[:f.size:f.size], buf[f.size:f.size]
	return do(ctx, w, f)
}

// forget drops what is in the buffer: a buffer that is not used again would stay in memory until w has
// another one.
func (w *fetcher) forget() {
	w.stored, w.decoded = nil, nil
	clear(w.got[:cap(w.got)])
}

// bufferSize returns how much memory a fetch needs. There are few different sizes, so that
// buffers can be used again.
func (w *fetcher) bufferSize(f *fetch) int {
	if size := int(f.size) + w.toDecode(f); size <= w.memory.fetch/4 {
		return 1 << bits.Len(uint(size))
	}
	return max(w.memory.fetch, int(f.size))
}

// fetch sends the request, and uses the chunks. It decodes some at a time: as many as there
// is memory for.
func (w *fetcher) fetch(ctx context.Context, f *fetch) error {
	if err := w.load(ctx, f); err != nil {
		return err
	}
	most := decodedMost(w.memory.fetch)
	for todo := f.chunks; len(todo) > 0; {
		w.decoded, w.got = w.decoded[:0], w.got[:0]
		for size := 0; len(todo) > 0 && (size == 0 || size+int(w.catalog.Size(todo[0])) <= most); todo = todo[1:] {
			data, err := w.decode(f, todo[0])
			if err != nil {
				return err
			}
			w.got = append(w.got, got{todo[0], data})
			size += len(data)
		}
		if err := w.use(w.got); err != nil {
			return err
		}
	}
	return nil
}

// load sends the request.
func (w *fetcher) load(ctx context.Context, f *fetch) error {
	return w.c.stored(ctx, f.segment, f.offset, w.stored)
}

// decode returns the data of one chunk in what was loaded, and checks it.
func (w *fetcher) decode(f *fetch, id catalog.ID) ([]byte, error) {
	ch := w.catalog.Chunk(id)
	at := ch.Offset - f.offset
	return w.c.segments.Decode(&w.decoded, &ch, w.stored[at:at+ch.StoredSize()])
}

// toDecode returns how much memory it takes to decode the chunks of a fetch.
func (w *fetcher) toDecode(f *fetch) (n int) {
	for _, id := range f.chunks {
		if ch := w.catalog.Chunk(id); ch.Encoding != format.Raw {
			n += int(ch.Size)
		}
	}
	return min(n, decodedMost(w.memory.fetch))
}

// join returns the data of chunks, one after the other. It uses buf's memory if that is
// large enough.
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

// readRun returns the data of chunks that are stored one right after the other, with one
// request.
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
		data, err := c.segments.Decode(&buf, &run[i], stored[at:at+run[i].StoredSize()])
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
	err := c.segments.Read(ctx, id, offset, p)
	if errors.Is(err, fs.ErrNotExist) {
		return c.task.log.Missing(ctx, c.Seq, err)
	}
	return err
}
