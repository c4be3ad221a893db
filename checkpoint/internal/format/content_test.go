package format

import (
	"errors"
	"strings"
	"testing"
)

const (
	idJSON   = `"0000000000000003-9f2c61d0a8b3e457-00000004"`
	hashJSON = `"6baa6c9f461fe834a9da0ebb62e0f6fb8c11988a58cbc51b8da8040aea19bc3a"`
)

func TestContentThatCannotBeReliedOnIsRefused(t *testing.T) {
	segments := func(size string) string { return `"segments":[{"id":` + idJSON + `,"size":` + size + `}]` }
	tree := func(offset, size string) string {
		return `"tree_at":[{"segment":` + idJSON + `,"offset":` + offset + `,"size":` + size + `,"hash":` + hashJSON + `}]`
	}
	coded := func(encoding, stored string) string {
		return `"tree_at":[{"segment":` + idJSON + `,"offset":0,"stored":` + stored + `,"size":20,"encoding":` + encoding + `,"hash":` + hashJSON + `}]`
	}
	chunk := `{"segment":` + idJSON + `,"offset":0,"size":67108864,"hash":` + hashJSON + `}`
	for _, c := range []struct {
		name, json string
		ok         bool
	}{
		{"whole", `{` + segments("100") + `,` + tree("90", "10") + `}`, true},
		{"null", `null`, true},
		{"empty", ``, false},
		{"torn", `{` + segments("100"), false},
		{"another thing", `[]`, false},
		{"offsets of a strange kind", `{"offsets_are":"around"}`, false},
		{"segment of no bytes", `{` + segments("0") + `}`, false},
		{"segment of negative bytes", `{` + segments("-1") + `}`, false},
		{"segment of too many bytes", `{` + segments("67108865") + `}`, false},
		{"segment listed twice", `{"segments":[{"id":` + idJSON + `,"size":1},{"id":` + idJSON + `,"size":1}]}`, false},
		{"segment without name", `{"segments":[{"size":1}]}`, false},
		{"segment of the last epoch", `{"segments":[{"id":"7fffffffffffffff-9f2c61d0a8b3e457-00000004","size":1}]}`, true},
		{"segment of epoch 2^63", `{"segments":[{"id":"8000000000000000-9f2c61d0a8b3e457-00000004","size":1}]}`, false},
		{"segment with the name of inline data", `{"segments":[{"id":"0000000000000000-0000000000000000-00000000","size":1}]}`, false},
		{"tree in a segment that is not listed", `{` + tree("0", "1") + `}`, false},
		{"tree past its segment's end", `{` + segments("100") + `,` + tree("90", "11") + `}`, false},
		{"tree before its segment's begin", `{` + segments("100") + `,` + tree("-1", "10") + `}`, false},
		{"tree past the end of inline data", `{"inline":"aGVsbG8=","tree_at":[{"offset":1,"size":5,"hash":` + hashJSON + `}]}`, false},
		{"tree in inline data", `{"inline":"aGVsbG8=","tree_at":[{"offset":0,"size":5,"hash":` + hashJSON + `}]}`, true},
		{"tree in inline data beside segments", `{` + segments("100") + `,"inline":"aGVsbG8=","tree_at":[{"offset":0,"size":5,"hash":` + hashJSON + `}]}`, true},
		{"tree in a segment beside inline data", `{` + segments("100") + `,"inline":"aGVsbG8=",` + tree("90", "10") + `}`, true},
		{"tree past its segment's end beside inline data", `{` + segments("100") + `,"inline":"aGVsbG8=",` + tree("90", "11") + `}`, false},
		{"tree compressed", `{` + segments("100") + `,` + coded("1", "10") + `}`, true},
		{"tree compressed past its segment's end", `{` + segments("9") + `,` + coded("1", "10") + `}`, false},
		{"tree compressed to as many bytes", `{` + segments("100") + `,` + coded("1", "20") + `}`, false},
		{"tree compressed to no bytes", `{` + segments("100") + `,` + coded("1", "0") + `}`, false},
		{"tree in an unknown encoding", `{` + segments("100") + `,` + coded("2", "10") + `}`, false},
		{"tree in an encoding that is none", `{` + segments("100") + `,` + coded("256", "10") + `}`, false},
		{"two trees", `{` + segments("100") + `,"tree":"aGVsbG8=",` + tree("90", "10") + `}`, false},
		{"size of a tree that is not there", `{"tree_size":1}`, false},
		{"tree of a negative size", `{` + segments("100") + `,"tree_size":-1,` + tree("90", "10") + `}`, false},
		{"tree of 256 MiB", `{` + segments("67108864") + `,"tree_at":[` + strings.Repeat(chunk+",", 3) + chunk + `]}`, true},
		{"tree without end", `{` + segments("67108864") + `,"tree_at":[` + strings.Repeat(chunk+",", 4) + chunk + `]}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := DecodeContent([]byte(c.json))
			if c.ok && err != nil {
				t.Errorf("err = %v", err)
			}
			if !c.ok && (!errors.Is(err, ErrCorrupt) || got != nil) {
				t.Errorf("%v, %v, want ErrCorrupt", got, err)
			}
		})
	}
}

func TestChunksOutsideTheContentAreRefused(t *testing.T) {
	c := &Content{Segments: []Segment{{SegmentID{3, writerA, 4}, 100, ""}}, Inline: []byte("hello")}
	places, err := c.Places()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		name  string
		chunk Chunk
		ok    bool
	}{
		{"in a segment", Chunk{Segment: SegmentID{3, writerA, 4}, Offset: 99, Size: 1}, true},
		{"past a segment's end", Chunk{Segment: SegmentID{3, writerA, 4}, Offset: 99, Size: 2}, false},
		{"in another segment", Chunk{Segment: SegmentID{3, writerA, 5}, Size: 1}, false},
		{"inline", Chunk{Size: 5}, true},
		{"compressed", Chunk{Segment: SegmentID{3, writerA, 4}, Size: 1000, Encoding: Zstd, Stored: 100}, true},
		{"compressed, past a segment's end", Chunk{Segment: SegmentID{3, writerA, 4}, Size: 1000, Encoding: Zstd, Stored: 101}, false},
		{"none", Chunk{}, false},
		{"past the end of inline data", Chunk{Offset: 1, Size: 5}, false},
	} {
		t.Run(k.name, func(t *testing.T) {
			err := places.Check(&k.chunk)
			if k.ok != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestRetainedListThatCannotBeReliedOnIsRefused(t *testing.T) {
	m := &Manifest{Seq: 14, Checkpoint: &Checkpoint{Seq: 12}}
	const at = `"time":"2026-11-22T10:00:01Z"`
	for _, c := range []struct {
		name, json string
		ok         bool
	}{
		{"newest first", `[{"seq":11,` + at + `},{"seq":1,` + at + `}]`, true},
		{"empty", `[]`, true},
		{"torn", `[{"seq":11,`, false},
		{"another thing", `{}`, false},
		{"left behind by a rollback", `[{"seq":13,` + at + `},{"seq":1,` + at + `},{"seq":11,` + at + `}]`, true},
		{"twice, far apart", `[{"seq":11,` + at + `},{"seq":1,` + at + `},{"seq":11,` + at + `}]`, false},
		{"the manifest's own number", `[{"seq":14,` + at + `}]`, false},
		{"from the future", `[{"seq":15,` + at + `}]`, false},
		{"twice", `[{"seq":1,` + at + `},{"seq":1,` + at + `}]`, false},
		{"the current one", `[{"seq":12,` + at + `}]`, false},
		{"number 0", `[{"seq":0,` + at + `}]`, false},
		{"negative", `[{"seq":-1,` + at + `}]`, false},
		{"without time", `[{"seq":11}]`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, err := m.decodeOne([]byte(c.json))
			if c.ok && err != nil {
				t.Errorf("err = %v", err)
			}
			if !c.ok && (!errors.Is(err, ErrCorrupt) || list != nil) {
				t.Errorf("%v, %v, want ErrCorrupt", list, err)
			}
		})
	}
}
