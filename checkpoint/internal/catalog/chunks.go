package catalog

import "github.com/holdfast-io/holdfast/checkpoint/internal/format"

// A chunk is a format.Chunk in less space.
type chunk struct {
	hash     format.Hash
	segment  uint32 // in segments
	offset   uint32
	size     uint32
	stored   uint32 // 0 means size
	encoding format.Encoding
}

func pack(segment int, ch *format.Chunk) chunk {
	return chunk{
		hash: ch.Hash, segment: uint32(segment), encoding: ch.Encoding,
		offset: uint32(ch.Offset), size: uint32(ch.Size), stored: uint32(ch.Stored),
	}
}

func (ch *chunk) storedSize() int64 {
	if ch.stored == 0 {
		return int64(ch.size)
	}
	return int64(ch.stored)
}

// chunks is a list of chunks by their IDs. It lies in pages, so that it grows without a copy: one slice
// would be there twice while it grows, and be garbage of its size after that.
type chunks struct {
	pages [][]chunk // all full but the last one
}

const pageSize = 4096 // chunks of a page: 208 KiB

func (l *chunks) len() int {
	if len(l.pages) == 0 {
		return 0
	}
	last := len(l.pages) - 1
	return last*pageSize + len(l.pages[last])
}

func (l *chunks) at(id ID) *chunk { return &l.pages[id/pageSize][id%pageSize] }

func (l *chunks) add(ch chunk) ID {
	id := l.len()
	if id%pageSize == 0 {
		l.pages = append(l.pages, newPage(id))
	}
	last := &l.pages[len(l.pages)-1]
	*last = append(*last, ch)
	return ID(id)
}

// newPage returns the page that begins with the chunk id. The first one grows: most states are small.
func newPage(id int) []chunk {
	if id == 0 {
		return nil
	}
	return make([]chunk, 0, pageSize)
}

// cut leaves the first n chunks.
func (l *chunks) cut(n int) {
	pages := (n + pageSize - 1) / pageSize
	clear(l.pages[pages:])
	l.pages = l.pages[:pages]
	if pages > 0 {
		l.pages[pages-1] = l.pages[pages-1][:n-(pages-1)*pageSize]
	}
}

func (l *chunks) memory() int64 {
	const one = 52 // of a chunk
	if len(l.pages) == 0 {
		return 0
	}
	return one * int64(cap(l.pages[0])+(len(l.pages)-1)*pageSize)
}
