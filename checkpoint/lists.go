package checkpoint

import (
	"context"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// This file stores the list of retained checkpoints. What is too large for a manifest lies
// in pieces, each in a segment of its own. Most commits send none: what is new stands in
// the manifest. When that is full, it becomes a piece, together with the newest pieces
// while these are small. Beside that a commit writes at most one piece anew, if it holds
// more checkpoints that are gone than others, or has many edits. (docs/decisions/0022.)

const (
	maxPiece  = 32 << 10 // of a piece, in its segment
	maxInline = 12 << 10 // of what stands in the manifest although there are pieces
	maxEdits  = 2 << 10  // of edits: if there are more, each commit writes a piece anew
	maxListed = 20 << 10 // of both, whatever amendments have added

	// Even then a repair, which is an amendment, must have some room for its edits.
	maxEditsLeft = format.MaxPart - 1<<10
)

// retain makes list the checkpoints that m, which follows base, retains. before is base's
// own list. It returns the keys of the segments that were sent for it; the first of them
// gets the number first. base may be nil.
//
// If retain fails, it deletes them. Once m has been sent, the caller must not delete them,
// whatever error it got for m: m may be committed, and another writer may have continued
// from it. If m is not committed, the next collection deletes them. (An owner may, once it
// knows that m never was committed.)
func (t *Task) retain(ctx context.Context, m *format.Manifest, base *history.Committed, before, list []format.Retained, first uint32) (sent []string, err error) {
	if base == nil {
		base = history.None()
	}
	m.Retained, m.RetainedAt, m.Edits, m.Pieces = list, nil, format.Edits{}, nil
	if small, err := format.FitsInline(list); small || err != nil {
		return nil, err
	}
	id := format.SegmentID{Epoch: m.Epoch, Writer: m.Writer, N: first}
	w := &listWriter{task: t, packer: newPacker(ctx, t, new(catalog.Catalog), id), list: list, layout: base.Place(before, list)}
	if err = w.store(m, base.RetainedAt); err == nil {
		err = w.packer.finish()
	} else {
		w.packer.abandon()
	}
	if err != nil {
		t.discard(ctx, w.packer.keys())
	}
	return w.packer.keys(), err
}

// A listWriter stores the list of one manifest.
type listWriter struct {
	task    *Task
	packer  *packer
	list    []format.Retained // all of it
	layout  format.Layout     // how it is stored: at first, in what pieces of the base
	changed bool              // the pieces are not the base's any more
}

// store makes the list that of m. index is the base's.
func (w *listWriter) store(m *format.Manifest, index *format.Chunk) error {
	if err := w.arrange(); err != nil {
		return err
	}
	m.Retained, m.Edits = w.layout.Inline, w.layout.Edits()
	for i := range w.layout.Pieces {
		m.Pieces = append(m.Pieces, w.layout.Pieces[i].Piece)
	}
	m.RetainedAt = index
	if !w.changed {
		return nil
	}
	data, err := format.EncodeIndex(m.Pieces)
	if err != nil {
		return err
	}
	m.RetainedAt, err = w.packer.spill(w.task.job.codec, "index of the list of retained checkpoints", data)
	return err
}

// arrange decides what is inline and what is in which piece, and writes new pieces.
func (w *listWriter) arrange() error {
	w.dropEmpty()
	inline, err := format.ListSize(w.layout.Inline)
	if err != nil {
		return err
	}
	if inline > maxInline || len(w.layout.Pieces) == 0 {
		err, inline = w.flush(), 0
	} else if from, to := w.worst(); from < to {
		err = w.rewrite(from, to)
	}
	for err == nil {
		switch edits := w.editsSize(); {
		case edits > maxEditsLeft:
			i := w.mostEdits()
			err = w.rewrite(i, i+1)
		case inline+edits > maxListed:
			err, inline = w.flush(), 0
		default:
			return nil
		}
	}
	return err
}

// dropEmpty drops the pieces of which the list has nothing.
func (w *listWriter) dropEmpty() {
	var left []format.Placed
	for _, p := range w.layout.Pieces {
		if len(p.Live) > 0 {
			left = append(left, p)
		}
	}
	w.changed = w.changed || len(left) < len(w.layout.Pieces)
	w.layout.Pieces = left
}

// flush makes a piece of what is inline, together with as many of the newest pieces as make
// one piece with it.
func (w *listWriter) flush() error {
	size, err := format.ListSize(w.layout.Inline)
	if err != nil {
		return err
	}
	to := w.fitting(0, size/4)
	for ; to > 0; to-- { // that was an estimate
		p, err := w.encode(w.span(-1, to))
		if err != nil {
			return err
		}
		if len(p.stored) <= maxPiece {
			break
		}
	}
	return w.rewrite(-1, to)
}

// worst returns the pieces to be written anew, from a first one to before another: those
// around one of which the list has less than half, or the one with the most edits if these
// are many. It returns none if all is well.
func (w *listWriter) worst() (from, to int) {
	for i, p := range w.layout.Pieces {
		if 2*len(p.Live) >= p.N {
			continue
		}
		from, to = i, w.fitting(i, 0)
		size := 0
		for _, p := range w.layout.Pieces[from:to] {
			size += estimate(&p)
		}
		for from > 0 && size+estimate(&w.layout.Pieces[from-1]) <= maxPiece {
			from--
			size += estimate(&w.layout.Pieces[from])
		}
		return from, max(to, i+1)
	}
	if w.editsSize() > maxEdits {
		i := w.mostEdits()
		return i, i + 1
	}
	return 0, 0
}

// fitting returns the end of the pieces from a first one on that make one piece together
// with something of a size.
func (w *listWriter) fitting(from, size int) (to int) {
	for to = from; to < len(w.layout.Pieces); to++ {
		if size += estimate(&w.layout.Pieces[to]); size > maxPiece {
			break
		}
	}
	return to
}

// estimate returns about how many bytes what the list has of a piece takes in a segment.
func estimate(p *format.Placed) int {
	return int(p.StoredSize() * int64(len(p.Live)) / int64(p.N))
}

// editsSize returns how many bytes at most the edits of all pieces take in a manifest.
func (w *listWriter) editsSize() (size int) {
	for i := range w.layout.Pieces {
		size += editsSize(&w.layout.Pieces[i])
	}
	return size
}

func editsSize(p *format.Placed) int {
	size := len(`[16777215,16777215],`) * len(p.Removed)
	if len(p.Changed) > 0 {
		if n, err := format.ListSize(p.Changed); err == nil { // else nothing can be written
			size += n
		}
	}
	return size
}

// mostEdits returns the piece with the most edits.
func (w *listWriter) mostEdits() (most int) {
	for i := range w.layout.Pieces {
		if editsSize(&w.layout.Pieces[i]) > editsSize(&w.layout.Pieces[most]) {
			most = i
		}
	}
	return most
}

// span returns what the list has of the pieces from a first one to before another. -1
// stands for what is inline.
func (w *listWriter) span(from, to int) []format.Retained {
	start, end := 0, len(w.layout.Inline)
	for i := range w.layout.Pieces[:max(to, 0)] {
		if i == from {
			start = end
		}
		end += len(w.layout.Pieces[i].Live)
	}
	return w.list[start:end]
}

// rewrite puts new pieces, one if that is enough, in the place of those that span returns.
func (w *listWriter) rewrite(from, to int) error {
	pieces, err := w.write(w.span(from, to))
	if err != nil {
		return err
	}
	if from < 0 {
		w.layout.Inline, from = nil, 0
	}
	pieces = append(pieces, w.layout.Pieces[to:]...)
	w.layout.Pieces = append(w.layout.Pieces[:from:from], pieces...)
	w.changed = true
	return nil
}

// write writes a part of the list in one piece, or in several if that is too large.
func (w *listWriter) write(list []format.Retained) ([]format.Placed, error) {
	p, err := w.encode(list)
	if err != nil {
		return nil, err
	}
	if half := len(list) / 2; len(p.stored) > maxPiece && half > 0 {
		newer, err := w.write(list[:half])
		if err != nil {
			return nil, err
		}
		older, err := w.write(list[half:])
		return append(newer, older...), err
	}
	at, err := w.packer.addPart(p)
	if err == nil {
		err = w.packer.flush() // each is deleted by itself
	}
	if err != nil {
		return nil, err
	}
	return []format.Placed{{Piece: format.Piece{N: len(list), Chunk: *at}, Live: list}}, nil
}

func (w *listWriter) encode(list []format.Retained) (*part, error) {
	data, err := format.EncodeRetained(list)
	if err != nil {
		return nil, err
	}
	return encodePart(w.task.job.codec, "list of retained checkpoints", data)
}
