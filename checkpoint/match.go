package checkpoint

import (
	"encoding/binary"

	"github.com/zeebo/blake3"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A matcher finds the leaves of a tree in which nothing changed, while a scan lists the
// state. It compares what the file system says of all files in the range of a leaf with the
// leaf's fingerprint. What is in the range of such a leaf does not stay in memory.
type matcher struct {
	leaves []leaf
	want   func(leaf int) bool // which of them to compare

	// done, if it is not nil, is called with what was found in the range of each leaf, once it
	// is complete, or with some of it at a time if there are no leaves: last says that the
	// range is complete. What was found does not stay in memory then.
	done func(s span, last bool) error

	scan *scan
	at   int // the leaf that the scan has come to
	from int // where its range begins in what was found
	sum  *fingerprint
}

// A span is what a scan found in the range of one leaf: from its first entry, or for the
// first leaf from the beginning, to the first entry of the next leaf.
type span struct {
	leaf     int // -1 if there are no leaves
	kept     bool
	from, to int // in scan.found; nothing if kept
}

// keeps reports whether the scan found nothing changed in a leaf.
func (w *scan) keeps(leaf int) bool {
	s := w.spans[min(leaf, len(w.spans)-1)]
	return s.leaf == leaf && s.kept
}

func (m *matcher) begin(w *scan) { m.scan, m.at, m.from, m.sum = w, 0, 0, new(fingerprint) }

// enter is called before the scan adds what is at path.
func (m *matcher) enter(path string) error {
	for m.at+1 < len(m.leaves) && format.ComparePaths(m.leaves[m.at+1].First, path) <= 0 {
		if err := m.endSpan(); err != nil {
			return err
		}
		m.at++
	}
	return nil
}

// doneAtOnce is how many files done is called with if there are no leaves.
const doneAtOnce = 1000

func (m *matcher) add(f *found) error {
	switch {
	case len(m.leaves) > 0:
		m.sum.add(&f.node)
	case m.done != nil && len(m.scan.found) == doneAtOnce:
		return m.give(span{leaf: -1, to: doneAtOnce}, false)
	}
	return nil
}

// end ends the range of the leaf that the scan has come to, and those of the others.
func (m *matcher) end() error {
	if len(m.leaves) == 0 {
		s := span{leaf: -1, to: len(m.scan.found)}
		m.scan.spans = []span{s}
		return m.give(s, true)
	}
	for ; m.at < len(m.leaves); m.at++ {
		if err := m.endSpan(); err != nil {
			return err
		}
	}
	return nil
}

func (m *matcher) endSpan() error {
	w, l := m.scan, &m.leaves[m.at]
	s := span{leaf: m.at, from: m.from, to: len(w.found)}
	if sum := m.sum.take(); sum != (format.Hash{}) && sum == l.Fingerprint && m.want(m.at) {
		m.forget()
		s.to, s.kept = s.from, true
		w.kept.AllFiles += l.Files
		w.kept.AllBytes += l.Bytes
	}
	w.spans = append(w.spans, s)
	err := m.give(s, true)
	m.from = len(w.found)
	return err
}

// give calls done, if there is one.
func (m *matcher) give(s span, last bool) error {
	if m.done == nil {
		return nil
	}
	err := m.done(s, last)
	m.forget()
	return err
}

// forget drops what was found in this range.
func (m *matcher) forget() {
	w := m.scan
	clear(w.found[m.from:])
	w.found = w.found[:m.from]
}

// A fingerprint is a hash of all that is known of some files, directories and links without
// opening them. If two scans give the same, nothing has changed between them.
type fingerprint struct {
	hash   *blake3.Hasher // nil before it is needed: it is large, and a small commit has no use for it
	buf    []byte
	n      int  // how many were added
	unsure bool // there is a file whose changes might not show
}

// fingerprintOf returns the fingerprint of some nodes.
func fingerprintOf(nodes []*node) format.Hash {
	var sum fingerprint
	for _, n := range nodes {
		sum.add(n)
	}
	return sum.take()
}

func (p *fingerprint) add(n *node) {
	p.n++
	if n.Mode.IsRegular() && n.ChangeTime.IsZero() {
		p.unsure = true
	}
	if p.unsure {
		return
	}
	b := p.buf[:0]
	for _, s := range []string{n.Path, n.Target} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(n.Mode&format.ModeMask))
	b = binary.AppendVarint(b, n.Size)
	b = binary.AppendVarint(b, n.ModTime.Unix())
	b = binary.AppendVarint(b, int64(n.ModTime.Nanosecond()))
	b = binary.AppendVarint(b, n.ChangeTime.Unix())
	b = binary.AppendVarint(b, int64(n.ChangeTime.Nanosecond()))
	b = binary.AppendUvarint(b, n.Inode)
	if o := n.Owner; o != nil {
		b = binary.AppendUvarint(b, 1+uint64(o.UID))
		b = binary.AppendUvarint(b, uint64(o.GID))
	} else {
		b = append(b, 0)
	}
	p.buf = b
	if p.hash == nil {
		p.hash = blake3.New()
	}
	_, _ = p.hash.Write(b) // which never fails
}

// take returns the fingerprint of what was added since the last call. It is zero if there is
// a file whose changes might not show in it, or if there is nothing.
func (p *fingerprint) take() (sum format.Hash) {
	if p.hash != nil {
		if p.n > 0 && !p.unsure {
			p.hash.Sum(sum[:0])
		}
		p.hash.Reset()
	}
	p.n, p.unsure = 0, false
	return sum
}
