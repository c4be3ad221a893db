package checkpoint

import (
	"context"
	"errors"
	"maps"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// built is a snapshot whose data is in the store, ready to be committed.
type built struct {
	checkpoint *format.Checkpoint
	content    *format.Content // whether it is in the manifest or in a segment
	segments   []string        // keys of what was uploaded for it
	lists      []string        // keys of what was uploaded for the list beside it

	tree *lazyTree // nil if it is not in memory
	undo func()    // takes what was added to the baseline's catalog out again
}

// build uploads the data that a snapshot has and base does not have. Its segments are
// numbered from first on. When it fails, built.segments holds what may have been uploaded.
//
// If the baseline turns out to be damaged on the way, it becomes the zero one, and everything
// is stored anew: at once, or if a stream went by with the next checkpoint.
func (t *Task) build(ctx context.Context, s *Snapshot, base *baseline, first format.SegmentID) (built, error) {
	out, err := t.buildOn(ctx, s, base, first)
	if !errors.As(err, new(*baseError)) || !damaged(err) {
		return out, err
	}
	t.saveAnew(ctx, base.Seq, err)
	*base = baseline{}
	if len(s.State.streams) > 0 {
		return out, err
	}
	t.discard(ctx, out.segments)
	first.N += uint32(len(out.segments))
	again, err := t.buildOn(ctx, s, base, first)
	again.segments = append(out.segments, again.segments...) // their numbers are taken
	return again, err
}

func (t *Task) buildOn(ctx context.Context, s *Snapshot, base *baseline, first format.SegmentID) (built, error) {
	w, err := s.State.scan()
	if err != nil {
		return built{}, err
	}
	defer func() { _ = w.close() }() // it was only read
	if w.full {
		base = new(baseline)
	}
	b := &builder{task: t, scan: w, base: base, meter: &meter{report: s.Progress}, opened: make(map[int][]*found)}
	if err := b.begin(ctx, first); err != nil {
		return built{}, err
	}
	out, err := b.build(ctx, s)
	if err == nil {
		err = b.packer.finish()
	} else {
		b.packer.abandon()
	}
	if err != nil {
		b.undo()
		out = built{}
	}
	out.segments, out.undo = b.packer.keys(), b.undo
	if err == nil {
		t.tellUnkept(ctx, w)
	}
	return out, err
}

// A builder makes one checkpoint.
type builder struct {
	task  *Task
	scan  *scan
	base  *baseline
	same  bool // the state is the same as base's
	meter *meter
	todo  []*found // the files that are to be read

	unread Progress // AllFiles and AllBytes of those that were found and need not be read
	late   []int    // leaves of base that were read after mark

	// opened has what is in leaves of base in which the scan found nothing changed, and which
	// are stored again all the same, by their index.
	opened map[int][]*found

	catalog *catalog.Catalog // of the chunks that base has, as far as they were read, and of the new ones
	mark    catalog.Mark     // where the new ones begin
	packer  *packer
	sparse  []bool  // which segments of base are not to be named by the new checkpoint
	tabled  []*node // nodes whose tables were made by this builder
}

// begin lists the state, finds out what has changed since base, and reads what of base it
// has to be compared with.
func (b *builder) begin(ctx context.Context, first format.SegmentID) error {
	if err := b.list(ctx); err != nil {
		return err
	}
	if !b.same && !b.scan.empty() {
		if err := b.readBase(ctx); err != nil {
			return err
		}
	}
	if b.base.tree != nil {
		b.catalog = b.base.tree.Catalog
	} else {
		b.catalog = new(catalog.Catalog)
	}
	b.mark = b.catalog.Mark()
	b.packer = newPacker(ctx, b.task, b.catalog, first)
	b.packer.meter, b.packer.files = b.meter, b.filesMemory()
	return nil
}

// build makes the checkpoint, and packs what is too large for its manifest into segments.
func (b *builder) build(ctx context.Context, s *Snapshot) (out built, err error) {
	out.content = &format.Content{
		Offsets:    maps.Clone(s.Offsets),
		OffsetsAre: string(s.OffsetsAre),
		Labels:     maps.Clone(s.Labels),
	}
	if out.tree, err = b.state(ctx, out.content); err != nil {
		return built{}, err
	}
	c := b.summary()
	c.Savepoint, c.ExpiresAfter = s.Savepoint, s.expiresAfter()
	out.checkpoint = c
	if c.Content, c.ContentAt, err = b.storeContent(out.content); err != nil {
		return built{}, err
	}
	if err := b.packer.flush(); err != nil {
		return built{}, err
	}
	c.Foreign = out.content.IsForeign()
	if c.Content != nil {
		c.NewBytes = int64(len(out.content.Inline))
	}
	for _, seg := range b.packer.sent {
		c.NewBytes += seg.Size
	}
	return out, nil
}

func (b *builder) summary() *format.Checkpoint {
	all := b.scan.total()
	return &format.Checkpoint{Files: all.AllFiles, Bytes: all.AllBytes}
}

// state packs the state, if there is one, and sets in c where its data is.
func (b *builder) state(ctx context.Context, c *format.Content) (*lazyTree, error) {
	if b.scan.empty() {
		return nil, nil
	}
	if b.same {
		old := b.base.content
		c.Segments, c.Tree, c.TreeAt, c.TreeSize, c.Inline = old.Segments, old.Tree, old.TreeAt, old.TreeSize, old.Inline
		all := b.scan.total()
		b.meter.add(Progress{Files: all.AllFiles, Bytes: all.AllBytes})
		return b.base.tree, nil
	}
	if err := b.packFiles(ctx); err != nil {
		return nil, err
	}
	t, err := b.packTree(c)
	if err != nil {
		return nil, err
	}
	if b.packer.inlined {
		c.Inline = b.packer.takeInline()
	} else if err := b.packer.flush(); err != nil {
		return nil, err
	}
	need := t.need()
	for i, s := range t.Segments() {
		if i < len(need.Bytes) && need.Bytes[i] > 0 && s.ID != (format.SegmentID{}) {
			c.Segments = append(c.Segments, s)
		}
	}
	return t, t.covered(c.Segments)
}

// packFiles packs the data of all files.
func (b *builder) packFiles(ctx context.Context) error {
	l := newPipeline(ctx, b.packer, b.find, b.task.job.codec, b.task.job.opts.Compression, b.meter)
	err := b.readFiles(l) //nolint:contextcheck // a stream is interrupted by the end of the uploads, whose context comes of this one
	if err == nil {
		err = b.repack(ctx, l)
	}
	if err == nil {
		err = b.compareAll(ctx, l)
	}
	return l.finish(err)
}

// storeContent returns the content itself if it is small enough for the manifest.
// Otherwise it packs it, and returns the chunk that has it.
func (b *builder) storeContent(content *format.Content) (*format.Content, *format.Chunk, error) {
	if small, err := content.IsPart(); small || err != nil {
		return content, nil, err
	}
	data, err := format.EncodeContent(content)
	if err != nil {
		return nil, nil, err
	}
	at, err := b.packer.spill(b.task.job.codec, "offsets, labels and tree", data)
	return nil, at, err
}
