package checkpoint

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// maxInlineTree is the size up to which a list of leaves is in the content itself, in bytes:
// some 25 leaves, or 3,000 files. So most states are restored with one request less.
const maxInlineTree = 4 << 10

// packTree packs the files' tables, the leaves and their list, and sets in c where these are.
// If what is new in the state is small, it becomes inline data of the manifest.
func (b *builder) packTree(c *format.Content) (*lazyTree, error) {
	at := b.packer.point()
	t, err := b.tree(c)
	if err != nil || !b.packer.small() {
		return t, err
	}
	b.packer.inlineFrom(at) // the tables above name segments, so they are made again
	for _, n := range b.tabled {
		n.table, n.Uses = nil, nil
	}
	return b.tree(c)
}

func (b *builder) tree(c *format.Content) (*lazyTree, error) {
	t := &lazyTree{Catalog: b.catalog}
	err := b.eachLeaf(b.storedEntry, func(kept int) { t.leaves = append(t.leaves, b.leaves()[kept]) },
		func(nodes []*node, data []byte) error {
			l, err := b.packLeaf(nodes, data)
			t.leaves = append(t.leaves, l)
			return err
		})
	if err != nil {
		return nil, err
	}
	list := make([]format.Leaf, len(t.leaves))
	for i := range t.leaves {
		list[i] = t.leaves[i].Leaf
		list[i].Chunks = b.catalog.Chunks(t.leaves[i].chunks)
	}
	data, err := format.EncodeLeaves(list)
	if err != nil {
		return nil, notStored(err)
	}
	return t, b.packList(t, data, c)
}

func notStored(err error) error { return fmt.Errorf("this state cannot be stored: %w", err) }

// packList packs the list of leaves, unless it is short.
func (b *builder) packList(t *lazyTree, data []byte, c *format.Content) (err error) {
	c.Tree, c.TreeAt, c.TreeSize = nil, nil, 0
	if len(data) <= maxInlineTree {
		c.Tree = data
		return nil
	}
	if t.list, err = b.packAll(data); err != nil {
		return err
	}
	c.TreeAt = b.catalog.Chunks(t.list)
	if len(t.list) > format.MaxTreeChunks {
		c.TreeSize = int64(len(data))
		t.table, err = b.packTable(t.list)
		c.TreeAt = b.catalog.Chunks(t.table)
	}
	return err
}

// eachLeaf divides all that is to be stored into leaves. It calls kept for a leaf of base that
// stays as it is, by its index, and made for another one, with what is in it, and with that
// encoded, which is good until made returns. entry says how a node is encoded.
func (b *builder) eachLeaf(entry func(*node) (*format.Entry, error), kept func(int), made func([]*node, []byte) error) error {
	var enc format.TreeEncoder
	var nodes []*node
	end := func() error {
		if len(nodes) == 0 {
			return nil
		}
		err := made(nodes, enc.Bytes())
		enc.EndLeaf()
		nodes = nil
		return err
	}
	for _, s := range b.scan.spans {
		list := b.in(s)
		if s.kept && list == nil {
			if err := end(); err != nil {
				return err
			}
			kept(s.leaf)
			enc.Skip(b.leaves()[s.leaf].First)
			continue
		}
		for _, f := range list {
			if format.StartsLeaf(f.Path) || len(enc.Bytes()) >= format.LeafSize {
				if err := end(); err != nil {
					return err
				}
			}
			e, err := entry(&f.node)
			if err != nil {
				return err
			}
			if err := enc.Add(e); err != nil {
				return notStored(err)
			}
			nodes = append(nodes, &f.node)
		}
	}
	return end()
}

// storedEntry returns a node as it is stored. It makes the table of a file that has many
// chunks, unless it has one.
func (b *builder) storedEntry(n *node) (*format.Entry, error) {
	if n.getsTable() {
		if err := b.makeTable(n); err != nil {
			return nil, err
		}
	}
	return b.entry(n), nil
}

// getsTable reports whether a file has so many chunks that it is to have a table, and has none.
func (n *node) getsTable() bool { return n.table == nil && len(n.chunks) > format.MaxEntryChunks }

func (b *builder) entry(n *node) *format.Entry {
	e := n.Entry
	if n.table != nil {
		e.Table = b.catalog.Chunks(n.table)
	} else {
		e.Chunks = b.catalog.Chunks(n.chunks)
	}
	return &e
}

// packLeaf packs a leaf.
func (b *builder) packLeaf(nodes []*node, data []byte) (l leaf, err error) {
	l = leaf{Leaf: format.Leaf{First: nodes[0].Path, Fingerprint: fingerprintOf(nodes)}, nodes: nodes}
	uses := make(map[format.SegmentID]int64)
	for _, n := range nodes {
		if n.Mode.IsRegular() {
			l.Files++
			l.Bytes += n.Size
		}
		b.addUses(uses, n.table)
		for _, u := range n.Uses {
			uses[u.Segment] += u.Bytes
		}
		if n.table == nil {
			b.addUses(uses, n.chunks)
		}
	}
	l.Uses = sorted(uses)
	l.chunks, err = b.packAll(data)
	return l, err
}

// addUses adds what chunks take of each segment, each chunk once.
func (b *builder) addUses(uses map[format.SegmentID]int64, chunks []catalog.ID) {
	var set []catalog.ID
	for i, id := range chunks {
		if i == 0 || id != chunks[i-1] { // a hole has the same again and again
			set = append(set, id)
		}
	}
	slices.Sort(set)
	for _, id := range slices.Compact(set) {
		uses[b.catalog.Segments()[b.catalog.SegmentOf(id)].ID] += b.catalog.StoredSize(id)
	}
}

func sorted(uses map[format.SegmentID]int64) []format.Use {
	list := make([]format.Use, 0, len(uses))
	for id, bytes := range uses {
		list = append(list, format.Use{Segment: id, Bytes: bytes})
	}
	slices.SortFunc(list, func(a, b format.Use) int { return a.Segment.Compare(b.Segment) })
	return list
}

func (b *builder) makeTable(n *node) (err error) {
	b.tabled = append(b.tabled, n)
	uses := make(map[format.SegmentID]int64)
	b.addUses(uses, n.chunks)
	n.Uses = sorted(uses)
	n.table, err = b.packTable(n.chunks)
	return err
}

// packTable packs a table that lists chunks.
func (b *builder) packTable(chunks []catalog.ID) (list []catalog.ID, err error) {
	err = b.eachTablePart(chunks, func(data []byte, end bool) (rest []byte, err error) {
		list, rest, err = b.packSome(list, data, end)
		return rest, err
	})
	return list, err
}

// tableAtOnce is how many bytes of a table are in memory at a time: some chunks of it.
const tableAtOnce = 256 << 10

// eachTablePart encodes a table that lists chunks, and calls do with a part of it at a time. do returns
// what is to come again at the beginning of the next part. end says that nothing comes after it.
func (b *builder) eachTablePart(chunks []catalog.ID, do func(data []byte, end bool) (rest []byte, err error)) (err error) {
	var table format.TableEncoder
	var data []byte
	for i, id := range chunks {
		if i > 0 && id == chunks[i-1] { // a hole has the same again and again
			table.Again()
			continue
		}
		c := b.catalog.Chunk(id)
		if data = table.Append(data, &c); len(data) < tableAtOnce {
			continue
		}
		if data, err = do(data, false); err != nil {
			return err
		}
	}
	_, err = do(table.End(data), true)
	return err
}

// packAll packs those chunks of a leaf or of a list of leaves that are new, and returns
// all of them.
func (b *builder) packAll(data []byte) ([]catalog.ID, error) {
	list, _, err := b.packSome(nil, data, true)
	return list, err
}

// packSome packs data as far as it can be cut into chunks, which it adds to a list. It returns what is
// left, at the beginning of data's memory. end says that nothing comes after data.
func (b *builder) packSome(list []catalog.ID, data []byte, end bool) (_ []catalog.ID, rest []byte, err error) {
	var buf []byte
	rest = data
	for n := cut.Meta.Next(rest, end); n > 0; n = cut.Meta.Next(rest, end) {
		hash := format.Sum(rest[:n])
		id, ok := b.find(hash)
		if !ok {
			stored := rest[:n]
			e, encoded := b.task.job.codec.Encode(buf[:0], stored)
			if e != format.Raw {
				stored = encoded
			}
			buf = encoded // its memory is used again
			if id, err = b.packer.add(hash, n, e, stored); err != nil {
				return nil, nil, err
			}
		}
		list = append(list, id)
		rest = rest[n:]
	}
	return list, data[:copy(data, rest)], nil
}
