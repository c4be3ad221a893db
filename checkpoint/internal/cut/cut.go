// Package cut divides data into chunks where the data itself says so. Bytes
// that are put in, taken out or written over move only the cuts next to them:
// the chunks before and after are what they were.
//
// The cuts must not move from one version of Holdfast to the next either, or
// everything is sent once more. A test holds them to where they are.
package cut

import (
	"encoding/binary"
	"math"

	"github.com/zeebo/blake3"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A Cutter makes chunks of some sizes. It is constant, so that any number of
// goroutines may use it at once.
type Cutter struct {
	min, max    int
	first, best uint64 // bounds for hashes, see Next
}

// The kinds of chunk: docs/decisions/0011-chunking.md has the measurements.
var (
	// Data is for what jobs store: 4 KiB to 32 KiB, about 16 KiB on average.
	Data = newCutter(int(format.DataCut.Min), 16<<10, int(format.DataCut.Max))
	// Meta is for tables and lists of files: 1 KiB to 8 KiB, about 4 KiB on average.
	Meta = newCutter(int(format.MetaCut.Min), 4<<10, int(format.MetaCut.Max))
)

// newCutter returns a Cutter of chunks that are min to max bytes long, with a
// sure cut at one byte in every. It needs window <= min <= every.
func newCutter(min, every, max int) *Cutter {
	oneIn := func(n int) uint64 { return math.MaxUint64 / uint64(n) }
	return &Cutter{min: min, max: max, first: oneIn(every), best: oneIn(min)}
}

// Max is the size of the largest chunk, in bytes.
func (c *Cutter) Max() int { return c.max }

// Next returns the length of the chunk that p begins with, in bytes. end says
// that nothing comes after p. Next returns 0 when it needs more bytes: when p
// is shorter than Max and not the end, or empty.
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
	// Each place has a hash, of the bytes before it. The chunk ends at the first
	// that is very small. If there is none up to max, the smallest will do: a
	// place that depends on the bytes is found again after a change. In what
	// repeats itself, such as zeros, there is none; then chunks are large.
	below := c.best
	if len(p) < c.max {
		below = c.first // the end is as good a place
	}
	h := roll(p[c.min-window : c.min])
	cut := len(p)
	for i := c.min; ; {
		i, h = scan(p, i, h, below)
		if i == len(p) {
			return cut
		}
		if h < c.first {
			return i
		}
		cut, below = i, h
	}
}

// window is how many bytes a hash is made of: each is shifted left by one bit,
// out of 64, by each that follows.
const window = 64

// gear has a random number for each byte.
var gear = func() (table [256]uint64) {
	for i := range table {
		sum := blake3.Sum256([]byte{byte(i)})
		table[i] = binary.LittleEndian.Uint64(sum[:])
	}
	return table
}()

// roll returns the hash of p.
func roll(p []byte) (h uint64) {
	for _, b := range p {
		h = h<<1 + gear[b]
	}
	return h
}

// scan returns the first place from i on at which the hash is below a bound,
// and that hash; or len(p). h is the hash at i.
//
// A hash is made of the one before it. Two bytes a step halve this chain, and
// with it the time that cutting takes.
func scan(p []byte, i int, h, below uint64) (int, uint64) {
	for ; i+4 <= len(p); i += 4 {
		q := p[i : i+4]
		if h < below {
			return i, h
		}
		g := gear[q[0]]
		if odd := h<<1 + g; odd < below {
			return i + 1, odd
		}
		h = h<<2 + (g<<1 + gear[q[1]])
		if h < below {
			return i + 2, h
		}
		g = gear[q[2]]
		if odd := h<<1 + g; odd < below {
			return i + 3, odd
		}
		h = h<<2 + (g<<1 + gear[q[3]])
	}
	for ; i < len(p) && h >= below; i++ {
		h = h<<1 + gear[p[i]]
	}
	return i, h
}
