package catalog

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// hash returns a hash by its first bytes and the last one.
func hash(prefix, rest int) (h format.Hash) {
	binary.NativeEndian.PutUint64(h[:], uint64(prefix))
	h[len(h)-1] = byte(rest)
	return h
}

func segment(n int) format.Segment {
	return format.Segment{ID: format.SegmentID{Epoch: 1, N: uint32(n)}, Size: int64(n) + 1}
}

// A model is a catalog without cunning.
type model struct {
	segments []format.Segment
	chunks   []format.Chunk // with their segments
	in       []int          // number of the segment of each

	missed map[format.Hash]bool // Find may miss these although they are there: a newer chunk was forgotten
}

func (m *model) find(h format.Hash) (ID, bool) {
	for i, c := range slices.Backward(m.chunks) {
		if c.Hash == h {
			return ID(i), true
		}
	}
	return 0, false
}

// A pair is a catalog and its model, which are to be the same.
type pair struct {
	*rapid.T
	catalog *Catalog
	model   model
	lists   [][]ID // what users of the catalog keep
}

func (p *pair) drawHash() format.Hash {
	return hash(rapid.IntRange(0, 12).Draw(p.T, "prefix"), rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(p.T, "rest"))
}

func (p *pair) addSegment(*rapid.T) {
	s := segment(rapid.IntRange(0, 9).Draw(p.T, "segment"))
	if n := p.catalog.AddSegment(s); n != len(p.model.segments) {
		p.Fatalf("segment %d got number %d", len(p.model.segments), n)
	}
	p.model.segments = append(p.model.segments, s)
}

func (p *pair) drawSegment() int {
	if len(p.model.segments) == 0 {
		p.Skip("no segment yet")
	}
	return rapid.IntRange(0, len(p.model.segments)-1).Draw(p.T, "number")
}

func (p *pair) setSegment(*rapid.T) {
	n, s := p.drawSegment(), segment(rapid.IntRange(10, 19).Draw(p.T, "segment"))
	p.catalog.SetSegment(n, s)
	p.model.segments[n] = s
}

func (p *pair) add(*rapid.T) {
	n := p.drawSegment()
	c := format.Chunk{
		Offset: int64(rapid.SampledFrom([]int{0, 1, format.MaxSegment - 1}).Draw(p.T, "offset")),
		Size:   int64(rapid.SampledFrom([]int{1, 20 << 10, format.MaxChunk}).Draw(p.T, "size")),
		Hash:   p.drawHash(),
	}
	if c.Size > 1 && rapid.Bool().Draw(p.T, "compressed") {
		c.Encoding, c.Stored = format.Zstd, c.Size/2
	}
	id := p.catalog.Add(n, &c)
	if int(id) != len(p.model.chunks) {
		p.Fatalf("chunk %d got ID %d", len(p.model.chunks), id)
	}
	p.model.chunks, p.model.in = append(p.model.chunks, c), append(p.model.in, n)
	if got, ok := p.catalog.Find(c.Hash); !ok || got != id {
		p.Fatalf("what was added as %d is found as %d, %v", id, got, ok)
	}
}

func (p *pair) list(*rapid.T) {
	if len(p.model.chunks) == 0 {
		p.Skip("no chunk yet")
	}
	ids := rapid.SliceOf(rapid.Custom(func(t *rapid.T) ID {
		return ID(rapid.IntRange(0, len(p.model.chunks)-1).Draw(t, "id"))
	}))
	p.lists = append(p.lists, ids.Draw(p.T, "list"))
}

// reset goes back to a mark after chunks and segments have been added.
func (p *pair) reset(t *rapid.T) {
	mark, before := p.catalog.Mark(), p.model
	before.missed = p.model.missed // shared: what is missed once stays so
	if len(p.model.segments) == 0 {
		p.addSegment(t)
	}
	for range rapid.IntRange(0, 5).Draw(t, "added") {
		if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
			p.addSegment(t)
		} else {
			p.add(t)
		}
	}
	for _, c := range p.model.chunks[mark.Chunks:] {
		p.model.missed[c.Hash] = true
	}
	p.catalog.Reset(mark)
	p.model.segments, p.model.chunks, p.model.in = before.segments[:mark.Segments], before.chunks[:mark.Chunks], before.in[:mark.Chunks]
	p.lists = slices.DeleteFunc(p.lists, func(l []ID) bool {
		return slices.ContainsFunc(l, func(id ID) bool { return int(id) >= mark.Chunks })
	})
}

func (p *pair) used() *Used {
	used := new(Used)
	for _, l := range p.lists {
		p.catalog.Use(used, l)
	}
	return used
}

// keep forgets what is in no list.
func (p *pair) keep(*rapid.T) {
	if len(p.lists) == 0 {
		p.Skip("everything would go")
	}
	used := p.used()
	was := p.model
	now := model{missed: map[format.Hash]bool{}}
	segments := make(map[int]int) // new numbers by old
	for n, s := range was.segments {
		if used.Bytes[n] > 0 {
			segments[n] = len(now.segments)
			now.segments = append(now.segments, s)
		}
	}
	ids := make(map[ID]ID)
	for i, c := range was.chunks {
		if used.Has(ID(i)) {
			ids[ID(i)] = ID(len(now.chunks))
			now.chunks, now.in = append(now.chunks, c), append(now.in, segments[was.in[i]])
		}
	}
	p.model = now
	renumber := p.catalog.Keep(used)
	for _, l := range p.lists {
		want := slices.Clone(l)
		for i, id := range want {
			want[i] = ids[id]
		}
		if renumber(l); !slices.Equal(l, want) {
			p.Fatalf("renumbered to %v, want %v", l, want)
		}
	}
}

// check compares all that can be asked.
func (p *pair) check(*rapid.T) {
	c, m := p.catalog, &p.model
	if c.Len() != len(m.chunks) || !slices.Equal(c.Segments(), m.segments) || c.Mark() != (Mark{len(m.chunks), len(m.segments)}) {
		p.Fatalf("%d chunks in %v; want %d in %v", c.Len(), c.Segments(), len(m.chunks), m.segments)
	}
	for i, want := range m.chunks {
		want.Segment = m.segments[m.in[i]].ID
		id := ID(i)
		if got := c.Chunk(id); got != want || c.Size(id) != want.Size || c.StoredSize(id) != want.StoredSize() || c.SegmentOf(id) != m.in[i] {
			p.Fatalf("chunk %d is %+v in %d; want %+v in %d", i, got, c.SegmentOf(id), want, m.in[i])
		}
	}
	for prefix := range 13 {
		for rest := range 2 {
			p.checkFind(hash(prefix, rest))
		}
	}
	p.checkUsed()
	ids := make([]ID, c.Len())
	for i := range ids {
		ids[i] = ID(i)
	}
	slices.SortFunc(ids, c.Compare)
	for i := 1; i < len(ids); i++ {
		a, b := ids[i-1], ids[i]
		if m.in[a] > m.in[b] || m.in[a] == m.in[b] && m.chunks[a].Offset > m.chunks[b].Offset {
			p.Fatalf("%d is sorted before %d", a, b)
		}
	}
}

func (p *pair) checkFind(h format.Hash) {
	got, found := p.catalog.Find(h)
	want, there := p.model.find(h)
	if found && (!there || p.model.chunks[got].Hash != h) {
		p.Fatalf("it finds %d for %v, which is another one", got, h)
	}
	if (found != there || found && got != want) && !p.model.missed[h] {
		p.Fatalf("find: %d, %v; want %d, %v", got, found, want, there)
	}
}

func (p *pair) checkUsed() {
	used, want := p.used(), make([]int64, len(p.model.segments))
	seen := make(map[ID]bool)
	for _, id := range slices.Concat(p.lists...) {
		if c := p.model.chunks[id]; !seen[id] {
			want[p.model.in[id]] += c.StoredSize()
			seen[id] = true
		}
	}
	if len(p.lists) > 0 && !slices.Equal(used.Bytes, want) {
		p.Fatalf("%v bytes are used, want %v", used.Bytes, want)
	}
	for i := range p.model.chunks {
		if used.Has(ID(i)) != seen[ID(i)] {
			p.Fatalf("chunk %d is used: %v", i, used.Has(ID(i)))
		}
	}
}

func TestCatalogIsWhatItsModelIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pair{T: t, catalog: new(Catalog), model: model{missed: map[format.Hash]bool{}}}
		t.Repeat(map[string]func(*rapid.T){
			"segment": p.addSegment, "set segment": p.setSegment, "add": p.add, "add more": p.add, "list": p.list,
			"reset": p.reset, "keep": p.keep, "": p.check,
			"grow": func(t *rapid.T) { p.catalog.Grow(rapid.IntRange(0, 5).Draw(t, "room")) },
		})
	})
}

// Two hashes with the same first bytes are never taken for one another, and both are found.
func TestHashesThatBeginAlike(t *testing.T) {
	c := new(Catalog)
	s := c.AddSegment(segment(1))
	a, b := hash(7, 1), hash(7, 2)
	first := c.Add(s, &format.Chunk{Size: 1, Hash: a})
	if id, ok := c.Find(b); ok {
		t.Errorf("%d is found for another hash", id)
	}
	second := c.Add(s, &format.Chunk{Offset: 1, Size: 1, Hash: b})
	if id, ok := c.Find(b); !ok || id != second {
		t.Errorf("find: %d, %v; want %d", id, ok, second)
	}
	if id, ok := c.Find(a); !ok || id != first {
		t.Errorf("find: %d, %v; want %d", id, ok, first)
	}
	if c.Chunk(first).Hash != a || c.Chunk(second).Hash != b {
		t.Error("one took the place of the other")
	}
	used := new(Used)
	c.Use(used, []ID{first})
	list := []ID{first}
	c.Keep(used)(list)
	if id, ok := c.Find(a); !ok || id != list[0] {
		t.Errorf("once it is alone: %d, %v; want %d", id, ok, list[0])
	}
}

// A list of chunks is what a slice is, whose end comes and goes at the borders of its pages.
func TestPages(t *testing.T) {
	var l chunks
	var want []chunk
	for _, n := range []int{1, pageSize - 1, pageSize, pageSize - 2, pageSize + 1, 3 * pageSize, 2 * pageSize, 2*pageSize + 1, 0, 2} {
		for len(want) < n {
			ch := chunk{offset: uint32(len(want)), size: uint32(n)}
			if id := l.add(ch); int(id) != len(want) {
				t.Fatalf("chunk %d got ID %d", len(want), id)
			}
			want = append(want, ch)
		}
		want = want[:n]
		if l.cut(n); l.len() != n {
			t.Fatalf("%d chunks, want %d", l.len(), n)
		}
		for i, ch := range want {
			if *l.at(ID(i)) != ch {
				t.Fatalf("chunk %d of %d is %+v", i, n, *l.at(ID(i)))
			}
		}
	}
}

// Of many chunks each is found, and what is not there is not, while others come and go. However often
// they do, a chunk takes 52 bytes, at most 14 in the index, and what the last page has left.
func TestIndexOfMany(t *testing.T) {
	c := new(Catalog)
	c.AddSegment(segment(1))
	add := func(i int) { c.Add(0, &format.Chunk{Offset: int64(i), Size: 1, Hash: format.Sum(fmt.Append(nil, i))}) }
	const n = 3 * pageSize
	for i := range n {
		add(i)
	}
	for round := range 2000 {
		mark := c.Mark()
		for i := range 100 {
			add(n + 100*round + i)
		}
		c.Reset(mark)
	}
	if got := c.Memory(); got > (52+14)*n+52*pageSize/4 {
		t.Errorf("%d bytes of memory for %d chunks", got, n)
	}
	for i := range 2 * n {
		id, ok := c.Find(format.Sum(fmt.Append(nil, i)))
		if ok != (i < n) || ok && int(id) != i {
			t.Fatalf("%d is found as %d, %v", i, id, ok)
		}
	}
}

// After Reset a chunk is found again as soon as it is added again.
func TestResetForgets(t *testing.T) {
	c := new(Catalog)
	s := c.AddSegment(segment(1))
	old := c.Add(s, &format.Chunk{Size: 1, Hash: hash(1, 0)})
	mark := c.Mark()
	c.AddSegment(segment(2))
	c.Add(1, &format.Chunk{Size: 1, Hash: hash(1, 0)})
	c.Add(1, &format.Chunk{Offset: 1, Size: 1, Hash: hash(2, 0)})
	c.Reset(mark)
	for n := range 3 {
		if id, ok := c.Find(hash(n, 0)); ok && id != old {
			t.Errorf("hash %d: %d is found, which is forgotten", n, id)
		}
	}
	if got := c.Chunk(old); got.Segment != segment(1).ID || c.Len() != 1 || len(c.Segments()) != 1 {
		t.Errorf("the one from before is %+v", got)
	}
	s = c.AddSegment(segment(3))
	id := c.Add(s, &format.Chunk{Size: 1, Hash: hash(2, 0)})
	if got, ok := c.Find(hash(2, 0)); !ok || got != id || c.Chunk(id).Segment != segment(3).ID {
		t.Errorf("find: %d, %v; want %d", got, ok, id)
	}
}

// Find, Chunk and the sizes may be asked for while another goroutine adds: what
// was found is whole.
func TestReadingBesideAdd(t *testing.T) {
	const n = 3000
	chunk := func(i int) format.Chunk {
		return format.Chunk{Offset: int64(i), Size: int64(i) + 1, Hash: hash(i, i)}
	}
	c := new(Catalog)
	var readers sync.WaitGroup
	added := make(chan ID, n)
	errs := make(chan error, 4)
	for range cap(errs) {
		readers.Go(func() {
			for id := range added {
				want := chunk(int(id))
				got, ok := c.Find(want.Hash)
				want.Segment = segment(int(id) / 100).ID
				if !ok || got != id || c.Chunk(got) != want || c.Size(got) != want.Size || c.StoredSize(got) != want.Size || c.SegmentOf(got) != int(id)/100 {
					errs <- fmt.Errorf("find: %d, %v, %+v; want %d, %+v", got, ok, c.Chunk(got), id, want)
					return
				}
				if _, ok := c.Find(hash(n+int(id), 0)); ok {
					errs <- fmt.Errorf("what was never added is found")
					return
				}
			}
		})
	}
	for i := range n {
		if i%100 == 0 {
			c.AddSegment(segment(99))
		}
		c.SetSegment(i/100, segment(i/100))
		ch := chunk(i)
		added <- c.Add(i/100, &ch)
	}
	close(added)
	readers.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}
