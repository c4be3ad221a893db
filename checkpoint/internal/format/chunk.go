package format

import "fmt"

// MaxChunk bounds a chunk's data, in bytes, before and after encoding. It
// keeps a reader of hostile bytes from allocating without bound.
const MaxChunk = 64 << 20

// MaxSegment bounds a segment, in bytes.
const MaxSegment = 64 << 20

// Encoding says how a chunk's data is stored. This package only names the
// encodings; it neither applies nor undoes them.
type Encoding byte

// The encodings.
const (
	Raw  Encoding = 0 // as it is
	Zstd Encoding = 1 // as one zstd frame (RFC 8878), smaller than the data
)

// Chunk says where in which segment some data lies, and what it must be.
type Chunk struct {
	Segment  SegmentID `json:"segment,omitzero"`
	Offset   int64     `json:"offset"`           // in the segment, in bytes
	Stored   int64     `json:"stored,omitempty"` // bytes there; 0 means Size
	Size     int64     `json:"size"`             // bytes of data
	Encoding Encoding  `json:"encoding,omitempty"`
	Hash     Hash      `json:"hash"` // of the data, not of what is stored
}

// Identity returns a hash of all fields of c. Different chunks have different identities,
// and a set of identities takes less memory than a set of chunks.
func (c *Chunk) Identity() Hash {
	var buf [maxChunkLen]byte
	return Sum(new(place).append(buf[:0], c))
}

// StoredSize is how many bytes c takes in its segment.
func (c *Chunk) StoredSize() int64 {
	if c.Stored == 0 {
		return c.Size
	}
	return c.Stored
}

func (c *Chunk) check() error {
	switch {
	case c.Size <= 0 || c.Size > MaxChunk || c.Stored < 0 || c.Stored > MaxChunk:
		return fmt.Errorf("chunk of %d bytes, stored in %d", c.Size, c.Stored)
	case c.Offset < 0 || c.Offset > MaxSegment-c.StoredSize():
		return fmt.Errorf("chunk of %d bytes at %d, outside any segment", c.StoredSize(), c.Offset)
	case c.Encoding > Zstd:
		return fmt.Errorf("chunk in unknown encoding %d", c.Encoding)
	case c.Encoding == Raw && c.StoredSize() != c.Size:
		return fmt.Errorf("chunk of %d bytes stored as it is in %d", c.Size, c.Stored)
	case c.Encoding != Raw && c.StoredSize() >= c.Size:
		return fmt.Errorf("chunk of %d bytes compressed to %d", c.Size, c.StoredSize())
	}
	return nil
}

// checkSpilled checks the chunk that holds a part of a manifest.
func (c *Chunk) checkSpilled() error {
	if c.Segment == (SegmentID{}) || c.Segment.Epoch > maxNumber {
		return corruptf("a part in segment %q", c.Segment)
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if c.Size > MaxSpilled(c.StoredSize()) {
		return corruptf("a part of %d bytes, stored in %d; at most %d times as many are", c.Size, c.StoredSize(), maxRatio)
	}
	return nil
}

// maxRatio is by how much parts of manifests are compressed at most. Lists of segments
// and of checkpoints become 5 to 15 times smaller, and offsets that are all zero 40
// times.
const maxRatio = 64

// MaxSpilled returns how large a part of a manifest may be that is stored in the given
// number of bytes. A part that compresses better than that is stored uncompressed, so that
// no small object becomes very large in a reader's memory. Small parts are always allowed.
func MaxSpilled(stored int64) int64 { return max(maxRatio*stored, 4*MaxPart) }
