package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// roundTrip fails unless data comes back from what c stores for it, and says
// how that was encoded.
func roundTrip(t interface {
	Helper()
	Fatalf(string, ...any)
}, c *Codec, data []byte,
) (format.Encoding, int) {
	t.Helper()
	before := []byte("before")
	e, stored := c.Encode(before, data)
	if !bytes.HasPrefix(stored, before) {
		t.Fatalf("what was there before is gone")
	}
	stored = stored[len(before):]
	if e == format.Raw {
		if len(stored) > 0 {
			t.Fatalf("%d bytes were appended although data is to be stored as it is", len(stored))
		}
		stored = data
	}
	if len(stored) > len(data) || e != format.Raw && len(stored) == len(data) {
		t.Fatalf("%d bytes stored in %d, encoding %d", len(data), len(stored), e)
	}
	got, err := c.Decode(before, e, stored, len(data))
	if err != nil {
		t.Fatalf("%v", err)
	}
	if !bytes.Equal(got, append([]byte("before"), data...)) {
		t.Fatalf("%d bytes stored in %d, encoding %d: other bytes come back", len(data), len(stored), e)
	}
	return e, len(stored)
}

// encode returns what is to be stored for data.
func encode(c *Codec, data []byte) (format.Encoding, []byte) {
	e, stored := c.Encode(nil, data)
	if e == format.Raw {
		stored = data
	}
	return e, stored
}

func TestRoundTrip(t *testing.T) {
	c := New()
	all := corpora(t)
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		for range rapid.IntRange(0, 3).Draw(t, "parts") {
			corpus := rapid.SampledFrom(all).Draw(t, "corpus")
			from := rapid.IntRange(0, corpusSize).Draw(t, "from")
			n := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, 64<<10)).Draw(t, "length")
			data = append(data, corpus.data[from:min(from+n, corpusSize)]...)
		}
		roundTrip(t, c, data)
	})
}

func TestRoundTripOfLargeChunks(t *testing.T) {
	c := New()
	for _, corpus := range corpora(t) {
		roundTrip(t, c, corpus.data[:1<<20])
	}
	roundTrip(t, c, make([]byte, format.MaxChunk))
}

func TestWhatIsCompressed(t *testing.T) {
	want := map[string]format.Encoding{"random": format.Raw, "lsm-snappy": format.Raw, "floats": format.Raw}
	c := New()
	for _, corpus := range corpora(t) {
		e, ok := want[corpus.name]
		if !ok {
			e = format.Zstd
		}
		data := corpus.data[corpusSize/2:][:chunk]
		got, stored := roundTrip(t, c, data)
		if got != e {
			t.Errorf("%s: encoding %d, want %d", corpus.name, got, e)
		}
		if got != format.Raw && stored > chunk-chunk/16 {
			t.Errorf("%s: %d bytes are compressed to %d", corpus.name, chunk, stored)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	c := New()
	all := corpora(t)
	var group sync.WaitGroup
	for i := range 4 * coders {
		group.Go(func() {
			for k, corpus := range all {
				data := corpus.data[i*100:][:chunk+k]
				e, stored := encode(c, data)
				if got, err := c.Decode(nil, e, stored, len(data)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s: %v", corpus.name, err)
				}
			}
		})
	}
	group.Wait()
}

// A Codec is one of a program's fixed costs: it must not grow with the machine.
func TestMemoryOnALargeMachine(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(64))
	all := corpora(t)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	c := New()
	for range 2 * coders { // every coder, since they take turns
		for _, corpus := range all {
			e, stored := encode(c, corpus.data[:chunk])
			if _, err := c.Decode(make([]byte, 0, chunk), e, stored, chunk); err != nil {
				t.Fatal(err)
			}
		}
	}
	took := heap() - before
	t.Logf("%d KiB", took>>10)
	if took > 16<<20 {
		t.Errorf("a Codec takes %d bytes", took)
	}
	runtime.KeepAlive(c)
	runtime.KeepAlive(all)
}

// encoded returns data as a zstd frame with some options.
func encoded(tb testing.TB, data []byte, opts ...zstd.EOption) []byte {
	e, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		tb.Fatal(err)
	}
	return e.EncodeAll(data, nil)
}

// endless returns a frame that does not say how long its data is: n blocks of
// 128 KiB of zeros, 4 bytes each. The format is RFC 8878.
func endless(n int) []byte {
	const window, last, repeat = 0x50, 1, 1 << 1 // a window of 1 MiB
	p := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window}
	for i := range n {
		header := repeat | 128<<10<<3
		if i == n-1 {
			header |= last
		}
		p = append(p, byte(header), byte(header>>8), byte(header>>16), 0)
	}
	return p
}

type hostile struct {
	name   string
	e      format.Encoding
	stored []byte
	size   int
}

func hostileCases(tb testing.TB) []hostile {
	text := jsonLines()[:chunk]
	good := encoded(tb, text)
	lies := encoded(tb, text, zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false))
	lies[5], lies[6] = 0, 0 // the size, less 256
	return sealed([]hostile{
		{"raw, too short", format.Raw, text[1:], chunk},
		{"raw, too long", format.Raw, text, chunk - 1},
		{"unknown encoding", format.Encoding(200), text, chunk},
		{"nothing", format.Zstd, nil, chunk},
		{"no zstd", format.Zstd, text, chunk},
		{"truncated", format.Zstd, good[:len(good)/2], chunk},
		{"header alone", format.Zstd, good[:6], chunk},
		{"less data than size", format.Zstd, good, chunk + 1},
		{"more data than size", format.Zstd, good, chunk - 1},
		{"data where there is none", format.Zstd, good, 0},
		{"twice", format.Zstd, append(bytes.Clone(good), good...), chunk},
		{"rubbish after it", format.Zstd, append(bytes.Clone(good), text...), chunk},
		{"more data than it says", format.Zstd, lies, 256},
		{"a bomb", format.Zstd, encoded(tb, make([]byte, format.MaxChunk)), chunk},
		{"a bomb that does not tell", format.Zstd, endless(512), chunk},
		{"a bomb of a frame each", format.Zstd, bytes.Repeat(endless(1), 512), chunk},
		{"a little more than a lot", format.Zstd, endless(9), 1 << 20},
		{"says 4 GiB", format.Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0}, chunk},
		{"skips 4 GiB", format.Zstd, []byte{0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 0}, chunk},
		{"needs a dictionary", format.Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 16, 1, 0, 0}, 16},
	})
}

// sealed returns cases with the right checksums.
func sealed(cases []hostile) []hostile {
	for i := range cases {
		if h := &cases[i]; h.e == format.Zstd {
			h.stored = binary.LittleEndian.AppendUint32(bytes.Clone(h.stored), checksum(h.stored))
		}
	}
	return cases
}

// decodeHostile decodes what may be wrong, and fails if that takes much memory
// or touches what it should not.
func decodeHostile(t *testing.T, c *Codec, h hostile) ([]byte, error) {
	t.Helper()
	buf := []byte("before-after")
	dst := buf[:6:6]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := c.Decode(dst, h.e, h.stored, h.size)
	runtime.ReadMemStats(&after)
	// The data, a quarter more where a block too much is found, and what the decoder keeps.
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20+3*uint64(h.size) {
		t.Errorf("%d bytes were allocated for %d", took, h.size)
	}
	if string(buf) != "before-after" || !bytes.HasPrefix(got, dst) {
		t.Errorf("%q, %q", buf, got[:min(len(got), 20)])
	}
	switch {
	case err == nil && len(got) != len(dst)+h.size:
		t.Errorf("%d bytes, want %d", len(got)-len(dst), h.size)
	case err != nil && (!errors.Is(err, format.ErrCorrupt) || len(got) != len(dst)):
		t.Errorf("%d bytes, %v", len(got)-len(dst), err)
	}
	return got, err
}

func TestHostileInput(t *testing.T) {
	c := New()
	for _, h := range hostileCases(t) {
		t.Run(h.name, func(t *testing.T) {
			if _, err := decodeHostile(t, c, h); err == nil {
				t.Error("no error")
			}
		})
	}
}

// A buffer may be one of several that share memory: what lies beyond is not ours.
func TestDecodeWritesNoFurtherThanSize(t *testing.T) {
	c := New()
	after := bytes.Repeat([]byte("after"), 100_000)
	for _, h := range hostileCases(t) {
		buf := append(make([]byte, h.size), after...)
		if _, err := c.Decode(buf[:0], h.e, h.stored, h.size); err == nil {
			t.Errorf("%s: no error", h.name)
		}
		if !bytes.Equal(buf[h.size:], after) {
			t.Errorf("%s: wrote beyond %d bytes", h.name, h.size)
		}
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	c := New()
	data := jsonLines()[:1000]
	e, stored := c.Encode(nil, data)
	for n := range stored {
		if _, err := decodeHostile(t, c, hostile{fmt.Sprint(n), e, stored[:n], len(data)}); err == nil {
			t.Errorf("%d of %d bytes: no error", n, len(stored))
		}
	}
}

// Also where a decoder would not look.
func TestEveryFlippedBitIsFound(t *testing.T) {
	c := New()
	data := jsonLines()[:1000]
	e, stored := c.Encode(nil, data)
	for i := range 8 * len(stored) {
		stored[i/8] ^= 1 << (i % 8)
		if _, err := c.Decode(nil, e, stored, len(data)); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("bit %d of byte %d: %v", i%8, i/8, err)
		}
		stored[i/8] ^= 1 << (i % 8)
	}
}

func FuzzDecode(f *testing.F) {
	for _, h := range hostileCases(f) {
		if len(h.stored) < 1<<10 { // what is longer is only slower
			f.Add(byte(h.e), h.stored, uint32(h.size))
		}
	}
	for _, corpus := range corpora(f) {
		e, stored := encode(New(), corpus.data[:500])
		f.Add(byte(e), stored, uint32(500))
	}
	c := New()
	f.Fuzz(func(t *testing.T, e byte, frame []byte, size uint32) {
		h := sealed([]hostile{{"", format.Encoding(e), frame, int(size % (256 << 10))}})[0]
		got, err := decodeHostile(t, c, h)
		if err != nil {
			return
		}
		roundTrip(t, c, got)
	})
}
