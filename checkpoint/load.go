package checkpoint

import (
	"context"
	"fmt"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A loader reads a checkpoint's list of files, and the tables of the files. It trusts
// neither: they must agree with the manifest, and be such as a writer makes. So damaged or
// hostile objects cannot make a reader take more memory or time than the manifest
// declares. A loader has a part of one list or table in memory at a time.
type loader struct {
	c       *Checkpoint
	catalog *catalog.Catalog // of all chunks so far
	set     *catalog.Set     // of the same chunks
	places  format.Places
	numbers map[format.SegmentID]int // of segments in the catalog
	held    []int64                  // by number: how many bytes of the segment are in chunks

	list  []catalog.ID // the chunks of the list of files
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
	all := catalog.New(0)
	return &loader{c: c, catalog: all, set: all.Set(), places: places, numbers: make(map[format.SegmentID]int)}
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

// partSize is how many bytes of tables, or of the list of files, are read at a time.
const partSize = 8 << 20

// inParts reads chunks, some at a time, and calls use with their data in order.
func (l *loader) inParts(ctx context.Context, ids []catalog.ID, use func(part []byte) error) error {
	var buf []byte
	for len(ids) > 0 {
		n := 0
		for size := int64(0); n < len(ids) && size < partSize; n++ {
			size += l.catalog.Size(ids[n])
		}
		var err error
		if buf, err = l.c.join(ctx, l.catalog, ids[:n], buf); err != nil {
			return err
		}
		if err := use(buf); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// entries reads the list of files, and calls do with each entry.
func (l *loader) entries(ctx context.Context, do func(*format.Entry) error) error {
	if err := l.findList(ctx); err != nil {
		return err
	}
	decoder := format.NewTreeDecoder(l.c.Files, l.c.Bytes)
	err := l.inParts(ctx, l.list, func(part []byte) error {
		for e, err := range decoder.Add(part) {
			if err != nil {
				return l.c.damaged(err)
			}
			if err := do(&e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := decoder.End(); err != nil {
		return l.c.damaged(err)
	}
	return nil
}

// findList finds out which chunks the list of files consists of.
func (l *loader) findList(ctx context.Context) error {
	c := l.c.content
	err := format.MetaCut.Check(c.Tree)
	if err == nil && c.TreeSize > 0 {
		err = format.MetaCut.CheckTable(c.Tree, c.TreeSize)
	}
	var chunks []catalog.ID
	if err == nil {
		chunks, err = l.addAll(c.Tree)
	}
	if err != nil {
		return l.c.damaged(fmt.Errorf("list of files: %w", err))
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
	if err != nil {
		return node{}, l.c.damaged(fmt.Errorf("file %q: %w", e.Path, err))
	}
	return n, nil
}
