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

	foreign map[format.SegmentID]home // of segments that are other tasks'
}

// A home is a task, and its directory.
type home struct{ task, dir string }

// Of returns a reader of another task's segments.
func (r *Reader) Of(task string) (*Reader, error) {
	dir, err := format.EscapeTask(task)
	if err != nil {
		return nil, err
	}
	return &Reader{Store: r.Store, Codec: r.Codec, Parts: r.Parts, Task: task, Dir: dir}, nil
}

// With returns a reader that knows which segments of a checkpoint are other tasks'.
func (r *Reader) With(list []format.Segment) *Reader {
	foreign := make(map[format.SegmentID]home)
	for _, s := range list {
		if dir, err := format.EscapeTask(s.Task); err == nil && s.Task != "" {
			foreign[s.ID] = home{s.Task, dir}
		}
	}
	if len(foreign) == 0 {
		return r
	}
	out := *r
	out.foreign = foreign
	return &out
}

// An Error is about one object. Its text names the object.
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

// Probe makes sure that a segment exists and has its size, by reading its last byte and
// what may come after it. If not, its error wraps fs.ErrNotExist or format.ErrCorrupt.
func (r *Reader) Probe(ctx context.Context, seg format.Segment) error {
	key := r.With([]format.Segment{seg}).Key(seg.ID)
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
func (r *Reader) Key(id format.SegmentID) string {
	if h, ok := r.foreign[id]; ok {
		return format.SegmentKey(h.dir, id)
	}
	return format.SegmentKey(r.Dir, id)
}

// Owner returns the task whose segment it is, or "" for the reader's own task.
func (r *Reader) Owner(id format.SegmentID) string { return r.foreign[id].task }

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
