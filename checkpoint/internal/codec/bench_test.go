package codec

import (
	"fmt"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

const chunk = 16 << 10

// BenchmarkEncode and BenchmarkDecode measure the Codec, chunk by chunk.
func BenchmarkEncode(b *testing.B) {
	c := New()
	for _, corpus := range corpora(b) {
		benchEncode(b, corpus, chunk, func(dst, data []byte) []byte {
			_, dst = c.Encode(dst, data)
			return dst
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	c := New()
	for _, corpus := range corpora(b) {
		b.Run(corpus.name, func(b *testing.B) {
			type stored struct {
				e    format.Encoding
				data []byte
			}
			var all []stored
			for i := 0; i < corpusSize; i += chunk {
				e, data := encode(c, corpus.data[i:i+chunk])
				all = append(all, stored{e, data})
			}
			dst := make([]byte, 0, chunk)
			b.SetBytes(corpusSize)
			b.ReportAllocs()
			for b.Loop() {
				for _, s := range all {
					if _, err := c.Decode(dst, s.e, s.data, chunk); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkLevels measures what the Codec could be made of, on chunks and on
// as much as 1 MiB at once: the latter is what cutting data small costs.
func BenchmarkLevels(b *testing.B) {
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression} {
		for _, thorough := range []bool{false, true} {
			e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
				zstd.WithEncoderCRC(false), zstd.WithAllLitEntropyCompression(thorough))
			if err != nil {
				b.Fatal(err)
			}
			for _, size := range []int{chunk, 1 << 20} {
				b.Run(fmt.Sprintf("%v/thorough=%v/%dK", level, thorough, size>>10), func(b *testing.B) {
					for _, corpus := range corpora(b) {
						benchEncode(b, corpus, size, func(dst, data []byte) []byte { return e.EncodeAll(data, dst) })
					}
				})
			}
		}
	}
}

// BenchmarkS2 measures another format of the same library, on chunks and on as much as
// 1 MiB at once: docs/decisions/0026-no-second-compression.md.
func BenchmarkS2(b *testing.B) {
	for _, kind := range []struct {
		name   string
		encode func(dst, data []byte) []byte
	}{{"fast", s2.Encode}, {"better", s2.EncodeBetter}} {
		for _, size := range []int{chunk, 1 << 20} {
			for _, corpus := range corpora(b) {
				b.Run(fmt.Sprintf("%s/%dK/encode", kind.name, size>>10), func(b *testing.B) {
					benchEncode(b, corpus, size, func(dst, data []byte) []byte {
						return kind.encode(dst[:cap(dst)], data)
					})
				})
				b.Run(fmt.Sprintf("%s/%dK/decode/%s", kind.name, size>>10, corpus.name), func(b *testing.B) {
					var all [][]byte
					for i := 0; i < corpusSize; i += size {
						all = append(all, kind.encode(nil, corpus.data[i:i+size]))
					}
					dst := make([]byte, size)
					b.SetBytes(corpusSize)
					for b.Loop() {
						for _, stored := range all {
							if _, err := s2.Decode(dst, stored); err != nil {
								b.Fatal(err)
							}
						}
					}
				})
			}
		}
	}
}

func benchEncode(b *testing.B, corpus corpus, size int, encode func(dst, data []byte) []byte) {
	b.Run(corpus.name, func(b *testing.B) {
		dst := make([]byte, 0, 2*size)
		b.SetBytes(corpusSize)
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			for i := 0; i < corpusSize; i += size {
				n += len(encode(dst, corpus.data[i:i+size]))
			}
		}
		b.ReportMetric(float64(b.N)*corpusSize/float64(n), "ratio")
	})
}

func BenchmarkEntropy(b *testing.B) {
	data := random(sample)
	for b.Loop() {
		entropy(data)
	}
}
