package history

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Committed is a manifest that is in the store.
type Committed struct {
	*format.Manifest
	Time time.Time // of the object, by the store's clock: as a reply or a listing told it
}

// None stands for the newest manifest of a task that was never claimed. Its number and
// its epoch are 0.
func None() *Committed { return &Committed{Manifest: new(format.Manifest)} }

// Current returns the manifest's checkpoint, with the time of its commit and what its
// writer said, or nil if it has none. c may be nil.
func (c *Committed) Current() *format.Checkpoint {
	if c == nil || c.Checkpoint == nil {
		return nil
	}
	current := *c.Checkpoint
	if current.Seq == c.Seq {
		current.Time, current.WrittenBy = c.Time, c.WrittenBy
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

// Rest returns all, which is what c lists, without c's own checkpoint. c may be nil.
func (c *Committed) Rest(all []format.Retained) []format.Retained {
	if c.Current() == nil {
		return all
	}
	return all[1:]
}

// OutdatedBy returns the segments of c's list that the list of later, a manifest after c,
// does not need. No manifest after later does: a list is made of that of the manifest that
// it follows, and of new segments. c may be nil.
func (c *Committed) OutdatedBy(later *Committed) []format.SegmentID {
	if c == nil || c.RetainedAt == nil || later.RetainedAt != nil && *c.RetainedAt == *later.RetainedAt {
		return nil
	}
	named := make(map[format.SegmentID]bool)
	for _, id := range later.ListSegments() {
		named[id] = true
	}
	return slices.DeleteFunc(c.ListSegments(), func(id format.SegmentID) bool { return named[id] })
}

// Claimed reports whether more manifests may come of c's writer.
func (c *Committed) Claimed() bool { return !c.Released && c.Kind != format.KindDeleted }

// Abandoned reports whether a segment that is not named now can never be named by a
// manifest after c. That is so if the segment's writer is not c's, or if c's writer has
// released the task and so makes no further manifest. A segment of a higher epoch
// belongs to a save or a claim that is under way, and is not abandoned.
//
// It is only for segments that neither c nor a checkpoint that c retains names.
func (c *Committed) Abandoned(id format.SegmentID) bool {
	if id.Epoch != c.Epoch {
		return id.Epoch < c.Epoch
	}
	return id.Writer != c.Writer || c.Released
}

// Disproves reports whether segment id, which no manifest names, proves that manifests
// were deleted: manifests after c, or those of another history that the task once had.
//
// An owner claims the task before it sends any segment, and an epoch has one writer. So
// an owner's segment proves that its claim existed. A save sends segments before its
// manifest, and may have been killed in between, so its segments prove nothing about its
// own epoch; but they prove that a manifest of the epoch before existed, which it read.
//
// writers are the writers that the history is known to have, by epoch.
func (c *Committed) Disproves(id format.SegmentID, writers map[uint64]format.WriterID) bool {
	w, known := writers[id.Epoch]
	switch {
	case known:
		return w != id.Writer && id.Writer.ClaimsFirst()
	case id.Epoch > c.Epoch:
		return id.Writer.ClaimsFirst() || id.Epoch > c.Epoch+1
	}
	return false // nothing is known any more of who wrote in that epoch
}

// Order says what a new writer does first.
type Order bool

// The orders.
const (
	ClaimsFirst   Order = true  // no segment is sent before the claim is in the history
	SegmentsFirst Order = false // segments may be sent before the first manifest
)

// Follow returns the manifest after base, by a new writer. It repeats base's checkpoint,
// which keeps the number and the time of the manifest that committed it. base may be nil.
func (l *Log) Follow(base *Committed, kind format.Kind, first Order) *format.Manifest {
	m := &format.Manifest{Kind: kind, Task: l.Task, Seq: 1, Epoch: 1, Writer: newWriter(first), WrittenBy: l.WrittenBy}
	if base == nil {
		return m
	}
	m.Seq, m.Epoch, m.Base = base.Seq+1, base.Epoch+1, base.AsBase()
	base.Repeat(m)
	return m
}

// Repeat makes c's checkpoint and c's list those of m, and what c says of forks.
func (c *Committed) Repeat(m *format.Manifest) {
	m.Checkpoint = c.Current()
	m.Retained, m.RetainedAt, m.Edits, m.Pieces = c.Retained, c.RetainedAt, c.Edits, c.Pieces
	m.Held, m.Source = c.Held, c.Source
}

// AsBase returns how a manifest that follows c refers to it.
func (c *Committed) AsBase() *format.Base { return &format.Base{Token: c.Token, Time: c.Time} }

func newWriter(first Order) (w format.WriterID) {
	rand.Read(w[:])
	return w.WithClaimsFirst(bool(first))
}
