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

	// Fingerprint is a hash of all names, modes, sizes, times and inodes in the state's
	// directory. With it a save can tell that nothing changed without reading the tree.
	// It is zero if it is not known.
	Fingerprint Hash `json:"fingerprint,omitzero"`

	// Segments lists every segment that Tree, and what Tree describes, lies in:
	// this checkpoint's own and those of earlier ones.
	Segments Segments `json:"segments,omitempty"`
	// Tree lists the chunks of the encoded tree: see [DecodeTree]. When there are many,
	// TreeSize is set to the size of the encoded tree, and Tree lists the chunks of its
	// table instead: see [DecodeTable].
	Tree     Chunks `json:"tree,omitempty"`
	TreeSize int64  `json:"tree_size,omitempty"`
	// Inline is the new data of a checkpoint that has too little for a segment
	// of its own. What it shares with earlier ones lies in Segments: no other
	// checkpoint can refer to this.
	Inline []byte `json:"inline,omitempty"`
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
	for i := range c.Tree {
		if err := places.Check(&c.Tree[i]); err != nil {
			return fmt.Errorf("list of files: %w", err)
		}
		if size += c.Tree[i].Size; size > MaxTree {
			return corruptf("a list of files of more than %d bytes", MaxTree)
		}
	}
	if c.TreeSize < 0 || c.TreeSize > MaxTree || c.TreeSize > 0 && len(c.Tree) == 0 {
		return corruptf("a list of files of %d bytes", c.TreeSize)
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
