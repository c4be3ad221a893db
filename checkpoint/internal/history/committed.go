package history

import (
	"crypto/rand"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Committed is a manifest that is in the store.
type Committed struct {
	*format.Manifest
	Time time.Time // of the object, by the store's clock: as a reply or a listing told it
}

// None is what a task has that was never claimed: number and epoch 0.
func None() *Committed { return &Committed{Manifest: new(format.Manifest)} }

// Current returns the manifest's checkpoint, with its time, or nil. c may be nil.
func (c *Committed) Current() *format.Checkpoint {
	if c == nil || c.Checkpoint == nil {
		return nil
	}
	current := *c.Checkpoint
	if current.Seq == c.Seq {
		current.Time = c.Time
	}
	return &current
}

// With lists the manifest's own checkpoint, and then those that it retains.
func (c *Committed) With(retained []format.Retained) []format.Retained {
	current := c.Current()
	if current == nil {
		return retained
	}
	return append([]format.Retained{current.Retained()}, retained...)
}

// Claimed reports whether more manifests may come of c's writer.
func (c *Committed) Claimed() bool { return !c.Released && c.Kind != format.KindDeleted }

// Abandoned reports whether no manifest after c can name a segment that neither
// c nor a checkpoint that it retains names: its writer is not the last one, or
// has said that it will make no further manifest. The segments of a higher
// epoch belong to a save or a claim that is under way.
func (c *Committed) Abandoned(id format.SegmentID) bool {
	if id.Epoch != c.Epoch {
		return id.Epoch < c.Epoch
	}
	return id.Writer != c.Writer || c.Released
}

// Disproves reports whether segment id, which no manifest names, shows that c cannot
// be the newest manifest that there was, or that the history was another once. An
// owner claims the task before it sends anything, and an epoch has one owner. Who
// sends segments before its first manifest has read the manifest of the epoch before;
// it may have been killed, so that its segments prove nothing about its own epoch.
//
// writers are those that the history is known to have, by epoch.
func (c *Committed) Disproves(id format.SegmentID, writers map[uint64]format.WriterID) bool {
	w, known := writers[id.Epoch]
	switch {
	case known:
		return w != id.Writer && id.Writer.ClaimsFirst()
	case id.Epoch > c.Epoch:
		return id.Writer.ClaimsFirst() || id.Epoch > c.Epoch+1
	}
	return false // who wrote in that epoch has been retired
}

// Order says what a new writer does first.
type Order bool

// The orders.
const (
	ClaimsFirst   Order = true  // it sends no segment before its claim is in the history
	SegmentsFirst Order = false // it may
)

// Follow returns the manifest after base, which may be nil, by a new writer: it repeats
// base's checkpoint, which keeps the number and the time of its own manifest.
func (l *Log) Follow(base *Committed, kind format.Kind, first Order) *format.Manifest {
	m := &format.Manifest{Kind: kind, Task: l.Task, Seq: 1, Epoch: 1, Writer: newWriter(first)}
	if base == nil {
		return m
	}
	m.Seq, m.Epoch = base.Seq+1, base.Epoch+1
	m.Retained, m.RetainedAt = base.Retained, base.RetainedAt
	m.Checkpoint = base.Current()
	return m
}

func newWriter(first Order) (w format.WriterID) {
	rand.Read(w[:])
	return w.WithClaimsFirst(bool(first))
}
