package format

import (
	"encoding/json"
	"fmt"
)

// Content is the part of a checkpoint that grows with the state.
type Content struct {
	Offsets    map[string]string `json:"offsets,omitempty"`
	OffsetsAre string            `json:"offsets_are,omitempty"` // "next" or "last"
	Labels     map[string]string `json:"labels,omitempty"`

	// Segments lists every segment that Tree, and what Tree describes, lies in.
	Segments []Segment `json:"segments,omitempty"`
	// Tree is the encoded entries, in pieces: see [DecodeTree].
	Tree []Chunk `json:"tree,omitempty"`
	// Inline is the data of a checkpoint that is too small for a segment.
	Inline []byte `json:"inline,omitempty"`
}

// Segment is a data object. It is nothing but chunks, end to end.
type Segment struct {
	ID   SegmentID `json:"id"`
	Size int64     `json:"size"`
}

// EncodeContent returns c as JSON, which may be stored in a segment.
func EncodeContent(c *Content) ([]byte, error) { return marshal(c) }

// DecodeContent reads what EncodeContent returns. It returns an error that
// wraps ErrCorrupt if it can not vouch for it.
func DecodeContent(data []byte) (*Content, error) {
	c := new(Content)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, corruptf("content: %v", err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Content) check() error {
	switch c.OffsetsAre {
	case "", "next", "last":
	default:
		return corruptf("offsets are %q", c.OffsetsAre)
	}
	places, err := c.places()
	if err != nil {
		return err
	}
	var size int64
	for i := range c.Tree {
		if err := places.check(&c.Tree[i]); err != nil {
			return corruptf("list of files: %v", err)
		}
		if size += c.Tree[i].Size; size > MaxTree {
			return corruptf("a list of files of more than %d bytes", MaxTree)
		}
	}
	return nil
}

// CheckChunks makes sure that the chunks of entries, which a tree of c holds,
// lie where c says that its data is. It returns an error that wraps ErrCorrupt
// if one does not.
func (c *Content) CheckChunks(entries []Entry) error {
	places, err := c.places()
	if err != nil {
		return err
	}
	for i := range entries {
		for k := range entries[i].Chunks {
			if err := places.check(&entries[i].Chunks[k]); err != nil {
				return corruptf("file %q: %v", entries[i].Path, err)
			}
		}
	}
	return nil
}

// places are the sizes of all that a content's chunks may lie in.
type places map[SegmentID]int64

func (c *Content) places() (places, error) {
	p := places{SegmentID{}: int64(len(c.Inline))}
	for _, s := range c.Segments {
		if _, twice := p[s.ID]; twice || s.Size <= 0 || s.Size > MaxSegment {
			return nil, corruptf("segment %q of %d bytes", s.ID, s.Size)
		}
		p[s.ID] = s.Size
	}
	return p, nil
}

func (p places) check(c *Chunk) error {
	if err := c.check(); err != nil {
		return err
	}
	size, listed := p[c.Segment]
	if !listed {
		return fmt.Errorf("chunk in segment %s, which is not listed", c.Segment)
	}
	if c.Offset+c.StoredSize() > size {
		return fmt.Errorf("chunk of %d bytes at %d of %d", c.StoredSize(), c.Offset, size)
	}
	return nil
}
