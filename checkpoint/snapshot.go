package checkpoint

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A Snapshot is what a job saves: how far it has come in its inputs, and the
// state that belongs to that position. Every part may be absent.
type Snapshot struct {
	// Offsets maps each input partition to a position in it. Both are opaque:
	// "orders/7" -> "4711".
	Offsets map[string]string
	// OffsetsAre records what an offset names; the zero value is NextToRead.
	OffsetsAre OffsetMeaning
	// Labels are the host's own notes, kept with the checkpoint.
	Labels map[string]string
	// Savepoint, if it is not empty, names the checkpoint. Retention never
	// removes it. The name is unique in the task and is no number.
	Savepoint string
	// State is the state's files. It is read before Commit or Save returns.
	State Source
}

// OffsetMeaning says what an offset names.
type OffsetMeaning string

// What an offset may name.
const (
	NextToRead OffsetMeaning = "next" // the first input that is not in the state
	LastDone   OffsetMeaning = "last" // the last input that is in the state
)

func (s *Snapshot) check(existing []format.Retained) error {
	switch s.OffsetsAre {
	case "", NextToRead, LastDone:
	default:
		return backend.Invalidf("offsets are %q; they must be %q or %q", s.OffsetsAre, NextToRead, LastDone)
	}
	for _, m := range []map[string]string{s.Offsets, s.Labels} {
		for k, v := range m {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return backend.Invalidf("offset or label %q=%q is not valid UTF-8", k, v)
			}
		}
	}
	return checkSavepoint(s.Savepoint, existing)
}

func checkSavepoint(name string, existing []format.Retained) error {
	if name == "" {
		return nil
	}
	bad := len(name) > 128 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl)
	if bad || isNumber(name) {
		return backend.Invalidf("savepoint name %q: use up to 128 bytes of text that is not a number", name)
	}
	i := slices.IndexFunc(existing, func(r format.Retained) bool { return r.Savepoint == name })
	if i >= 0 {
		return fmt.Errorf("%w: savepoint %q exists already, as checkpoint %d; choose another name", ErrConflict, name, existing[i].Seq)
	}
	return nil
}

// isNumber reports whether a checkpoint's name is meant as its number.
func isNumber(name string) bool { return strings.Trim(name, "0123456789") == "" }

// built is a snapshot whose data is in the store, ready to be committed.
type built struct {
	checkpoint *format.Checkpoint
	content    *format.Content // wherever it lies
	retained   []format.Retained
	retainedAt *format.Chunk
	segments   []string // keys of what was uploaded for it
}

// build uploads a snapshot's data in segments first and those after it. When
// it fails, segments holds what may have been uploaded.
func (t *Task) build(ctx context.Context, s *Snapshot, first format.SegmentID, retained []format.Retained) (built, error) {
	p := newPacker(ctx, t, first)
	b, err := pack(ctx, p, s, retained)
	if err != nil {
		p.abandon()
	} else {
		err = p.finish()
	}
	b.segments = p.keys()
	return b, err
}

func pack(ctx context.Context, p *packer, s *Snapshot, retained []format.Retained) (built, error) {
	w := &treeWriter{packer: p}
	if s.State.write != nil {
		w.buf = make([]byte, p.chunkSize())
		if err := s.State.write(ctx, w); err != nil {
			return built{}, err
		}
	}
	content, err := w.content(s)
	if err != nil {
		return built{}, err
	}
	c := w.summary()
	c.Savepoint = s.Savepoint
	b := built{checkpoint: c, content: content}
	if c.Content, c.ContentAt, err = placeContent(p, content); err != nil {
		return built{}, err
	}
	if b.retained, b.retainedAt, err = placeRetained(p, retained); err != nil {
		return built{}, err
	}
	if err := p.flush(); err != nil {
		return built{}, err
	}
	if c.Content != nil {
		c.NewBytes = int64(len(content.Inline))
	}
	for _, seg := range p.sent {
		c.NewBytes += seg.Size
	}
	return b, nil
}

// placeContent returns the content itself or, if it is large, where it has
// been packed. Inline data, which has a bound of its own, does not count.
func placeContent(p *packer, content *format.Content) (*format.Content, *format.Chunk, error) {
	bare := *content
	bare.Inline = nil
	data, err := format.EncodeContent(&bare)
	if err != nil || len(data) <= format.MaxPart {
		return content, nil, err
	}
	if data, err = format.EncodeContent(content); err != nil {
		return nil, nil, err
	}
	at, err := p.spill("offsets, labels and tree", data)
	return nil, at, err
}

// placeRetained does the same for the retained list.
func placeRetained(p *packer, list []format.Retained) ([]format.Retained, *format.Chunk, error) {
	data, err := format.EncodeRetained(list)
	if err != nil || len(data) <= format.MaxPart {
		return list, nil, err
	}
	at, err := p.spill("list of retained checkpoints", data)
	return nil, at, err
}

// content packs the tree and returns what describes everything packed.
func (w *treeWriter) content(s *Snapshot) (*format.Content, error) {
	c := &format.Content{
		Offsets:    maps.Clone(s.Offsets),
		OffsetsAre: string(s.OffsetsAre),
		Labels:     maps.Clone(s.Labels),
	}
	if len(w.entries) == 0 {
		return c, nil
	}
	p := w.packer
	tree, err := encodeTree(w.entries)
	if err == nil && len(p.sent) == 0 && len(p.buf)+len(tree) <= inlineMax {
		w.inline()
		tree, err = encodeTree(w.entries)
	}
	if err != nil {
		return nil, fmt.Errorf("this state can not be stored: %w", err)
	}
	if c.Tree, err = p.addAll(tree); err != nil {
		return nil, err
	}
	if inline, ok := p.takeInline(inlineMax); ok {
		c.Inline = inline
		for i := range c.Tree {
			c.Tree[i].Segment = format.SegmentID{}
		}
		return c, nil
	}
	if err := p.flush(); err != nil {
		return nil, err
	}
	c.Segments = slices.Clone(p.sent)
	return c, nil
}

func encodeTree(entries []format.Entry) ([]byte, error) {
	var tree format.TreeEncoder
	for i := range entries {
		if err := tree.Add(&entries[i]); err != nil {
			return nil, err
		}
	}
	return tree.Bytes(), nil
}

// inlineMax is how much data rides inside the manifest, in bytes: with it a
// commit is one request.
const inlineMax = format.MaxPart

// inline makes the entries' chunks refer to the inline data.
func (w *treeWriter) inline() {
	for i := range w.entries {
		for k := range w.entries[i].Chunks {
			w.entries[i].Chunks[k].Segment = format.SegmentID{}
		}
	}
}

func (w *treeWriter) summary() *format.Checkpoint {
	c := new(format.Checkpoint)
	for i := range w.entries {
		if e := &w.entries[i]; e.Mode.IsRegular() {
			c.Files++
			c.Bytes += e.Size
		}
	}
	return c
}

// parents adds the directories that a stream's name needs.
func (w *treeWriter) parents(name string) {
	dir := path.Dir(name)
	if dir == "." {
		return
	}
	w.parents(dir)
	w.entries = append(w.entries, format.Entry{Path: dir, Mode: fs.ModeDir | 0o755})
}
