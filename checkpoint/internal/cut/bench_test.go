package cut

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
)

func BenchmarkCut(b *testing.B) {
	p := random(32<<20, 1)
	for _, bench := range []struct {
		name string
		data []byte
		c    *Cutter
		use  func(chunk []byte)
	}{
		{"data", p, Data, func([]byte) {}},
		{"data+hash", p, Data, func(chunk []byte) { blake3.Sum256(chunk) }},
		{"meta", p, Meta, func([]byte) {}},
		{"zeros", make([]byte, len(p)), Data, func([]byte) {}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				for chunk := range bench.c.chunks(bench.data) {
					bench.use(chunk)
					n++
				}
			}
			b.ReportMetric(float64(b.N)*float64(len(p))/float64(n), "B/chunk")
		})
	}
	b.Run("hash", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			for i := 0; i < len(p); i += 16 << 10 {
				blake3.Sum256(p[i : i+16<<10])
			}
		}
	})
}

// BenchmarkOverwrite reports what a save sends after 1 % of a file of 256 MiB
// was written over in scattered pages: bytes of new chunks, and of the table
// at 35 bytes a chunk, for each byte that changed.
func BenchmarkOverwrite(b *testing.B) {
	old := random(256<<20, 1)
	for _, kib := range [][3]int{
		{2, 8, 16}, {4, 8, 32}, {4, 8, 64}, {4, 16, 24}, {4, 16, 32}, {4, 16, 64}, {4, 24, 32},
		{8, 16, 32}, {4, 32, 64}, {8, 32, 64},
	} {
		c := newCutter(kib[0]<<10, kib[1]<<10, kib[2]<<10)
		for _, page := range []int{16 << 10, 4 << 10} {
			b.Run(fmt.Sprintf("KiB=%d-%d-%d/page=%dK", kib[0], kib[1], kib[2], page>>10), func(b *testing.B) {
				var o overwrite
				for seed := uint64(0); b.Loop(); seed++ {
					o.measure(c, old, page, seed)
				}
				b.ReportMetric(o.sent/o.changed, "sent/changed")
				b.ReportMetric(35*o.chunks/o.changed, "table/changed")
				b.ReportMetric(float64(len(old))*float64(b.N)/o.chunks, "B/chunk")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

type overwrite struct{ sent, changed, chunks float64 }

// measure adds what is sent after 1 % of old was written over.
func (o *overwrite) measure(c *Cutter, old []byte, page int, seed uint64) {
	data := bytes.Clone(old)
	pages := len(data) / page
	fresh := rand.NewChaCha8([32]byte{2, byte(seed)})
	for _, at := range rand.New(rand.NewPCG(1, seed)).Perm(pages)[:pages/100] {
		_, _ = fresh.Read(data[at*page : (at+1)*page])
		o.changed += float64(page)
	}
	o.add(c, old, data)
}

// add adds what is sent of data when old is there.
func (o *overwrite) add(c *Cutter, old, data []byte) {
	had := make(map[[32]byte]bool)
	for chunk := range c.chunks(old) {
		had[blake3.Sum256(chunk)] = true
	}
	for chunk := range c.chunks(data) {
		if !had[blake3.Sum256(chunk)] {
			o.sent += float64(len(chunk))
		}
		o.chunks++
	}
}

// BenchmarkTable reports how much of the table of a file of 256 MiB is sent
// after as many places of the file changed: of the table's own bytes, and of a
// table of its chunks. Each place takes three entries.
func BenchmarkTable(b *testing.B) {
	const entry, entries = 35, 16 << 10
	old := random(entry*entries, 1)
	for _, size := range [][3]int{{256, 1 << 10, 2 << 10}, {512, 2 << 10, 4 << 10}, {1 << 10, 4 << 10, 8 << 10}, {1 << 10, 4 << 10, 16 << 10}, {4 << 10, 16 << 10, 32 << 10}} {
		c := newCutter(size[0], size[1], size[2])
		for _, places := range []int{1, 16, 164} {
			b.Run(fmt.Sprintf("bytes=%d-%d-%d/places=%d", size[0], size[1], size[2], places), func(b *testing.B) {
				var o overwrite
				for seed := uint64(0); b.Loop(); seed++ {
					data := slices.Clone(old)
					r := rand.New(rand.NewPCG(1, seed))
					for range places {
						at := entry * r.IntN(entries-3)
						copy(data[at:], random(3*entry, byte(r.Uint32())))
					}
					o.add(c, old, data)
				}
				b.ReportMetric(o.sent/float64(b.N), "sent-B")
				b.ReportMetric(entry*o.chunks/float64(b.N), "table-B")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
