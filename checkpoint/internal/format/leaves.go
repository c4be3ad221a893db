package format

import (
	"encoding/binary"
	"fmt"
)

// This file is about the parts in which a tree is stored. A leaf is some of its entries, in
// order. A later tree refers to the leaves in which nothing changed, and a writer finds these
// without reading them: the list of leaves says what the file system said of their files.

// A Leaf is a part of a tree.
type Leaf struct {
	First string // path of its first entry
	Files int    // regular files in it
	Bytes int64  // in them

	// Fingerprint is a hash of all names, link targets, modes, sizes, times, inodes and owners
	// in the leaf. It is zero if a file may change without it.
	Fingerprint Hash

	// Uses says what the leaf's files need of each segment: their chunks and their tables.
	Uses []Use

	// Chunks are the leaf's entries, as a [TreeEncoder] encodes them.
	Chunks []Chunk
}

// A Use says how many stored bytes of a segment are chunks of something. A chunk that two
// files share may be counted twice.
type Use struct {
	Segment SegmentID
	Bytes   int64
}

const (
	// LeafSize is how many bytes a leaf has at least when a writer ends it before an entry that
	// is no good place for that: see [StartsLeaf]. So a leaf has less, or one entry more.
	LeafSize = 32 << 10
	// leafShare is how many entries a leaf has on average: enough to make the list of leaves
	// a fiftieth of the list of files, and so few that a leaf is read and written at once.
	leafShare = 128
	// MaxLeaves bounds the encoded list of leaves, in bytes.
	MaxLeaves = 256 << 20
	// maxUses bounds the segments that a file or a leaf can use.
	maxUses = 1 << 20
	useLen  = segmentIDLen + binary.MaxVarintLen64
)

// StartsLeaf reports whether a writer begins a leaf with the entry of that path. It depends on
// the path alone: so a leaf begins where it began before, whatever was added, removed or
// changed elsewhere.
func StartsLeaf(path string) bool {
	h := Sum([]byte(path))
	return binary.LittleEndian.Uint64(h[:])%leafShare == 0
}

// EncodeLeaves encodes a list of leaves. It refuses what [DecodeLeaves] would refuse.
//
//	list    = leaf...
//	leaf    = length, body                          length of the body
//	body    = path, files, bytes, print, uses, chunk...
//	path    = length, bytes                         of the first entry
//	print   = 0 | 1, fingerprint (32 bytes)
//	uses    = number, use...                        by segment, ascending
//	use     = segment (20 bytes), bytes
//	chunk   = as in a table: see [AppendTable]
//
// Numbers are unsigned varints.
func EncodeLeaves(leaves []Leaf) ([]byte, error) {
	var list, body []byte
	var in leafOrder
	for i := range leaves {
		l := &leaves[i]
		if err := in.check(l); err != nil {
			return nil, unreadable("list of leaves", err)
		}
		body = l.append(body[:0])
		list = binary.AppendUvarint(list, uint64(len(body)))
		if list = append(list, body...); len(list) > MaxLeaves {
			return nil, fmt.Errorf("the list of the leaves of the tree takes more than %d bytes at %q", MaxLeaves, l.First)
		}
	}
	return list, nil
}

func (l *Leaf) append(b []byte) []byte {
	b = appendString(b, l.First)
	b = binary.AppendUvarint(b, uint64(l.Files))
	b = binary.AppendUvarint(b, uint64(l.Bytes))
	if l.Fingerprint == (Hash{}) {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), l.Fingerprint[:]...)
	}
	b = appendUses(b, l.Uses)
	var at place
	for i := range l.Chunks {
		b = at.append(b, &l.Chunks[i])
	}
	return b
}

func appendUses(b []byte, uses []Use) []byte {
	b = binary.AppendUvarint(b, uint64(len(uses)))
	for i := range uses {
		b = uses[i].Segment.append(b)
		b = binary.AppendUvarint(b, uint64(uses[i].Bytes))
	}
	return b
}

// DecodeLeaves decodes what EncodeLeaves made, for a state that has so many regular files, and
// so many bytes in them. If the leaves do not have just these, or cannot be, its error wraps
// ErrCorrupt. It does not check that chunks are inside their segments, which [Places] does.
func DecodeLeaves(data []byte, files int, bytes int64) ([]Leaf, error) {
	var leaves []Leaf
	var in leafOrder
	d := decoder{rest: data}
	for len(d.rest) > 0 {
		l, ok := decodeLeaf(d.bytes())
		if !ok || d.failed {
			return nil, corruptf("leaf %d is malformed", len(leaves)+1)
		}
		if err := in.check(&l); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		leaves = append(leaves, l)
	}
	if in.files != int64(files) || in.bytes != bytes {
		return nil, corruptf("leaves of %d files and %d bytes; the manifest says %d and %d", in.files, in.bytes, files, bytes)
	}
	return leaves, nil
}

func decodeLeaf(body []byte) (l Leaf, ok bool) {
	d := decoder{rest: body}
	l.First = string(d.bytes())
	l.Files, l.Bytes = int(d.uvarint()), int64(d.uvarint())
	switch known := d.take(1); {
	case d.failed || known[0] > 1:
		return l, false
	case known[0] == 1:
		copy(l.Fingerprint[:], d.take(uint64(len(l.Fingerprint))))
		if l.Fingerprint == (Hash{}) { // which has the short form
			return l, false
		}
	}
	l.Uses = d.uses()
	var at place
	for len(d.rest) > 0 {
		l.Chunks = append(l.Chunks, d.chunk(&at))
	}
	return l, !d.failed
}

func (d *decoder) uses() (uses []Use) {
	n := d.uvarint()
	if n > maxUses || n > uint64(len(d.rest)/(segmentIDLen+1)) {
		d.fail()
		return nil
	}
	for range n {
		id := d.take(segmentIDLen)
		bytes := d.uvarint()
		if d.failed {
			return nil
		}
		uses = append(uses, Use{decodeSegmentID(id), int64(bytes)})
	}
	return uses
}

// leafOrder checks leaves one after another.
type leafOrder struct {
	last         string
	files, bytes int64
	size         int64 // of the tree so far
}

func (o *leafOrder) check(l *Leaf) error {
	if err := l.check(); err != nil {
		return fmt.Errorf("leaf %.100q: %w", l.First, err)
	}
	if o.last != "" && ComparePaths(o.last, l.First) >= 0 {
		return fmt.Errorf("leaf %.100q after leaf %.100q", l.First, o.last)
	}
	o.last = l.First
	o.files += int64(l.Files)
	if o.bytes += l.Bytes; o.bytes < 0 {
		return fmt.Errorf("leaf %.100q: more bytes than there can be", l.First)
	}
	for i := range l.Chunks {
		o.size += l.Chunks[i].Size
	}
	if o.size > MaxTree {
		return fmt.Errorf("the list of files and directories takes more than %d bytes at %.100q", MaxTree, l.First)
	}
	return nil
}

func (l *Leaf) check() error {
	size, err := sizeOf(l.Chunks)
	if err == nil {
		err = MetaCut.Check(l.Chunks)
	}
	if err == nil {
		err = checkUses(l.Uses)
	}
	c := claims{l.Files, l.Bytes}
	switch {
	case err != nil:
		return err
	case checkPath(l.First) != nil:
		return fmt.Errorf("no path: %w", checkPath(l.First))
	case l.Files < 0 || l.Bytes < 0 || l.Bytes > 0 && l.Files == 0:
		return fmt.Errorf("%d files of %d bytes", l.Files, l.Bytes)
	case size == 0:
		return fmt.Errorf("it is empty")
	case uint64(size) > LeafSize+c.maxEntry():
		return fmt.Errorf("entries of %d bytes; a leaf ends after %d", size, LeafSize)
	}
	return nil
}

func checkUses(uses []Use) error {
	for i, u := range uses {
		switch {
		case u.Bytes <= 0:
			return fmt.Errorf("it uses %d bytes of segment %s", u.Bytes, u.Segment)
		case i > 0 && uses[i-1].Segment.Compare(u.Segment) >= 0:
			return fmt.Errorf("it uses segment %s after %s", u.Segment, uses[i-1].Segment)
		}
	}
	return nil
}

// Begin begins a leaf, of which Add takes the data, and which End ends. follows says that the
// leaf comes right after the one that was decoded before, or is the first of all. Otherwise it
// is taken for granted that the leaves before have the directories which its entries are in.
func (t *TreeDecoder) Begin(l *Leaf, follows bool) {
	t.leaf, t.n, t.claims = l, 0, &claims{l.Files, l.Bytes}
	if !follows {
		t.in = order{unknown: true}
	}
}

// checkFirst checks the first entry of a leaf.
func (t *TreeDecoder) checkFirst(e *Entry) error {
	if t.leaf != nil && t.n == 1 && e.Path != t.leaf.First {
		return corruptf("leaf %.100q begins with %.100q", t.leaf.First, e.Path)
	}
	return nil
}

// checkLeaf makes sure that a leaf had all that the list of leaves says.
func (t *TreeDecoder) checkLeaf() error {
	if t.leaf == nil {
		return nil
	}
	if t.n == 0 || t.claims.files != 0 || t.claims.bytes != 0 {
		return corruptf("leaf %.100q has %d entries, and %d files and %d bytes less than the list of leaves says",
			t.leaf.First, t.n, t.claims.files, t.claims.bytes)
	}
	return nil
}
