// Package codec encodes the data of one chunk for its segment, and decodes it.
package codec

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A Codec may be used by many goroutines at once.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// coders bounds how many chunks are encoded at once, and how many are decoded;
// others wait. Each takes memory for as long as the Codec lives.
const coders = 8

// New returns a Codec. It holds memory and no goroutines.
func New() *Codec {
	n := min(runtime.GOMAXPROCS(0), coders)
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(n),
		zstd.WithEncoderCRC(false), // the chunk's hash checks more
	)
	if err != nil {
		panic(err) // of the options, which are constant
	}
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(n),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(format.MaxChunk),
	)
	if err != nil {
		panic(err)
	}
	return &Codec{enc: enc, dec: dec}
}

// Encode appends data to dst, encoded, and says how, if that makes it shorter
// by a sixteenth or more. Otherwise it returns format.Raw and dst as it was:
// data is to be stored as it is.
func (c *Codec) Encode(dst, data []byte) (format.Encoding, []byte) {
	out := c.enc.EncodeAll(data, dst)
	if len(out)-len(dst) > len(data)-len(data)/16 {
		return format.Raw, out[:len(dst)]
	}
	return format.Zstd, out
}

// Decode appends to dst the size bytes of data that stored encodes. It takes no
// memory beyond these, whatever stored says. The error wraps format.ErrCorrupt;
// then dst is returned as it was.
func (c *Codec) Decode(dst []byte, e format.Encoding, stored []byte, size int) ([]byte, error) {
	switch e {
	case format.Raw:
		if len(stored) != size {
			return dst, fmt.Errorf("%w: %d bytes stored for %d of data", format.ErrCorrupt, len(stored), size)
		}
		return append(dst, stored...), nil
	case format.Zstd:
		dst = slices.Grow(dst, size)
		out, err := c.dec.DecodeAll(stored, dst[:len(dst):len(dst)+size])
		if err != nil {
			return dst, fmt.Errorf("%w: %w", format.ErrCorrupt, err)
		}
		if len(out)-len(dst) != size {
			return dst, fmt.Errorf("%w: %d bytes of data, not %d", format.ErrCorrupt, len(out)-len(dst), size)
		}
		return append(dst, out[len(dst):]...), nil // in its place already
	}
	return dst, fmt.Errorf("%w: unknown encoding %d", format.ErrCorrupt, e)
}
