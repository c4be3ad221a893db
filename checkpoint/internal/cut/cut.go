// Package cut divides data into chunks where the data itself says so. Bytes
// that are put in, taken out or written over move only the cuts next to them:
// the chunks before and after are the same as they were.
//
// Between two versions of Holdfast the cuts must not move either: everything
// would be sent once more. A test holds them to where they are.
package cut

import (
	"encoding/binary"
	"math"

	"github.com/zeebo/blake3"
)

// A Cutter knows the sizes of one kind of chunk. It is constant, and so may be
// used by many goroutines at once.
type Cutter struct {
	min, max int
	below    uint64 // a hash that is less than this is a cut
}

// The kinds of chunk. docs/decisions/0011-chunking.md has the measurements.
var (
	// Data is for what jobs store: 4 KiB to 64 KiB, 20 KiB on average.
	Data = newCutter(4<<10, 16<<10, 64<<10)
	// Meta is for tables and lists of files: 1 KiB to 16 KiB, 5 KiB on average.
	Meta = newCutter(1<<10, 4<<10, 16<<10)
)

// newCutter returns a Cutter of chunks that are min to max bytes long; beyond
// min, one byte in every is the last of its chunk. It needs window <= min.
func newCutter(min, every, max int) *Cutter {
	return &Cutter{min: min, max: max, below: math.MaxUint64/uint64(every) + 1}
}

// Max is the size of the largest chunk, in bytes.
func (c *Cutter) Max() int { return c.max }

// Next returns the length of the chunk that p begins with, in bytes. end says
// that nothing comes after p. Next returns 0 when it needs more bytes, which is
// when p is shorter than Max and not the end, and when there are none.
//
// The same bytes are cut in the same places, however p is filled.
func (c *Cutter) Next(p []byte, end bool) int {
	if len(p) < c.max && !end {
		return 0
	}
	p = p[:min(len(p), c.max)]
	if len(p) <= c.min {
		return len(p)
	}
	start := roll(0, p[c.min-window:c.min])
	return c.min + scan(start, p[c.min:], c.below)
}

// window is how many bytes a hash is made of: each byte is shifted left by one
// bit with each byte that follows, out of a word of 64.
const window = 64

// gear has a random number for each byte.
var gear = func() (table [256]uint64) {
	for i := range table {
		sum := blake3.Sum256([]byte{byte(i)})
		table[i] = binary.LittleEndian.Uint64(sum[:])
	}
	return table
}()

// roll returns the hash after p, which follows bytes with the hash h.
func roll(h uint64, p []byte) uint64 {
	for _, b := range p {
		h = h<<1 + gear[b]
	}
	return h
}

// scan returns how many bytes of p come before its first cut: the place where
// the hash is below a bound. It returns len(p) if there is none.
//
// A byte's hash needs the one before it. Taking two bytes in one step halves
// that chain, and with it the time that most of a save's cutting takes.
func scan(h uint64, p []byte, below uint64) int {
	i := 0
	for ; i+4 <= len(p); i += 4 {
		q := p[i : i+4 : i+4]
		if h < below {
			return i
		}
		g := gear[q[0]]
		if h<<1+g < below {
			return i + 1
		}
		h = h<<2 + (g<<1 + gear[q[1]])
		if h < below {
			return i + 2
		}
		g = gear[q[2]]
		if h<<1+g < below {
			return i + 3
		}
		h = h<<2 + (g<<1 + gear[q[3]])
	}
	for ; i < len(p) && h >= below; i++ {
		h = h<<1 + gear[p[i]]
	}
	return i
}
