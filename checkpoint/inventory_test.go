package checkpoint_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// An inventory is everything that a bucket contains of a task. It is read only
// through package format, so it is independent of the code under test.
type inventory struct {
	newest    *format.Manifest
	manifests map[uint64][]byte
	segments  map[format.SegmentID][]byte
}

var inventoryDecoder = codec.New()

func takeInventory(t tester, b *mem.Bucket) *inventory {
	t.Helper()
	s := &inventory{manifests: make(map[uint64][]byte), segments: make(map[format.SegmentID][]byte)}
	store := b.Open()
	for o, err := range store.List(t.Context(), dir+"/", "") {
		if err == nil {
			err = s.add(t, store, o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(s.manifests) > 0 {
		s.newest = s.manifest(t, slices.Max(slices.Collect(maps.Keys(s.manifests))))
	}
	return s
}

// manifest returns the manifest with a number.
func (s *inventory) manifest(t tester, seq uint64) *format.Manifest {
	t.Helper()
	m, err := format.DecodeManifest(s.manifests[seq], "orders/7", seq)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (s *inventory) add(t tester, store backend.Store, o backend.Object) error {
	data := make([]byte, o.Size)
	if _, err := store.Get(t.Context(), o.Key, 0, data); err != nil {
		return err
	}
	if strings.Contains(o.Key, segments) {
		id, ok := format.ParseSegmentID(strings.TrimPrefix(o.Key, format.SegmentPrefix(dir)))
		if !ok {
			return fmt.Errorf("a segment with the key %s", o.Key)
		}
		s.segments[id] = data
		return nil
	}
	_, seq, _ := format.ParseManifestKey(o.Key)
	s.manifests[seq] = data
	return nil
}

// size is the total size of all segments, in bytes.
func (s *inventory) size() (n int64) {
	for _, data := range s.segments {
		n += int64(len(data))
	}
	return n
}

// retained returns the numbers of the existing checkpoints, the newest first.
func (s *inventory) retained(t tester) []uint64 {
	t.Helper()
	if s.newest == nil || s.newest.Checkpoint == nil {
		return nil
	}
	list, err := listOf(s.newest, func(c *format.Chunk) ([]byte, error) { return s.decode(c, nil) })
	if err != nil {
		t.Fatal(err)
	}
	all := []uint64{s.newest.Checkpoint.Seq}
	for _, r := range list {
		all = append(all, r.Seq)
	}
	return all
}

// listOf returns the list of a manifest, and sets m.Pieces. chunk returns a chunk's data.
func listOf(m *format.Manifest, chunk func(*format.Chunk) ([]byte, error)) ([]format.Retained, error) {
	if m.RetainedAt == nil {
		return m.Retained, nil
	}
	data, err := chunk(m.RetainedAt)
	if err != nil {
		return nil, err
	}
	if m.Pieces, err = format.DecodeIndex(data); err != nil {
		return nil, err
	}
	pieces := make([][]format.Retained, len(m.Pieces))
	for i := range m.Pieces {
		if data, err = chunk(&m.Pieces[i].Chunk); err != nil {
			return nil, err
		}
		if pieces[i], err = m.Pieces[i].Decode(data); err != nil {
			return nil, err
		}
	}
	return m.Join(pieces)
}

// decode returns a chunk's data.
func (s *inventory) decode(c *format.Chunk, inline []byte) ([]byte, error) {
	in, ok := inline, true
	if c.Segment != (format.SegmentID{}) {
		in, ok = s.segments[c.Segment]
	}
	if !ok || c.Offset+c.StoredSize() > int64(len(in)) {
		return nil, fmt.Errorf("chunk at %d in %s lies outside", c.Offset, c.Segment)
	}
	data, err := inventoryDecoder.Decode(nil, c.Encoding, in[c.Offset:c.Offset+c.StoredSize()], int(c.Size))
	if err == nil && format.Sum(data) != c.Hash {
		err = errors.New("wrong hash")
	}
	return data, err
}

// An account says what one checkpoint needs.
type account struct {
	content *format.Content
	data    []format.Chunk // of files, in order, with repetitions
	meta    []format.Chunk // of tables, leaves and their list
	list    []format.Chunk // of the list of leaves
	spilled []format.Chunk // parts of its manifest, the list of the others aside
}

// account reads a checkpoint's manifest, tree and tables.
func (s *inventory) account(t tester, seq uint64) *account {
	t.Helper()
	a := new(account)
	if err := a.read(s, s.manifest(t, seq)); err != nil {
		t.Fatalf("checkpoint %d: %v", seq, err)
	}
	return a
}

func (a *account) read(s *inventory, m *format.Manifest) (err error) {
	a.content = m.Checkpoint.Content
	if at := m.Checkpoint.ContentAt; at != nil {
		a.spilled = append(a.spilled, *at)
		data, err := s.decode(at, nil)
		if err == nil {
			a.content, err = format.DecodeContent(data)
		}
		if err != nil {
			return err
		}
	}
	leaves, err := a.leaves(s, m.Checkpoint)
	if err != nil {
		return err
	}
	var tree []byte
	var files []file
	for i := range leaves {
		data, err := a.join(s, leaves[i].Chunks)
		if err != nil {
			return err
		}
		before := len(files)
		entries, err := format.DecodeTree(append(tree, data...))
		if err != nil {
			return err
		}
		tree = append(tree, data...)
		for _, e := range entries[before:] {
			f := file{e, e.Chunks}
			if e.Table != nil {
				if f.chunks, err = a.table(s, e.Table, e.Size); err != nil {
					return err
				}
			}
			files = append(files, f)
			a.data = append(a.data, f.chunks...)
		}
		if err := says(&leaves[i], files[before:]); err != nil {
			return err
		}
	}
	if err := a.bounds(m.Checkpoint, files, leaves); err != nil {
		return err
	}
	return a.check()
}

// leaves returns the leaves of a checkpoint's tree.
func (a *account) leaves(s *inventory, c *format.Checkpoint) ([]format.Leaf, error) {
	data := a.content.Tree
	if list := []format.Chunk(a.content.TreeAt); len(list) > 0 {
		var err error
		if size := a.content.TreeSize; size > 0 { // what was read so far is the table of the list
			if list, err = a.table(s, list, size); err != nil {
				return nil, err
			}
		}
		a.list = list
		if data, err = a.join(s, list); err != nil {
			return nil, err
		}
	}
	return format.DecodeLeaves(data, c.Files, c.Bytes)
}

// says checks what a leaf says of its files: a save relies on that.
func says(l *format.Leaf, files []file) error {
	if l.First != files[0].Path {
		return fmt.Errorf("leaf %q begins with %q", l.First, files[0].Path)
	}
	all := make(map[format.SegmentID]int64)
	for _, f := range files {
		own := make(map[format.SegmentID]int64)
		add := func(to map[format.SegmentID]int64, chunks []format.Chunk) {
			seen := make(map[format.Chunk]bool)
			for _, c := range chunks {
				if !seen[c] {
					seen[c] = true
					to[c.Segment] += c.StoredSize()
				}
			}
		}
		add(own, f.chunks)
		if f.Table != nil && !maps.Equal(own, mapOf(f.Uses)) {
			return fmt.Errorf("file %q uses %v, and says %v", f.Path, own, f.Uses)
		}
		add(own, f.Table)
		for id, bytes := range own {
			all[id] += bytes
		}
	}
	if !maps.Equal(all, mapOf(l.Uses)) {
		return fmt.Errorf("leaf %q uses %v, and says %v", l.First, all, l.Uses)
	}
	return nil
}

func mapOf(uses []format.Use) map[format.SegmentID]int64 {
	m := make(map[format.SegmentID]int64)
	for _, u := range uses {
		m[u.Segment] = u.Bytes
	}
	return m
}

// table returns the chunks of size bytes that a table describes.
func (a *account) table(s *inventory, table []format.Chunk, size int64) (chunks []format.Chunk, err error) {
	data, err := a.join(s, table)
	if err != nil {
		return nil, err
	}
	for c, err := range format.DecodeTable(data, size) {
		if err != nil {
			return nil, err
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}

// join decodes the chunks of tables and trees, and records them.
func (a *account) join(s *inventory, chunks []format.Chunk) (all []byte, err error) {
	a.meta = append(a.meta, chunks...)
	for i := range chunks {
		data, err := s.decode(&chunks[i], a.content.Inline)
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
	return all, nil
}

// check checks that a content names the segments that it needs, and no others.
func (a *account) check() error {
	places, err := a.content.Places()
	if err != nil {
		return err
	}
	idle := make(map[format.SegmentID]bool)
	for _, s := range a.content.Segments {
		idle[s.ID] = true
	}
	for _, list := range [][]format.Chunk{a.data, a.meta} {
		for i := range list {
			if err := places.Check(&list[i]); err != nil {
				return err
			}
			delete(idle, list[i].Segment)
		}
	}
	if len(idle) > 0 {
		return fmt.Errorf("it names segments that it does not need: %v", idle)
	}
	return nil
}

// A spot is where a chunk begins.
type spot struct {
	segment format.SegmentID
	offset  int64
}

// live adds the bytes in segments that a checkpoint needs to a set.
func (a *account) live(set map[spot]int64) {
	for _, list := range [][]format.Chunk{a.data, a.meta, a.spilled} {
		for _, c := range list {
			if c.Segment != (format.SegmentID{}) {
				set[spot{c.Segment, c.Offset}] = c.StoredSize()
			}
		}
	}
}

// bySegment adds up a set of spots by segment.
func bySegment(set map[spot]int64) map[format.SegmentID]int64 {
	sums := make(map[format.SegmentID]int64)
	for at, n := range set {
		sums[at.segment] += n
	}
	return sums
}
