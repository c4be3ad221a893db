package catalog

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A set has each chunk once, however their hashes collide, and whichever comes when.
func TestSetHasEachChunkOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := new(Catalog)
		for range 2 {
			c.AddSegment(segment(0))
		}
		s := c.Set()
		ids := make(map[format.Chunk]ID) // with the number of the segment as its epoch
		for range rapid.IntRange(0, 60).Draw(t, "chunks") {
			n := rapid.IntRange(0, 1).Draw(t, "segment")
			ch := format.Chunk{
				Offset: rapid.Int64Range(0, 1).Draw(t, "offset"), Size: rapid.Int64Range(10, 11).Draw(t, "size"),
				Hash: hash(rapid.IntRange(0, 2).Draw(t, "prefix"), rapid.IntRange(0, 1).Draw(t, "rest")),
			}
			key := ch
			key.Segment.Epoch = uint64(n)
			want, known := ids[key]
			id, isNew := s.Add(n, &ch)
			if isNew == known || known && id != want || !known && int(id) != c.Len()-1 {
				t.Fatalf("%+v is %d, new %v; it was %d, %v", ch, id, isNew, want, known)
			}
			ids[key] = id
			ch.Segment = segment(0).ID
			if c.Chunk(id) != ch || c.SegmentOf(id) != n {
				t.Fatalf("%+v came back as %+v", ch, c.Chunk(id))
			}
		}
		if c.Len() != len(ids) {
			t.Fatalf("%d chunks, want %d", c.Len(), len(ids))
		}
	})
}
