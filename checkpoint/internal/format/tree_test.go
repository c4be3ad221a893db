package format

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// trees draws valid trees, in order.
func trees() *rapid.Generator[[]Entry] {
	return rapid.Custom(func(t *rapid.T) []Entry {
		var entries []Entry
		if rapid.Bool().Draw(t, "root") {
			entries = append(entries, drawEntry(t, ".", fs.ModeDir))
		}
		return drawDir(t, entries, ".", 3)
	})
}

var names = rapid.SampledFrom([]string{"a", "a-b", "a.b", "a0", "A", "b", "...", "ü", "\u2028", " ", "\\", "\x01", "\n", "-"})

func drawDir(t *rapid.T, entries []Entry, dir string, depth int) []Entry {
	list := rapid.SliceOfNDistinct(names, 0, 4, rapid.ID).Draw(t, "names")
	slices.Sort(list)
	for _, name := range list {
		kinds := []fs.FileMode{0, 0, fs.ModeSymlink, fs.ModeDir}
		e := drawEntry(t, path.Join(dir, name), rapid.SampledFrom(kinds).Draw(t, "kind"))
		entries = append(entries, e)
		if e.Mode.IsDir() && depth > 0 {
			entries = drawDir(t, entries, e.Path, depth-1)
		}
	}
	return entries
}

func drawEntry(t *rapid.T, name string, kind fs.FileMode) Entry {
	e := Entry{Path: name, Mode: kind | fs.FileMode(rapid.Uint32().Draw(t, "mode"))&(modeMask&^fs.ModeType)}
	if rapid.Bool().Draw(t, "dated") {
		seconds := rapid.Int64Range(-1<<40, 1<<40).Draw(t, "seconds")
		e.ModTime = time.Unix(seconds, rapid.Int64Range(0, 1e9-1).Draw(t, "nanos")).UTC()
	}
	switch kind {
	case fs.ModeSymlink:
		e.Target = rapid.StringMatching(`[^\x00]+`).Draw(t, "target")
	case 0:
		e.Chunks = rapid.SliceOfN(rapid.Custom(drawChunk), 0, 5).Draw(t, "chunks")
		if len(e.Chunks) == 0 {
			e.Chunks = nil
		}
		for i := range e.Chunks {
			if c := &e.Chunks[i]; i > 0 && rapid.Bool().Draw(t, "adjacent") {
				last := &e.Chunks[i-1]
				c.Segment = last.Segment
				c.Offset = min(last.Offset+last.StoredSize(), MaxSegment-c.Size)
			}
			e.Size += e.Chunks[i].Size
		}
	}
	return e
}

func drawChunk(t *rapid.T) Chunk {
	c := Chunk{
		Segment: SegmentID{Epoch: rapid.Uint64Max(2).Draw(t, "epoch"), N: rapid.Uint32Max(2).Draw(t, "n")},
		Size:    rapid.Int64Range(1, MaxChunk).Draw(t, "size"),
	}
	c.Offset = rapid.Int64Range(0, MaxSegment-c.Size).Draw(t, "offset")
	copy(c.Hash[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
	return c
}

func TestTreeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := trees().Draw(t, "tree")
		data, err := EncodeTree(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeTree(data)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("decoded as\n%+v\nwant\n%+v", got, want)
		}
	})
}

func TestTreesThatMakeNoSenseAreNeitherWrittenNorRead(t *testing.T) {
	dir := func(p string) Entry { return Entry{Path: p, Mode: fs.ModeDir} }
	file := func(p string) Entry { return Entry{Path: p} }
	chunked := func(size int64, c Chunk) []Entry { return []Entry{{Path: "f", Size: size, Chunks: []Chunk{c}}} }
	for _, c := range []struct {
		name string
		tree []Entry
		ok   bool
	}{
		{"none", nil, true},
		{"as a walk meets them", []Entry{dir("."), dir("a"), dir("a/b"), file("a/b/c"), file("a/b-c"), file("a-b"), file("a.b")}, true},
		{"hidden after root", []Entry{dir("."), file("...")}, true},
		{"twice", []Entry{file("a"), file("a")}, false},
		{"root twice", []Entry{dir("."), dir(".")}, false},
		{"root after another", []Entry{file("a"), dir(".")}, false},
		{"sorted as strings", []Entry{dir("a"), file("a-b"), file("a/b")}, false},
		{"below nothing", []Entry{file("a/b")}, false},
		{"below a file", []Entry{file("a"), file("a/b")}, false},
		{"below a link", []Entry{{Path: "a", Mode: fs.ModeSymlink, Target: "/etc"}, file("a/b")}, false},
		{"root is a file", []Entry{file(".")}, false},
		{"root is a link", []Entry{{Path: ".", Mode: fs.ModeSymlink, Target: "x"}}, false},
		{"path empty", []Entry{file("")}, false},
		{"path absolute", []Entry{file("/a")}, false},
		{"path that leads out", []Entry{file("../a")}, false},
		{"path not clean", []Entry{dir("a"), file("a//b")}, false},
		{"path no UTF-8", []Entry{file("\xff")}, false},
		{"path with a zero", []Entry{file("a\x00b")}, false},
		{"link to nothing", []Entry{{Path: "a", Mode: fs.ModeSymlink}}, false},
		{"link with a zero", []Entry{{Path: "a", Mode: fs.ModeSymlink, Target: "\x00"}}, false},
		{"directory and link at once", []Entry{{Path: "a", Mode: fs.ModeSymlink | fs.ModeDir, Target: "x"}}, false},
		{"sizes differ", []Entry{{Path: "f", Size: 1}}, false},
		{"negative size", []Entry{{Path: "f", Size: -1}}, false},
		{"chunk", chunked(1, Chunk{Size: 1}), true},
		{"chunk of no bytes", chunked(0, Chunk{}), false},
		{"chunk of negative bytes", chunked(-1, Chunk{Size: -1}), false},
		{"chunk too large", chunked(MaxChunk+1, Chunk{Size: MaxChunk + 1}), false},
		{"chunk at a negative offset", chunked(1, Chunk{Size: 1, Offset: -1}), false},
		{"chunk past any segment", chunked(1, Chunk{Size: 1, Offset: MaxSegment}), false},
		{"chunk far past any segment", chunked(1, Chunk{Size: 1, Offset: math.MaxInt64}), false},
		{"chunk in an unknown encoding", chunked(1, Chunk{Size: 1, Encoding: 1, Stored: 1}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := EncodeTree(c.tree)
			if c.ok != (err == nil) || errors.Is(err, ErrCorrupt) {
				t.Errorf("encode: %v", err)
			}
			var data []byte
			for _, e := range c.tree {
				data = appendEntry(data, &e)
			}
			_, err = DecodeTree(data)
			if c.ok && err != nil || !c.ok && !errors.Is(err, ErrCorrupt) {
				t.Errorf("decode: %v", err)
			}
		})
	}
}

func TestBytesThatAreNoTreeAreRefused(t *testing.T) {
	data, err := EncodeTree(goldenTree)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int]bool{}
	for n := 0; n < len(data); {
		ends[n] = true
		size, k := binary.Uvarint(data[n:])
		n += k + int(size)
	}
	for n := range data {
		_, err := DecodeTree(data[:n])
		if ends[n] != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	entry := func(body string) []byte { return append(binary.AppendUvarint(nil, uint64(len(body))), body...) }
	segment := strings.Repeat("\x00", segmentIDLen)
	hash := strings.Repeat("\x00", len(Hash{}))
	endless := strings.Repeat("\xff", 9) + "\x01"
	for name, data := range map[string][]byte{
		"empty entry":                 entry(""),
		"bytes after the body":        entry("\x01f\x00\x00\x00\x00\x00extra"),
		"endless number":              entry("\x01f" + strings.Repeat("\xff", 11)),
		"endless path":                entry(endless + "f"),
		"endless entry":               []byte(endless),
		"mode of 33 bits":             entry("\x01f\x80\x80\x80\x80\x10\x00\x00\x00"),
		"a device":                    entry("\x01f\x80\x80\x80\x20\x00\x00\x00"),
		"a second of nanos":           entry("\x01f\x00\x00\x80\x94\xeb\xdc\x03\x00"),
		"negative file size":          entry("\x01f\x00\x00\x00" + endless),
		"extent of no chunks":         entry("\x01f\x00\x00\x00\x00\x00" + segment + "\x00"),
		"extent without segment":      entry("\x01f\x00\x00\x00\x00\x01"),
		"extent without end":          entry("\x01f\x00\x00\x00\x01" + endless + segment + "\x00" + "\x02" + hash),
		"extent at an endless offset": entry("\x01f\x00\x00\x00\x01\x01" + segment + endless + "\x02" + hash),
		"chunk of endless size":       entry("\x01f\x00\x00\x00\x01\x01" + segment + "\x00" + endless + hash),
		"chunk without hash":          entry("\x01f\x00\x00\x00\x01\x01" + segment + "\x00" + "\x02"),
		"raw chunk in long form":      entry("\x01f\x00\x00\x00\x01\x01" + segment + "\x00" + "\x03\x00\x01" + hash),
	} {
		if got, err := DecodeTree(data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %+v, %v, want ErrCorrupt", name, got, err)
		}
	}
	if _, err := DecodeTree(entry("\x01f\x00\x00\x00\x01\x01" + segment + "\x00" + "\x02" + hash)); err != nil {
		t.Errorf("the entry that those above are made from: %v", err)
	}
}
