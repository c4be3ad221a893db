package checkpoint

import (
	"io"
	"io/fs"
	"os"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/holes"
)

// zeroChunk is the chunk that a hole consists of, again and again: of zeros, package cut makes
// the longest chunks that there are. So a hole is stored as what it reads as, and need not be
// read to know that.
var zeroChunk = make([]byte, format.DataCut.Max)

var zeroHash = format.Sum(zeroChunk)

// isZeroChunk reports whether a chunk has the data of zeroChunk. One of that hash and another
// size is damaged.
func isZeroChunk(c *catalog.Catalog, id catalog.ID) bool {
	ch := c.Chunk(id)
	return ch.Hash == zeroHash && ch.Size == int64(len(zeroChunk))
}

// A sparseReader reads a file that has holes. What it yields is the file's content; only
// [sparseReader.skip] leaves something out.
type sparseReader struct {
	file  *os.File
	holes *holes.Finder
	size  int64
	pos   int64 // of the next Read
}

// withoutHoles returns a reader of an open file from its beginning on, which is a sparseReader
// if the file is known to have holes.
func withoutHoles(f fs.File, info fs.FileInfo) io.Reader {
	if found := holes.Of(f, info); found != nil {
		return &sparseReader{file: f.(*os.File), holes: found, size: info.Size()}
	}
	return f
}

// Read reads on, holes too.
func (r *sparseReader) Read(p []byte) (int, error) {
	n, err := r.file.ReadAt(p, r.pos)
	r.pos += int64(n)
	return n, err
}

// skip goes to the end of the hole that the file is in, as far as that can be cut into chunks
// of zeros. uncut is how many bytes were read and not cut yet: the chunks begin with these. It
// returns how many chunks there are, and by how many bytes it went on. If there are none, nothing has
// happened.
func (r *sparseReader) skip(uncut int) (chunks int, bytes int64) {
	if r == nil {
		return 0, 0
	}
	start := r.pos - int64(uncut)
	if start >= r.size {
		return 0, 0
	}
	length, hole := r.holes.At(start)
	chunks = int(length / int64(len(zeroChunk)))
	end := start + int64(chunks)*int64(len(zeroChunk))
	if !hole || end <= r.pos {
		return 0, 0
	}
	bytes = end - r.pos
	r.pos = end
	return chunks, bytes
}

// skipChunk goes on by one chunk of zeros, if a hole is that long. It reports whether it did.
func (r *sparseReader) skipChunk() bool {
	if r == nil || r.pos >= r.size {
		return false
	}
	length, hole := r.holes.At(r.pos)
	if !hole || length < int64(len(zeroChunk)) {
		return false
	}
	r.pos += int64(len(zeroChunk))
	return true
}
