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

// A stock is all that a bucket holds of a task, read by nothing but the format:
// the tests' own account of what lies where.
type stock struct {
	newest    *format.Manifest
	manifests map[uint64][]byte
	segments  map[format.SegmentID][]byte
}

var stockDecoder = codec.New()

func takeStock(t tester, b *mem.Bucket) *stock {
	t.Helper()
	s := &stock{manifests: make(map[uint64][]byte), segments: make(map[format.SegmentID][]byte)}
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
func (s *stock) manifest(t tester, seq uint64) *format.Manifest {
	t.Helper()
	m, err := format.DecodeManifest(s.manifests[seq], "orders/7", seq)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (s *stock) add(t tester, store backend.Store, o backend.Object) error {
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

// size is how many bytes all segments have.
func (s *stock) size() (n int64) {
	for _, data := range s.segments {
		n += int64(len(data))
	}
	return n
}

// retained returns the numbers of the checkpoints that exist, the newest first.
func (s *stock) retained(t tester) []uint64 {
	t.Helper()
	if s.newest == nil || s.newest.Checkpoint == nil {
		return nil
	}
	list := s.newest.Retained
	if at := s.newest.RetainedAt; at != nil {
		data, err := s.decode(at, nil)
		if err == nil {
			list, err = s.newest.DecodeRetained(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	all := []uint64{s.newest.Checkpoint.Seq}
	for _, r := range list {
		all = append(all, r.Seq)
	}
	return all
}

// decode returns a chunk's data.
func (s *stock) decode(c *format.Chunk, inline []byte) ([]byte, error) {
	in, ok := inline, true
	if c.Segment != (format.SegmentID{}) {
		in, ok = s.segments[c.Segment]
	}
	if !ok || c.Offset+c.StoredSize() > int64(len(in)) {
		return nil, fmt.Errorf("chunk at %d in %s lies outside", c.Offset, c.Segment)
	}
	data, err := stockDecoder.Decode(nil, c.Encoding, in[c.Offset:c.Offset+c.StoredSize()], int(c.Size))
	if err == nil && format.Sum(data) != c.Hash {
		err = errors.New("wrong hash")
	}
	return data, err
}

// An account says what one checkpoint needs.
type account struct {
	content *format.Content
	data    []format.Chunk // of files, in order, as often as they come
	meta    []format.Chunk // of tables and of the list of files
	spilled []format.Chunk // parts of the manifest
}

// account reads a checkpoint's manifest, tree and tables.
func (s *stock) account(t tester, seq uint64) *account {
	t.Helper()
	a := new(account)
	if err := a.read(s, s.manifest(t, seq)); err != nil {
		t.Fatalf("checkpoint %d: %v", seq, err)
	}
	return a
}

func (a *account) read(s *stock, m *format.Manifest) (err error) {
	a.content = m.Checkpoint.Content
	for _, at := range m.Spilled() {
		a.spilled = append(a.spilled, *at)
	}
	if at := m.Checkpoint.ContentAt; at != nil {
		data, err := s.decode(at, nil)
		if err == nil {
			a.content, err = format.DecodeContent(data)
		}
		if err != nil {
			return err
		}
	}
	list := []format.Chunk(a.content.Tree)
	if size := a.content.TreeSize; size > 0 { // that was the tree's table
		if list, err = a.table(s, list, size); err != nil {
			return err
		}
	}
	tree, err := a.join(s, list)
	if err != nil {
		return err
	}
	entries, err := format.DecodeTree(tree)
	if err != nil {
		return err
	}
	files := make([]file, len(entries))
	for i, e := range entries {
		files[i] = file{e, e.Chunks}
		if e.Table != nil {
			if files[i].chunks, err = a.table(s, e.Table, e.Size); err != nil {
				return err
			}
		}
		a.data = append(a.data, files[i].chunks...)
	}
	if err := a.bounds(m.Checkpoint, files, list); err != nil {
		return err
	}
	return a.check()
}

// table returns the chunks of size bytes, of which these are the table.
func (a *account) table(s *stock, table []format.Chunk, size int64) (chunks []format.Chunk, err error) {
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

// join decodes chunks of tables and trees, and notes them.
func (a *account) join(s *stock, chunks []format.Chunk) (all []byte, err error) {
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

// check makes sure that a content names the segments that it needs, and no
// others.
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

// live adds the bytes that a checkpoint needs in segments to a set.
func (a *account) live(set map[spot]int64) {
	for _, list := range [][]format.Chunk{a.data, a.meta, a.spilled} {
		for _, c := range list {
			if c.Segment != (format.SegmentID{}) {
				set[spot{c.Segment, c.Offset}] = c.StoredSize()
			}
		}
	}
}

// bySegment adds up a set of spots.
func bySegment(set map[spot]int64) map[format.SegmentID]int64 {
	sums := make(map[format.SegmentID]int64)
	for at, n := range set {
		sums[at.segment] += n
	}
	return sums
}
