package format

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// A Base names the manifest that another one follows.
type Base struct {
	Token Token     `json:"token"`
	Time  time.Time `json:"time"` // of the object, by the store's clock
}

// A Note is what someone wants to be remembered of a checkpoint.
type Note struct {
	Author string `json:"author,omitempty"`
	Text   string `json:"text,omitempty"`
}

// MaxNote bounds a note, in bytes of author and text: it rides in every later
// manifest for as long as the checkpoint exists.
const MaxNote = 512

func (n Note) check(seq uint64) error {
	if len(n.Author)+len(n.Text) > MaxNote || !utf8.ValidString(n.Author) || !utf8.ValidString(n.Text) {
		return corruptf("checkpoint %d has a note of %d bytes, more than %d, or of no text", seq, len(n.Author)+len(n.Text), MaxNote)
	}
	return nil
}

// Edits change what the pieces of a retained list say: an amendment uploads nothing, so it
// names the pieces that its base names, and says in what the list differs from them. What
// is in the manifest itself is not edited.
type Edits struct {
	// Removed are the checkpoints of the pieces that are not retained any more, as ranges
	// of positions that include both ends, in ascending order. The first checkpoint of the
	// first piece has position 0. (They have no numbers here, because one number may be in
	// two pieces: what was gone back to, and left again, is a new entry.)
	Removed [][2]int `json:"removed,omitempty"`
	// Changed are checkpoints of which something else is said now.
	Changed []Retained `json:"changed,omitempty"`
}

// IsZero reports whether nothing is changed.
func (e Edits) IsZero() bool { return len(e.Removed)+len(e.Changed) == 0 }

func bySeq(list []Retained) map[uint64]Retained {
	m := make(map[uint64]Retained, len(list))
	for _, r := range list {
		m[r.Seq] = r
	}
	return m
}

// apply appends to list what pieces have with the edits.
func (e Edits) apply(list []Retained, pieces [][]Retained) ([]Retained, error) {
	w := e.edit(list)
	for _, piece := range pieces {
		w.add(piece)
	}
	if n := len(e.Removed); n > 0 && e.Removed[n-1][1] >= w.at {
		return nil, corruptf("the edits remove the checkpoint at %d of %d", e.Removed[n-1][1], w.at)
	}
	for seq := range w.changed {
		return nil, corruptf("the edits change checkpoint %d, which the retained list does not have", seq)
	}
	return w.list, nil
}

// An editing appends pieces to a list, with edits.
type editing struct {
	list    []Retained
	at      int                 // position in all pieces
	removed [][2]int            // ranges from at on
	changed map[uint64]Retained // what has not been met yet
}

func (e Edits) edit(list []Retained) *editing {
	return &editing{list: list, removed: e.Removed, changed: bySeq(e.Changed)}
}

func (w *editing) add(piece []Retained) {
	for _, r := range piece {
		for len(w.removed) > 0 && w.at > w.removed[0][1] {
			w.removed = w.removed[1:]
		}
		gone := len(w.removed) > 0 && w.at >= w.removed[0][0]
		if w.at++; gone {
			continue
		}
		if now, ok := w.changed[r.Seq]; ok {
			r = now
			delete(w.changed, r.Seq)
		}
		w.list = append(w.list, r)
	}
}

// checkEdits holds m's edits against what is relied on.
func (m *Manifest) checkEdits() error {
	e := m.Edits
	if e.IsZero() {
		return nil
	}
	if m.RetainedAt == nil {
		return corruptf("edits of a retained list in pieces, and no such list")
	}
	next := 0
	for _, r := range e.Removed {
		if r[0] < next || r[1] < r[0] || r[1] >= MaxRetained {
			return corruptf("edits remove the checkpoints at %d to %d", r[0], r[1])
		}
		next = r[1] + 1
	}
	return m.checkRetained(e.Changed)
}

// checkAmendment holds a manifest of kind "amend" against what is relied on.
func (m *Manifest) checkAmendment() error {
	switch {
	case m.Kind != KindAmend:
		return nil
	case m.Checkpoint == nil || m.Checkpoint.Seq == m.Seq:
		return corruptf("an amendment that does not repeat a checkpoint")
	case m.Base == nil:
		return corruptf("an amendment that does not say what it follows")
	}
	return nil
}

// Rename makes c what r says of it: its name, until when that counts, and a note are
// in the lists of later manifests, and may be others than when it was committed.
func (c *Checkpoint) Rename(r Retained) {
	c.Time, c.CountsFrom = r.Time, r.CountsFrom
	c.Savepoint, c.ExpiresAfter, c.Note = r.Savepoint, r.ExpiresAfter, r.Note
}

// Fit returns an error if the edits take more room in a manifest than they may, by
// themselves or together with the checkpoints that stand in the manifest itself.
func (e Edits) Fit(inline []Retained) error {
	data, err := marshal(e)
	if err != nil {
		return err
	}
	size, err := ListSize(inline)
	if err == nil && (len(data) > MaxPart || size+len(data) > 2*MaxPart) {
		err = fmt.Errorf("%d ranges of checkpoints to remove and %d changed ones take %d bytes, more than the %d that one change may take",
			len(e.Removed), len(e.Changed), len(data), min(MaxPart, max(0, 2*MaxPart-size)))
	}
	return err
}
