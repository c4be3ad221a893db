package format

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// decodeOne decodes a piece, and takes it for all of m's list.
func (m *Manifest) decodeOne(data []byte) ([]Retained, error) {
	list, err := decodePiece(data)
	if err != nil {
		return nil, err
	}
	return m.Join([][]Retained{list})
}

// However often a list is changed, its layout gives what was asked for.
func TestEdits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		m := &Manifest{Seq: 1000, Checkpoint: &Checkpoint{Seq: 999}, RetainedAt: &Chunk{}}
		next := uint64(500)
		take := func(n int) (list []Retained) {
			for range n {
				next--
				list = append(list, Retained{Seq: next, Time: start})
			}
			return list
		}
		m.Retained = take(rapid.IntRange(0, 5).Draw(t, "inline"))
		var stored [][]Retained
		for range rapid.IntRange(1, 5).Draw(t, "pieces") {
			piece := take(rapid.IntRange(1, 10).Draw(t, "checkpoints"))
			stored = append(stored, piece)
			m.Pieces = append(m.Pieces, Piece{N: len(piece)})
		}
		list := slices.Concat(m.Retained, slices.Concat(stored...))
		for range rapid.IntRange(1, 5).Draw(t, "edits") {
			var after []Retained
			for _, r := range list {
				switch rapid.IntRange(0, 3).Draw(t, "what") {
				case 0:
					continue
				case 1:
					r.Savepoint = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "name")
				}
				after = append(after, r)
			}
			if n := len(after); n > 0 && rapid.Bool().Draw(t, "back") { // one that was gone back to, and left
				i := rapid.IntRange(0, n-1).Draw(t, "to")
				after = slices.Concat(after[i:i+1], after[:i], after[i+1:])
			}
			l := m.Place(list, after)
			var placed []Retained
			for _, p := range l.Pieces {
				placed = append(placed, p.Live...)
			}
			if got := slices.Concat(l.Inline, placed); !slices.Equal(got, after) {
				t.Fatalf("%v are placed; want %v", got, after)
			}
			m.Retained, m.Edits = l.Inline, l.Edits()
			got, err := m.Join(stored)
			if err != nil || !slices.Equal(got, after) {
				t.Fatalf("%+v make %v, %v; want %v", m.Edits, got, err, after)
			}
			if err := m.checkEdits(); err != nil {
				t.Fatal(err)
			}
			list = after
		}
	})
}

// longList returns a list of n checkpoints and a manifest that has it in pieces of 1000.
func longList(n uint64) (*Manifest, []Retained) {
	m := &Manifest{Seq: n + 2, Checkpoint: &Checkpoint{Seq: n + 1}, RetainedAt: &Chunk{}}
	var all []Retained
	for seq := n; seq > 0; seq-- {
		all = append(all, Retained{Seq: seq, Time: time.Unix(int64(seq), 0)})
		if seq%1000 == 0 {
			m.Pieces = append(m.Pieces, Piece{N: 1000})
		}
	}
	return m, all
}

// To drop all of a list but a few takes few ranges.
func TestEditsAreShort(t *testing.T) {
	m, all := longList(100_000)
	var kept []Retained
	for _, r := range all {
		if r.Seq%1000 == 0 {
			kept = append(kept, r)
		}
	}
	l := m.Place(all, kept)
	if e := l.Edits(); len(e.Removed) != 100 || e.Fit(nil) != nil {
		t.Errorf("%d ranges, %v", len(e.Removed), e.Fit(nil))
	}
	for i := range kept {
		kept[i].Note.Text = strings.Repeat("x", MaxNote)
	}
	l = m.Place(all, kept)
	if err := l.Edits().Fit(nil); err == nil {
		t.Error("they may take any room")
	}
	if err := (Edits{Removed: [][2]int{{1, 2}}}).Fit(kept); err == nil {
		t.Error("what is inline may take any room")
	}
}

// A list that was not read, or is another one, is in no piece.
func TestPlaceOfWhatIsNotKnown(t *testing.T) {
	m, all := longList(2000)
	for name, change := range map[string]func(){
		"no such list": func() { m.RetainedAt = nil },
		"another list": func() { m.Edits.Removed = [][2]int{{3, 3}} },
		"not read":     func() { m.Pieces = nil },
	} {
		before := *m
		change()
		if l := m.Place(all, all); len(l.Pieces) > 0 || !slices.Equal(l.Inline, all) {
			t.Errorf("%s: %d in %d pieces", name, len(all)-len(l.Inline), len(l.Pieces))
		}
		*m = before
	}
}

func TestJoinOfWhatIsNone(t *testing.T) {
	one := func(seq uint64) Retained { return Retained{Seq: seq, Time: moment} }
	for name, m := range map[string]*Manifest{
		"change of what is not there":   {Edits: Edits{Changed: []Retained{one(4)}}},
		"change of what is removed":     {Edits: Edits{Changed: []Retained{one(5)}, Removed: [][2]int{{0, 0}}}},
		"change of what is inline":      {Retained: []Retained{one(7)}, Edits: Edits{Changed: []Retained{one(7)}}},
		"removal of more than there is": {Edits: Edits{Removed: [][2]int{{1, 2}}}},
		"twice":                         {Retained: []Retained{one(5)}},
		"the current one":               {Checkpoint: &Checkpoint{Seq: 3}},
		"a later one":                   {Seq: 5},
	} {
		m.Seq = max(m.Seq, 5)
		if name != "a later one" {
			m.Seq = 10
		}
		if m.Checkpoint == nil {
			m.Checkpoint = &Checkpoint{Seq: 9}
		}
		if list, err := m.Join([][]Retained{{one(5)}, {one(3)}}); !errors.Is(err, ErrCorrupt) || list != nil {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	// What is removed may come again.
	m := &Manifest{Seq: 10, Checkpoint: &Checkpoint{Seq: 9}, Edits: Edits{Removed: [][2]int{{2, 2}}}}
	if list, err := m.Join([][]Retained{{one(5), one(4)}, {one(5)}}); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestIndexThatIsNone(t *testing.T) {
	for name, change := range map[string]func([]Piece) []Piece{
		"no pieces":            func([]Piece) []Piece { return nil },
		"a piece of none":      func(p []Piece) []Piece { p[0].N = 0; return p },
		"a piece of too many":  func(p []Piece) []Piece { p[0].N = 4; return p },
		"a large piece":        func(p []Piece) []Piece { p[0].Size, p[0].Stored = 1<<20, MaxPiece+1; p[0].Encoding = Zstd; return p },
		"much of little":       func(p []Piece) []Piece { p[0].Size, p[0].Stored = 1<<20, 100; p[0].Encoding = Zstd; return p },
		"no segment":           func(p []Piece) []Piece { p[0].Segment = SegmentID{}; return p },
		"one segment":          func(p []Piece) []Piece { p[0].Segment = p[1].Segment; return p },
		"too many checkpoints": func(p []Piece) []Piece { return piecesOf(100_000, MaxRetained/100_000+1) },
		"too many pieces":      func(p []Piece) []Piece { return piecesOf(1, MaxPieces+1) },
	} {
		pieces := change(slices.Clone(goldenIndex))
		if data, err := EncodeIndex(pieces); err == nil || data != nil {
			t.Errorf("%s is written", name)
		}
		data, err := marshal(pieces)
		if err != nil {
			t.Fatal(err)
		}
		if pieces, err := DecodeIndex(data); !errors.Is(err, ErrCorrupt) || pieces != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, data := range []string{"", "{}", "null", "[] []"} {
		if _, err := DecodeIndex([]byte(data)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", data, err)
		}
	}
	two := []byte(`[{"seq":2,"time":"2026-11-22T10:00:02Z"},{"seq":1,"time":"2026-11-22T10:00:01Z"}]`)
	for n, want := range map[int]error{1: ErrCorrupt, 2: nil, 3: ErrCorrupt} {
		if _, err := (&Piece{N: n}).Decode(two); !errors.Is(err, want) {
			t.Errorf("a piece of two, of which the index says that it has %d: %v", n, err)
		}
	}
}

// piecesOf returns pieces of n checkpoints each.
func piecesOf(n, pieces int) (all []Piece) {
	for i := range pieces {
		size := int64(n * minRetained)
		all = append(all, Piece{n, Chunk{Segment: SegmentID{Epoch: 1, N: uint32(i)}, Size: size, Stored: min(size/2, MaxPiece), Encoding: Zstd, Hash: Hash{1}}})
	}
	return all
}

// What is left of a list has what its edits say, wherever they are.
func TestSalvage(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	list := func(seqs ...uint64) (all []Retained) {
		for _, seq := range seqs {
			all = append(all, Retained{Seq: seq, Time: at})
		}
		return all
	}
	named := func(seq uint64) Retained { return Retained{Seq: seq, Time: at, Savepoint: "x", Note: Note{Text: "y"}} }
	m := &Manifest{
		Seq: 20, Checkpoint: &Checkpoint{Seq: 20}, Retained: list(19, 18), RetainedAt: new(Chunk),
		Pieces: []Piece{{N: 3}, {N: 4}, {N: 2}},
		Edits:  Edits{Removed: [][2]int{{1, 1}, {4, 5}, {8, 8}}, Changed: []Retained{named(13), named(17), named(8)}},
	}
	pieces := [][]Retained{list(17, 16, 15), list(14, 12, 11, 13), list(8, 7)}
	for name, c := range map[string]struct {
		lost []int
		want []Retained
	}{
		"nothing": {nil, slices.Concat(list(19, 18), []Retained{named(17)}, list(15, 14), []Retained{named(13), named(8)})},
		"first":   {[]int{0}, slices.Concat(list(19, 18), []Retained{named(17)}, list(14), []Retained{named(13), named(8)})},
		"middle":  {[]int{1}, slices.Concat(list(19, 18), []Retained{named(17)}, list(15), []Retained{named(13), named(8)})},
		"last":    {[]int{2}, slices.Concat(list(19, 18), []Retained{named(17)}, list(15, 14), []Retained{named(13), named(8)})},
		"all":     {[]int{0, 1, 2}, append(list(19, 18), named(17), named(13), named(8))},
		"index":   {nil, append(list(19, 18), named(17), named(13), named(8))},
	} {
		left := slices.Clone(pieces)
		for _, i := range c.lost {
			left[i] = nil
		}
		if name == "index" {
			left = nil
		}
		got, err := m.Salvage(left)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s is lost: %v, %v; want %v", name, got, err, c.want)
		}
	}
	if got, err := m.Salvage([][]Retained{list(17, 16, 17), nil, nil}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a checkpoint twice: %v, %v", got, err)
	}
}
