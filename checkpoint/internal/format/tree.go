package format

import (
	"encoding/binary"
	"io/fs"
	"path"
	"strings"
	"time"
)

// An Entry is one file, directory or symbolic link of a checkpoint's state.
type Entry struct {
	Path    string      // slash-separated and relative; "." is the root directory
	Mode    fs.FileMode // type and permissions, with setuid, setgid and sticky
	ModTime time.Time   // zero if it is not known
	Size    int64       // of a regular file, in bytes
	Target  string      // of a symbolic link
	Chunks  []Chunk     // of a regular file, in order
}

// modeMask is what is kept of a mode.
const modeMask = fs.ModeDir | fs.ModeSymlink | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky | fs.ModePerm

// AppendEntry appends the encoding of e to b. A tree is its entries' encodings,
// end to end, every directory before what is in it, and all of it before the
// directory's next sibling; siblings in byte order of their names.
//
//	entry   = length, body                  length of the body
//	body    = path, mode, mtime, [target | size, extent...]
//	path    = length, bytes                 target likewise
//	mode    = io/fs.FileMode, as far as modeMask goes
//	mtime   = seconds since 1970, nanoseconds
//	extent  = count, segment, offset, chunk...      chunks that lie end to end
//	segment = 20 bytes                      epoch, writer, n
//	chunk   = size*2 [+1, encoding, stored], hash
//
// Numbers are unsigned varints, seconds a signed one.
func AppendEntry(b []byte, e *Entry) []byte {
	body := appendString(nil, e.Path)
	body = binary.AppendUvarint(body, uint64(e.Mode&modeMask))
	body = binary.AppendVarint(body, e.ModTime.Unix())
	body = binary.AppendUvarint(body, uint64(e.ModTime.Nanosecond()))
	switch e.Mode.Type() {
	case fs.ModeSymlink:
		body = appendString(body, e.Target)
	case 0:
		body = binary.AppendUvarint(body, uint64(e.Size))
		body = appendExtents(body, e.Chunks)
	}
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendExtents(b []byte, chunks []Chunk) []byte {
	for len(chunks) > 0 {
		n := extent(chunks)
		b = binary.AppendUvarint(b, uint64(n))
		b = chunks[0].Segment.append(b)
		b = binary.AppendUvarint(b, uint64(chunks[0].Offset))
		for _, c := range chunks[:n] {
			if c.Encoding == Raw {
				b = binary.AppendUvarint(b, uint64(c.Size)<<1)
			} else {
				b = binary.AppendUvarint(b, uint64(c.Size)<<1|1)
				b = append(b, byte(c.Encoding))
				b = binary.AppendUvarint(b, uint64(c.Stored))
			}
			b = append(b, c.Hash[:]...)
		}
		chunks = chunks[n:]
	}
	return b
}

// extent returns how many of chunks lie end to end in one segment.
func extent(chunks []Chunk) int {
	n := 1
	for n < len(chunks) {
		last, next := &chunks[n-1], &chunks[n]
		if next.Segment != last.Segment || next.Offset != last.Offset+last.StoredSize() {
			break
		}
		n++
	}
	return n
}

// DecodeTree reads the encodings of entries that AppendEntry made. It vouches
// for what a caller relies on: paths are clean, in order, and below
// directories of the same tree; a file's chunks add up to its size.
func DecodeTree(data []byte) ([]Entry, error) {
	var entries []Entry
	dirs := map[string]bool{}
	last := ""
	for len(data) > 0 {
		d := decoder{rest: data}
		body := d.bytes()
		if d.failed {
			return nil, corruptf("tree ends within entry %d", len(entries)+1)
		}
		data = d.rest
		e, err := decodeEntry(body)
		if err != nil {
			return nil, err
		}
		if len(entries) > 0 && comparePaths(last, e.Path) >= 0 {
			return nil, corruptf("entry %q after %q", e.Path, last)
		}
		if parent := path.Dir(e.Path); parent != "." && !dirs[parent] {
			return nil, corruptf("entry %q in no directory", e.Path)
		}
		if e.Mode.IsDir() {
			dirs[e.Path] = true
		}
		last = e.Path
		entries = append(entries, e)
	}
	return entries, nil
}

// comparePaths orders paths as a walk meets them: "a", "a/b", "a-b".
func comparePaths(a, b string) int {
	if a == "." || b == "." {
		return strings.Compare(strings.TrimPrefix(a, "."), strings.TrimPrefix(b, "."))
	}
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}

func decodeEntry(body []byte) (Entry, error) {
	d := decoder{rest: body}
	e := Entry{Path: string(d.bytes())}
	e.Mode = fs.FileMode(d.uvarint())
	seconds, nanos := d.varint(), d.uvarint()
	e.ModTime = time.Unix(seconds, int64(nanos)).UTC()
	switch e.Mode.Type() {
	case fs.ModeSymlink:
		e.Target = string(d.bytes())
	case 0:
		e.Size = int64(d.uvarint())
		e.Chunks = d.extents()
	}
	switch {
	case d.failed || len(d.rest) > 0:
		return Entry{}, corruptf("entry %q is malformed", e.Path)
	case !fs.ValidPath(e.Path) || e.Path == "." && !e.Mode.IsDir():
		return Entry{}, corruptf("entry with path %q", e.Path)
	case e.Mode&^modeMask != 0 || e.Mode&(fs.ModeDir|fs.ModeSymlink) == fs.ModeDir|fs.ModeSymlink || nanos >= 1e9:
		return Entry{}, corruptf("entry %q has mode %v, time %d", e.Path, e.Mode, nanos)
	case e.Mode.Type() == fs.ModeSymlink && (e.Target == "" || strings.ContainsRune(e.Target, 0)):
		return Entry{}, corruptf("link %q has target %q", e.Path, e.Target)
	}
	return e, e.checkChunks()
}

func (e *Entry) checkChunks() error {
	var sum int64
	for i := range e.Chunks {
		if err := e.Chunks[i].check(); err != nil {
			return err
		}
		sum += e.Chunks[i].Size
	}
	if sum != e.Size {
		return corruptf("file %q of %d bytes has chunks of %d", e.Path, e.Size, sum)
	}
	return nil
}

// decoder takes values off the front of rest. Once it meets bytes that it can
// not read it has failed, and gives zeros.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) take(n uint64) []byte {
	if d.failed || n > uint64(len(d.rest)) {
		d.failed, d.rest = true, nil
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
		d.failed, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.failed, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) extents() []Chunk {
	var chunks []Chunk
	for len(d.rest) > 0 {
		n := d.uvarint()
		id := d.take(segmentIDLen)
		offset := d.uvarint()
		if d.failed || n == 0 {
			d.failed = true
			return nil
		}
		c := Chunk{Segment: decodeSegmentID(id), Offset: int64(offset)}
		for ; n > 0 && !d.failed; n-- {
			d.chunk(&c)
			chunks = append(chunks, c)
			c.Offset += c.StoredSize()
		}
	}
	return chunks
}

func (d *decoder) chunk(c *Chunk) {
	size := d.uvarint()
	c.Size, c.Encoding, c.Stored = int64(size>>1), Raw, 0
	if size&1 != 0 {
		encoding := d.take(1)
		c.Stored = int64(d.uvarint())
		if d.failed {
			return
		}
		c.Encoding = Encoding(encoding[0])
	}
	copy(c.Hash[:], d.take(uint64(len(c.Hash))))
}
