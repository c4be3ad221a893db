package format

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// bounded fails if decode allocates out of proportion to its input: what a
// hostile store sends must cost no more than a small multiple of its size.
func bounded(t *testing.T, input int, decode func()) {
	t.Helper()
	if got := allocated(decode); got > 1<<20+512*uint64(input) {
		t.Errorf("decoding %d bytes allocated %d", input, got)
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// wantCorrupt fails unless err is nil or an ErrCorrupt.
func wantCorrupt(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("err = %v, want ErrCorrupt", err)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	for _, m := range goldenManifests {
		f.Add(body(f, m)) // what is fuzzed is sealed: otherwise the sum would refuse it all
	}
	for _, last := range []string{"9223372036854775807", "9223372036854775808", "18446744073709551615"} {
		for _, field := range []string{`"seq":`, `"epoch":`} {
			first := body(f, goldenManifests["claim-first"])
			f.Add(bytes.Replace(first, []byte(field+"1"), []byte(field+last), 1))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var id struct {
			Task string
			Seq  uint64
		}
		_ = json.Unmarshal(append(body[:len(body):len(body)], '}'), &id)
		data := seal(body)
		var m *Manifest
		var err error
		bounded(t, len(data), func() { m, err = DecodeManifest(data, id.Task, id.Seq) })
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("err = %v", err)
			}
			return
		}
		again, err := m.Encode()
		if err != nil {
			if !strings.Contains(err.Error(), "more than") { // it may have been written more tersely
				t.Fatal(err)
			}
			return
		}
		back, err := DecodeManifest(again, id.Task, id.Seq)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, back, m)
	})
}

// wantSame compares two values by what they are encoded as.
func wantSame(t *testing.T, got, want any) {
	t.Helper()
	a, errA := marshal(got)
	b, errB := marshal(want)
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("%s, %v\nwant %s, %v", a, errA, b, errB)
	}
}

func FuzzDecodeContent(f *testing.F) {
	for _, c := range goldenContents {
		data, err := EncodeContent(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"segments":[{"id":"8000000000000000-9f2c61d0a8b3e457-00000004","size":1}]}`))
	for _, hostile := range []string{
		`{"tree":[{},{},{},{}]}`, `{"segments":[{},{},{},{}]}`, `{"tree":[{"size":1}],"tree":[]}`, `{"tree":[{}`, `{"tree":null,"segments":null}`,
		`{"offsets":{"a":"1","a":"2"},"labels":{"":""}}`, `{"tree_size":1073741824,"tree":[]}`,
	} {
		f.Add([]byte(hostile))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c *Content
		var err error
		bounded(t, len(data), func() { c, err = DecodeContent(data) })
		wantCorrupt(t, err)
		if err != nil {
			return
		}
		again, err := EncodeContent(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeContent(again)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, back, c)
	})
}

func FuzzDecodeRetained(f *testing.F) {
	data, err := EncodeRetained(goldenRetained)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`[{"seq":9223372036854775808,"time":"2026-11-22T10:00:00Z"}]`))
	for _, hostile := range []string{`[{},{},{}]`, `[{"seq":1},{"seq":1}]`, `[] []`, `null`, `[`, `[{"seq":1,"time":"2026-11-22T10:00:01Z"},{"seq":1,"time":"2026-11-22T10:00:01Z"}]`} {
		f.Add([]byte(hostile))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &Manifest{Seq: 1 << 32, Checkpoint: &Checkpoint{Seq: 1 << 32}}
		var list []Retained
		var err error
		bounded(t, len(data), func() { list, err = m.decodeOne(data) })
		wantCorrupt(t, err)
		if err != nil {
			return
		}
		again, err := EncodeRetained(list)
		if err != nil {
			t.Fatal(err)
		}
		back, err := m.decodeOne(again)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, back, list)
	})
}

func FuzzDecodeIndex(f *testing.F) {
	data, err := EncodeIndex(goldenIndex)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	for _, hostile := range []string{`[{},{},{}]`, `[{"n":1}]`, `[]`, `null`, `[`, `[{"n":-1,"size":40}]`} {
		f.Add([]byte(hostile))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var pieces []Piece
		var err error
		bounded(t, len(data), func() { pieces, err = DecodeIndex(data) })
		wantCorrupt(t, err)
		if err != nil {
			return
		}
		again, err := EncodeIndex(pieces)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeIndex(again)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, back, pieces)
	})
}

func FuzzDecodeTree(f *testing.F) {
	for _, tree := range [][]Entry{goldenTree, goldenOwned} {
		data, err := encodeTree(tree)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		for i := range tree {
			f.Add(appendEntry(nil, &tree[i]))
		}
	}
	for _, data := range hostileTrees() {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var tree []Entry
		var err error
		bounded(t, len(data), func() { tree, err = DecodeTree(data) })
		wantCorrupt(t, err)
		if err != nil {
			return
		}
		again, err := encodeTree(tree)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > len(data) {
			t.Errorf("%d bytes decode to what takes %d", len(data), len(again))
		}
		back, err := DecodeTree(again)
		if err != nil || !reflect.DeepEqual(back, tree) {
			t.Errorf("%+v, %v\nwant %+v", back, err, tree)
		}
	})
}

// maxFuzzedTable bounds the size that a table is decoded for: a chunk of a byte may come so often.
const maxFuzzedTable = 1 << 14

func FuzzDecodeTable(f *testing.F) {
	f.Add(AppendTable(nil, slices.Values(goldenTable)), sizeOfAll(goldenTable))
	for i := range goldenTable {
		f.Add(AppendTable(nil, slices.Values(goldenTable[i:i+1])), goldenTable[i].Size)
	}
	f.Add([]byte{}, int64(0))
	f.Add(AppendTable(nil, slices.Values(slices.Repeat(goldenTable[:1], 3))), 3*goldenTable[0].Size)
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		size = min(size, maxFuzzedTable)
		var chunks []Chunk
		var err error
		bounded(t, len(data)+int(max(size, 0)), func() { chunks, err = decodeTable(data, size) })
		wantCorrupt(t, err)
		if sum := sizeOfAll(chunks); sum > max(size, 0) || err == nil && sum != size {
			t.Errorf("chunks of %d bytes for a file of %d, %v", sum, size, err)
		}
		again := AppendTable(nil, slices.Values(chunks)) // what was yielded before an error is sound too
		if len(again) > len(data) {
			t.Errorf("%d bytes decode to what takes %d", len(data), len(again))
		}
		back, err := decodeTable(again, sizeOfAll(chunks))
		if err != nil || !slices.Equal(back, chunks) {
			t.Errorf("%+v, %v\nwant %+v", back, err, chunks)
		}
	})
}

// hostileTrees are such as someone might make who wants to harm a reader.
func hostileTrees() map[string][]byte {
	endless := binary.AppendUvarint(nil, 1<<62)
	deep := appendEntry(nil, &Entry{Path: strings.Repeat("a/", 300) + "a"})
	chunks := appendEntry(nil, &Entry{Path: "f", Size: 300, Chunks: slices.Repeat([]Chunk{{Size: 1, Hash: Hash{1}}}, 300)})
	table := appendEntry(nil, &Entry{Path: "f", Size: 1, Table: slices.Repeat([]Chunk{{Size: MaxChunk}}, 16), Uses: []Use{{Bytes: 1}}})
	huge := appendEntry(nil, &Entry{Path: "f", Size: math.MaxInt64, Table: []Chunk{{Size: 8 << 10}}, Uses: []Use{{Bytes: 1}}})
	target := appendEntry(nil, &Entry{Path: "l", Mode: fs.ModeSymlink, Target: strings.Repeat("/", 1000)})
	return map[string][]byte{"endless": endless, "deep": deep, "chunks": chunks, "table": table, "huge": huge, "target": target}
}

// What comes in parts, with claims, is what DecodeTree says, or is refused, and within
// the claims.
func FuzzTreeDecoder(f *testing.F) {
	data, err := encodeTree(goldenTree)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, 10, int64(1<<40), 7)
	for _, data := range hostileTrees() {
		f.Add(data, 1, int64(1<<20), 100)
		f.Add(data, 1, int64(math.MaxInt64), 1)
	}
	f.Fuzz(func(t *testing.T, data []byte, files int, size int64, part int) {
		part = max(part, 1+len(data)/64) // or it takes long
		var tree []Entry
		var err error
		bounded(t, len(data), func() { tree, err = decodeParts(&TreeDecoder{claims: &claims{files, size}}, data, part) })
		wantCorrupt(t, err)
		var sum int64
		n := 0
		for _, e := range tree {
			if e.Mode.IsRegular() {
				n++
			}
			if sum += e.Size; sum > max(size, 0) || n > max(files, 0) || sum < 0 {
				t.Fatalf("%d files of %d bytes; claimed are %d of %d", n, sum, files, size)
			}
			if int64(len(e.Chunks)) > DataCut.MaxChunks(max(e.Size, 1)) {
				t.Fatalf("%d chunks of %d bytes", len(e.Chunks), e.Size)
			}
		}
		if want, wantErr := DecodeTree(data); err == nil && (wantErr != nil || !reflect.DeepEqual(tree, want)) {
			t.Errorf("%+v\nas a whole %+v, %v", tree, want, wantErr)
		}
	})
}

// A table that comes in parts is what it is as a whole.
func FuzzTableDecoder(f *testing.F) {
	f.Add(AppendTable(nil, slices.Values(goldenTable)), sizeOfAll(goldenTable), 5)
	again := slices.Repeat([]Chunk{{Segment: SegmentID{Epoch: 1}, Size: 32 << 10, Encoding: Zstd, Stored: 20}}, 100)
	f.Add(AppendTable(nil, slices.Values(again)), sizeOfAll(again), 200)
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), int64(1), 1)
	f.Fuzz(func(t *testing.T, data []byte, size int64, part int) {
		part = max(part, 1+len(data)/64)
		size = min(size, maxFuzzedTable)
		var got []Chunk
		var err error
		bounded(t, len(data)+min(part, len(data))+int(max(size, 0)), func() { got, err = decodeTableParts(data, size, min(part, len(data))) })
		wantCorrupt(t, err)
		want, wantErr := decodeTable(data, size)
		if (err == nil) != (wantErr == nil) || !slices.Equal(got, want) {
			t.Errorf("%+v, %v\nas a whole %+v, %v", got, err, want, wantErr)
		}
	})
}

func FuzzParseManifestKey(f *testing.F) {
	f.Add("t/manifests/fffffffffffffffe")
	f.Add("a/manifests/manifests/fffffffffffffffe")
	f.Fuzz(func(t *testing.T, key string) {
		if dir, seq, ok := ParseManifestKey(key); ok && (ManifestKey(dir, seq) != key || seq == 0) {
			t.Errorf("%q is read as %q, %d", key, dir, seq)
		}
	})
}

func FuzzParseSegmentID(f *testing.F) {
	f.Add("0000000000000003-9f2c61d0a8b3e457-00000004")
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := ParseSegmentID(s); ok && id.String() != s {
			t.Errorf("%q is read as %q", s, id)
		}
	})
}

func FuzzUnescapeTask(f *testing.F) {
	for _, dir := range []string{"orders_2f7", "_c3_a9", "_2e_2e", "_"} {
		f.Add(dir)
	}
	f.Fuzz(func(t *testing.T, dir string) {
		name, ok := UnescapeTask(dir)
		if !ok {
			return
		}
		if again, err := EscapeTask(name); again != dir || err != nil {
			t.Errorf("%q is read as %q, which is escaped as %q, %v", dir, name, again, err)
		}
	})
}
