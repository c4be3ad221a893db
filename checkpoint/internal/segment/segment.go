// Package segment reads the segments of a task: the data objects that its checkpoints
// consist of. Every byte that it returns is what was saved, or there is an error.
package segment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A Reader reads the segments of one task. It may be used from many goroutines at once.
type Reader struct {
	Store backend.Store
	Codec *codec.Codec
	Parts *semaphore.Weighted // memory for what Part reads: of PartMemory bytes
	Task  string
	Dir   string // the task's, in keys
}

// An Error is about one object, which its text names already.
type Error struct {
	Key string
	Err error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Read fetches stored bytes of a segment, from an offset on, until p is full. A segment
// that ends before that is an *Error that wraps format.ErrCorrupt.
func (r *Reader) Read(ctx context.Context, id format.SegmentID, offset int64, p []byte) error {
	key := r.Key(id)
	n, err := r.Store.Get(ctx, key, offset, p)
	if errors.Is(err, backend.ErrRange) || err == nil && n < len(p) {
		return &Error{key, fmt.Errorf("segment %s: %w: it ends before byte %d; expected %d bytes at %d",
			key, format.ErrCorrupt, offset+int64(len(p)), len(p), offset)}
	}
	return err
}

// Probe makes sure that a segment is there and has its size, by reading its last
// byte and what may come after. Its error wraps fs.ErrNotExist or format.ErrCorrupt if
// that is not so.
func (r *Reader) Probe(ctx context.Context, seg format.Segment) error {
	key := r.Key(seg.ID)
	var p [2]byte
	n, err := r.Store.Get(ctx, key, seg.Size-1, p[:])
	switch {
	case errors.Is(err, backend.ErrRange), err == nil && n == 0:
		return fmt.Errorf("segment %s: %w: it has less than %d bytes", key, format.ErrCorrupt, seg.Size)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("segment %s: %w", key, fs.ErrNotExist)
	case err == nil && n > 1:
		return fmt.Errorf("segment %s: %w: it has more than %d bytes", key, format.ErrCorrupt, seg.Size)
	}
	return err
}

// An Object is a segment as a listing shows it.
type Object struct {
	ID      format.SegmentID
	Key     string
	Size    int64     // in bytes
	ModTime time.Time // by the store's clock
}

// All yields the segments that the store lists, by epoch, writer and number.
func (r *Reader) All(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for o, err := range r.Store.List(ctx, format.SegmentPrefix(r.Dir), "") {
			if err != nil {
				yield(Object{}, err)
				return
			}
			id, ok := format.ParseSegmentKey(r.Dir, o.Key)
			if ok && !yield(Object{id, o.Key, o.Size, o.ModTime}, nil) {
				return
			}
		}
	}
}

// Key returns a segment's key.
func (r *Reader) Key(id format.SegmentID) string { return format.SegmentKey(r.Dir, id) }

// Decode returns the data of a chunk whose stored bytes were read, and makes sure that
// it is what was saved. If it is not in stored, it is appended to buf.
func (r *Reader) Decode(buf *[]byte, c *format.Chunk, stored []byte) ([]byte, error) {
	data := stored
	if c.Encoding != format.Raw {
		start := len(*buf)
		out, err := r.Codec.Decode(*buf, c.Encoding, stored, int(c.Size))
		if err != nil {
			return nil, r.about(c.Segment, fmt.Errorf("%s: the %d bytes at %d: %w", r.name(c.Segment), len(stored), c.Offset, err))
		}
		*buf, data = out, out[start:]
	}
	if sum := format.Sum(data); sum != c.Hash {
		return nil, r.about(c.Segment, fmt.Errorf("%s: %w: the %d bytes at %d have hash %s; expected %s",
			r.name(c.Segment), format.ErrCorrupt, len(stored), c.Offset, sum, c.Hash))
	}
	return data, nil
}

// isInline reports whether id stands for the data that lies in a manifest itself.
func isInline(id format.SegmentID) bool { return id == format.SegmentID{} }

func (r *Reader) name(id format.SegmentID) string {
	if isInline(id) {
		return fmt.Sprintf("task %q, inline data", r.Task)
	}
	return "segment " + r.Key(id)
}

// about notes which segment err is about, unless that is inline data.
func (r *Reader) about(id format.SegmentID, err error) error {
	if isInline(id) {
		return err
	}
	return &Error{r.Key(id), err}
}
