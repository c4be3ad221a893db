package format

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
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

func encodeTree(entries []Entry) ([]byte, error) {
	var t TreeEncoder
	for i := range entries {
		if err := t.Add(&entries[i]); err != nil {
			return nil, err
		}
	}
	return t.Bytes(), nil
}

// appendEntry encodes e although it may make no sense.
func appendEntry(b []byte, e *Entry) []byte {
	body := appendBody(nil, e)
	return append(binary.AppendUvarint(b, uint64(len(body))), body...)
}

// trees draws valid trees, in order.
func trees() *rapid.Generator[[]Entry] {
	return rapid.Custom(func(t *rapid.T) []Entry {
		var entries []Entry
		if rapid.Bool().Draw(t, "root") {
			entries = append(entries, drawEntry(t, ".", fs.ModeDir))
		}
		entries = drawDir(t, entries, ".", 3)
		if rapid.Bool().Draw(t, "owned") {
			for i := range entries {
				entries[i].Owner = &Owner{rapid.Uint32Max(noID-1).Draw(t, "user"), rapid.Uint32Max(noID-1).Draw(t, "group")}
			}
		}
		return entries
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
	e := Entry{Path: name, Mode: kind | fs.FileMode(rapid.Uint32().Draw(t, "mode"))&(ModeMask&^fs.ModeType)}
	if rapid.Bool().Draw(t, "dated") {
		seconds := rapid.Int64Range(-1<<40, 1<<40).Draw(t, "seconds")
		e.ModTime = time.Unix(seconds, rapid.Int64Range(0, 1e9-1).Draw(t, "nanos")).UTC()
	}
	switch kind {
	case fs.ModeSymlink:
		e.Target = rapid.StringMatching(`[^\x00]+`).Draw(t, "target")
	case 0:
		drawFile(t, &e)
	}
	return e
}

func drawFile(t *rapid.T, e *Entry) {
	if rapid.Bool().Draw(t, "seen") {
		seconds := rapid.Int64Range(-1<<40, 1<<40).Draw(t, "changed")
		e.ChangeTime = time.Unix(seconds, rapid.Int64Range(0, 1e9-1).Draw(t, "nanos")).UTC()
		e.Inode = rapid.Uint64().Draw(t, "inode")
	}
	if rapid.Bool().Draw(t, "tabled") {
		e.Table = drawChunks(t, 1, 3)
		e.Uses = drawUses(t, 1)
		e.Size = rapid.Int64Range(1, math.MaxInt64).Draw(t, "size")
		return
	}
	e.Chunks = drawChunks(t, 0, 5)
	for i := range e.Chunks {
		e.Size += e.Chunks[i].Size
	}
}

// drawUses draws what something uses.
func drawUses(t *rapid.T, least int) (uses []Use) {
	for _, n := range rapid.SliceOfNDistinct(rapid.Uint32Max(9), least, 4, rapid.ID).Draw(t, "uses") {
		uses = append(uses, Use{SegmentID{Epoch: uint64(n / 3), N: n}, rapid.Int64Range(1, MaxSegment).Draw(t, "used")})
	}
	slices.SortFunc(uses, func(a, b Use) int { return a.Segment.Compare(b.Segment) })
	return uses
}

// drawChunks draws chunks of which some lie end to end, or nil.
func drawChunks(t *rapid.T, least, most int) []Chunk {
	chunks := rapid.SliceOfN(rapid.Custom(drawChunk), least, most).Draw(t, "chunks")
	if len(chunks) == 0 {
		return nil
	}
	for i := range chunks[1:] {
		last, c := &chunks[i], &chunks[i+1]
		end := last.Offset + last.StoredSize()
		if rapid.Bool().Draw(t, "adjacent") && end <= MaxSegment-c.StoredSize() {
			c.Segment, c.Offset = last.Segment, end
		}
	}
	return chunks
}

func drawChunk(t *rapid.T) Chunk {
	c := Chunk{
		Segment: SegmentID{Epoch: rapid.Uint64Max(2).Draw(t, "epoch"), N: rapid.Uint32Max(2).Draw(t, "n")},
		Size:    rapid.Int64Range(1, MaxChunk).Draw(t, "size"),
	}
	if c.Size > 1 && rapid.Bool().Draw(t, "compressed") {
		c.Encoding, c.Stored = Zstd, rapid.Int64Range(1, c.Size-1).Draw(t, "stored")
	}
	c.Offset = rapid.Int64Range(0, MaxSegment-c.StoredSize()).Draw(t, "offset")
	copy(c.Hash[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
	return c
}

func TestTreeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := trees().Draw(t, "tree")
		data, err := encodeTree(want)
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
	uses := []Use{{Bytes: 1}}
	tabled := func(size int64, c ...Chunk) []Entry { return []Entry{{Path: "f", Size: size, Table: c, Uses: uses}} }
	using := func(uses ...Use) []Entry { return []Entry{{Path: "f", Size: 1, Table: []Chunk{{Size: 1}}, Uses: uses}} }
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
		{"owned", []Entry{{Path: "a", Owner: &Owner{1, noID - 1}}, {Path: "b", Owner: &Owner{}}}, true},
		{"half of it owned", []Entry{{Path: "a", Owner: &Owner{}}, file("b")}, false},
		{"the other half owned", []Entry{file("a"), {Path: "b", Owner: &Owner{}}}, false},
		{"no one's", []Entry{{Path: "a", Owner: &Owner{noID, 1}}}, false},
		{"no group's", []Entry{{Path: "a", Owner: &Owner{1, noID}}}, false},
		{"sizes differ", []Entry{{Path: "f", Size: 1}}, false},
		{"negative size", []Entry{{Path: "f", Size: -1}}, false},
		{"chunk", chunked(1, Chunk{Size: 1}), true},
		{"chunk of no bytes", chunked(0, Chunk{}), false},
		{"chunk of negative bytes", chunked(-1, Chunk{Size: -1}), false},
		{"chunk too large", chunked(MaxChunk+1, Chunk{Size: MaxChunk + 1}), false},
		{"chunk at a negative offset", chunked(1, Chunk{Size: 1, Offset: -1}), false},
		{"chunk past any segment", chunked(1, Chunk{Size: 1, Offset: MaxSegment}), false},
		{"chunk far past any segment", chunked(1, Chunk{Size: 1, Offset: math.MaxInt64}), false},
		{"chunk in an unknown encoding", chunked(9, Chunk{Size: 9, Encoding: 2, Stored: 1}), false},
		{"compressed chunk", chunked(9, Chunk{Size: 9, Encoding: Zstd, Stored: 8}), true},
		{"compressed chunk in as many bytes", chunked(9, Chunk{Size: 9, Encoding: Zstd, Stored: 9}), false},
		{"compressed chunk in more bytes", chunked(9, Chunk{Size: 9, Encoding: Zstd, Stored: 10}), false},
		{"compressed chunk in no bytes", chunked(9, Chunk{Size: 9, Encoding: Zstd}), false},
		{"compressed chunk in negative bytes", chunked(9, Chunk{Size: 9, Encoding: Zstd, Stored: -1}), false},
		{"compressed chunk past any segment", chunked(9, Chunk{Size: 9, Encoding: Zstd, Stored: 8, Offset: MaxSegment - 7}), false},
		{"many chunks", []Entry{{Path: "f", Size: 100, Chunks: slices.Repeat([]Chunk{{Size: 1}}, 100)}}, true},
		{"table", tabled(1, Chunk{Size: 1}), true},
		{"table of a huge file", tabled(math.MaxInt64, Chunk{Size: 1}), true},
		{"table with a bad chunk", tabled(1, Chunk{Size: MaxChunk + 1}), false},
		{"table of an empty file", tabled(0, Chunk{Size: 1}), false},
		{"table of 1 GiB", tabled(1, slices.Repeat([]Chunk{{Size: MaxChunk}}, 16)...), true},
		{"table that uses no segment", using(), false},
		{"table that uses no bytes", using(Use{}), false},
		{"table that uses a segment twice", using(Use{Bytes: 1}, Use{Bytes: 1}), false},
		{"table that uses segments in order", using(Use{Bytes: 1}, Use{SegmentID{Epoch: 1}, 1}, Use{SegmentID{Epoch: 1, N: 1}, 1}), true},
		{"table that uses segments out of order", using(Use{SegmentID{Epoch: 1}, 1}, Use{Bytes: 1}), false},
		{"table without end", tabled(1, slices.Repeat([]Chunk{{Size: MaxChunk}}, 17)...), false},
		{"change time and inode", []Entry{{Path: "f", ChangeTime: moment, Inode: math.MaxUint64}}, true},
		{"change time in 1970", []Entry{{Path: "f", ChangeTime: time.Unix(0, 0)}}, true},
		{"change time without inode", []Entry{{Path: "f", ChangeTime: moment}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := encodeTree(c.tree)
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

// What the encoding has no place for is refused, not dropped.
func TestEntriesThatATreeCannotHoldAreNotWritten(t *testing.T) {
	one := []Chunk{{Size: 1}}
	for _, c := range []struct {
		name  string
		entry Entry
	}{
		{"chunks and a table", Entry{Path: "f", Size: 1, Chunks: one, Table: one}},
		{"negative size with a table", Entry{Path: "f", Size: -1, Table: one}},
		{"inode without change time", Entry{Path: "f", Inode: 1}},
		{"file with a target", Entry{Path: "f", Target: "x"}},
		{"directory with a target", Entry{Path: "d", Mode: fs.ModeDir, Target: "x"}},
		{"directory with a size", Entry{Path: "d", Mode: fs.ModeDir, Size: 4096}},
		{"directory with chunks", Entry{Path: "d", Mode: fs.ModeDir, Chunks: one}},
		{"directory with a table", Entry{Path: "d", Mode: fs.ModeDir, Table: one}},
		{"directory that uses a segment", Entry{Path: "d", Mode: fs.ModeDir, Uses: []Use{{Bytes: 1}}}},
		{"file without a table that uses a segment", Entry{Path: "f", Uses: []Use{{Bytes: 1}}}},
		{"directory with a change time", Entry{Path: "d", Mode: fs.ModeDir, ChangeTime: moment}},
		{"link with an inode", Entry{Path: "l", Mode: fs.ModeSymlink, Target: "x", Inode: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if data, err := encodeTree([]Entry{c.entry}); err == nil || errors.Is(err, ErrCorrupt) {
				t.Errorf("%x, %v", data, err)
			}
		})
	}
}

func TestBytesThatAreNoTreeAreRefused(t *testing.T) {
	data, err := encodeTree(goldenTree)
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
	const file = "\x01f\x00\x00\x00" // its path, mode and time
	segment := strings.Repeat("\x00", segmentIDLen)
	hash := strings.Repeat("\x00", len(Hash{}))
	endless := strings.Repeat("\xff", 9) + "\x01"
	unknown := string(binary.AppendVarint(nil, time.Time{}.Unix()))
	for _, c := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"a file of one byte", entry(file + "\x02\x00" + "\x04" + hash), true},
		{"its place given", entry(file + "\x02\x00" + "\x05" + segment + "\x00" + hash), true},
		{"its data compressed", entry(file + "\x04\x00" + "\x0a\x01\x01" + hash), true},
		{"its table", entry(file + "\x03\x00" + "\x01" + segment + "\x07" + "\x04" + hash), true},
		{"its table, which uses nothing", entry(file + "\x03\x00" + "\x00" + "\x04" + hash), false},
		{"its table, which uses half a segment", entry(file + "\x03\x00" + "\x01" + segment[:10]), false},
		{"its table, which uses segments without end", entry(file + "\x03\x00" + endless + segment + "\x07" + "\x04" + hash), false},
		{"its change time and inode", entry(file + "\x02\x01\x00\x07" + "\x04" + hash), true},

		{"its owner", entry("\x01f\x80\x04\x05\x06\x00\x00" + "\x00\x00"), true},
		{"its owner in 33 bits", entry("\x01f\x80\x04\x80\x80\x80\x80\x10\x06\x00\x00" + "\x00\x00"), false},
		{"its group in 33 bits", entry("\x01f\x80\x04\x05\x80\x80\x80\x80\x10\x00\x00" + "\x00\x00"), false},
		{"its owner alone", entry("\x01f\x80\x04\x05"), false},
		{"a bit beside that of the owner", entry("\x01f\x80\x08\x00\x00" + "\x00\x00"), false},
		{"empty entry", entry(""), false},
		{"bytes after the body", entry("\x01d\x80\x80\x80\x80\x08\x00\x00extra"), false},
		{"bytes after a link", entry("\x01l\x80\x80\x80\x40\x00\x00\x01textra"), false},
		{"endless number", entry("\x01f" + strings.Repeat("\xff", 11)), false},
		{"endless path", entry(endless + "f"), false},
		{"endless entry", []byte(endless), false},
		{"mode of 33 bits", entry("\x01f\x80\x80\x80\x80\x10\x00\x00\x00\x00"), false},
		{"a device", entry("\x01f\x80\x80\x80\x20\x00\x00"), false},
		{"a second of nanos", entry("\x01f\x00\x00\x80\x94\xeb\xdc\x03\x00\x00"), false},
		{"a file without size", entry(file), false},
		{"a file without end", entry(file + endless), false},
		{"a file that does not say what was seen", entry(file + "\x00"), false},
		{"a file changed at no time", entry(file + "\x00\x01"), false},
		{"a file changed in no inode", entry(file + "\x00\x01\x00"), false},
		{"a file changed in an endless inode", entry(file + "\x00\x01\x00" + strings.Repeat("\xff", 11)), false},
		{"a file changed at a second of nanos", entry(file + "\x00\x81\x94\xeb\xdc\x03\x00\x00"), false},
		{"a file changed when it is not known", entry(file + "\x00\x01" + unknown + "\x00"), false},
		{"a table of no chunks", entry(file + "\x03\x00" + "\x01" + segment + "\x07"), false},
		{"a table of no chunks for an empty file", entry(file + "\x01\x00" + "\x01" + segment + "\x07"), false},
		{"a table for an empty file", entry(file + "\x01\x00" + "\x01" + segment + "\x07" + "\x04" + hash), false},
		{"chunk of no bytes", entry(file + "\x00\x00" + "\x00" + hash), false},
		{"chunk in no segment", entry(file + "\x02\x00" + "\x05"), false},
		{"chunk in half a segment", entry(file + "\x02\x00" + "\x05" + segment[:10]), false},
		{"chunk at no offset", entry(file + "\x02\x00" + "\x05" + segment), false},
		{"chunk at an endless offset", entry(file + "\x02\x00" + "\x05" + segment + endless + hash), false},
		{"chunk of endless size", entry(file + "\x02\x00" + endless + hash), false},
		{"chunk without hash", entry(file + "\x02\x00" + "\x04"), false},
		{"chunk with half a hash", entry(file + "\x02\x00" + "\x04" + hash[:16]), false},
		{"chunk in an encoding that is not there", entry(file + "\x04\x00" + "\x0a"), false},
		{"chunk in an unknown encoding", entry(file + "\x04\x00" + "\x0a\x02\x01" + hash), false},
		{"raw chunk in long form", entry(file + "\x02\x00" + "\x06\x00\x01" + hash), false},
		{"compressed chunk in no bytes", entry(file + "\x04\x00" + "\x0a\x01\x00" + hash), false},
		{"compressed chunk in as many bytes", entry(file + "\x04\x00" + "\x0a\x01\x02" + hash), false},
		{"compressed chunk in endless bytes", entry(file + "\x04\x00" + "\x0a\x01" + endless + hash), false},
	} {
		got, err := DecodeTree(c.data)
		if c.ok && err != nil || !c.ok && (!errors.Is(err, ErrCorrupt) || got != nil) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestTreeThatIsTooLargeIsNotWritten(t *testing.T) {
	tree := TreeEncoder{tree: make([]byte, MaxTree-100)}
	for _, e := range []Entry{
		{Path: strings.Repeat("a", 200)},
		{Path: "l", Mode: fs.ModeSymlink, Target: strings.Repeat("a", 100)},
	} {
		if err := tree.Add(&e); err == nil || errors.Is(err, ErrCorrupt) || len(tree.Bytes()) != MaxTree-100 {
			t.Errorf("%d bytes, err = %v", len(tree.Bytes()), err)
		}
	}
}

// What is refused leaves no trace: what comes next is judged as if it had not
// been there.
func TestTreeAfterARefusal(t *testing.T) {
	var tree TreeEncoder
	for _, c := range []struct {
		entry Entry
		ok    bool
	}{
		{Entry{Path: "b", Mode: fs.ModeDir}, true},
		{Entry{Path: "c", Size: 1}, false},
		{Entry{Path: "b/a"}, true},
		{Entry{Path: "a"}, false},
		{Entry{Path: "b/b"}, true},
	} {
		if err := tree.Add(&c.entry); c.ok != (err == nil) {
			t.Errorf("%q: %v", c.entry.Path, err)
		}
	}
	got, err := DecodeTree(tree.Bytes())
	if err != nil || len(got) != 3 || got[2].Path != "b/b" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestModeBitsThatATreeDoesNotHold(t *testing.T) {
	var tree TreeEncoder
	if err := tree.Add(&Entry{Path: "f", Mode: fs.ModeAppend | fs.ModeTemporary | 0o600}); err != nil {
		t.Fatal(err)
	}
	got, err := DecodeTree(tree.Bytes())
	if err != nil || got[0].Mode != 0o600 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, mode := range []fs.FileMode{fs.ModeNamedPipe, fs.ModeSocket, fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice, fs.ModeIrregular} {
		if err := tree.Add(&Entry{Path: "g", Mode: mode}); err == nil {
			t.Errorf("%v was taken for a file", mode)
		}
	}
}

// The compare function is defined by what a walk does.
func TestPathsAreInTreeOrder(t *testing.T) {
	paths := rapid.Custom(func(t *rapid.T) string {
		return path.Join(rapid.SliceOfN(names, 0, 3).Draw(t, "path")...)
	})
	split := func(p string) []string {
		if p == "." || p == "" {
			return nil
		}
		return strings.Split(p, "/")
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := cmp.Or(paths.Draw(t, "a"), "."), cmp.Or(paths.Draw(t, "b"), ".")
		if got, want := ComparePaths(a, b), slices.Compare(split(a), split(b)); got != want {
			t.Errorf("%q, %q: %d, want %d", a, b, got, want)
		}
	})
}

// A slice that grows by a quarter at a time costs five times its size in all;
// an entry of a dozen bytes takes 168 in memory.
func TestTreeIsReadInMemoryOfItsOrder(t *testing.T) {
	hash := strings.Repeat("\x00", len(Hash{}))
	short := func(n int) []byte { // the shortest entries, in order
		var tree TreeEncoder
		for i := range n {
			if err := tree.Add(&Entry{Path: fmt.Sprintf("%05x", i), ModTime: time.Unix(0, 0)}); err != nil {
				t.Fatal(err)
			}
		}
		return tree.Bytes()
	}
	chunked := func(head byte, n int) []byte {
		body := append([]byte("\x01f\x00\x00\x00"), binary.AppendUvarint(nil, uint64(n)<<1|uint64(head))...)
		body = append(body, 0)
		if head != 0 {
			body = append(append(append(body, 1), make([]byte, segmentIDLen)...), 7)
		}
		body = append(body, strings.Repeat("\x04"+hash, n)...)
		return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
	}
	for _, c := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"short entries", short(30_000), true},
		{"short entries and half a one", append(short(30_000), "\x06"...), false},
		{"a file of many chunks", chunked(0, 10_000), true},
		{"a table of many chunks", chunked(1, 10_000), true},
		{"all zeros", make([]byte, 300_000), false},
		{"all ones", bytes.Repeat([]byte("\xff"), 300_000), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			got := allocated(func() { _, err = DecodeTree(c.data) })
			if c.ok && err != nil || !c.ok && !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			if got > 128*uint64(len(c.data))+64<<10 {
				t.Errorf("reading a tree of %d bytes allocated %d", len(c.data), got)
			}
		})
	}
}

// smallFiles returns the entries of n files of one chunk each, in directories
// of a thousand.
func smallFiles(n int) []Entry {
	chunks := manyChunks(n)
	var entries []Entry
	for i, c := range chunks {
		dir := fmt.Sprintf("%05d", i/1000)
		if i%1000 == 0 {
			entries = append(entries, Entry{Path: dir, Mode: fs.ModeDir | 0o755, ModTime: moment})
		}
		entries = append(entries, Entry{
			Path: fmt.Sprintf("%s/file-%05d", dir, i), Mode: 0o644, ModTime: moment, Size: c.Size,
			ChangeTime: moment, Inode: uint64(1<<20 + i), Chunks: []Chunk{c},
		})
	}
	return entries
}

func BenchmarkTreeEncoder(b *testing.B) {
	entries := smallFiles(50_000)
	b.ReportAllocs()
	for b.Loop() {
		data, err := encodeTree(entries)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(data)))
	}
}

func BenchmarkDecodeTree(b *testing.B) {
	data, err := encodeTree(smallFiles(50_000))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeTree(data); err != nil {
			b.Fatal(err)
		}
	}
}

// Who does not ask for owners does not pay for them.
func TestOwnersTakeNoRoomUnlessThereAreSome(t *testing.T) {
	e := Entry{Path: "f", Mode: 0o644, ModTime: moment}
	bare := len(appendEntry(nil, &e))
	e.Owner = &Owner{0, 0}
	if owned := len(appendEntry(nil, &e)); owned != bare+2 {
		t.Errorf("%d bytes with an owner, %d without", owned, bare)
	}
}
