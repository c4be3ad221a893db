package cut

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// small has sizes at which a few hundred bytes make several chunks.
var small = newCutter(64, 96, 192)

var cutters = map[string]*Cutter{"data": Data, "meta": Meta, "small": small}

// chunks yields each chunk of p.
func (c *Cutter) chunks(p []byte) func(yield func(chunk []byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			n := c.Next(p, true)
			if !yield(p[:n]) {
				return
			}
			p = p[n:]
		}
	}
}

// lengths returns how long each chunk of p is.
func (c *Cutter) lengths(p []byte) []int {
	var all []int
	for chunk := range c.chunks(p) {
		all = append(all, len(chunk))
	}
	return all
}

// plain is Next of everything that is left, as simple as it can be said.
func (c *Cutter) plain(p []byte) int {
	n := min(len(p), c.max)
	best, cut := c.best, n
	for i := c.min; i < n; i++ {
		h := roll(p[i-window : i])
		if h < c.first {
			return i
		}
		if h < best && n == c.max {
			best, cut = h, i
		}
	}
	return cut
}

func random(n int, seed byte) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// drawData draws up to about n bytes: random ones, repeated ones, and zeros.
func drawData(t *rapid.T, n int) []byte {
	var p []byte
	for range rapid.IntRange(0, 6).Draw(t, "parts") {
		part := rapid.IntRange(0, n/6).Draw(t, "length")
		repeated := random(rapid.SampledFrom([]int{1, 3, 100, n}).Draw(t, "period"), rapid.Byte().Draw(t, "seed"))
		if rapid.IntRange(0, 3).Draw(t, "zeros") == 0 {
			clear(repeated)
		}
		for from := len(p); len(p)-from < part; {
			p = append(p, repeated[:min(len(repeated), part-(len(p)-from))]...)
		}
	}
	return p
}

func TestSameCutsHoweverTheBytesArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := cutters[rapid.SampledFrom([]string{"data", "meta", "small"}).Draw(t, "cutter")]
		data := drawData(t, 12*c.max)
		room := c.max + rapid.IntRange(0, c.max).Draw(t, "room")
		var got []int
		var buf []byte
		for rest := data; ; {
			n := c.Next(buf, len(rest) == 0)
			if n > 0 {
				got = append(got, n)
				buf = slices.Delete(buf, 0, n)
				continue
			}
			if len(rest) == 0 {
				break
			}
			n = min(len(rest), rapid.IntRange(1, room-len(buf)).Draw(t, "read"))
			buf = append(buf, rest[:n]...)
			rest = rest[n:]
		}
		if want := c.lengths(data); !slices.Equal(got, want) {
			t.Fatalf("%v\nwant %v", got, want)
		}
		if len(buf) != 0 {
			t.Fatalf("%d bytes are in no chunk", len(buf))
		}
	})
}

func TestNextSaysWhenItNeedsMore(t *testing.T) {
	for name, c := range cutters {
		for _, n := range []int{0, 1, c.min, c.max - 1} {
			if got := c.Next(random(n, 1), false); got != 0 {
				t.Errorf("%s: %d bytes: %d", name, n, got)
			}
		}
		if got := c.Next(nil, true); got != 0 {
			t.Errorf("%s: no bytes: %d", name, got)
		}
		for _, n := range []int{1, c.min - 1, c.min} {
			if got := c.Next(random(n, 1), true); got != n {
				t.Errorf("%s: the last %d bytes: %d", name, n, got)
			}
		}
	}
}

// check fails unless data is cut as plain cuts it, between min and max.
func check(t interface{ Fatalf(string, ...any) }, c *Cutter, data []byte) {
	for rest := data; len(rest) > 0; {
		n := c.Next(rest, true)
		if want := c.plain(rest); n != want {
			t.Fatalf("at %d: a chunk of %d bytes, want %d", len(data)-len(rest), n, want)
		}
		if n > c.max || n < min(c.min, len(rest)) {
			t.Fatalf("at %d: a chunk of %d bytes", len(data)-len(rest), n)
		}
		rest = rest[n:]
	}
}

func TestCutsAreWhereTheyAreSaidToBe(t *testing.T) {
	for _, c := range []*Cutter{Data, Meta} {
		check(t, c, random(10*c.max+1, 6))
	}
	rapid.Check(t, func(t *rapid.T) { check(t, small, drawData(t, 12*small.max)) })
}

func FuzzNext(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, 1000))
	f.Add(random(1000, 1))
	f.Add(bytes.Repeat([]byte("checkpoint "), 100))
	f.Fuzz(func(t *testing.T, data []byte) { check(t, small, data) })
}

// What is in stores was cut with these: other cuts would send all of it again.
func TestCutsDoNotMove(t *testing.T) {
	data := random(100_000, 1)
	for _, x := range []struct {
		c    *Cutter
		data []byte
		want []int
	}{
		{Data, data, []int{13059, 7824, 16159, 22709, 5524, 7173, 9417, 10690, 7445}},
		{Meta, data[:25_000], []int{1612, 5665, 1550, 1547, 2685, 7824, 2721, 1396}},
		{Data, make([]byte, 100_000), []int{32768, 32768, 32768, 1696}},
	} {
		if got := x.c.lengths(x.data); !slices.Equal(got, x.want) {
			t.Errorf("%v\nwant %v", got, x.want)
		}
	}
}

func TestAnEditMovesFewCuts(t *testing.T) {
	const rounds = 50
	r := rand.New(rand.NewPCG(1, 2))
	for _, edit := range []struct {
		name string
		do   func(p []byte, at int) []byte
	}{
		{"insert", func(p []byte, at int) []byte { return slices.Insert(p, at, 'x', 'y', 'z') }},
		{"delete", func(p []byte, at int) []byte { return slices.Delete(p, at, at+1) }},
		{"overwrite", func(p []byte, at int) []byte { p[at]++; return p }},
	} {
		t.Run(edit.name, func(t *testing.T) {
			for _, c := range []*Cutter{Meta, small} {
				old := random(64*c.max, 3)
				had := make(map[string]bool)
				for chunk := range c.chunks(old) {
					had[string(chunk)] = true
				}
				sum := 0
				for range rounds {
					fresh := 0
					for chunk := range c.chunks(edit.do(bytes.Clone(old), r.IntN(len(old)))) {
						if !had[string(chunk)] {
							fresh++
						}
					}
					if fresh == 0 || fresh > len(had)/4 {
						t.Fatalf("max %d: %d of %d chunks change", c.max, fresh, len(had))
					}
					sum += fresh
				}
				if mean := float64(sum) / rounds; mean > 2.5 {
					t.Errorf("max %d: %.2f chunks change with each edit", c.max, mean)
				}
			}
		})
	}
}

func TestWhatRepeatsItselfIsStoredOnce(t *testing.T) {
	for _, period := range []int{1, 2, 7, 64, 100, 1024, 4096} {
		for _, c := range []*Cutter{Data, Meta} {
			t.Run(fmt.Sprintf("%d bytes, max %d", period, c.max), func(t *testing.T) {
				data := bytes.Repeat(random(period, 4), 4<<20/period)
				distinct := make(map[string]bool)
				for chunk := range c.chunks(data) {
					distinct[string(chunk)] = true
				}
				// Either a place in the pattern is a cut: then all chunks but the first
				// begin there. Or they are as long as can be, and begin all over it.
				begins := max(period/gcd(period, c.max), 2)
				if len(distinct) > begins+1 { // the last is cut short
					t.Errorf("%d different chunks, want %d", len(distinct), begins+1)
				}
			})
		}
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func TestZerosMakeLargeChunks(t *testing.T) {
	for name, c := range cutters {
		if n := c.Next(make([]byte, c.max), false); n != c.max {
			t.Errorf("%s: %d", name, n)
		}
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	data := random(1<<20, 5)
	if n := testing.AllocsPerRun(10, func() {
		for rest := data; len(rest) > 0; {
			rest = rest[Data.Next(rest, true):]
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
