// Package cut divides data into chunks whose boundaries depend on the data itself
// (content-defined chunking). Bytes that are inserted, removed or overwritten change only
// the chunks around them: the chunks before and after stay the same.
//
// The boundaries must not change from one version of Holdfast to the next, or the first
// save with the new version sends all data again. A test checks that they do not.
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
	// Each position has a hash, of the bytes before it. The chunk ends at the first
	// position whose hash is very small. If there is none up to max, it ends where the
	// hash is smallest: such a position depends on the bytes, so it is found again after a
	// change elsewhere. In repetitive data, such as zeros, there is neither; then chunks
	// have the maximal size.
	below := c.best
	if len(p) < c.max {
		below = c.first // the data ends here anyway, so only a very small hash is a reason to cut
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

// window is how many bytes a hash depends on. Each byte's contribution is shifted left by
// one bit by every byte that follows, and so out of the 64 bits after that many.
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

// scan returns the first position from i on at which the hash is below a bound,
// and that hash; or len(p). h is the hash at i.
//
// Each hash is computed from the one before, so the processor has to wait for each. The
// loop handles two bytes at a time, which halves the number of waits and the time.
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
