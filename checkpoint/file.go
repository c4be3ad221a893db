package checkpoint

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// An openFile is an open regular file of a checkpoint. It keeps what it read last,
// and reads ahead, so that many small reads in a row cost few requests.
type openFile struct {
	fs   *stateFS
	info info

	mu      sync.Mutex
	pos     int64
	catalog *catalog.Catalog // of chunks
	chunks  []catalog.ID     // nil until they are needed
	ends    []int64          // offset in the file at which each chunk ends
	data    []byte           // the part of the file that was read last
	start   int64            // offset of data in the file
	ahead   int64            // how many bytes are read ahead
	closed  bool
}

var (
	_ io.ReadSeekCloser = (*openFile)(nil)
	_ io.ReaderAt       = (*openFile)(nil)
)

// Stat describes the file.
func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }

// Close releases the file.
func (f *openFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.fail("close", fs.ErrClosed)
	}
	f.closed, f.data, f.catalog, f.chunks, f.ends = true, nil, nil, nil, nil
	return nil
}

// Read reads on from the current position.
func (f *openFile) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.readAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt reads at an offset, as io.ReaderAt says.
func (f *openFile) ReadAt(p []byte, offset int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readAt(p, offset)
}

// Seek sets the position of the next Read.
func (f *openFile) Seek(offset int64, whence int) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += f.info.e.Size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, f.fail("seek", fs.ErrInvalid)
	}
	f.pos = offset
	return offset, nil
}

func (f *openFile) readAt(p []byte, offset int64) (n int, err error) {
	if f.closed {
		return 0, f.fail("read", fs.ErrClosed)
	}
	if offset < 0 {
		return 0, f.fail("read", fs.ErrInvalid)
	}
	for n < len(p) && offset < f.info.e.Size {
		data, err := f.from(offset, int64(len(p)-n))
		if err != nil {
			return n, f.fail("read", err)
		}
		k := copy(p[n:], data)
		n += k
		offset += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// from returns data from offset on: at least one byte, and n bytes if it can. It keeps the
// data for the next call. If the calls read the file in order, it reads ahead.
func (f *openFile) from(offset, n int64) ([]byte, error) {
	if in := offset - f.start; in >= 0 && in < int64(len(f.data)) {
		return f.data[in:], nil
	}
	if f.chunks == nil {
		if err := f.load(f.fs.ctx); err != nil {
			return nil, err
		}
	}
	if offset == f.start+int64(len(f.data)) {
		f.ahead = min(max(2*f.ahead, minAhead), maxAhead)
	} else {
		f.ahead = 0
	}
	i, found := slices.BinarySearch(f.ends, offset)
	if found {
		i++ // the chunk that begins where this one ends
	}
	if isZeroChunk(f.catalog, f.chunks[i]) {
		f.data, f.start = zeroChunk, f.ends[i]-int64(len(zeroChunk))
		return f.data[offset-f.start:], nil
	}
	run := f.run(i, min(offset+max(n, f.ahead), offset+maxAhead))
	data, err := f.fs.c.readRun(f.fs.ctx, run)
	if err != nil {
		return nil, err
	}
	f.data, f.start = data, f.ends[i]-run[0].Size
	return f.data[offset-f.start:], nil
}

// How many bytes are read ahead when a file is read in order: at first the minimum, then
// twice as much each time, up to the maximum.
const (
	minAhead = 128 << 10
	maxAhead = 4 << 20
)

// run returns chunk i of the file, and the chunks after it that are stored right behind
// it, up to the one that contains the last byte before end.
func (f *openFile) run(i int, end int64) []format.Chunk {
	run := []format.Chunk{f.catalog.Chunk(f.chunks[i])}
	for k := i + 1; k < len(f.chunks) && f.ends[k-1] < end; k++ {
		next := f.catalog.Chunk(f.chunks[k])
		if !follows(&run[len(run)-1], &next) {
			break
		}
		run = append(run, next)
	}
	return run
}

// follows reports whether b is stored right behind a.
func follows(a, b *format.Chunk) bool {
	return a.Segment == b.Segment && a.Offset+a.StoredSize() == b.Offset
}

// load finds out what chunks the file has.
func (f *openFile) load(ctx context.Context) error {
	all, chunks := f.fs.catalog, f.info.e.chunks
	if f.info.e.table != nil {
		var err error
		if all, chunks, err = f.table(ctx); err != nil {
			return err
		}
	}
	ends := make([]int64, len(chunks))
	end := int64(0)
	for i, id := range chunks {
		end += all.Size(id)
		ends[i] = end
	}
	f.catalog, f.chunks, f.ends = all, chunks, ends
	return nil
}

// table reads the file's table.
func (f *openFile) table(ctx context.Context) (*catalog.Catalog, []catalog.ID, error) {
	l, e := f.fs.c.loaderOf(f.fs.places), f.info.e
	own, err := l.addAll(f.fs.catalog.Chunks(e.table)) // in the loader's catalog
	if err != nil {
		return nil, nil, f.fs.c.damaged(err)
	}
	var chunks []catalog.ID
	found := func(ids []catalog.ID) { chunks = append(chunks, ids...) }
	r := tableReader{l: l}
	if err := r.add(ctx, own, newTable(e.Path, e.Size, format.DataCut, found)); err != nil {
		return nil, nil, err
	}
	if err := r.end(ctx); err != nil {
		return nil, nil, err
	}
	return l.catalog, chunks, nil
}

func (f *openFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.info.e.Path, Err: err}
}
