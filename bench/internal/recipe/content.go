package recipe

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strconv"
)

// Half of the content is random bytes, which nothing compresses, and half is
// JSON lines, which compress to about a quarter.
type kind int

const (
	random kind = iota
	lines
	kinds
)

// content returns an endless stream. It depends on its kind and name alone.
func content(k kind, name string) io.Reader {
	source := rand.NewChaCha8(sha256.Sum256([]byte("holdfast benchmark, version 1: " + name)))
	if k == random {
		return source
	}
	return &events{source: source}
}

// events are JSON lines, such as a job logs or keeps:
//
//	{"id":17,"time":1790000004211,"user":"u048213","event":"paid","amount":"3391.07","session":"5f0c93a1e2b4d876"}
type events struct {
	source *rand.ChaCha8
	id     int64
	rest   []byte // of the last line
}

var names = [...]string{"viewed", "searched", "ordered", "paid", "shipped", "returned", "rated", "left"}

func (e *events) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(e.rest) == 0 {
			e.next()
		}
		copied := copy(p[n:], e.rest)
		e.rest = e.rest[copied:]
		n += copied
	}
	return n, nil
}

func (e *events) next() {
	x, session := e.source.Uint64(), e.source.Uint64()
	take := func(n uint64) uint64 { // of the digits of x in mixed radix
		digit := x % n
		x /= n
		return digit
	}
	b := append(e.rest[:0:cap(e.rest)], `{"id":`...)
	b = strconv.AppendInt(b, e.id, 10)
	b = append(b, `,"time":`...)
	b = strconv.AppendInt(b, 1_790_000_000_000+e.id*250+int64(take(250)), 10)
	b = append(b, `,"user":"u`...)
	b = appendDigits(b, take(100_000), 6)
	b = append(b, `","event":"`...)
	b = append(b, names[take(uint64(len(names)))]...)
	b = append(b, `","amount":"`...)
	b = strconv.AppendUint(b, take(10_000), 10)
	b = append(b, '.')
	b = appendDigits(b, take(100), 2)
	b = append(b, `","session":"`...)
	b = appendHex(b, session)
	b = append(b, "\"}\n"...)
	e.rest = b
	e.id++
}

func appendDigits(b []byte, v uint64, width int) []byte {
	var digits [20]byte
	for i := width - 1; i >= 0; i-- {
		digits[i] = '0' + byte(v%10)
		v /= 10
	}
	return append(b, digits[:width]...)
}

func appendHex(b []byte, v uint64) []byte {
	const hexits = "0123456789abcdef"
	var bytes [8]byte
	binary.BigEndian.PutUint64(bytes[:], v)
	for _, x := range bytes {
		b = append(b, hexits[x>>4], hexits[x&15])
	}
	return b
}
