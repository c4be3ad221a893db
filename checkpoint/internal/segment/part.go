package segment

import (
	"context"
	"fmt"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// PartMemory bounds the memory, in bytes, that a job takes for reading parts of manifests
// from segments, in all goroutines together. A single part may take more.
const PartMemory = 64 << 20

// firstRead is how much of a part is read, in bytes, before memory is allocated for the
// rest: a manifest may declare a part that is larger than its segment.
const firstRead = 1 << 20

// Part reads a part of a manifest that lies in a segment, when there is memory for it,
// and decodes it. In memory, JSON takes several times as much as it is long.
func (r *Reader) Part(ctx context.Context, at *format.Chunk, decode func(data []byte) error) error {
	takes := min(at.StoredSize()+8*at.Size, PartMemory)
	if err := r.Parts.Acquire(ctx, takes); err != nil {
		return err
	}
	defer r.Parts.Release(takes)
	stored, err := r.readStored(ctx, at)
	if err != nil {
		return err
	}
	data, err := r.Decode(new([]byte), at, stored)
	if err != nil {
		return err
	}
	if err := decode(data); err != nil {
		return r.about(at.Segment, fmt.Errorf("%s: %w", r.name(at.Segment), err))
	}
	return nil
}

// readStored returns the stored bytes of a part, by two requests if it is a large one.
func (r *Reader) readStored(ctx context.Context, at *format.Chunk) ([]byte, error) {
	size := at.StoredSize()
	stored := make([]byte, min(size, firstRead))
	err := r.Read(ctx, at.Segment, at.Offset, stored)
	if err != nil || size <= firstRead {
		return stored, err
	}
	stored = append(stored, make([]byte, size-firstRead)...)
	return stored, r.Read(ctx, at.Segment, at.Offset+firstRead, stored[firstRead:])
}
