// Package codec encodes the data of one chunk for its segment, and decodes it.
package codec

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// coders is how many chunks are encoded at once at most, and how many decoded;
// others wait. At 300 MB/s each (docs/decisions/0012-compression.md), 16 are
// faster than a network, and take 12 MB for as long as the Codec lives.
const coders = 16

// window is how far back the encoder looks, in bytes: over a whole chunk. Only
// parts of a manifest are ever longer.
const window = 64 << 10

// A Codec encodes and decodes chunks. It may be used by many goroutines at once.
type Codec struct {
	quick    *zstd.Encoder // looks for repetitions only, and otherwise stores data as it is
	thorough *zstd.Encoder // also uses shorter codes for common bytes (entropy coding)
	decoder  *zstd.Decoder
}

// New returns a Codec. It has no goroutines, and need not be closed.
func New() *Codec {
	n := min(runtime.GOMAXPROCS(0), coders)
	decoder, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(n),
		zstd.WithDecodeAllCapLimit(true),
	)
	if err != nil {
		panic(err) // of the options alone, which are constant
	}
	return &Codec{quick: newEncoder(n, false), thorough: newEncoder(n, true), decoder: decoder}
}

func newEncoder(n int, thorough bool) *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithAllLitEntropyCompression(thorough),
		zstd.WithEncoderConcurrency(n),
		zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(window),
		zstd.WithSingleSegment(true), // the shortest header that has the size in it
		zstd.WithEncoderCRC(false),   // the chunk's hash checks more
	)
	if err != nil {
		panic(err) // as above
	}
	return e
}

// Encode appends data to dst in encoded form, and returns the encoding. If that would save
// less than a sixteenth, it is not worth the time that every reader needs to decode it:
// then Encode returns format.Raw and dst unchanged, and data is to be stored as it is.
func (c *Codec) Encode(dst, data []byte) (format.Encoding, []byte) {
	encoder := c.quick
	if paysByByte(data) {
		encoder = c.thorough
	}
	out := encoder.EncodeAll(data, dst)
	frame := out[len(dst):]
	if len(frame)+sumLen >= len(data)-len(data)/16 {
		return format.Raw, out[:len(dst)]
	}
	return format.Zstd, binary.LittleEndian.AppendUint32(out, checksum(frame))
}

// A frame is followed by its CRC32C, little-endian. The hash of a chunk is that
// of its data: it does not tell of a bit that the decoder does not look at.
const sumLen = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// Decode appends to dst the size bytes of data that are stored with an encoding.
// If it cannot, it returns dst as it was, and an error that wraps
// format.ErrCorrupt. Whatever stored says, Decode takes memory in proportion to
// size.
func (c *Codec) Decode(dst []byte, e format.Encoding, stored []byte, size int) ([]byte, error) {
	switch e {
	case format.Raw:
		if len(stored) != size {
			return dst, fmt.Errorf("%w: %d bytes stored as they are for %d of data", format.ErrCorrupt, len(stored), size)
		}
		return append(dst, stored...), nil
	case format.Zstd:
		return c.decompress(dst, stored, size)
	}
	return dst, fmt.Errorf("%w: chunk in unknown encoding %d", format.ErrCorrupt, e)
}

func (c *Codec) decompress(dst, stored []byte, size int) ([]byte, error) {
	frame := stored[:max(len(stored)-sumLen, 0)]
	if len(frame) == 0 || binary.LittleEndian.Uint32(stored[len(frame):]) != checksum(frame) {
		return dst, fmt.Errorf("%w: the checksum of %d bytes does not match", format.ErrCorrupt, len(stored))
	}
	end := len(dst) + size
	room := slices.Grow(dst, size)
	out, err := c.decoder.DecodeAll(frame, room[:len(dst):end])
	if err != nil {
		return dst, fmt.Errorf("%w: zstd data of %d bytes: %w", format.ErrCorrupt, size, err)
	}
	if len(out) != end {
		return dst, fmt.Errorf("%w: zstd data of %d bytes: has %d", format.ErrCorrupt, size, len(out)-len(dst))
	}
	return append(room, out[len(dst):]...), nil // where it is already, with room for more
}
