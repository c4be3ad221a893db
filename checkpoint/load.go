package checkpoint

import (
	"cmp"
	"context"
	"fmt"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A loader reads a checkpoint's tree, and the tables of the files. It trusts
// neither: they must agree with the manifest, and be such as a writer makes. So damaged or
// hostile objects cannot make a reader take more memory or time than the manifest
// declares. A loader has some leaves, or a part of one table, in memory at a time.
type loader struct {
	c       *Checkpoint
	catalog *catalog.Catalog // of all chunks so far
	set     *catalog.Set     // of the same chunks
	places  format.Places
	numbers map[format.SegmentID]int // of segments in the catalog
	held    []int64                  // by number: how many bytes of the segment are in chunks

	list  []catalog.ID // the chunks of the list of leaves, if that is stored
	table []catalog.ID // the chunks of the table that lists these, if there is one
}

// newLoader returns a loader that has read nothing yet.
func (c *Checkpoint) newLoader() (*loader, error) {
	places, err := c.content.Places()
	if err != nil {
		return nil, c.damaged(err)
	}
	return c.loaderOf(places), nil
}

func (c *Checkpoint) loaderOf(places format.Places) *loader {
	all := new(catalog.Catalog)
	return &loader{c: c, catalog: all, set: all.Set(), places: places, numbers: make(map[format.SegmentID]int)}
}

// loaderIn returns a loader that adds to a catalog of chunks which were read before.
func (c *Checkpoint) loaderIn(all *catalog.Catalog) (*loader, error) {
	l, err := c.newLoader()
	if err != nil {
		return nil, err
	}
	l.catalog, l.set = all, all.Set()
	for i, s := range all.Segments() {
		l.numbers[s.ID] = i
	}
	l.held = make([]int64, len(all.Segments()))
	for id := range catalog.ID(all.Len()) {
		l.held[all.SegmentOf(id)] += all.StoredSize(id)
	}
	return l, nil
}

// add checks that a chunk is within its segment, and adds it to the catalog. Chunks do not
// overlap, so those of a segment have no more bytes together than the segment has.
func (l *loader) add(ch *format.Chunk) (catalog.ID, error) {
	if err := l.places.Check(ch); err != nil {
		return 0, err
	}
	n := l.number(ch.Segment)
	id, isNew := l.set.Add(n, ch)
	if !isNew {
		return id, nil
	}
	if l.held[n] += ch.StoredSize(); l.held[n] > l.places[ch.Segment] {
		return 0, fmt.Errorf("%w: chunks of %d bytes in segment %s of %d: some overlap",
			ErrCorrupt, l.held[n], ch.Segment, l.places[ch.Segment])
	}
	return id, nil
}

// number returns the number of a segment in the catalog.
func (l *loader) number(id format.SegmentID) int {
	n, ok := l.numbers[id]
	if !ok {
		n = l.catalog.AddSegment(format.Segment{ID: id, Size: l.places[id], Task: l.c.segments.Owner(id)})
		l.numbers[id] = n
		l.held = append(l.held, 0)
	}
	return n
}

func (l *loader) addAll(chunks []format.Chunk) ([]catalog.ID, error) {
	if len(chunks) == 0 {
		return nil, nil
	}
	list := make([]catalog.ID, len(chunks))
	for i := range chunks {
		var err error
		if list[i], err = l.add(&chunks[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// partSize returns how many bytes of tables, or of leaves, are read at a time.
func (l *loader) partSize() int64 { return l.c.task.job.data.part }

// entries reads the whole list of files, and calls do with each entry.
func (l *loader) entries(ctx context.Context, do func(*leaf, *format.Entry) error) error {
	list, err := l.leaves(ctx)
	if err != nil {
		return err
	}
	all := make([]*leaf, len(list))
	for i := range list {
		all[i] = &leaf{Leaf: list[i]}
		if all[i].chunks, err = l.addAll(list[i].Chunks); err != nil {
			return l.c.damaged(err)
		}
	}
	return l.eachLeaf(ctx, all, new(format.TreeDecoder), do)
}

// eachLeaf reads leaves, and calls do with each entry. follow has decoded all leaves before; it
// is nil if these are some of the leaves, here and there.
func (l *loader) eachLeaf(ctx context.Context, leaves []*leaf, follow *format.TreeDecoder, do func(*leaf, *format.Entry) error) error {
	var buf []byte
	decoder := cmp.Or(follow, new(format.TreeDecoder))
	for len(leaves) > 0 {
		n, size, ids := 0, int64(0), []catalog.ID(nil)
		for ; n < len(leaves) && size < l.partSize(); n++ {
			size += l.sizeOf(leaves[n].chunks)
			ids = append(ids, leaves[n].chunks...)
		}
		var err error
		if buf, err = l.c.join(ctx, l.catalog, ids, buf); err != nil {
			return err
		}
		data := buf
		for _, of := range leaves[:n] {
			k := l.sizeOf(of.chunks)
			decoder.Begin(&of.Leaf, follow != nil)
			if err := l.decode(decoder, of, data[:k], do); err != nil {
				return err
			}
			data = data[k:]
		}
		leaves = leaves[n:]
	}
	return nil
}

// checkUses makes sure that some files can use what is said of them: of each segment that
// there is, no more than all of it for each file.
func (l *loader) checkUses(uses []format.Use, files int64) error {
	for _, u := range uses {
		size, ok := l.places[u.Segment]
		if !ok || (u.Bytes-1)/max(size, 1) >= files {
			return fmt.Errorf("%w: it uses %d bytes of segment %s, which has %d", ErrCorrupt, u.Bytes, u.Segment, size)
		}
	}
	return nil
}

func (l *loader) sizeOf(chunks []catalog.ID) (size int64) {
	for _, id := range chunks {
		size += l.catalog.Size(id)
	}
	return size
}

// decode calls do with each entry of a leaf.
func (l *loader) decode(d *format.TreeDecoder, of *leaf, data []byte, do func(*leaf, *format.Entry) error) error {
	for e, err := range d.Add(data) {
		if err != nil {
			return l.c.damaged(err)
		}
		if err := do(of, &e); err != nil {
			return err
		}
	}
	if err := d.End(); err != nil {
		return l.c.damaged(err)
	}
	return nil
}

// leaves reads the list of leaves.
func (l *loader) leaves(ctx context.Context) ([]format.Leaf, error) {
	data, err := l.listOfLeaves(ctx)
	if err != nil {
		return nil, err
	}
	leaves, err := format.DecodeLeaves(data, l.c.Files, l.c.Bytes)
	if err != nil {
		return nil, l.c.damaged(fmt.Errorf("list of leaves: %w", err))
	}
	return leaves, nil
}

func (l *loader) listOfLeaves(ctx context.Context) (data []byte, err error) {
	if len(l.c.content.TreeAt) == 0 {
		return l.c.content.Tree, nil
	}
	if err := l.findList(ctx); err != nil {
		return nil, err
	}
	return l.c.join(ctx, l.catalog, l.list, nil)
}

// findList finds out which chunks the list of leaves consists of.
func (l *loader) findList(ctx context.Context) error {
	c := l.c.content
	err := format.MetaCut.Check(c.TreeAt)
	if err == nil && c.TreeSize > 0 {
		err = format.MetaCut.CheckTable(c.TreeAt, c.TreeSize)
	}
	var chunks []catalog.ID
	if err == nil {
		chunks, err = l.addAll(c.TreeAt)
	}
	if err != nil {
		return l.c.damaged(fmt.Errorf("list of leaves: %w", err))
	}
	if c.TreeSize == 0 {
		l.list = chunks
		return nil
	}
	l.table = chunks
	found := func(ids []catalog.ID) { l.list = append(l.list, ids...) }
	r := tableReader{l: l}
	if err := r.add(ctx, chunks, newTable("", c.TreeSize, format.MetaCut, found)); err != nil {
		return err
	}
	return r.end(ctx)
}

// node returns an entry as a node. It does not read the entry's table.
func (l *loader) node(e *format.Entry) (n node, err error) {
	n.Entry = *e
	n.Chunks, n.Table = nil, nil
	if n.chunks, err = l.addAll(e.Chunks); err == nil {
		n.table, err = l.addAll(e.Table)
	}
	if err == nil {
		err = l.checkUses(e.Uses, 1)
	}
	if err != nil {
		return node{}, l.c.damaged(fmt.Errorf("file %q: %w", e.Path, err))
	}
	return n, nil
}
