package format

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
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

// MaxTree bounds an encoded tree, in bytes: the list of about ten million
// files. Writers and readers hold it in memory.
const MaxTree = 1 << 30

// EncodeTree returns the encoding of entries. It refuses what DecodeTree would
// refuse, so that nothing is stored that can not be read.
//
// A tree is its entries' encodings, end to end, every directory before what is
// in it, and all of it before the directory's next sibling; siblings in byte
// order of their names.
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
func EncodeTree(entries []Entry) ([]byte, error) {
	var tree []byte
	var in order
	for _, e := range entries {
		e.Mode &= modeMask
		if err := in.next(&e); err != nil {
			return nil, err
		}
		if tree = appendEntry(tree, &e); len(tree) > MaxTree {
			return nil, fmt.Errorf("the list of %d files and directories takes more than %d bytes", len(entries), MaxTree)
		}
	}
	return tree, nil
}

func appendEntry(b []byte, e *Entry) []byte {
	body := appendString(nil, e.Path)
	body = binary.AppendUvarint(body, uint64(e.Mode))
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

// DecodeTree reads what EncodeTree returns. It vouches for what a caller relies
// on: paths are clean, in order, and below directories of the same tree; a
// file's chunks add up to its size. It returns an error that wraps ErrCorrupt
// if that is not so.
func DecodeTree(data []byte) ([]Entry, error) {
	var entries []Entry
	var in order
	for len(data) > 0 {
		d := decoder{rest: data}
		body := d.bytes()
		if d.failed {
			return nil, corruptf("the tree ends within entry %d", len(entries)+1)
		}
		data = d.rest
		e, err := decodeEntry(body)
		if err == nil {
			err = in.next(&e)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// order checks entries one after another.
type order struct {
	last string // path of the entry before, or ""
	dirs map[string]bool
}

func (o *order) next(e *Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if o.last != "" && comparePaths(o.last, e.Path) >= 0 {
		return fmt.Errorf("entry %q after %q", e.Path, o.last)
	}
	if parent := path.Dir(e.Path); parent != "." && !o.dirs[parent] {
		return fmt.Errorf("entry %q in no directory", e.Path)
	}
	o.last = e.Path
	if e.Mode.IsDir() {
		if o.dirs == nil {
			o.dirs = make(map[string]bool)
		}
		o.dirs[e.Path] = true
	}
	return nil
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
	mode := d.uvarint()
	seconds, nanos := d.varint(), d.uvarint()
	e.Mode = fs.FileMode(mode)
	e.ModTime = time.Unix(seconds, int64(nanos)).UTC()
	switch e.Mode.Type() {
	case fs.ModeSymlink:
		e.Target = string(d.bytes())
	case 0:
		e.Size = int64(d.uvarint())
		e.Chunks = d.extents()
	}
	if d.failed || len(d.rest) > 0 || mode > math.MaxUint32 || nanos >= 1e9 {
		return Entry{}, fmt.Errorf("entry %q is malformed", e.Path)
	}
	return e, nil
}

// check reports what is wrong with e alone.
func (e *Entry) check() error {
	switch {
	case !fs.ValidPath(e.Path) || strings.ContainsRune(e.Path, 0) || e.Path == "." && !e.Mode.IsDir():
		return fmt.Errorf("entry with path %q", e.Path)
	case e.Mode&^modeMask != 0 || e.Mode.Type() == fs.ModeDir|fs.ModeSymlink:
		return fmt.Errorf("entry %q has mode %v", e.Path, e.Mode)
	case e.Mode.Type() == fs.ModeSymlink && (e.Target == "" || strings.ContainsRune(e.Target, 0)):
		return fmt.Errorf("link %q has target %q", e.Path, e.Target)
	}
	var sum int64
	for i := range e.Chunks {
		if err := e.Chunks[i].check(); err != nil {
			return fmt.Errorf("file %q: %w", e.Path, err)
		}
		sum += e.Chunks[i].Size
	}
	if sum != e.Size {
		return fmt.Errorf("file %q of %d bytes has chunks of %d", e.Path, e.Size, sum)
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
		if d.failed || Encoding(encoding[0]) == Raw { // which has the short form
			d.failed = true
			return
		}
		c.Encoding = Encoding(encoding[0])
	}
	copy(c.Hash[:], d.take(uint64(len(c.Hash))))
}
