package format

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawCut draws chunks such as a cut makes, of which none lies behind another, so
// that each takes as much as one can.
func drawCut(t *rapid.T, c Cut) (chunks []Chunk) {
	n := rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 200)).Draw(t, "chunks")
	for i := range n {
		ch := Chunk{Segment: SegmentID{Epoch: uint64(i)}, Offset: rapid.Int64Range(0, MaxSegment-c.Max).Draw(t, "offset")}
		ch.Size = rapid.OneOf(rapid.Just(c.Min), rapid.Just(c.Max), rapid.Int64Range(c.Min, c.Max)).Draw(t, "size")
		if i == n-1 {
			ch.Size = rapid.Int64Range(1, c.Max).Draw(t, "last")
		}
		if ch.Size > 1 && rapid.IntRange(0, 3).Draw(t, "raw") > 0 {
			ch.Encoding, ch.Stored = Zstd, ch.Size-1
		}
		chunks = append(chunks, ch)
	}
	return chunks
}

// What a cut makes of a file is within the bounds for its size, and close to them.
func TestCutsAreWithinTheBounds(t *testing.T) {
	closest := 1.0
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom([]Cut{DataCut, MetaCut}).Draw(t, "cut")
		chunks := drawCut(t, c)
		if err := c.Check(chunks); err != nil {
			t.Fatal(err)
		}
		if len(chunks) == 0 {
			return
		}
		size := sizeOfAll(chunks)
		if n := int64(len(chunks)); n > c.MaxChunks(size) {
			t.Fatalf("%d chunks of %d bytes; at most %d", n, size, c.MaxChunks(size))
		}
		table := int64(len(AppendTable(nil, slices.Values(chunks))))
		if table > c.MaxTableOf(size) {
			t.Fatalf("a table of %d bytes for %d; at most %d", table, size, c.MaxTableOf(size))
		}
		closest = min(closest, 1-float64(table)/float64(c.MaxTableOf(size)))
	})
	all := slices.Repeat([]Chunk{{Segment: SegmentID{Epoch: 1}, Offset: MaxSegment - 1<<20, Size: 4 << 10, Encoding: Zstd, Stored: 4<<10 - 1}}, 100)
	for i := range all {
		all[i].Hash[0] = byte(i) // an equal one would take two bytes
	}
	if n := int64(len(AppendTable(nil, slices.Values(all)))); n > DataCut.MaxTableOf(sizeOfAll(all)) || n < DataCut.MaxTableOf(sizeOfAll(all))*9/10 {
		t.Errorf("a table of %d bytes, where %d are the most", n, DataCut.MaxTableOf(sizeOfAll(all)))
	}
	t.Logf("%.2f of the bound was left", closest)
}

func TestBoundsOfLargeSizes(t *testing.T) {
	for _, c := range []Cut{DataCut, MetaCut} {
		for _, size := range []int64{1, c.Min, c.Min + 1, 1 << 40, math.MaxInt64 - 1, math.MaxInt64} {
			if n := c.MaxTableOf(size); n <= 0 || n > MaxTable || c.MaxChunks(size) <= 0 {
				t.Errorf("%d bytes: %d chunks, a table of %d bytes", size, c.MaxChunks(size), n)
			}
		}
	}
}

func TestWhatNoCutMakesIsRefused(t *testing.T) {
	sized := func(sizes ...int64) (chunks []Chunk) {
		for _, size := range sizes {
			chunks = append(chunks, Chunk{Size: size})
		}
		return chunks
	}
	file := func(path string, size int64, chunks ...Chunk) Entry {
		return Entry{Path: path, Size: size, Chunks: chunks}
	}
	tabled := func(size int64, table ...Chunk) Entry {
		return Entry{Path: "t", Size: size, Table: table, Uses: []Use{{Bytes: 1}}}
	}
	for _, c := range []struct {
		name   string
		claims claims
		tree   []Entry
		want   string // "" if it is fine
	}{
		{"none", claims{}, nil, ""},
		{"others alone", claims{}, []Entry{{Path: "d", Mode: fs.ModeDir}, {Path: "l", Mode: fs.ModeSymlink, Target: "d"}}, ""},
		{"empty files", claims{2, 0}, []Entry{file("a", 0), file("b", 0)}, ""},
		{"as claimed", claims{2, 12289}, []Entry{file("a", 1, sized(1)...), file("b", 12288, sized(4096, 8192)...)}, ""},
		{"less than claimed", claims{3, 5}, []Entry{file("a", 1, sized(1)...)}, ""},
		{"a file too many", claims{1, 0}, []Entry{file("a", 0), file("b", 0)}, `file "b": there are more files`},
		{"a byte too many", claims{2, 2}, []Entry{file("a", 1, sized(1)...), file("b", 2, sized(2)...)}, `file "b" of 2 bytes: of all that the manifest says that there are, 1 are left`},
		{"far too many bytes", claims{2, math.MaxInt64}, []Entry{tabled(math.MaxInt64, sized(100)...), file("z", 1, sized(1)...)}, `file "z" of 1 bytes`},
		{"a short chunk at the end", claims{1, 1 << 20}, []Entry{file("a", 4097, sized(4096, 1)...)}, ""},
		{"a short chunk before the end", claims{1, 1 << 20}, []Entry{file("a", 8191, sized(4095, 4096)...)}, "chunk 1 is shorter than 4096 bytes"},
		{"a long chunk", claims{1, 1 << 20}, []Entry{file("a", 32769, sized(32769)...)}, "chunk 1 has 32769 bytes; at most 32768"},
		{"a table", claims{1, 10 << 20}, []Entry{tabled(10<<20, sized(8192, 1024, 1)...)}, ""},
		{"a table of a short chunk", claims{1, 10 << 20}, []Entry{tabled(10<<20, sized(1023, 1024)...)}, "chunk 1 is shorter than 1024 bytes"},
		{"a table of a long chunk", claims{1, 10 << 20}, []Entry{tabled(10<<20, sized(8193)...)}, "chunk 1 has 8193 bytes; at most 8192"},
		{"the longest table", claims{1, 10 << 20}, []Entry{tabled(10<<20, slices.Concat(slices.Repeat(sized(8064), 20))...)}, ""},
		{"a table that is too long", claims{1, 10 << 20}, []Entry{tabled(10<<20, append(slices.Repeat(sized(8064), 20), sized(1)...)...)}, "a table of more than 161280 bytes for 10485760, which are cut into at most 2560 chunks"},
		{"many chunks in place of a table", claims{1, 64 << 20}, []Entry{file("a", 64<<20, slices.Repeat(sized(4096), 16<<10)...)}, "entry 1 has 917"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var data []byte
			for _, e := range c.tree {
				data = appendEntry(data, &e)
			}
			d := &TreeDecoder{claims: &c.claims}
			_, err := decodeParts(d, data, len(data))
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrCorrupt) || !strings.Contains(fmt.Sprint(err), c.want)) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// decodeParts decodes a tree that comes in parts of some size.
func decodeParts(d *TreeDecoder, data []byte, size int) (tree []Entry, err error) {
	for part := range slices.Chunk(data, max(size, 1)) {
		for e, err := range d.Add(slices.Clone(part)) {
			if err != nil {
				return tree, err
			}
			tree = append(tree, e)
		}
	}
	return tree, d.End()
}

// decodeTableParts decodes a table that comes in parts of some size, in memory that is
// used again.
func decodeTableParts(data []byte, file int64, size int) (chunks []Chunk, err error) {
	d := NewTableDecoder(file)
	buf := make([]byte, max(size, 1))
	take := func(c Chunk, e error) bool {
		if err = e; err == nil {
			chunks = append(chunks, c)
		}
		return err == nil
	}
	for part := range slices.Chunk(data, len(buf)) {
		if d.Add(buf[:copy(buf, part)])(take); err != nil {
			return chunks, err
		}
	}
	d.End()(take)
	return chunks, err
}

// However trees and tables are divided, they are what they are as a whole.
func TestPartsAreDecodedLikeTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, 4000)).Draw(t, "size")
		data, err := encodeTree(trees().Draw(t, "tree"))
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "cut") && len(data) > 0 {
			data = data[:rapid.IntRange(0, len(data)).Draw(t, "at")]
		}
		want, wantErr := DecodeTree(data)
		got, err := decodeParts(new(TreeDecoder), data, size)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) || err == nil && len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("a tree: %+v, %v\nwant %+v, %v", got, err, want, wantErr)
		}
		chunks := drawChunks(t, 0, 20)
		file := sizeOfAll(chunks) + rapid.SampledFrom([]int64{0, 0, 0, 1, -1}).Draw(t, "off by")
		table := AppendTable(nil, slices.Values(chunks))
		table = table[:len(table)-rapid.SampledFrom([]int{0, 0, min(1, len(table))}).Draw(t, "short by")]
		back, err := decodeTableParts(table, file, size)
		all, wantErr := decodeTable(table, file)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) || !slices.Equal(back, all) {
			t.Errorf("a table: %+v, %v\nwant %+v, %v", back, err, all, wantErr)
		}
	})
}

// A table of any length takes memory for a part.
func TestPartsAreDecodedInTheMemoryOfOne(t *testing.T) {
	table := AppendTable(nil, chunkSeq(20_000))
	size := sizeOfAll(manyChunks(20_000))
	const part = 8 << 10
	d := NewTableDecoder(size)
	got := allocated(func() {
		for p := range slices.Chunk(table, part) {
			for _, err := range d.Add(p) {
				_ = err // what it takes matters, not what it says
			}
		}
		for _, err := range d.End() {
			if err != nil {
				t.Error(err)
			}
		}
	})
	if got > 8*part {
		t.Errorf("a table of %d bytes took %d", len(table), got)
	}
}

func TestPathsAreBounded(t *testing.T) {
	long := strings.Repeat("a", MaxPath)
	deep := strings.Repeat("a/", MaxDepth-1) + "a"
	for _, c := range []struct {
		name  string
		entry Entry
		ok    bool
	}{
		{"long", Entry{Path: long}, true},
		{"too long", Entry{Path: long + "a"}, false},
		{"far too long", Entry{Path: strings.Repeat("a", 1<<20)}, false},
		{"target long", Entry{Path: "l", Mode: fs.ModeSymlink, Target: long}, true},
		{"target too long", Entry{Path: "l", Mode: fs.ModeSymlink, Target: long + "a"}, false},
		{"deep", Entry{Path: deep}, true},
		{"too deep", Entry{Path: deep + "/a"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.entry.check()
			if c.ok != (err == nil) || err != nil && len(err.Error()) > 400 && !strings.Contains(c.name, "target") {
				t.Errorf("err = %.500v", err)
			}
		})
	}
}

func TestPartsThatAreCompressedToNothingAreRefused(t *testing.T) {
	for _, c := range []struct {
		size, stored int64
		ok           bool
	}{
		{64 << 10, 20, true},
		{64<<10 + 1, 20, false},
		{64<<10 + 1, 1025, true},
		{MaxChunk, MaxChunk / 64, true},
		{MaxChunk, MaxChunk/64 - 1, false},
	} {
		at := &Chunk{Segment: SegmentID{Epoch: 1}, Size: c.size, Stored: c.stored, Encoding: Zstd}
		m := &Manifest{Version: 1, Kind: KindCommit, Task: "t", Seq: 1, Epoch: 1, Checkpoint: &Checkpoint{Seq: 1, Epoch: 1, ContentAt: at}}
		if err := m.check("t", 1); c.ok != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes in %d: %v", c.size, c.stored, err)
		}
	}
}

// What takes 30 times as much in memory as in JSON is not read on.
func TestListsOfNothingTakeNoMemory(t *testing.T) {
	nothing := "[" + strings.Repeat("{},", 100_000) + "{}]"
	m := &Manifest{Seq: 1 << 32, Checkpoint: &Checkpoint{Seq: 1 << 32}}
	for name, decode := range map[string]func() error{
		"segments": func() error { _, err := DecodeContent([]byte(`{"segments":` + nothing + `}`)); return err },
		"tree":     func() error { _, err := DecodeContent([]byte(`{"tree":` + nothing + `}`)); return err },
		"inline":   func() error { _, err := DecodeContent([]byte(`{"inline":` + nothing + `}`)); return err },
		"tree_at":  func() error { _, err := DecodeContent([]byte(`{"tree_at":` + nothing + `}`)); return err },
		"twice":    func() error { _, err := DecodeContent([]byte(`{"tree_at":` + nothing + `,"tree_at":[]}`)); return err },
		"retained": func() error { _, err := m.decodeOne([]byte(nothing)); return err },
		"index":    func() error { _, err := DecodeIndex([]byte(nothing)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if got := allocated(func() { err = decode() }); got > uint64(4*len(nothing)) || !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d bytes took %d; %v", len(nothing), got, err)
			}
		})
	}
}

func TestListsInJSON(t *testing.T) {
	one := `{"id":` + idJSON + `,"size":5}`
	for _, c := range []struct {
		json string
		n    int
		ok   bool
	}{
		{`null`, 0, true},
		{`[]`, 0, true},
		{`[` + one + `]`, 1, true},
		{` [ ` + one + ` ] `, 1, true},
		{`[` + one + `,]`, 0, false},
		{`[` + one + `{}]`, 0, false},
		{`[` + one, 0, false},
		{`[` + one + `] []`, 0, false},
		{`{}`, 0, false},
		{`7`, 0, false},
		{``, 0, false},
	} {
		list, err := decodeList([]byte(c.json), (*Segment).check)
		if c.ok != (err == nil) || len(list) != c.n {
			t.Errorf("%s: %v, %v", c.json, list, err)
		}
	}
}

func TestChunksThatDifferHaveOtherIdentities(t *testing.T) {
	base := Chunk{Segment: SegmentID{1, writerA, 2}, Offset: 3, Size: 100, Hash: Sum(nil)}
	seen := map[Hash]Chunk{}
	for _, change := range []func(*Chunk){
		func(*Chunk) {},
		func(c *Chunk) { c.Segment.Epoch++ },
		func(c *Chunk) { c.Segment.Writer[7]++ },
		func(c *Chunk) { c.Segment.N++ },
		func(c *Chunk) { c.Segment = SegmentID{} },
		func(c *Chunk) { c.Segment, c.Offset = SegmentID{}, 0 },
		func(c *Chunk) { c.Offset++ },
		func(c *Chunk) { c.Size++ },
		func(c *Chunk) { c.Encoding, c.Stored = Zstd, 50 },
		func(c *Chunk) { c.Encoding, c.Stored = Zstd, 51 },
		func(c *Chunk) { c.Hash[0]++ },
		func(c *Chunk) { c.Hash[31]++ },
	} {
		c := base
		change(&c)
		if other, ok := seen[c.Identity()]; ok {
			t.Errorf("%+v and %+v", c, other)
		}
		seen[c.Identity()] = c
	}
}

func BenchmarkIdentity(b *testing.B) {
	c := Chunk{Segment: SegmentID{1, writerA, 2}, Offset: 3 << 20, Size: 16 << 10, Encoding: Zstd, Stored: 9 << 10}
	b.ReportAllocs()
	for b.Loop() {
		c.Identity()
	}
}
