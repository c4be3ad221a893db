package checkpoint

import (
	"context"
	"io/fs"
	"maps"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/segment"
)

// A Checkpoint is one committed snapshot. Its fields are for reading. It may
// be used from many goroutines at once, and stays usable for as long as the
// task retains it: afterwards, its methods return ErrGone.
type Checkpoint struct {
	Task             string            `json:"task"`
	Seq              uint64            `json:"seq"`        // its number in the task's history; numbers have gaps, because claims take some
	Epoch            uint64            `json:"epoch"`      // of the writer that committed it
	Time             time.Time         `json:"time"`       // of the commit, by the store's clock
	WrittenBy        string            `json:"written_by"` // what the program that committed it said of itself: see Options.WrittenBy
	Offsets          map[string]string `json:"offsets"`
	OffsetsAre       OffsetMeaning     `json:"offsets_are"`
	Labels           map[string]string `json:"labels"`
	Savepoint        string            `json:"savepoint"`                  // its name, or ""
	SavepointExpires time.Time         `json:"savepoint_expires,omitzero"` // when retention may drop it all the same; zero is never
	Note             Note              `json:"note,omitzero"`              // what someone wants to be remembered of it
	Files            int               `json:"files"`                      // regular files in the state
	Bytes            int64             `json:"bytes"`                      // in these files
	NewBytes         int64             `json:"new_bytes"`                  // stored for this checkpoint

	task     *Task
	content  *format.Content
	segments *segment.Reader // of the task's segments, and of those of other tasks in content
}

// open makes a Checkpoint of what a manifest says.
func (t *Task) open(ctx context.Context, c *format.Checkpoint) (*Checkpoint, error) {
	content, err := t.log.Content(ctx, c)
	if err != nil {
		return nil, err
	}
	return t.describe(c, content), nil
}

func (t *Task) describe(c *format.Checkpoint, content *format.Content) *Checkpoint {
	out := &Checkpoint{
		Task: t.Name(), Seq: c.Seq, Epoch: c.Epoch, Time: c.Time.UTC(), WrittenBy: c.WrittenBy,
		Offsets: orEmpty(content.Offsets), OffsetsAre: NextToRead,
		Labels: orEmpty(content.Labels), Savepoint: c.Savepoint, SavepointExpires: c.Retained().Expires().UTC(),
		Note: Note(c.Note), Files: c.Files, Bytes: c.Bytes, NewBytes: c.NewBytes,
		task: t, content: content, segments: t.segments.With(content.Segments),
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

// bare returns c without its offsets and labels, which need not be in memory to verify it:
// a job may keep many checkpoints, and each may have many offsets.
func (c *Checkpoint) bare() *Checkpoint {
	b, content := *c, *c.content
	b.Offsets, b.Labels, content.Offsets, content.Labels = nil, nil, nil, nil
	b.content = &content
	return &b
}

// read returns the data of one chunk.
func (c *Checkpoint) read(ctx context.Context, ch *format.Chunk) ([]byte, error) {
	stored := make([]byte, ch.StoredSize())
	if err := c.stored(ctx, ch.Segment, ch.Offset, stored); err != nil {
		return nil, err
	}
	return c.segments.Decode(new([]byte), ch, stored)
}

// An Entry describes one file, directory or symbolic link of a checkpoint.
type Entry struct {
	Path    string      // slash-separated, relative; "." is the root directory
	Mode    fs.FileMode // type and permissions
	Size    int64       // of a regular file, in bytes
	ModTime time.Time   // zero if it is not known
	Target  string      // of a symbolic link
	UID     int64       // of its owner; -1 if it was saved without owners
	GID     int64       // of its group; -1 likewise
}

// Entries returns the files, directories and links of the checkpoint's state. A directory
// comes before what is in it.
func (c *Checkpoint) Entries(ctx context.Context) ([]Entry, error) {
	l, err := c.newLoader()
	if err != nil {
		return nil, err
	}
	entries := []Entry{}
	err = l.entries(ctx, func(_ *leaf, e *format.Entry) error {
		if _, err := l.node(e); err != nil {
			return err
		}
		entry := Entry{e.Path, e.Mode, e.Size, e.ModTime, e.Target, -1, -1}
		if e.Owner != nil {
			entry.UID, entry.GID = int64(e.Owner.UID), int64(e.Owner.GID)
		}
		entries = append(entries, entry)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}
