package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func one(size int64) []Chunk { return []Chunk{{Size: size}} }

// appendLeaf encodes a leaf although it may make no sense.
func appendLeaf(b []byte, l *Leaf) []byte {
	body := l.append(nil)
	return append(binary.AppendUvarint(b, uint64(len(body))), body...)
}

func TestLeavesThatMakeNoSenseAreNeitherWrittenNorRead(t *testing.T) {
	leaf := func(first string) Leaf { return Leaf{First: first, Chunks: one(1)} }
	for _, c := range []struct {
		name   string
		leaves []Leaf
		ok     bool
	}{
		{"none", nil, true},
		{"in order", []Leaf{leaf("."), leaf("a/b"), leaf("a-b")}, true},
		{"out of order", []Leaf{leaf("a-b"), leaf("a/b")}, false},
		{"twice", []Leaf{leaf("a"), leaf("a")}, false},
		{"no path", []Leaf{leaf("")}, false},
		{"a path that leads out", []Leaf{leaf("../a")}, false},
		{"a path that is too long", []Leaf{leaf(strings.Repeat("a", MaxPath+1))}, false},
		{"a negative number of files", []Leaf{{First: "a", Files: -1, Chunks: one(1)}}, false},
		{"negative bytes", []Leaf{{First: "a", Files: 1, Bytes: -1, Chunks: one(1)}}, false},
		{"bytes of no file", []Leaf{{First: "a", Bytes: 1, Chunks: one(1)}}, false},
		{"no entries", []Leaf{{First: "a"}}, false},
		{"a chunk that cannot be", []Leaf{{First: "a", Chunks: []Chunk{{Size: 1, Offset: MaxSegment}}}}, false},
		{"a short chunk before the last", []Leaf{{First: "a", Chunks: slices.Concat(one(1023), one(1024))}}, false},
		{"a chunk that is too long", []Leaf{{First: "a", Chunks: one(8<<10 + 1)}}, false},
		{"as many entries as can be", []Leaf{{First: "a", Chunks: slices.Repeat(one(8<<10), 20)}}, true},
		{"more entries than can be", []Leaf{{First: "a", Chunks: slices.Repeat(one(8<<10), 40)}}, false},
		{"a segment used twice", []Leaf{{First: "a", Uses: []Use{{Bytes: 1}, {Bytes: 1}}, Chunks: one(1)}}, false},
		{"a segment used for nothing", []Leaf{{First: "a", Uses: []Use{{}}, Chunks: one(1)}}, false},
		{"more bytes than there can be", []Leaf{
			{First: "a", Files: 1, Bytes: math.MaxInt64, Chunks: one(1)}, {First: "b", Files: 1, Bytes: 1, Chunks: one(1)},
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := EncodeLeaves(c.leaves)
			if c.ok != (err == nil) || errors.Is(err, ErrCorrupt) {
				t.Errorf("encode: %v", err)
			}
			var data []byte
			files, size := 0, int64(0)
			for _, l := range c.leaves {
				data = appendLeaf(data, &l)
				files, size = files+l.Files, size+l.Bytes
			}
			_, err = DecodeLeaves(data, files, size)
			if c.ok && err != nil || !c.ok && !errors.Is(err, ErrCorrupt) {
				t.Errorf("decode: %v", err)
			}
		})
	}
}

func TestBytesThatAreNoListOfLeavesAreRefused(t *testing.T) {
	data, err := EncodeLeaves(goldenLeaves)
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if got, err := DecodeLeaves(data[:n], 2, 5); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %+v, %v", n, got, err)
		}
	}
	for _, c := range []struct {
		files int
		bytes int64
	}{{1, 5}, {3, 5}, {2, 4}, {2, 6}} {
		if _, err := DecodeLeaves(data, c.files, c.bytes); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d files of %d bytes: %v", c.files, c.bytes, err)
		}
	}
	body := "\x01a\x00\x00"
	chunk := "\x04" + strings.Repeat("\x00", len(Hash{}))
	for name, body := range map[string]string{
		"a fingerprint of an unknown kind": body + "\x02\x00" + chunk,
		"a fingerprint of zeros":           body + "\x01" + strings.Repeat("\x00", len(Hash{})) + "\x00" + chunk,
		"half a fingerprint":               body + "\x01\x00",
		"uses without end":                 body + "\x00\xff\xff\xff\x7f" + chunk,
	} {
		data := append(binary.AppendUvarint(nil, uint64(len(body))), body...)
		if got, err := DecodeLeaves(data, 0, 0); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// A tree that was encoded leaf by leaf is the tree, and each leaf can be read without the
// others.
func TestLeavesAreTheTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := trees().Draw(t, "tree")
		var enc TreeEncoder
		var all []byte
		var leaves []Leaf
		var parts [][]byte
		begin := 0
		end := func(to int) {
			if to == begin {
				return
			}
			l := Leaf{First: want[begin].Path}
			for _, e := range want[begin:to] {
				if e.Mode.IsRegular() {
					l.Files++
					l.Bytes += e.Size
				}
			}
			all = append(all, enc.Bytes()...)
			leaves, parts = append(leaves, l), append(parts, bytes.Clone(enc.Bytes()))
			enc.EndLeaf()
			begin = to
		}
		for i := range want {
			if rapid.Bool().Draw(t, "ends") {
				end(i)
			}
			want[i].cut()
			if err := enc.Add(&want[i]); err != nil {
				t.Fatal(err)
			}
		}
		end(len(want))
		got, err := DecodeTree(all)
		if err != nil || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v\nwant %+v", got, err, want)
		}
		for _, follows := range []bool{true, false} {
			var d TreeDecoder
			var got []Entry
			for i := range leaves {
				d.Begin(&leaves[i], follows)
				list, err := decodeParts(&d, parts[i], 100)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, list...)
			}
			if len(want) > 0 && !reflect.DeepEqual(got, want) {
				t.Errorf("leaf by leaf %+v\nwant %+v", got, want)
			}
		}
	})
}

// cut makes an entry's chunks such as writers cut.
func (e *Entry) cut() {
	if len(e.Chunks) > 1 {
		e.Chunks = e.Chunks[:1]
	}
	for i := range e.Chunks {
		e.Chunks[i] = Chunk{Segment: e.Chunks[i].Segment, Size: 4 << 10, Hash: e.Chunks[i].Hash}
		e.Size = 4 << 10
	}
	if len(e.Table) > 0 {
		e.Table = []Chunk{{Segment: e.Table[0].Segment, Size: 1 << 10, Hash: e.Table[0].Hash}}
		e.Size = 1 << 20
	}
}

func TestLeafThatIsNotWhatTheListSays(t *testing.T) {
	data, err := encodeTree([]Entry{{Path: "a"}, {Path: "b", Size: 5, Chunks: one(5)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		leaf Leaf
		want string
	}{
		{Leaf{First: "a", Files: 2, Bytes: 5}, ""},
		{Leaf{First: "b", Files: 2, Bytes: 5}, `leaf "b" begins with "a"`},
		{Leaf{First: "a", Files: 3, Bytes: 5}, "1 files and 0 bytes less"},
		{Leaf{First: "a", Files: 2, Bytes: 6}, "0 files and 1 bytes less"},
		{Leaf{First: "a", Files: 1, Bytes: 5}, "there are more files"},
	} {
		var d TreeDecoder
		d.Begin(&c.leaf, true)
		_, err := decodeParts(&d, data, len(data))
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrCorrupt) || !strings.Contains(fmt.Sprint(err), c.want)) {
			t.Errorf("%v; want %q", err, c.want)
		}
	}
	var d TreeDecoder
	d.Begin(&Leaf{First: "a"}, true)
	if err := d.End(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a leaf without entries: %v", err)
	}
}

// A leaf that was skipped may have the directory of the next entry; a leaf by itself begins
// anywhere.
func TestEntriesAfterASkippedLeaf(t *testing.T) {
	var enc TreeEncoder
	enc.Skip("a")
	for _, c := range []struct {
		path string
		ok   bool
	}{{"Z", false}, {"b/c/d", true}, {"b/e", true}, {"c/f", false}} {
		if err := enc.Add(&Entry{Path: c.path}); c.ok != (err == nil) {
			t.Errorf("%q: %v", c.path, err)
		}
	}
}

// The places where leaves begin do not change from one version to the next, or the first save
// with a new version stores all leaves again.
func TestPlacesWhereLeavesBegin(t *testing.T) {
	var starts []int
	for n := range 2000 {
		if StartsLeaf(fmt.Sprintf("d/%d", n)) {
			starts = append(starts, n)
		}
	}
	want := []int{24, 228, 617, 684, 692, 806, 870, 1038, 1098, 1111, 1222, 1337, 1443, 1460, 1574, 1596, 1642, 1655, 1797, 1929, 1981}
	if !slices.Equal(starts, want) {
		t.Errorf("%v, want %v", starts, want)
	}
}

func FuzzDecodeLeaves(f *testing.F) {
	data, err := EncodeLeaves(goldenLeaves)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, 2, int64(5))
	for i := range goldenLeaves {
		f.Add(appendLeaf(nil, &goldenLeaves[i]), goldenLeaves[i].Files, goldenLeaves[i].Bytes)
	}
	f.Add(bytes.Repeat([]byte("\x80\x80\x80\x80\x04"), 100), 1, int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, data []byte, files int, size int64) {
		var leaves []Leaf
		var err error
		bounded(t, len(data), func() { leaves, err = DecodeLeaves(data, files, size) })
		wantCorrupt(t, err)
		if err != nil {
			return
		}
		again, err := EncodeLeaves(leaves)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > len(data) {
			t.Errorf("%d bytes decode to what takes %d", len(data), len(again))
		}
		back, err := DecodeLeaves(again, files, size)
		if err != nil || !reflect.DeepEqual(back, leaves) {
			t.Errorf("%+v, %v\nwant %+v", back, err, leaves)
		}
	})
}
