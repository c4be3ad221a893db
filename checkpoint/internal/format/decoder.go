package format

import "encoding/binary"

// decoder takes values off the front of rest. Once it meets bytes that it can
// not read it has failed, and gives zeros.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) fail() { d.failed, d.rest = true, nil }

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail()
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// parts is what is decoded when it comes in parts.
type parts struct {
	rest []byte // what is not decoded yet
	buf  []byte // which rest is the end of
}

// add takes over a part, of which it keeps a copy.
func (p *parts) add(part []byte) {
	n := copy(p.buf, p.rest)
	p.buf = append(p.buf[:n], part...)
	p.rest = p.buf
}
