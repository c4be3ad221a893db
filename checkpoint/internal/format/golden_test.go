package format

import (
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// testdata/v1 holds what version 1 has written, for ever: a file there is
// never changed, because objects like it are in people's stores. New ones may
// be added.

var (
	writerA = WriterID{0x9f, 0x2c, 0x61, 0xd0, 0xa8, 0xb3, 0xe4, 0x57}
	writerB = WriterID{0xb7, 0xbc, 0x51, 0x84, 0xe1, 0x06, 0x3c, 0x22}
	moment  = time.Date(2026, 11, 22, 10, 0, 1, 123456789, time.UTC)
)

func token(b byte) (t Token) {
	for i := range t {
		t[i] = b + byte(i)
	}
	return t
}

func chunkOf(id SegmentID, offset int64, data string) Chunk {
	return Chunk{Segment: id, Offset: offset, Size: int64(len(data)), Hash: Sum([]byte(data))}
}

// goldenLeaf returns a list of one leaf, which lies in these chunks.
func goldenLeaf(l Leaf, chunks ...Chunk) []byte {
	l.Chunks = chunks
	list, err := EncodeLeaves([]Leaf{l})
	if err != nil {
		panic(err)
	}
	return list
}

var inline = &Content{
	Offsets:    map[string]string{"orders/7": "4711", "orders/<8>": "12 & 13"},
	OffsetsAre: "last",
	Labels:     map[string]string{"version": "2.3", "Größe": "\u2028\"\\"},
	Tree:       goldenLeaf(Leaf{First: ".", Files: 1, Bytes: 5, Uses: []Use{{SegmentID{}, 5}}}, chunkOf(SegmentID{}, 5, "tree")),
	Inline:     []byte("hellotree"),
}

var inSegments = &Content{
	Offsets: map[string]string{"orders/7": "4711"},
	Segments: []Segment{
		{SegmentID{3, writerA, 4}, 16 << 20, ""},
		{SegmentID{3, writerA, 5}, 6291969, ""},
	},
	TreeAt: []Chunk{chunkOf(SegmentID{3, writerA, 5}, 6291456, "tree")},
}

// compressed returns c, whose stored bytes are these many, as one zstd frame.
func compressed(c Chunk, stored int64) Chunk {
	c.Encoding, c.Stored = Zstd, stored
	return c
}

var incremental = &Content{
	Offsets: map[string]string{"orders/7": "4712"},
	Segments: []Segment{
		{SegmentID{3, writerA, 4}, 16 << 20, ""},
		{SegmentID{1, writerB, 0}, 6291969, ""},
	},
	TreeAt: []Chunk{
		compressed(chunkOf(SegmentID{3, writerA, 4}, 16<<20-15, "what is shared"), 9),
		chunkOf(SegmentID{}, 5, "tree"),
	},
	Inline: []byte("hellotree"),
}

var goldenManifests = map[string]*Manifest{
	"claim-first": {
		Version: 1, Kind: KindClaim, Task: "orders/7", Seq: 1, Epoch: 1, Writer: writerA, Token: token(1),
	},
	"commit-inline": {
		Version: 1, Kind: KindCommit, Task: "orders/7", Seq: 2, Epoch: 1, Writer: writerA, Token: token(2),
		Checkpoint: &Checkpoint{Seq: 2, Epoch: 1, Files: 1, Bytes: 5, NewBytes: 9, Content: inline},
	},
	"commit-segments": {
		Version: 1, Kind: KindCommit, Task: "Partition 3", Seq: 12, Epoch: 3, Writer: writerA, Token: token(3),
		Checkpoint: &Checkpoint{
			Seq: 12, Epoch: 3, Savepoint: "before-upgrade", Files: 2, Bytes: 73400320, NewBytes: 73400913, Content: inSegments,
		},
		Retained: []Retained{{Seq: 11, Time: moment}, {Seq: 4, Time: moment.Add(-time.Hour), Savepoint: "before <that>"}},
	},
	"commit-spilled": {
		Version: 1, Kind: KindCommit, Task: "orders/7", Seq: 1 << 60, Epoch: 1 << 40, Writer: writerB, Token: token(4), Released: true,
		Checkpoint: &Checkpoint{
			Seq: 1 << 60, Epoch: 1 << 40, Files: 1, Bytes: 5, NewBytes: 70000,
			ContentAt: &Chunk{Segment: SegmentID{1 << 40, writerB, 9}, Offset: 0, Size: 40000, Hash: Sum([]byte("content"))},
		},
		RetainedAt: &Chunk{Segment: SegmentID{1 << 40, writerB, 9}, Offset: 40000, Size: 30000, Hash: Sum([]byte("retained"))},
	},
	"claim": {
		Version: 1, Kind: KindClaim, Task: "orders/7", Seq: 14, Epoch: 4, Writer: writerB, Token: token(5),
		Checkpoint: &Checkpoint{Seq: 12, Epoch: 3, Time: moment, Files: 2, Bytes: 73400320, NewBytes: 73400913, Content: inSegments},
		Retained:   []Retained{{Seq: 11, Time: moment.Add(-time.Second)}},
	},
	"release": {
		Version: 1, Kind: KindRelease, Task: "orders/7", Seq: 15, Epoch: 4, Writer: writerB, Token: token(6), Released: true,
		Checkpoint: &Checkpoint{Seq: 12, Epoch: 3, Time: moment, Files: 1, Bytes: 5, NewBytes: 9, Content: inline},
	},
	"commit-incremental": {
		Version: 1, Kind: KindCommit, Task: "orders/7", Seq: 17, Epoch: 4, Writer: writerB, Token: token(8),
		Checkpoint: &Checkpoint{Seq: 17, Epoch: 4, Files: 2, Bytes: 73400325, NewBytes: 9, Content: incremental},
		Retained:   []Retained{{Seq: 12, Time: moment}},
	},
	"rollback": {
		Version: 1, Kind: KindClaim, Task: "orders/7", Seq: 19, Epoch: 5, Writer: writerA, Token: token(9), Released: true,
		Checkpoint: &Checkpoint{Seq: 12, Epoch: 3, Time: moment, Files: 2, Bytes: 73400320, NewBytes: 73400913, Content: inSegments},
		Retained: []Retained{
			{Seq: 17, Time: moment.Add(time.Minute)}, {Seq: 4, Time: moment.Add(-time.Hour)}, {Seq: 11, Time: moment.Add(-time.Second)},
		},
	},
	"savepoint-expiring": {
		Version: 1, Kind: KindClaim, Task: "orders/7", Seq: 14, Epoch: 4, Writer: writerB, Token: token(10), Released: true,
		Checkpoint: &Checkpoint{
			Seq: 12, Epoch: 3, Time: moment, Savepoint: "tonight", ExpiresAfter: 86400, Files: 1, Bytes: 5, NewBytes: 9, Content: inline,
		},
		Retained: []Retained{{Seq: 11, Time: moment.Add(-time.Second), Savepoint: "for long", ExpiresAfter: MaxExpiry}},
	},
	"amend": {
		Version: 1, Kind: KindAmend, Task: "orders/7", Seq: 17, Epoch: 3, Writer: writerA, Token: token(8), Base: &Base{Token: token(1), Time: moment},
		Checkpoint: &Checkpoint{
			Seq: 12, Epoch: 3, Time: moment, Savepoint: "renamed", Files: 1, Bytes: 5, NewBytes: 9, Content: inline,
			Note: Note{Author: "ops", Text: "wrong <counts>"},
		},
		Retained: []Retained{{Seq: 11, Time: moment.Add(-time.Second), Note: Note{Text: "right"}}},
	},
	"amend-edits": {
		Version: 1, Kind: KindAmend, Task: "orders/7", Seq: 18, Epoch: 3, Writer: writerA, Token: token(9), Base: &Base{Token: token(8), Time: moment}, Released: true,
		Checkpoint: &Checkpoint{Seq: 12, Epoch: 3, Time: moment, Files: 1, Bytes: 5, NewBytes: 9, Content: inline},
		RetainedAt: &Chunk{Segment: SegmentID{3, writerB, 9}, Offset: 40000, Size: 30000, Hash: Sum([]byte("retained"))},
		Retained:   []Retained{{Seq: 11, Time: moment.Add(-time.Second)}},
		Edits:      Edits{Removed: [][2]int{{1, 4}, {6, 6}}, Changed: []Retained{{Seq: 9, Time: moment.Add(-time.Minute), Savepoint: "kept"}}},
	},
	"deleted": {
		Version: 1, Kind: KindDeleted, Task: "orders/7", Seq: 16, Epoch: 5, Writer: writerA, Token: token(7), Released: true,
	},
}

var goldenContents = map[string]*Content{"content-inline": inline, "content-segments": inSegments, "content-incremental": incremental, "content-empty": {}}

var goldenRetained = []Retained{
	{Seq: 11, Time: moment}, {Seq: 9, Time: moment.Add(-time.Minute), Savepoint: "Größe <1>"}, {Seq: 1, Time: moment.Add(-time.Hour)},
}

var goldenIndex = []Piece{
	{2, Chunk{Segment: SegmentID{3, writerB, 9}, Size: 120, Hash: Sum([]byte("newer"))}},
	{5000, compressed(chunkOf(SegmentID{2, writerA, 1 << 31}, 0, strings.Repeat("older", 50_000)), 30000)},
}

var goldenUses = []Use{{SegmentID{2, writerB, 0}, 1 << 20}, {SegmentID{3, writerA, 5}, 5}}

var goldenLeaves = []Leaf{
	{First: ".", Files: 1, Bytes: 5, Fingerprint: Sum([]byte("seen")), Uses: goldenUses, Chunks: []Chunk{
		compressed(chunkOf(SegmentID{3, writerA, 4}, 16<<20-700, strings.Repeat("shared", 200)), 700),
		chunkOf(SegmentID{3, writerA, 5}, 5, "second"),
	}},
	{First: "a/b", Files: 1, Chunks: []Chunk{chunkOf(SegmentID{}, 0, "links, and an empty file")}},
}

var goldenTree = []Entry{
	{Path: ".", Mode: fs.ModeDir | 0o755, ModTime: moment},
	{Path: "a", Mode: fs.ModeDir | fs.ModeSticky | 0o700, ModTime: time.Date(1969, 1, 2, 3, 4, 5, 6, time.UTC)},
	{Path: "a/big", Mode: 0o640, ModTime: moment, Size: 13, Chunks: []Chunk{
		chunkOf(SegmentID{3, writerA, 4}, 100, "one"),
		chunkOf(SegmentID{3, writerA, 4}, 103, "two"),
		chunkOf(SegmentID{3, writerA, 5}, 0, "three"),
		chunkOf(SegmentID{2, writerB, 0}, 1<<20, "44"),
	}},
	{Path: "a/inline", Mode: fs.ModeSetuid | fs.ModeSetgid | 0o755, ModTime: moment, Size: 5, Chunks: []Chunk{chunkOf(SegmentID{}, 0, "hello")}},
	{Path: "a-b", Mode: 0o600, ModTime: time.Time{}},
	{Path: "a.link", Mode: fs.ModeSymlink | 0o777, ModTime: moment, Target: "../\xff somewhere"},
	{Path: "b", Mode: 0o600, ModTime: moment, Size: 3, ChangeTime: moment.Add(time.Second), Inode: 1<<63 + 5, Chunks: []Chunk{
		chunkOf(SegmentID{3, writerA, 4}, 200, "one"),
	}},
	{Path: "c", Mode: 0o600, ModTime: moment, Size: 38, ChangeTime: time.Date(1969, 1, 2, 3, 4, 5, 6, time.UTC), Chunks: []Chunk{
		compressed(chunkOf(SegmentID{3, writerA, 4}, 300, "what is compressed"), 9),
		compressed(chunkOf(SegmentID{3, writerA, 4}, 309, "what follows upon it"), 10)}},
	{Path: "d", Mode: 0o600, ModTime: moment, Size: 10 << 30, ChangeTime: moment, Inode: 7, Uses: goldenUses, Table: []Chunk{
		compressed(chunkOf(SegmentID{3, writerA, 5}, 0, "table, first half"), 5),
		chunkOf(SegmentID{3, writerA, 5}, 5, "second"),
	}},
	{Path: "ü", Mode: fs.ModeDir | 0o555, ModTime: moment},
}

// goldenOwned is a tree that was saved with owners, and with times of any year.
var goldenOwned = []Entry{
	{Path: ".", Mode: fs.ModeDir | 0o755, ModTime: time.Date(2400, 2, 29, 0, 0, 0, 5, time.UTC), Owner: &Owner{0, 0}},
	{Path: "a", Mode: fs.ModeDir | fs.ModeSetgid | 0o770, ModTime: time.Date(1066, 10, 14, 0, 0, 0, 0, time.UTC), Owner: &Owner{1000, 100}},
	{Path: "a/f", Mode: fs.ModeSetuid | 0o755, ModTime: time.Date(292000000000, 1, 1, 0, 0, 0, 0, time.UTC), Owner: &Owner{0, 1<<32 - 2}, Size: 5,
		ChangeTime: moment, Inode: 7, Chunks: []Chunk{chunkOf(SegmentID{}, 0, "hello")}},
	{Path: "l", Mode: fs.ModeSymlink | 0o777, ModTime: moment, Owner: &Owner{1<<32 - 2, 0}, Target: "a/f"},
}

var goldenTable = []Chunk{
	chunkOf(SegmentID{}, 0, "hello"), // at the place that goes without saying
	chunkOf(SegmentID{}, 5, "there"),
	chunkOf(SegmentID{3, writerA, 4}, 100, "one"),
	compressed(chunkOf(SegmentID{3, writerA, 4}, 103, "two, compressed"), 4),
	chunkOf(SegmentID{3, writerA, 4}, 107, "three"),
	chunkOf(SegmentID{3, writerA, 4}, 113, "four"), // a byte further than that one ends
	compressed(chunkOf(SegmentID{2, writerB, 1 << 31}, MaxSegment-3, "five"), 3),
	chunkOf(SegmentID{2, writerB, 0}, 0, "six"),
	chunkOf(SegmentID{2, writerB, 0}, 0, "six"),
	chunkOf(SegmentID{2, writerB, 0}, 0, "six"),
	chunkOf(SegmentID{2, writerB, 0}, 3, "seven"),
	chunkOf(SegmentID{2, writerB, 0}, 3, "seven"),
}

// golden compares data with the file of that name, byte for byte.
func golden(t *testing.T, name string, data []byte) []byte {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("testdata", "v1", name))
	if err != nil {
		t.Fatalf("%v; it would be\n%s", err, data)
	}
	if string(data) != string(want) {
		t.Errorf("%s is encoded as\n%s\nwant\n%s", name, data, want)
	}
	return want
}

func wantEqual(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("decoded as\n%+v\nwant\n%+v", got, want)
	}
}

func TestGoldenManifests(t *testing.T) {
	for name, m := range goldenManifests {
		t.Run(name, func(t *testing.T) {
			data, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			data = golden(t, name+".json", data)
			got, err := DecodeManifest(data, m.Task, m.Seq)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, got, m)
		})
	}
}

func TestGoldenContents(t *testing.T) {
	for name, c := range goldenContents {
		t.Run(name, func(t *testing.T) {
			data, err := EncodeContent(c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeContent(golden(t, name+".json", data))
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, got, c)
		})
	}
}

func TestGoldenRetained(t *testing.T) {
	data, err := EncodeRetained(goldenRetained)
	if err != nil {
		t.Fatal(err)
	}
	m := &Manifest{Seq: 12, Checkpoint: &Checkpoint{Seq: 12}}
	got, err := m.decodeOne(golden(t, "retained.json", data))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, got, goldenRetained)
}

func TestGoldenIndex(t *testing.T) {
	data, err := EncodeIndex(goldenIndex)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeIndex(golden(t, "index.json", data))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, got, goldenIndex)
}

func TestGoldenTrees(t *testing.T) {
	for name, tree := range map[string][]Entry{"tree.hex": goldenTree, "tree-owners.hex": goldenOwned} {
		t.Run(name, func(t *testing.T) {
			data, err := encodeTree(tree)
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeTree(goldenHex(t, name, data))
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, got, tree)
		})
	}
}

func TestGoldenTable(t *testing.T) {
	data := AppendTable(nil, slices.Values(goldenTable))
	got, err := decodeTable(goldenHex(t, "table.hex", data), sizeOfAll(goldenTable))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, got, goldenTable)
}

func TestGoldenLeaves(t *testing.T) {
	data, err := EncodeLeaves(goldenLeaves)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeLeaves(goldenHex(t, "leaves.hex", data), 2, 5)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, got, goldenLeaves)
}

// goldenHex compares data with the file of that name, which holds it in
// hexadecimal.
func goldenHex(t *testing.T, name string, data []byte) []byte {
	t.Helper()
	text := strings.TrimSpace(string(golden(t, name, []byte(hex.EncodeToString(data)+"\n"))))
	want, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// A golden file that no test reads would prove nothing.
func TestGoldenFilesAreAllRead(t *testing.T) {
	read := []string{"retained.json", "index.json", "tree.hex", "tree-owners.hex", "table.hex", "leaves.hex"}
	for name := range goldenManifests {
		read = append(read, name+".json")
	}
	for name := range goldenContents {
		read = append(read, name+".json")
	}
	files, err := os.ReadDir("testdata/v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(read, f.Name()) {
			t.Errorf("%s is read by no test", f.Name())
		}
	}
}
