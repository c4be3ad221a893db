package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A Checkpoint is one committed snapshot. Its fields are for reading. It may
// be used from many goroutines at once, and stays usable for as long as the
// task retains it: afterwards, its methods return ErrGone.
type Checkpoint struct {
	Task       string            `json:"task"`
	Seq        uint64            `json:"seq"`   // its number in the task's history; claims take numbers too
	Epoch      uint64            `json:"epoch"` // of the writer that committed it
	Time       time.Time         `json:"time"`  // of the commit, by the store's clock
	Offsets    map[string]string `json:"offsets"`
	OffsetsAre OffsetMeaning     `json:"offsets_are"`
	Labels     map[string]string `json:"labels"`
	Savepoint  string            `json:"savepoint"` // its name, or ""
	Files      int               `json:"files"`     // regular files in the state
	Bytes      int64             `json:"bytes"`     // in these files
	NewBytes   int64             `json:"new_bytes"` // stored for this checkpoint

	task    *Task
	content *format.Content
}

// open makes a Checkpoint of what a manifest says.
func (t *Task) open(ctx context.Context, c *format.Checkpoint) (*Checkpoint, error) {
	content, err := t.content(ctx, c)
	if err != nil {
		return nil, err
	}
	return t.describe(c, content), nil
}

func (t *Task) describe(c *format.Checkpoint, content *format.Content) *Checkpoint {
	out := &Checkpoint{
		Task: t.Name(), Seq: c.Seq, Epoch: c.Epoch, Time: c.Time.UTC(),
		Offsets: orEmpty(content.Offsets), OffsetsAre: NextToRead,
		Labels: orEmpty(content.Labels), Savepoint: c.Savepoint,
		Files: c.Files, Bytes: c.Bytes, NewBytes: c.NewBytes,
		task: t, content: content,
	}
	if content.OffsetsAre != "" {
		out.OffsetsAre = OffsetMeaning(content.OffsetsAre)
	}
	return out
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

// content returns a checkpoint's content, wherever it lies.
func (t *Task) content(ctx context.Context, c *format.Checkpoint) (*format.Content, error) {
	if c.Content != nil {
		return c.Content, nil
	}
	data, err := t.readChunk(ctx, c.ContentAt)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, t.missing(ctx, c.Seq, err)
	}
	if err != nil {
		return nil, err
	}
	content, err := format.DecodeContent(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.place(c.ContentAt.Segment), err)
	}
	return content, nil
}

// readChunk fetches one chunk from its segment and checks it.
func (t *Task) readChunk(ctx context.Context, c *format.Chunk) ([]byte, error) {
	stored, err := t.readSegment(ctx, c.Segment, c.Offset, c.StoredSize())
	if err != nil {
		return nil, err
	}
	return t.checkChunk(c, stored)
}

// readSegment fetches a part of a segment.
func (t *Task) readSegment(ctx context.Context, id format.SegmentID, offset, size int64) ([]byte, error) {
	key := format.SegmentKey(t.history.dir, id)
	p := make([]byte, size)
	n, err := t.job.store.Get(ctx, key, offset, p)
	if errors.Is(err, backend.ErrRange) || err == nil && int64(n) < size {
		return nil, fmt.Errorf("segment %s: %w: it ends before byte %d; expected %d bytes at %d", key, ErrCorrupt, offset+size, size, offset)
	}
	return p, err
}

// checkChunk returns the data of a chunk whose stored bytes were read.
func (t *Task) checkChunk(c *format.Chunk, stored []byte) ([]byte, error) {
	if sum := format.Sum(stored); sum != c.Hash {
		return nil, fmt.Errorf("%s: %w: the %d bytes at %d have hash %s; expected %s",
			t.place(c.Segment), ErrCorrupt, len(stored), c.Offset, sum, c.Hash)
	}
	return stored, nil
}

func (t *Task) place(id format.SegmentID) string {
	if id == (format.SegmentID{}) {
		return fmt.Sprintf("task %q, inline data", t.Name())
	}
	return "segment " + format.SegmentKey(t.history.dir, id)
}

// read returns the data of adjacent chunks: they lie end to end in one segment
// or in the inline data. The result may share memory with the checkpoint.
func (c *Checkpoint) read(ctx context.Context, chunks []format.Chunk) ([][]byte, error) {
	first, last := &chunks[0], &chunks[len(chunks)-1]
	size := last.Offset + last.StoredSize() - first.Offset
	stored, err := c.stored(ctx, first.Segment, first.Offset, size)
	if err != nil {
		return nil, err
	}
	data := make([][]byte, len(chunks))
	for i := range chunks {
		ch := &chunks[i]
		at := ch.Offset - first.Offset
		if data[i], err = c.task.checkChunk(ch, stored[at:at+ch.StoredSize()]); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (c *Checkpoint) stored(ctx context.Context, id format.SegmentID, offset, size int64) ([]byte, error) {
	if id == (format.SegmentID{}) {
		inline := c.content.Inline
		if offset+size > int64(len(inline)) {
			return nil, fmt.Errorf("task %q, checkpoint %d: %w: inline data of %d bytes ends before byte %d", c.Task, c.Seq, ErrCorrupt, len(inline), offset+size)
		}
		return inline[offset : offset+size], nil
	}
	p, err := c.task.readSegment(ctx, id, offset, size)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, c.task.missing(ctx, c.Seq, err)
	}
	return p, err
}

// An Entry describes one file, directory or symbolic link of a checkpoint.
type Entry struct {
	Path    string      // slash-separated, relative; "." is the root directory
	Mode    fs.FileMode // type and permissions
	Size    int64       // of a regular file, in bytes
	ModTime time.Time   // zero if it is not known
	Target  string      // of a symbolic link
}

// Entries returns what is in the checkpoint's state, every directory before
// what is in it.
func (c *Checkpoint) Entries(ctx context.Context) ([]Entry, error) {
	tree, err := c.tree(ctx)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, len(tree))
	for i, e := range tree {
		entries[i] = Entry{e.Path, e.Mode, e.Size, e.ModTime, e.Target}
	}
	return entries, nil
}

func (c *Checkpoint) tree(ctx context.Context) ([]format.Entry, error) {
	var data []byte
	for i := range c.content.Tree {
		part, err := c.read(ctx, c.content.Tree[i:i+1])
		if err != nil {
			return nil, err
		}
		data = append(data, part[0]...)
	}
	entries, err := format.DecodeTree(data)
	if err == nil {
		err = checkChunks(c.content, entries)
	}
	if err != nil {
		return nil, fmt.Errorf("task %q, checkpoint %d: %w", c.Task, c.Seq, err)
	}
	return entries, nil
}

func checkChunks(content *format.Content, entries []format.Entry) error {
	places, err := content.Places()
	if err != nil {
		return err
	}
	for i := range entries {
		for k := range entries[i].Chunks {
			if err := places.Check(&entries[i].Chunks[k]); err != nil {
				return fmt.Errorf("file %q: %w", entries[i].Path, err)
			}
		}
	}
	return nil
}
