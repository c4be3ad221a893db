package codec

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"go/build"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/s2"
)

const corpusSize = 4 << 20

type corpus struct {
	name string
	data []byte
}

// corpora returns the kinds of data that are tried, corpusSize bytes of each.
func corpora(tb testing.TB) []corpus {
	tb.Helper()
	all, err := makeCorpora()
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

var makeCorpora = sync.OnceValues(func() ([]corpus, error) {
	source, err := goSource()
	return []corpus{
		{"random", random(corpusSize)},
		{"json", jsonLines()},
		{"source", source},
		{"lsm", lsmBlocks(false)},
		{"lsm-snappy", lsmBlocks(true)},
		{"floats", floats()},
		{"base64", base64.StdEncoding.AppendEncode(nil, random(corpusSize))[:corpusSize]},
		{"csv", csv()},
		{"counters", counters()},
		{"half", halfRandom()},
		{"zeros", make([]byte, corpusSize)},
	}, err
})

func random(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

// jsonLines is what a job that keeps orders might write.
func jsonLines() []byte {
	r := rand.New(rand.NewPCG(1, 1))
	var p []byte
	for id := 0; len(p) < corpusSize; id++ {
		p = fmt.Appendf(p, `{"id":%d,"time":"2026-11-%02dT%02d:%02d:%02d.%03dZ","customer":"c-%06d","session":"%016x",`+
			`"status":%q,"items":[{"sku":"%08d","count":%d,"price":%d.%02d}],"total":%d.%02d}`+"\n",
			4_000_000+id, 1+r.IntN(30), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1000), r.IntN(1e6), r.Uint64(),
			[]string{"new", "paid", "shipped", "returned"}[r.IntN(4)], r.IntN(1e5), 1+r.IntN(9), r.IntN(500), r.IntN(100), r.IntN(2000), r.IntN(100))
	}
	return p[:corpusSize]
}

// goSource is the source of the standard library.
func goSource() ([]byte, error) {
	var p []byte
	root := filepath.Join(build.Default.GOROOT, "src")
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if p = append(p, text...); len(p) >= corpusSize {
			return fs.SkipAll
		}
		return err
	})
	if err == nil && len(p) < corpusSize {
		err = fmt.Errorf("%d bytes of source in %s", len(p), root)
	}
	return p[:min(len(p), corpusSize)], err
}

// lsmBlocks is like the tables of an LSM: blocks of 4 KiB with sorted keys
// without their common prefix, and values that are half random; as they are,
// or compressed by snappy one by one.
func lsmBlocks(snappy bool) []byte {
	r := rand.New(rand.NewPCG(2, 2))
	var p []byte
	for key := uint64(0); len(p) < corpusSize; {
		var block []byte
		for len(block) < 4<<10 {
			key += uint64(r.IntN(1000))
			block = append(block, 14, 9, 40)
			block = fmt.Appendf(block, "%08d", key%1e8)
			block = binary.BigEndian.AppendUint64(block, r.Uint64()) // a part of the value that no one can guess
			block = fmt.Appendf(block, "count=%06d;state=open;", r.IntN(1e6))
		}
		if snappy {
			block = s2.EncodeSnappy(nil, block)
		}
		p = append(p, block...)
	}
	return p[:corpusSize]
}

// floats is a table of measurements: no two are the same, all are alike.
func floats() []byte {
	r := rand.New(rand.NewPCG(3, 3))
	var p []byte
	for len(p) < corpusSize {
		p = binary.LittleEndian.AppendUint64(p, math.Float64bits(100+10*r.NormFloat64()))
	}
	return p[:corpusSize]
}

// halfRandom alternates 1 KiB of random bytes with 1 KiB of JSON.
func halfRandom() []byte {
	p, text := random(corpusSize), jsonLines()
	for i := 0; i < len(p); i += 2 << 10 {
		copy(p[i:i+1<<10], text[i:])
	}
	return p
}

// csv is lines of numbers: digits, of which none follow from others.
func csv() []byte {
	r := rand.New(rand.NewPCG(4, 4))
	var p []byte
	for len(p) < corpusSize {
		p = fmt.Appendf(p, "%d,%.6f,%.3f\n", r.Uint32(), r.Float64(), 100*r.NormFloat64())
	}
	return p[:corpusSize]
}

// counters is an array of numbers with two bytes of four in use.
func counters() []byte {
	r := rand.New(rand.NewPCG(5, 5))
	var p []byte
	for len(p) < corpusSize {
		p = binary.LittleEndian.AppendUint32(p, r.Uint32N(1<<16))
	}
	return p[:corpusSize]
}
