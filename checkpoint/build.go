package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A baseline is the checkpoint that a new one is compared with. The zero
// baseline is none.
type baseline struct {
	*Checkpoint
	tree *tree // nil if it was not read
}

// baseline returns a checkpoint, which may be nil, as what a new one is compared
// with.
func (t *Task) baseline(ctx context.Context, c *format.Checkpoint) (*baseline, error) {
	if c == nil {
		return new(baseline), nil
	}
	opened, err := t.open(ctx, c)
	if err != nil && damaged(err) {
		t.saveAnew(ctx, c.Seq, err)
		return new(baseline), nil
	}
	if err != nil {
		return nil, err
	}
	return &baseline{Checkpoint: opened}, nil
}

// damaged reports whether a baseline cannot be read, and still is what to follow. A
// baseline that was retired meanwhile (ErrGone) is not: another writer was first.
func damaged(err error) bool { return unreadable(err) && !errors.Is(err, ErrGone) }

func (t *Task) saveAnew(ctx context.Context, seq uint64, err error) {
	t.job.opts.Logger.WarnContext(ctx, "the checkpoint before cannot be read; everything is saved anew",
		"task", t.Name(), "checkpoint", seq, "err", err)
}

// built is a snapshot whose data is in the store, ready to be committed.
type built struct {
	checkpoint *format.Checkpoint
	content    *format.Content // whether it is in the manifest or in a segment
	segments   []string        // keys of what was uploaded for it
	lists      []string        // keys of what was uploaded for the list beside it

	tree *tree  // nil if it is not in memory
	undo func() // takes what was added to the baseline's catalog out again
}

// build uploads the data that a snapshot has and base does not have. Its segments are
// numbered from first on. When it fails, built.segments holds what may have been uploaded.
func (t *Task) build(ctx context.Context, s *Snapshot, base *baseline, first format.SegmentID) (built, error) {
	w, err := s.State.scan(ctx)
	if err != nil {
		return built{}, err
	}
	defer func() { _ = w.close() }() // it was only read
	if err := w.checkOwners(); err != nil {
		return built{}, err
	}
	if w.full {
		base = new(baseline)
	}
	b := &builder{task: t, scan: w, base: base, meter: &meter{report: s.Progress}}
	b.meter.add(total(w.nodes))
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

	catalog *catalog.Catalog // of the chunks that base has, and of the new ones
	mark    catalog.Mark     // where the new ones begin
	packer  *packer
	sparse  []bool  // which segments of base are not to be named by the new checkpoint
	tabled  []*node // nodes whose tables were made by this builder
}

// begin finds out whether the state is the same as base's, and if not, loads what it has
// to be compared with.
func (b *builder) begin(ctx context.Context, first format.SegmentID) error {
	sum := fingerprint(b.scan.nodes)
	b.same = b.base.Checkpoint != nil && sum != format.Hash{} && sum == b.base.content.Fingerprint && !b.scan.reread
	if !b.same && !b.scan.empty() {
		if err := b.base.load(ctx); err != nil {
			return err
		}
	}
	if b.base.tree != nil {
		b.catalog = b.base.tree.Catalog
	} else {
		b.catalog = catalog.New(0)
	}
	b.mark = b.catalog.Mark()
	b.packer = newPacker(ctx, b.task, b.catalog, first)
	b.packer.meter = b.meter
	return nil
}

func (b *builder) undo() { b.catalog.Reset(b.mark) }

// load reads the baseline's tree. If that is damaged, the baseline becomes the zero one:
// the new checkpoint then stores everything itself.
func (b *baseline) load(ctx context.Context) (err error) {
	if b.Checkpoint == nil || b.tree != nil {
		return nil
	}
	b.tree, err = b.Checkpoint.tree(ctx)
	if err != nil && damaged(err) {
		b.task.saveAnew(ctx, b.Seq, err)
		*b, err = baseline{}, nil
	}
	return err
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
	all := total(b.scan.nodes)
	return &format.Checkpoint{Files: all.AllFiles, Bytes: all.AllBytes}
}

// state packs the state, if there is one, and sets in c where its data is.
func (b *builder) state(ctx context.Context, c *format.Content) (*tree, error) {
	if b.scan.empty() {
		return nil, nil
	}
	if b.same {
		old := b.base.content
		c.Segments, c.Tree, c.TreeSize, c.Inline, c.Fingerprint = old.Segments, old.Tree, old.TreeSize, old.Inline, old.Fingerprint
		all := total(b.scan.nodes)
		b.meter.add(Progress{Files: all.AllFiles, Bytes: all.AllBytes})
		return b.base.tree, nil
	}
	if err := b.packFiles(ctx); err != nil {
		return nil, err
	}
	t, err := b.packTree()
	if err != nil {
		return nil, err
	}
	c.Tree, c.Fingerprint = t.chunkList(t.list), fingerprint(t.nodes)
	if t.table != nil {
		c.Tree = t.chunkList(t.table)
		for _, id := range t.list {
			c.TreeSize += t.Size(id)
		}
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
	return t, nil
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

// packTree packs the files' tables and the list of files. If the whole state is small, it
// becomes inline data of the manifest.
func (b *builder) packTree() (*tree, error) {
	at := b.packer.point()
	t, err := b.tree()
	if err != nil || !b.packer.small() {
		return t, err
	}
	b.packer.inlineFrom(at) // the tables above name segments, so they are made again
	for _, n := range b.tabled {
		n.table = nil
	}
	return b.tree()
}

func (b *builder) tree() (*tree, error) {
	t := &tree{Catalog: b.catalog, nodes: b.scan.nodes}
	var enc format.TreeEncoder
	for i := range t.nodes {
		n := &t.nodes[i]
		if n.table == nil && len(n.chunks) > format.MaxEntryChunks {
			b.tabled = append(b.tabled, n)
			var err error
			if n.table, err = b.packTable(n.chunks); err != nil {
				return nil, err
			}
		}
		if err := enc.Add(t.entry(n)); err != nil {
			return nil, fmt.Errorf("this state cannot be stored: %w", err)
		}
	}
	var err error
	if t.list, err = b.packAll(enc.Bytes()); err == nil && len(t.list) > format.MaxTreeChunks {
		t.table, err = b.packTable(t.list)
	}
	return t, err
}

// packTable packs a table that lists chunks.
func (b *builder) packTable(chunks []catalog.ID) ([]catalog.ID, error) {
	return b.packAll(format.AppendTable(nil, func(yield func(format.Chunk) bool) {
		for _, id := range chunks {
			if !yield(b.catalog.Chunk(id)) {
				return
			}
		}
	}))
}

// packAll packs those chunks of a table or of a list of files that are new, and returns
// all of them.
func (b *builder) packAll(data []byte) ([]catalog.ID, error) {
	var list []catalog.ID
	var buf []byte
	for len(data) > 0 {
		n := cut.Meta.Next(data, true)
		hash := format.Sum(data[:n])
		id, ok := b.find(hash)
		if !ok {
			stored := data[:n]
			e, encoded := b.task.job.codec.Encode(buf[:0], stored)
			if e != format.Raw {
				stored = encoded
			}
			buf = encoded // its memory is used again
			var err error
			if id, err = b.packer.add(hash, n, e, stored); err != nil {
				return nil, err
			}
		}
		list = append(list, id)
		data = data[n:]
	}
	return list, nil
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
