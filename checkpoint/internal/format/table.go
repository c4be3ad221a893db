package format

import (
	"encoding/binary"
	"errors"
	"iter"
)

// MaxTable bounds an encoded table, in bytes: the chunks of a file of half a
// TiB in chunks of 16 KiB. Writers hold it in memory.
const MaxTable = 1 << 30

// MaxTableChunks bounds the chunks of a file, because a reader has a list of them in memory,
// of 4 bytes each. An equal chunk that comes again and again takes next to nothing in a table.
const MaxTableChunks = 1 << 26

// MaxFile bounds a file, in bytes: one that is a hole but for a little has so many chunks.
const MaxFile int64 = MaxTableChunks * 32 << 10

// AppendTable appends the table of a file with these chunks, in order, to b.
// It takes them one at a time. It does not check them: see [DecodeTable].
//
// A table is its chunks' encodings, end to end:
//
//	table   = (chunk, [again])...
//	chunk   = size*4 + coded*2 + moved, [segment, offset], [encoding, stored], hash
//	segment = 20 bytes              epoch, writer, n
//	again   = 0, times              the chunk before, so many times more
//
// Numbers are unsigned varints, the encoding is one byte. Segment and offset are present
// only if the flag moved is set: the chunk does not begin where the one before it ends. (A
// list's first chunk is compared with the beginning of the inline data.) Encoding and
// stored are present only if the flag coded is set: the encoding is not [Raw].
//
// So the bytes of a chunk depend only on the chunk itself and the one before it. If one
// chunk of a file changes, its table changes in the bytes of that chunk and of the next
// one, and nowhere else. A hole, which is the same chunk of zeros again and again, takes a few
// bytes, however long it is.
//
// A table with chunks in inline data holds for one checkpoint alone: in a
// later one they would be taken to lie in that one's.
func AppendTable(b []byte, chunks iter.Seq[Chunk]) []byte {
	var e TableEncoder
	for c := range chunks {
		b = e.Append(b, &c)
	}
	return e.End(b)
}

// A TableEncoder is [AppendTable] for chunks that come one by one. The zero value begins a table.
type TableEncoder struct {
	at    place
	last  Chunk
	again uint64 // how often the last chunk came again
}

// Append appends what is known of the table after another chunk. It does not check that.
func (e *TableEncoder) Append(b []byte, c *Chunk) []byte {
	if *c == e.last {
		e.Again()
		return b
	}
	b = appendAgain(b, e.again)
	e.last, e.again = *c, 0
	return e.at.append(b, c)
}

// Again says that the chunk before comes again.
func (e *TableEncoder) Again() { e.again++ }

// End appends the rest.
func (e *TableEncoder) End(b []byte) []byte { return appendAgain(b, e.again) }

func appendAgain(b []byte, times uint64) []byte {
	if times == 0 {
		return b
	}
	return binary.AppendUvarint(append(b, 0), times)
}

// DecodeTable returns the chunks of a file of size bytes, of which data is the
// table that AppendTable made. It checks that each chunk can be, and that
// together they have size bytes; it does not know what segments there are, for
// which see [Places]. What it finds wrong it yields last, as an error that
// wraps ErrCorrupt: until then chunks may have been yielded. It allocates
// nothing in proportion to data, which must not change meanwhile.
func DecodeTable(data []byte, size int64) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		t := TableDecoder{size: size, parts: parts{rest: data}}
		t.decode(yield, 1)
		t.end(yield)
	}
}

// A TableDecoder is [DecodeTable] for a table that comes in parts. It has memory for
// one part, however many there are.
type TableDecoder struct {
	parts
	size int64 // of the file
	at   place
	last Chunk
	n    int
	sum  int64
	done bool // it has failed, or nobody wants more
}

// NewTableDecoder returns a decoder of the table of a file of size bytes.
func NewTableDecoder(size int64) *TableDecoder { return &TableDecoder{size: size} }

// Add yields the chunks that are sure to be in the table so far, of which part comes
// next. part may be used again afterwards.
func (t *TableDecoder) Add(part []byte) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		t.add(part)
		t.decode(yield, maxChunkLen)
	}
}

// End yields the rest.
func (t *TableDecoder) End() iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		t.decode(yield, 1)
		t.end(yield)
	}
}

// maxChunkLen is more than any chunk takes, however it is written.
const maxChunkLen = 3*binary.MaxVarintLen64 + segmentIDLen + 1 + len(Hash{})

// decode yields chunks as long as there are so many bytes.
func (t *TableDecoder) decode(yield func(Chunk, error) bool, least int) {
	d := decoder{rest: t.rest}
	for !t.done && len(d.rest) >= least {
		times := uint64(1)
		var err error
		if d.rest[0] == 0 {
			times, err = d.again(t.n > 0)
		} else {
			t.last, err = d.checkedChunk(&t.at)
		}
		if err != nil {
			t.fail(yield, corruptf("table: chunk %d: %w", t.n+1, err))
			return
		}
		t.yield(times, yield)
	}
	t.rest = d.rest
}

// yield yields the last chunk some times.
func (t *TableDecoder) yield(times uint64, yield func(Chunk, error) bool) {
	for ; times > 0 && !t.done; times-- {
		if t.n++; t.n > MaxTableChunks {
			t.fail(yield, corruptf("table: more than %d chunks", MaxTableChunks))
			return
		}
		if t.last.Size > t.size-t.sum {
			t.sum += t.last.Size
			t.end(yield)
			return
		}
		t.sum += t.last.Size
		t.done = !yield(t.last, nil)
	}
}

// end yields an error if the chunks do not have size bytes.
func (t *TableDecoder) end(yield func(Chunk, error) bool) {
	if !t.done && t.sum != t.size {
		t.fail(yield, corruptf("table: chunks of %d bytes for a file of %d", t.sum, t.size))
	}
}

func (t *TableDecoder) fail(yield func(Chunk, error) bool, err error) {
	t.done = true
	yield(Chunk{}, err)
}

// place is the position in a segment at which the last chunk of a list ends. The zero
// value is the beginning of the inline data.
type place struct {
	segment SegmentID
	offset  int64
}

// The flags in a chunk's first number, below its size.
const (
	chunkMoved = 1 << 0
	chunkCoded = 1 << 1
	chunkFlags = 2 // how many bits they take
)

func (at *place) append(b []byte, c *Chunk) []byte {
	moved := *at != place{c.Segment, c.Offset}
	head := uint64(c.Size) << chunkFlags
	if moved {
		head |= chunkMoved
	}
	if c.Encoding != Raw {
		head |= chunkCoded
	}
	b = binary.AppendUvarint(b, head)
	if moved {
		b = c.Segment.append(b)
		b = binary.AppendUvarint(b, uint64(c.Offset))
	}
	if c.Encoding != Raw {
		b = append(b, byte(c.Encoding))
		b = binary.AppendUvarint(b, uint64(c.Stored))
	}
	*at = place{c.Segment, c.Offset + c.StoredSize()}
	return append(b, c.Hash[:]...)
}

// again reads how often the chunk before comes again.
func (d *decoder) again(any bool) (times uint64, err error) {
	d.take(1)
	times = d.uvarint()
	if d.failed || !any || times == 0 {
		return 0, errors.New("it is malformed")
	}
	return times, nil
}

// checkedChunk is chunk for a caller who takes one at a time.
func (d *decoder) checkedChunk(at *place) (Chunk, error) {
	c := d.chunk(at)
	if d.failed {
		return Chunk{}, errors.New("it is malformed")
	}
	return c, c.check()
}

// chunk reads what place.append writes. The caller checks the chunk.
func (d *decoder) chunk(at *place) Chunk {
	head := d.uvarint()
	if head&chunkMoved != 0 {
		id := d.take(segmentIDLen)
		offset := d.uvarint()
		if d.failed {
			return Chunk{}
		}
		*at = place{decodeSegmentID(id), int64(offset)}
	}
	c := Chunk{Segment: at.segment, Offset: at.offset, Size: int64(head >> chunkFlags)}
	if head&chunkCoded != 0 {
		encoding := d.take(1)
		c.Stored = int64(d.uvarint())
		if d.failed || Encoding(encoding[0]) == Raw { // which has the short form
			d.fail()
			return Chunk{}
		}
		c.Encoding = Encoding(encoding[0])
	}
	copy(c.Hash[:], d.take(uint64(len(c.Hash))))
	at.offset += c.StoredSize()
	return c
}
