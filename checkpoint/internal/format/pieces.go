package format

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// This file is about retained lists that are too large for a manifest. The newest
// checkpoints are in the manifest; the others are in pieces, which later manifests name
// again. An index names the pieces, and the manifest names the index.

// A Piece is a part of a retained list: a chunk that has it as a JSON array. It is alone in
// its segment, and so is an index.
type Piece struct {
	N int `json:"n"` // how many checkpoints it lists
	Chunk
}

const (
	// MaxPiece bounds what a piece takes in its segment, in bytes.
	MaxPiece = 64 << 10
	// MaxPieces bounds how many pieces an index names.
	MaxPieces = 1 << 16
	// MaxRetained bounds how many checkpoints pieces list together.
	MaxRetained = 1 << 24
	// minRetained is how many bytes a checkpoint takes in a list at least: its number, its
	// time, and the names of these.
	minRetained = len(`{"seq":1,"time":"2026-11-22T10:00:01Z"}`)
)

// FitsInline reports whether a list is small enough for a manifest as it is.
func FitsInline(list []Retained) (bool, error) {
	if len(list)*minRetained > MaxPart {
		return false, nil
	}
	size, err := ListSize(list)
	return size <= MaxPart, err
}

// ListSize returns how many bytes of a manifest a retained list takes.
func ListSize(list []Retained) (int, error) {
	data, err := EncodeRetained(list)
	return len(data), err
}

// ListSegments returns the segments of m's list. Its pieces must have been read.
func (m *Manifest) ListSegments() []SegmentID {
	if m.RetainedAt == nil {
		return nil
	}
	ids := []SegmentID{m.RetainedAt.Segment}
	for i := range m.Pieces {
		ids = append(ids, m.Pieces[i].Segment)
	}
	return ids
}

// EncodeIndex returns an index as JSON.
func EncodeIndex(pieces []Piece) ([]byte, error) {
	err := checkEach(pieces, indexChecker())
	if err = cmp.Or(err, checkIndex(pieces)); err != nil {
		return nil, unreadable("index of retained checkpoints", err)
	}
	return marshal(pieces)
}

// DecodeIndex reads what EncodeIndex returns. It returns an error that wraps ErrCorrupt if
// it cannot vouch for it.
func DecodeIndex(data []byte) ([]Piece, error) {
	pieces, err := decodeList(data, indexChecker())
	if err = cmp.Or(err, checkIndex(pieces)); err != nil {
		return nil, asCorrupt("index of the retained list", err)
	}
	return pieces, nil
}

// indexChecker returns what checks the pieces of an index, one after the other.
func indexChecker() func(*Piece) error {
	pieces, checkpoints := 0, 0
	return func(p *Piece) error {
		if err := p.checkSpilled(); err != nil {
			return err
		}
		switch pieces++; {
		case p.StoredSize() > MaxPiece:
			return corruptf("a piece of %d bytes, more than %d", p.StoredSize(), MaxPiece)
		case p.N <= 0 || int64(p.N) > p.Size/int64(minRetained):
			return corruptf("a piece of %d checkpoints in %d bytes", p.N, p.Size)
		case pieces > MaxPieces:
			return corruptf("more than %d pieces", MaxPieces)
		}
		if checkpoints += p.N; checkpoints > MaxRetained {
			return corruptf("more than %d checkpoints", MaxRetained)
		}
		return nil
	}
}

// checkIndex makes sure that there are pieces, and that each is alone in its segment: a
// small store could make a reader take much memory if pieces shared their bytes.
func checkIndex(pieces []Piece) error {
	if len(pieces) == 0 {
		return corruptf("no pieces")
	}
	seen := make(map[SegmentID]bool, len(pieces))
	for i := range pieces {
		id := pieces[i].Segment
		if seen[id] {
			return corruptf("two pieces in segment %s", id)
		}
		seen[id] = true
	}
	return nil
}

// EncodeRetained returns a retained list, or a piece of one, as JSON.
func EncodeRetained(list []Retained) ([]byte, error) {
	if err := checkEach(list, retainedChecker()); err != nil {
		return nil, unreadable("list of retained checkpoints", err)
	}
	return marshal(list)
}

// Decode reads what EncodeRetained returned for a piece. It returns an error that wraps
// ErrCorrupt if it cannot vouch for it.
func (p *Piece) Decode(data []byte) ([]Retained, error) {
	list, err := decodePiece(data)
	if err == nil && len(list) != p.N {
		err = corruptf("%d checkpoints in a piece that has %d", len(list), p.N)
	}
	return list, err
}

func decodePiece(data []byte) ([]Retained, error) {
	list, err := decodeList(data, retainedChecker())
	if err != nil {
		return nil, asCorrupt("retained list", err)
	}
	return list, nil
}

func asCorrupt(what string, err error) error {
	if errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return corruptf("%s: %w", what, err)
}

// Join returns m's retained list, without m's own checkpoint. pieces are what m.Pieces
// say, each as it was decoded. It returns an error that wraps ErrCorrupt if it cannot vouch
// for the list.
func (m *Manifest) Join(pieces [][]Retained) ([]Retained, error) {
	list, err := m.Edits.apply(slices.Clone(m.Retained), pieces)
	if err == nil {
		err = m.checkRetained(list)
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Salvage is Join for a list of which parts are lost: a piece that cannot be read is nil,
// and without the index there are no pieces. The edits say all of the checkpoints that they
// change, so those of lost pieces are known too. It is not known where they stood, so each
// stands where its number puts it.
func (m *Manifest) Salvage(pieces [][]Retained) ([]Retained, error) {
	w := m.Edits.edit(slices.Clone(m.Retained))
	for i, piece := range pieces {
		if piece == nil {
			w.at += m.Pieces[i].N
			continue
		}
		w.add(piece)
	}
	for _, r := range w.changed {
		w.list = InsertBySeq(w.list, r)
	}
	if err := m.checkRetained(w.list); err != nil {
		return nil, err
	}
	return w.list, nil
}

// InsertBySeq puts a checkpoint into a list before the first one that has a smaller number.
func InsertBySeq(list []Retained, r Retained) []Retained {
	i := slices.IndexFunc(list, func(o Retained) bool { return o.Seq < r.Seq })
	if i < 0 {
		i = len(list)
	}
	return slices.Insert(list, i, r)
}

// A Layout says which checkpoints of a list are in which piece.
type Layout struct {
	Inline []Retained // those in no piece: the first ones of the list
	Pieces []Placed   // the others, in the order of the list
}

// Placed is a piece of which a list may have less than what it stores.
type Placed struct {
	Piece
	Live    []Retained // what the list has of it
	Removed [][2]int   // what it does not have: ranges of positions in the piece
	Changed []Retained // those of Live of which the piece says something else
}

// Place finds out what a list needs of m's pieces. before is m's own list. What list has in
// another order than before has, or not at all, is in no piece.
func (m *Manifest) Place(before, list []Retained) Layout {
	stored := before[min(len(m.Retained), len(before)):]
	total, removed := 0, 0
	for i := range m.Pieces {
		total += m.Pieces[i].N
	}
	for _, r := range m.Edits.Removed {
		removed += r[1] - r[0] + 1
	}
	if m.RetainedAt == nil || len(stored) != total-removed {
		return Layout{Inline: list} // nothing is known of pieces
	}
	p := placer{at: total, removed: m.Edits.Removed, changed: bySeq(m.Edits.Changed), stored: stored, left: list}
	placed := make([]Placed, len(m.Pieces))
	for i := range slices.Backward(placed) {
		placed[i].Piece = m.Pieces[i]
		p.place(&placed[i])
	}
	return Layout{p.left, placed}
}

// A placer goes over a list and over the pieces, the last checkpoint first.
type placer struct {
	at      int                 // position in all pieces
	removed [][2]int            // ranges of positions that are removed already, up to at
	changed map[uint64]Retained // what is changed already
	stored  []Retained          // what the pieces have beside that, up to at
	left    []Retained          // what is left of the list
}

func (p *placer) place(piece *Placed) {
	all := p.left
	for pos := piece.N - 1; pos >= 0; pos-- {
		p.at--
		if p.isRemoved() {
			piece.remove(pos)
			continue
		}
		was := p.stored[len(p.stored)-1]
		p.stored = p.stored[:len(p.stored)-1]
		last := len(p.left) - 1
		if last < 0 || p.left[last].Seq != was.Seq {
			piece.remove(pos)
			continue
		}
		is := p.left[last]
		p.left = p.left[:last]
		if _, before := p.changed[is.Seq]; before || is != was {
			piece.Changed = append(piece.Changed, is)
		}
	}
	piece.Live = all[len(p.left):]
	slices.Reverse(piece.Removed)
	slices.Reverse(piece.Changed)
}

// isRemoved reports whether what stands at p.at is removed already.
func (p *placer) isRemoved() bool {
	for last := len(p.removed) - 1; last >= 0; last-- {
		if p.at >= p.removed[last][0] {
			return p.at <= p.removed[last][1]
		}
		p.removed = p.removed[:last]
	}
	return false
}

// remove notes that the list does not have what stands at pos. It is called with smaller
// positions each time.
func (p *Placed) remove(pos int) {
	if n := len(p.Removed); n > 0 && p.Removed[n-1][0] == pos+1 {
		p.Removed[n-1][0] = pos
		return
	}
	p.Removed = append(p.Removed, [2]int{pos, pos})
}

// Edits returns what is to be changed in the pieces to get the list.
func (l *Layout) Edits() (e Edits) {
	at := 0
	for _, p := range l.Pieces {
		for _, r := range p.Removed {
			from, to := at+r[0], at+r[1]
			if n := len(e.Removed); n > 0 && e.Removed[n-1][1] == from-1 {
				e.Removed[n-1][1] = to
				continue
			}
			e.Removed = append(e.Removed, [2]int{from, to})
		}
		e.Changed = append(e.Changed, p.Changed...)
		at += p.N
	}
	return e
}
