// Package catalog holds the chunks of a checkpoint in memory: the hash of each, and
// where it is stored. A save looks up new data in it.
//
// A checkpoint has a chunk for every 16 KiB or so of its state. To save memory, a chunk
// takes some 65 bytes, and lists of chunks refer to chunks by number.
package catalog

import (
	"cmp"
	"sync"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// ID names a chunk of a catalog.
type ID uint32

// A Catalog is a set of chunks, up to 2^32, which must be such as
// [format.Places.Check] lets through. Find and what tells of one chunk by its ID,
// Compare excepted, may be called while another goroutine calls Add, AddSegment
// or SetSegment; the other methods need a catalog for themselves, and Memory one to which nobody
// else adds. The zero Catalog is empty.
type Catalog struct {
	mu       sync.RWMutex
	chunks   chunks
	segments []format.Segment
	index    index
}

// Grow makes room to find n more chunks.
func (c *Catalog) Grow(n int) { c.index.grow(n, &c.chunks) }

// Len returns the number of chunks. IDs are below it.
func (c *Catalog) Len() int { return c.chunks.len() }

// Memory returns how many bytes of memory the chunks take.
func (c *Catalog) Memory() int64 { return c.chunks.memory() + c.index.memory() }

// AddSegment adds a segment, and returns its number.
func (c *Catalog) AddSegment(s format.Segment) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.segments = append(c.segments, s)
	return len(c.segments) - 1
}

// SetSegment changes segment number n, whose name or size was not known when it was added.
func (c *Catalog) SetSegment(n int, s format.Segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.segments[n] = s
}

// Segments returns all segments, by number. The caller must not change them.
func (c *Catalog) Segments() []format.Segment { return c.segments }

// Add adds a chunk that lies in a segment, by its number, and returns its ID.
// From now on Find finds this one. It ignores ch.Segment.
func (c *Catalog) Add(segment int, ch *format.Chunk) ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.chunks.add(pack(segment, ch))
	c.index.put(id, &c.chunks)
	return id
}

// A Set adds chunks to a catalog, each only once. (The catalog alone cannot do that: of
// several chunks with the same hash, Find returns only one.) It is used
// by one goroutine, while nobody else adds to the catalog.
type Set struct {
	c       *Catalog
	unfound map[chunk]ID // the chunks for which Find returns another one
}

// Set returns a Set of the chunks that a catalog has.
func (c *Catalog) Set() *Set {
	s := &Set{c, make(map[chunk]ID)}
	for id := range ID(c.Len()) {
		ch := c.chunks.at(id)
		if found, ok := c.index.find(&ch.hash, &c.chunks); !ok || found != id {
			s.unfound[*ch] = id
		}
	}
	return s
}

// Add returns the ID of a chunk that is stored in segment number segment. It adds the chunk
// if the catalog does not have it, and reports whether it did.
func (s *Set) Add(segment int, ch *format.Chunk) (id ID, isNew bool) {
	want := pack(segment, ch)
	id, taken := s.c.index.find(&ch.Hash, &s.c.chunks)
	if taken && *s.c.chunks.at(id) == want {
		return id, false
	}
	if old, ok := s.unfound[want]; ok {
		return old, false
	}
	if taken {
		s.unfound[*s.c.chunks.at(id)] = id
	}
	return s.c.Add(segment, ch), true
}

// Find returns the chunk with a hash.
func (c *Catalog) Find(h format.Hash) (ID, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.index.find(&h, &c.chunks)
}

// Chunk returns a chunk.
func (c *Catalog) Chunk(id ID) format.Chunk {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ch := c.chunks.at(id)
	return format.Chunk{
		Segment: c.segments[ch.segment].ID, Offset: int64(ch.offset), Size: int64(ch.size),
		Stored: int64(ch.stored), Encoding: ch.encoding, Hash: ch.hash,
	}
}

// Chunks returns the chunks of a list.
func (c *Catalog) Chunks(list []ID) []format.Chunk {
	chunks := make([]format.Chunk, len(list))
	for i, id := range list {
		chunks[i] = c.Chunk(id)
	}
	return chunks
}

// SegmentOf returns the number of the segment that a chunk lies in.
func (c *Catalog) SegmentOf(id ID) int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return int(c.chunks.at(id).segment)
}

// Size returns the size of a chunk's data.
func (c *Catalog) Size(id ID) int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return int64(c.chunks.at(id).size)
}

// StoredSize returns how many bytes a chunk takes in its segment.
func (c *Catalog) StoredSize(id ID) int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.chunks.at(id).storedSize()
}

// Compare orders chunks by where they lie.
func (c *Catalog) Compare(a, b ID) int {
	x, y := c.chunks.at(a), c.chunks.at(b)
	if x.segment != y.segment {
		return cmp.Compare(x.segment, y.segment)
	}
	return cmp.Compare(x.offset, y.offset)
}

// A Mark is how far a catalog had grown.
type Mark struct{ Chunks, Segments int }

// Mark returns a mark to which Reset can return.
func (c *Catalog) Mark() Mark { return Mark{c.Len(), len(c.segments)} }

// Reset removes what was added since m. A chunk from before m that has the hash of a removed
// one is no longer returned by Find, but still has its ID.
func (c *Catalog) Reset(m Mark) {
	for id := ID(c.Len()); id > ID(m.Chunks); id-- {
		c.index.remove(id-1, &c.chunks)
	}
	c.chunks.cut(m.Chunks)
	c.segments = c.segments[:m.Segments]
}

// Used says how many bytes of each segment hold chunks of a set.
type Used struct {
	seen  []uint64 // a bit for each ID
	Bytes []int64  // by segment
}

// Use adds the chunks of a list to the set.
func (c *Catalog) Use(u *Used, list []ID) {
	if n := (c.Len() + 63) / 64; len(u.seen) < n {
		u.seen = append(u.seen, make([]uint64, n-len(u.seen))...)
	}
	if n := len(c.segments); len(u.Bytes) < n {
		u.Bytes = append(u.Bytes, make([]int64, n-len(u.Bytes))...)
	}
	for _, id := range list {
		if u.Has(id) {
			continue
		}
		u.seen[id/64] |= 1 << (id % 64)
		ch := c.chunks.at(id)
		u.Bytes[ch.segment] += ch.storedSize()
	}
}

// UseBytes adds chunks of a segment to the set that the catalog does not have.
func (c *Catalog) UseBytes(u *Used, segment int, bytes int64) {
	c.Use(u, nil) // makes room
	u.Bytes[segment] += bytes
}

// Has reports whether a chunk is in the set.
func (u *Used) Has(id ID) bool {
	return int(id/64) < len(u.seen) && u.seen[id/64]&(1<<(id%64)) != 0
}

// Keep removes all chunks that are not in a set, and all segments without such chunks. The
// chunks that are kept get new IDs. The function that it returns replaces the old IDs in
// a list by the new ones; it must be called exactly once for each list.
func (c *Catalog) Keep(u *Used) (renumber func([]ID)) {
	segments := make([]uint32, len(c.segments)) // new numbers
	kept := c.segments[:0]
	for i, s := range c.segments {
		segments[i] = uint32(len(kept))
		if i < len(u.Bytes) && u.Bytes[i] > 0 {
			kept = append(kept, s)
		}
	}
	c.segments = kept
	ids := make([]ID, c.Len())
	n := ID(0)
	for id := range ids {
		if !u.Has(ID(id)) {
			continue
		}
		ch := *c.chunks.at(ID(id))
		ch.segment = segments[ch.segment]
		*c.chunks.at(n) = ch
		ids[id] = n
		n++
	}
	c.chunks.cut(int(n))
	c.index.build(int(n), &c.chunks)
	return func(list []ID) {
		for i, id := range list {
			list[i] = ids[id]
		}
	}
}
