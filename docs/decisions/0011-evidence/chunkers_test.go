package evidence

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"
	"github.com/PlakarKorp/go-cdc-chunkers/chunkers/jc"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/ultracdc"
	jotfs "github.com/jotfs/fastcdc-go"
	"github.com/zeebo/blake3"
)

// The sizes that come nearest to cut.Data with all of them: chunks of 16 KiB
// to 20 KiB on average.
const (
	minSize    = 4 << 10
	normalSize = 16 << 10
	maxSize    = 64 << 10
)

// A chunker calls yield with each chunk of data.
type chunker func(tb testing.TB, data []byte, yield func(chunk []byte))

var all = []struct {
	name string
	run  chunker
}{
	{"PlakarKorp/fastcdc-v1.0.0", plakar("fastcdc-v1.0.0")},
	{"PlakarKorp/jc-v1.0.0", plakar("jc-v1.0.0")},
	{"PlakarKorp/jc-v1.1.0", plakar("jc-v1.1.0")},
	{"PlakarKorp/ultracdc", plakar("ultracdc")},
	{"PlakarKorp/jc-zero-value", plakarAlgorithm},
	{"jotfs/normalization=1", jotfsChunker(1)},
	{"jotfs/normalization=2", jotfsChunker(2)},
}

// plakar uses the module as it is meant to be used: with an io.Reader.
func plakar(algorithm string) chunker {
	return func(tb testing.TB, data []byte, yield func([]byte)) {
		opts := &chunkers.ChunkerOpts{MinSize: minSize, NormalSize: normalSize, MaxSize: maxSize}
		c, err := chunkers.NewChunker(algorithm, bytes.NewReader(data), opts)
		if err != nil {
			tb.Fatal(err)
		}
		for {
			chunk, err := c.Next()
			if len(chunk) > 0 {
				yield(chunk)
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// plakarAlgorithm cuts a buffer in place, with the one of its algorithms whose
// zero value is the same as what the module's constructor makes of it.
func plakarAlgorithm(tb testing.TB, data []byte, yield func([]byte)) {
	var c jc.JC
	opts := &chunkers.ChunkerOpts{MinSize: minSize, NormalSize: normalSize, MaxSize: maxSize}
	if err := c.Setup(opts); err != nil {
		tb.Fatal(err)
	}
	for len(data) > 0 {
		n := c.Algorithm(opts, data, len(data))
		yield(data[:n])
		data = data[n:]
	}
}

func jotfsChunker(normalization int) chunker {
	return func(tb testing.TB, data []byte, yield func([]byte)) {
		c, err := jotfs.NewChunker(bytes.NewReader(data), jotfs.Options{
			MinSize: minSize, AverageSize: normalSize, MaxSize: maxSize, BufSize: 8 * maxSize, Normalization: normalization,
		})
		if err != nil {
			tb.Fatal(err)
		}
		for {
			chunk, err := c.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				tb.Fatal(err)
			}
			yield(chunk.Data)
		}
	}
}

func random(n int, seed byte) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// BenchmarkCut is as in checkpoint/internal/cut.
func BenchmarkCut(b *testing.B) {
	data := random(32<<20, 1)
	for _, c := range all {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				c.run(b, data, func([]byte) { n++ })
			}
			b.ReportMetric(float64(b.N)*float64(len(data))/float64(n), "B/chunk")
		})
	}
}

// BenchmarkOverwrite is as in checkpoint/internal/cut, with pages of 16 KiB.
func BenchmarkOverwrite(b *testing.B) {
	const page = 16 << 10
	old := random(256<<20, 1)
	for _, c := range all {
		b.Run(c.name, func(b *testing.B) {
			var sent, changed, chunks float64
			for seed := uint64(0); b.Loop(); seed++ {
				data := bytes.Clone(old)
				pages := len(data) / page
				fresh := rand.NewChaCha8([32]byte{2, byte(seed)})
				for _, at := range rand.New(rand.NewPCG(1, seed)).Perm(pages)[:pages/100] {
					_, _ = fresh.Read(data[at*page : (at+1)*page])
					changed += page
				}
				had := make(map[[32]byte]bool)
				c.run(b, old, func(chunk []byte) { had[blake3.Sum256(chunk)] = true })
				c.run(b, data, func(chunk []byte) {
					if !had[blake3.Sum256(chunk)] {
						sent += float64(len(chunk))
					}
					chunks++
				})
			}
			b.ReportMetric(sent/changed, "sent/changed")
			b.ReportMetric(35*chunks/changed, "table/changed")
			b.ReportMetric(float64(len(old))*float64(b.N)/chunks, "B/chunk")
			b.ReportMetric(0, "ns/op")
		})
	}
}
