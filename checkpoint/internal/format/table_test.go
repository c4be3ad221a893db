package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// decodeTable returns the chunks of a table up to what is wrong with it.
func decodeTable(data []byte, size int64) ([]Chunk, error) {
	var chunks []Chunk
	for c, err := range DecodeTable(data, size) {
		if err != nil {
			return chunks, err
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}

func sizeOfAll(chunks []Chunk) (sum int64) {
	for i := range chunks {
		sum += chunks[i].Size
	}
	return sum
}

func TestTableRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawChunks(t, 0, 20)
		data := AppendTable([]byte("before"), slices.Values(want))
		data, before := bytes.CutPrefix(data, []byte("before"))
		if !before {
			t.Fatal("AppendTable does not append")
		}
		got, err := decodeTable(data, sizeOfAll(want))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("decoded as\n%+v\nwant\n%+v", got, want)
		}
	})
}

func TestTablesThatMakeNoSenseAreRefused(t *testing.T) {
	hash := strings.Repeat("\x00", len(Hash{}))
	segment := strings.Repeat("\x00", segmentIDLen)
	endless := strings.Repeat("\xff", 9) + "\x01"
	one := "\x04" + hash
	for _, c := range []struct {
		name, data string
		size       int64
		chunks     int // yielded before the error
		ok         bool
	}{
		{"empty", "", 0, 0, true},
		{"one", one, 1, 1, true},
		{"two", one + one, 2, 2, true},
		{"moved", one + "\x05" + segment + "\x07" + hash, 2, 2, true},
		{"moved to where it is", one + "\x05" + segment + "\x01" + hash, 2, 2, true},
		{"compressed", "\x0a\x01\x01" + hash, 2, 1, true},
		{"three times more", one + "\x00\x03", 4, 4, true},
		{"more, and more", one + "\x00\x01\x00\x01" + one, 4, 4, true},

		{"empty, for a file that is not", "", 1, 0, false},
		{"negative size", "", -1, 0, false},
		{"negative size with a chunk", one, -1, 0, false},
		{"a chunk for an empty file", one, 0, 0, false},
		{"a chunk too few", one, 2, 1, false},
		{"a chunk too many", one + one, 1, 1, false},
		{"far too few", one, math.MaxInt64, 1, false},
		{"rubbish at the end", one + "\x00", 1, 1, false},
		{"cut in its hash", one + one[:32], 2, 1, false},
		{"cut in its size", one + "\x84", 2, 1, false},
		{"cut before its segment", one + "\x05", 2, 1, false},
		{"cut in its segment", one + "\x05" + segment[:19], 2, 1, false},
		{"cut before its offset", one + "\x05" + segment, 2, 1, false},
		{"cut before its encoding", one + "\x0a", 3, 1, false},
		{"cut before what is stored", one + "\x0a\x01", 3, 1, false},
		{"no times more", one + "\x00\x00", 1, 1, false},
		{"more of nothing", "\x00\x01" + one, 2, 0, false},
		{"once too often", one + "\x00\x03", 3, 3, false},
		{"once too seldom", one + "\x00\x03", 5, 4, false},
		{"endless times more", one + "\x00" + endless, 3, 3, false},
		{"cut in how often", one + "\x00\x83", 4, 1, false},
		{"of too many bytes", "\x80\x80\x80\x80\x02" + hash + one, MaxChunk + 2, 0, false},
		{"of endless bytes", endless + hash, math.MaxInt64, 0, false},
		{"at an endless offset", "\x05" + segment + endless + hash, 1, 0, false},
		{"past any segment", "\x05" + segment + "\x80\x80\x80\x20" + hash, 1, 0, false},
		{"past any segment after the one before", "\x05" + segment + "\xff\xff\xff\x1f" + hash + one, 2, 1, false},
		{"in an unknown encoding", "\x0a\x02\x01" + hash, 2, 0, false},
		{"raw in long form", "\x0a\x00\x02" + hash, 2, 0, false},
		{"compressed to nothing", "\x0a\x01\x00" + hash, 2, 0, false},
		{"compressed to as much", "\x0a\x01\x02" + hash, 2, 0, false},
		{"compressed to endless bytes", "\x0a\x01" + endless + hash, 2, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := decodeTable([]byte(c.data), c.size)
			if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrCorrupt) || len(got) != c.chunks {
				t.Errorf("%d chunks, %v; want %d", len(got), err, c.chunks)
			}
		})
	}
}

// Nothing is yielded after the error, nor after the caller has left.
func TestTableEndsOnce(t *testing.T) {
	data := AppendTable(nil, slices.Values(goldenTable))
	for _, size := range []int64{sizeOfAll(goldenTable) - 1, sizeOfAll(goldenTable) + 1} {
		var after, errs int
		for _, err := range DecodeTable(data, size) {
			if errs > 0 {
				after++
			}
			if err != nil {
				errs++
			}
		}
		if errs != 1 || after != 0 {
			t.Errorf("%d errors and %d chunks after it", errs, after)
		}
	}
	table := DecodeTable(data, sizeOfAll(goldenTable))
	for _, err := range table {
		if err != nil {
			t.Error(err)
		}
		break // would panic if the table went on
	}
	n := 0
	for _, err := range table {
		if n++; err != nil {
			t.Error(err)
		}
	}
	if n != len(goldenTable) {
		t.Errorf("the second time %d chunks, want %d", n, len(goldenTable))
	}
}

// A table is stored in chunks of its own. A change must leave nearly all of its
// bytes as they were, in one piece before and one behind it, so that nearly
// all of those chunks are found again.
func TestAChangedChunkChangesFewBytesOfATable(t *testing.T) {
	chunks := manyChunks(4000)
	before := AppendTable(nil, slices.Values(chunks))
	longest := len(AppendTable(nil, slices.Values([]Chunk{{Segment: SegmentID{Epoch: 1}, Offset: MaxSegment - 1, Size: MaxChunk}})))
	for _, i := range []int{0, 1, 1000, len(chunks) - 1} {
		changed := slices.Clone(chunks)
		changed[i] = Chunk{Segment: SegmentID{Epoch: 9, N: 9}, Offset: 4711, Size: 17000, Hash: Sum([]byte("new"))}
		after := AppendTable(nil, slices.Values(changed))
		head := commonPrefix(before, after)
		slices.Reverse(after)
		behind := slices.Clone(before[head:])
		slices.Reverse(behind)
		tail := commonPrefix(behind, after)
		if got := len(after) - head - tail; got > 2*longest {
			t.Errorf("chunk %d changed: %d bytes did, more than two chunks take", i, got)
		}
	}
}

func commonPrefix(a, b []byte) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// manyChunks returns the chunks, of about 16 KiB, of a file that was saved at
// once: end to end in segments of 16 MiB.
func manyChunks(n int) []Chunk { return slices.Collect(chunkSeq(n)) }

func chunkSeq(n int) iter.Seq[Chunk] {
	return func(yield func(Chunk) bool) {
		random := rand.New(rand.NewPCG(1, 2))
		at := place{segment: SegmentID{Epoch: 3, Writer: writerA}}
		for range n {
			if at.offset > 16<<20 {
				at.segment.N, at.offset = at.segment.N+1, 0
			}
			c := Chunk{Segment: at.segment, Offset: at.offset, Size: 8<<10 + random.Int64N(16<<10)}
			binary.LittleEndian.PutUint64(c.Hash[:], random.Uint64())
			binary.LittleEndian.PutUint64(c.Hash[8:], random.Uint64())
			if random.IntN(2) == 0 {
				c.Encoding, c.Stored = Zstd, c.Size/2
			}
			at.offset += c.StoredSize()
			if !yield(c) {
				return
			}
		}
	}
}

// Whatever its length, a table is read in constant memory.
func TestTableIsReadInConstantMemory(t *testing.T) {
	good := AppendTable(nil, chunkSeq(20_000))
	size := sizeOfAll(manyChunks(20_000))
	for _, c := range []struct {
		name string
		data []byte
		size int64
		ok   bool
	}{
		{"good", good, size, true},
		{"a byte short", good, size + 1, false},
		{"all ones", bytes.Repeat([]byte("\xff"), len(good)), size, false},
		{"all zeros", make([]byte, len(good)), size, false},
		{"cut", good[:len(good)-1], size, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			got := allocated(func() {
				for _, err = range DecodeTable(c.data, c.size) {
				}
			})
			if c.ok != (err == nil) {
				t.Error(err)
			}
			if got > 64<<10 {
				t.Errorf("reading a table of %d bytes allocated %d", len(c.data), got)
			}
		})
	}
}

func BenchmarkAppendTable(b *testing.B) {
	for _, n := range []int{100, 640_000} { // the latter is a file of 10 GiB
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			chunks := manyChunks(n)
			data := AppendTable(nil, slices.Values(chunks))
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				data = AppendTable(data[:0], slices.Values(chunks))
			}
		})
	}
}

func BenchmarkDecodeTable(b *testing.B) {
	for _, n := range []int{100, 640_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			chunks := manyChunks(n)
			data, size := AppendTable(nil, slices.Values(chunks)), sizeOfAll(chunks)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range DecodeTable(data, size) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// A table of a few bytes may not take memory without bound.
func TestTableOfTooManyChunks(t *testing.T) {
	data := AppendTable(nil, slices.Values(goldenTable[:1]))
	data = appendAgain(data, MaxTableChunks)
	n, size := 0, goldenTable[0].Size
	for _, err := range DecodeTable(data, (MaxTableChunks+1)*size) {
		if err != nil {
			if !errors.Is(err, ErrCorrupt) || n != MaxTableChunks {
				t.Errorf("after %d chunks: %v", n, err)
			}
			return
		}
		n++
	}
	t.Errorf("%d chunks, and no error", n)
}
