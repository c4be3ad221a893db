package checkpoint

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A baseline is the checkpoint that a new one is compared with. The zero
// baseline is none.
type baseline struct {
	*Checkpoint
	tree *lazyTree // nil if it was not read
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

	tree *lazyTree // nil if it is not in memory
	undo func()    // takes what was added to the baseline's catalog out again
}

// A baseError is about the baseline, and was found after something was made of it.
type baseError struct{ error }

func (e *baseError) Unwrap() error { return e.error }

// ofBase marks an error of reading the baseline, unless that is nil.
func ofBase(err error) error {
	if err == nil {
		return nil
	}
	return &baseError{err}
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
		b.catalog = catalog.New(0)
	}
	b.mark = b.catalog.Mark()
	b.packer = newPacker(ctx, b.task, b.catalog, first)
	b.packer.meter = b.meter
	return nil
}

// list lists the state. It leaves out the leaves of base in which nothing has changed.
func (b *builder) list(ctx context.Context) error {
	if !b.scan.empty() {
		if err := b.base.load(ctx); err != nil {
			return err
		}
	}
	m := &matcher{leaves: b.leaves(), want: func(int) bool { return true }}
	if b.scan.reread || len(b.scan.streams) > 0 {
		m.leaves = nil
	}
	if err := b.scan.list(ctx, m); err != nil {
		return err
	}
	if err := b.scan.checkOwners(); err != nil {
		return err
	}
	b.meter.add(b.scan.total())
	b.same = len(m.leaves) > 0 && !slices.ContainsFunc(b.scan.spans, func(s span) bool { return !s.kept })
	return nil
}

// leaves returns those of base.
func (b *builder) leaves() []leaf {
	if b.base.tree == nil {
		return nil
	}
	return b.base.tree.leaves
}

// readBase reads what the state is to be compared with, and finds out which files are to be
// read. If that is damaged, the baseline becomes the zero one: the new checkpoint then stores
// everything itself.
func (b *builder) readBase(ctx context.Context) error {
	err := b.compare(ctx)
	if err != nil && damaged(err) {
		b.task.saveAnew(ctx, b.base.Seq, err)
		*b.base = baseline{}
		err = b.listAnew(ctx)
	}
	if err == nil {
		b.meter.add(Progress{Files: b.scan.kept.AllFiles + b.unread.AllFiles, Bytes: b.scan.kept.AllBytes + b.unread.AllBytes})
	}
	return err
}

// readAllShare decides how much of base is read: everything if it takes less than this
// fraction, 1/readAllShare, of the memory for lists. Then a file that was copied or renamed is
// found again.
const readAllShare = 4

// compare reads those leaves of base in which something has changed, and the tables of files
// that have changed.
func (b *builder) compare(ctx context.Context) error {
	t, c := b.base.tree, b.base.Checkpoint
	if t == nil {
		b.match()
		return nil
	}
	var changed, joined []int
	for i, s := range b.scan.spans {
		if !s.kept && s.leaf >= 0 {
			changed = append(changed, s.leaf)
		}
		if before, ok := b.joins(i); ok {
			joined = append(joined, before)
		}
	}
	if b.scan.spans[0].leaf < 0 || c.listMemory() < b.task.job.data.lists/readAllShare {
		if err := t.readAll(ctx, c); err != nil {
			return err
		}
	}
	if err := t.read(ctx, c, append(changed, joined...)); err != nil {
		return err
	}
	for _, i := range joined {
		b.opened[i] = asFound(t.leaves[i].nodes)
	}
	return t.readTables(ctx, c, b.match())
}

// joins reports whether what is in span i is to be stored together with a leaf before it: that
// one has room, nothing is left in between, and nothing begins a leaf here any more.
func (b *builder) joins(i int) (leaf int, ok bool) {
	s := b.scan.spans[i]
	if s.kept || s.from == s.to || format.StartsLeaf(b.scan.found[s.from].Path) {
		return 0, false
	}
	before := i - 1
	for before >= 0 && !b.scan.spans[before].kept && b.scan.spans[before].from == b.scan.spans[before].to {
		before--
	}
	if before < 0 || !b.scan.spans[before].kept {
		return 0, false
	}
	size := int64(0)
	for _, id := range b.leaves()[before].chunks {
		size += b.base.tree.Size(id)
	}
	return before, size < format.LeafSize
}

// listAnew lists the state once more, without leaving anything out.
func (b *builder) listAnew(ctx context.Context) error {
	w, before := b.scan, b.scan.total()
	w.found, w.spans, w.kept = nil, nil, Progress{}
	b.todo, b.unread = nil, Progress{}
	clear(b.opened)
	if err := w.list(ctx, new(matcher)); err != nil {
		return err
	}
	now := w.total()
	b.meter.add(Progress{AllFiles: now.AllFiles - before.AllFiles, AllBytes: now.AllBytes - before.AllBytes})
	b.match()
	return nil
}

// open makes what is in leaves of base a part of what is stored again.
func (b *builder) open(ctx context.Context, leaves []int) error {
	t := b.base.tree
	for _, i := range leaves {
		if t.leaves[i].nodes == nil {
			b.late = append(b.late, i)
		}
	}
	if err := t.read(ctx, b.base.Checkpoint, leaves); err != nil {
		return err
	}
	for _, i := range leaves {
		b.opened[i] = asFound(t.leaves[i].nodes)
	}
	return nil
}

// asFound returns nodes of base as what a scan would find if nothing changed.
func asFound(nodes []*node) []*found {
	list := make([]*found, len(nodes))
	for i, n := range nodes {
		list[i] = &found{*n, fileStamp{changed: n.ChangeTime, inode: n.Inode}}
	}
	return list
}

// all yields all that is to be stored, but for what stays in leaves as they are.
func (b *builder) all() iter.Seq[*found] {
	return func(yield func(*found) bool) {
		for _, s := range b.scan.spans {
			for _, f := range b.in(s) {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// in returns what is in a span, or nothing if that stays in its leaf as it is.
func (b *builder) in(s span) []*found {
	if s.kept {
		return b.opened[s.leaf]
	}
	return b.scan.found[s.from:s.to]
}

func (b *builder) undo() {
	b.catalog.Reset(b.mark)
	t := b.base.tree
	if t == nil {
		return
	}
	for _, i := range b.late {
		t.leaves[i].nodes = nil
	}
}

// load reads the baseline's list of leaves. If that is damaged, the baseline becomes the zero
// one: the new checkpoint then stores everything itself.
func (b *baseline) load(ctx context.Context) (err error) {
	if b.Checkpoint == nil || b.tree != nil {
		return nil
	}
	b.tree, err = b.lazyTree(ctx)
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
