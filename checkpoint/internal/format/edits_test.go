package format

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestAmendmentsThatAreNone(t *testing.T) {
	now := time.Now()
	for name, change := range map[string]func(*Manifest){
		"no base":           func(m *Manifest) { m.Base = nil },
		"no checkpoint":     func(m *Manifest) { m.Checkpoint, m.RetainedAt, m.Edits = nil, nil, Edits{} },
		"its own":           func(m *Manifest) { m.Checkpoint.Seq = m.Seq },
		"edits of nothing":  func(m *Manifest) { m.RetainedAt = nil },
		"descending ranges": func(m *Manifest) { m.Edits.Removed = [][2]int{{5, 6}, {2, 3}} },
		"ranges that meet":  func(m *Manifest) { m.Edits.Removed = [][2]int{{2, 3}, {3, 4}} },
		"a range backwards": func(m *Manifest) { m.Edits.Removed = [][2]int{{6, 5}} },
		"before the first":  func(m *Manifest) { m.Edits.Removed = [][2]int{{-1, 5}} },
		"beyond any list":   func(m *Manifest) { m.Edits.Removed = [][2]int{{2, MaxRetained}} },
		"changed twice":     func(m *Manifest) { m.Edits.Changed = append(m.Edits.Changed, m.Edits.Changed...) },
		"a long note":       func(m *Manifest) { m.Edits.Changed[0].Note.Text = strings.Repeat("x", MaxNote+1) },
		"a note of no text": func(m *Manifest) { m.Checkpoint.Note.Author = "\xff" },
	} {
		m := &Manifest{
			Kind: KindAmend, Task: "t", Seq: 10, Epoch: 1, Base: &Base{Time: now},
			Checkpoint: &Checkpoint{Seq: 9, Epoch: 1, Time: now, Content: new(Content)},
			RetainedAt: &Chunk{Segment: SegmentID{Epoch: 1, N: 1}, Size: 20, Hash: Hash{1}},
			Edits:      Edits{Removed: [][2]int{{1, 3}}, Changed: []Retained{{Seq: 5, Time: now}}},
		}
		if _, err := m.Encode(); err != nil {
			t.Fatal(err)
		}
		change(m)
		m.Version = Version
		if err := m.check("t", 10); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
