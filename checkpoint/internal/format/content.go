package format

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Content is the part of a checkpoint that grows with the state.
type Content struct {
	Offsets    map[string]string `json:"offsets,omitempty"`
	OffsetsAre string            `json:"offsets_are,omitempty"` // "next" or "last"
	Labels     map[string]string `json:"labels,omitempty"`

	// Segments lists every segment that the tree, and what it describes, lies in:
	// this checkpoint's own and those of earlier ones.
	Segments Segments `json:"segments,omitempty"`
	// Tree is the list of the leaves of the tree: see [DecodeLeaves]. If it is long, it is
	// stored as data, and TreeAt lists its chunks. When these are many, TreeSize is set to
	// the size of the list, and TreeAt lists the chunks of its table: see [DecodeTable].
	Tree     Blob   `json:"tree,omitempty"`
	TreeAt   Chunks `json:"tree_at,omitempty"`
	TreeSize int64  `json:"tree_size,omitempty"`
	// Inline is the new data of a checkpoint that has too little for a segment
	// of its own. What it shares with earlier ones lies in Segments: no other
	// checkpoint can refer to this.
	Inline Blob `json:"inline,omitempty"`
}

// A Blob is bytes that are base64 in JSON. Unlike a []byte it is read from a string alone: a
// list would take 30 times as much memory as JSON.
type Blob []byte

// MarshalText returns the bytes in base64.
func (b Blob) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, b), nil }

// UnmarshalText reads what MarshalText returns.
func (b *Blob) UnmarshalText(text []byte) (err error) {
	*b, err = base64.StdEncoding.AppendDecode(nil, text)
	return err
}

// Segment is a data object. It consists of chunks, one right after the other.
type Segment struct {
	ID   SegmentID `json:"id"`
	Size int64     `json:"size"`
	Task string    `json:"task,omitempty"` // whose it is, if not this task's: see [Checkpoint].Of
}

// EncodeContent returns c as JSON, which may be stored in a segment.
func EncodeContent(c *Content) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, unreadable("content", err)
	}
	return marshal(c)
}

// IsPart reports whether c, without its inline data, which has a bound of its
// own, is small enough for a manifest.
func (c *Content) IsPart() (bool, error) {
	bare := *c
	bare.Inline = nil
	data, err := marshal(&bare)
	return len(data) <= MaxPart, err
}

// DecodeContent reads what EncodeContent returns. It returns an error that
// wraps ErrCorrupt if it cannot vouch for it.
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
	places, err := c.Places()
	if err != nil {
		return err
	}
	var size int64
	for i := range c.TreeAt {
		if err := places.Check(&c.TreeAt[i]); err != nil {
			return fmt.Errorf("list of leaves: %w", err)
		}
		if size += c.TreeAt[i].Size; size > MaxLeaves {
			return corruptf("a list of leaves of more than %d bytes", MaxLeaves)
		}
	}
	switch {
	case c.TreeSize < 0 || c.TreeSize > MaxLeaves || c.TreeSize > 0 && len(c.TreeAt) == 0:
		return corruptf("a list of leaves of %d bytes", c.TreeSize)
	case len(c.Tree) > 0 && len(c.TreeAt) > 0:
		return corruptf("two lists of leaves")
	}
	return nil
}

// Places has the sizes, in bytes, of everything that can contain a content's chunks: its
// segments and, under the zero SegmentID, its inline data. A chunk from a tree or a table
// must be checked with Check before it is used.
type Places map[SegmentID]int64

// Places returns where c says that its data is. It returns an error that wraps
// ErrCorrupt if that makes no sense.
func (c *Content) Places() (Places, error) {
	p := Places{SegmentID{}: int64(len(c.Inline))}
	for _, s := range c.Segments {
		if err := s.check(); err != nil {
			return nil, corruptf("%w", err)
		}
		if _, twice := p[s.ID]; twice {
			return nil, corruptf("segment %q twice", s.ID)
		}
		p[s.ID] = s.Size
	}
	return p, nil
}

// Check returns an error that wraps ErrCorrupt if c is not a valid chunk, or is not
// completely inside p. It may be called by several goroutines at once.
func (p Places) Check(c *Chunk) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	size, listed := p[c.Segment]
	if !listed {
		return corruptf("chunk in segment %s, which is not listed", c.Segment)
	}
	if c.Offset+c.StoredSize() > size {
		return corruptf("chunk of %d bytes at %d of %d", c.StoredSize(), c.Offset, size)
	}
	return nil
}
