package format

import (
	"fmt"
	"math"
)

// A manifest declares how many files and bytes a state has. From that follows how many
// chunks a writer makes of it at most, and how large their table is. A reader refuses
// anything larger. So a hostile object of a few bytes cannot make it take more memory or
// time than the declared size justifies.

// Cut says how long the chunks of a list are, in bytes: of a file's data, or of a
// table or a list of files. The last chunk of a list may be shorter.
type Cut struct{ Min, Max int64 }

// The cuts that writers make. Package cut decides where a chunk ends.
var (
	DataCut = Cut{4 << 10, 32 << 10}
	MetaCut = Cut{1 << 10, 8 << 10}
)

// MaxChunks returns into how many chunks size bytes are cut at most. size is not 0.
func (c Cut) MaxChunks(size int64) int64 { return (size-1)/c.Min + 1 }

// maxTableEntry is how many bytes a chunk of up to 512 KiB takes in a table at most: its
// size (3 bytes), segment (20), offset (4), encoding (1), stored size (3) and hash.
const maxTableEntry = 3 + segmentIDLen + 4 + 1 + 3 + int64(len(Hash{}))

// MaxTableOf returns how many bytes the table of a file of size bytes has at most. size is
// not 0.
func (c Cut) MaxTableOf(size int64) int64 {
	if n := c.MaxChunks(size); n <= MaxTable/maxTableEntry {
		return n * maxTableEntry
	}
	return MaxTable
}

// A CutChecker checks a list of chunks, one by one: they must have lengths as Cut makes
// them.
type CutChecker struct {
	Cut
	n     int
	short bool // the chunk before was so short that it must be the last
}

// Check returns an error that wraps ErrCorrupt if a chunk cannot come next.
func (c *CutChecker) Check(ch *Chunk) error {
	c.n++
	switch {
	case ch.Size > c.Max:
		return corruptf("chunk %d has %d bytes; at most %d are cut", c.n, ch.Size, c.Max)
	case c.short:
		return corruptf("chunk %d is shorter than %d bytes, and not the last", c.n-1, c.Min)
	}
	c.short = ch.Size < c.Min
	return nil
}

// Check returns an error that wraps ErrCorrupt if chunks are not such as c makes.
func (c Cut) Check(chunks []Chunk) error {
	k := CutChecker{Cut: c}
	for i := range chunks {
		if err := k.Check(&chunks[i]); err != nil {
			return err
		}
	}
	return nil
}

// CheckTable returns an error that wraps ErrCorrupt if chunks cannot be those of
// the table of size bytes that c has cut.
func (c Cut) CheckTable(chunks []Chunk, size int64) error {
	if err := MetaCut.Check(chunks); err != nil {
		return err
	}
	most, sum := c.MaxTableOf(size), int64(0)
	for i := range chunks {
		if sum += chunks[i].Size; sum > most {
			return corruptf("a table of more than %d bytes for %d, which are cut into at most %d chunks", most, size, c.MaxChunks(size))
		}
	}
	return nil
}

// claims are the files and bytes that a manifest declares, less those found so far.
type claims struct {
	files int   // regular files
	bytes int64 // in them
}

// take subtracts an entry, which has been checked, from the claims. It returns an error
// that wraps ErrCorrupt if the state has more than was declared, or if the entry has
// more chunks, or a longer table, than a writer makes of so many bytes.
func (c *claims) take(e *Entry) error {
	if c == nil || !e.Mode.IsRegular() {
		return nil
	}
	switch {
	case c.files <= 0:
		return corruptf("file %q: there are more files than the manifest says", e.Path)
	case e.Size > c.bytes:
		return corruptf("file %q of %d bytes: of all that the manifest says that there are, %d are left", e.Path, e.Size, c.bytes)
	}
	c.files--
	c.bytes -= e.Size
	err := DataCut.Check(e.Chunks)
	if len(e.Table) > 0 {
		err = DataCut.CheckTable(e.Table, e.Size)
	}
	if err != nil {
		return fmt.Errorf("file %q: %w", e.Path, err)
	}
	return nil
}

// maxEntry returns how long the next entry may be, in bytes. Path and target have limits.
// The number of chunks of its table follows from the bytes that are left. Without a table,
// a writer lists a few chunks in the entry; there is room for a thousand.
func (c *claims) maxEntry() uint64 {
	if c == nil {
		return math.MaxUint64
	}
	const others = 2*MaxPath + 64<<10
	uses := useLen * min(DataCut.MaxChunks(max(c.bytes, 1)), maxUses)
	return others + uint64(MetaCut.MaxTableOf(DataCut.MaxTableOf(c.bytes))+uses)
}
