package checkpoint

import (
	"errors"
	"math"
	"os"
	"sync"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
)

// A restorer writes chunks to the files that they belong to. It may be used by several
// goroutines at once.
type restorer struct {
	root   *os.Root
	meter  *meter
	owners bool         // whether owners are restored
	synced bool         // whether all is to be on the disk in the end
	odd    atomic.Int64 // how many files have times that the file system cannot store
	others []*node      // the directories and links so far

	tree  *tree      // the part that is being restored
	zeros catalog.ID // of the longest chunk of zeros, or noChunk

	// The locations of chunk id are locations[first[id]:first[id+1]].
	first     []uint32
	locations []location
	have      []atomic.Bool  // by chunk id: it was found in the old directory
	left      []atomic.Int64 // by node: how many bytes are not written yet
	complete  []atomic.Bool  // by node: it is written, and has its attributes

	mu      sync.Mutex
	folders []*folder // of all writers
}

// noChunk is the ID of no chunk: a catalog ends before it.
const noChunk catalog.ID = math.MaxUint32

// A location is an offset in a file.
type location struct {
	node   uint32
	offset int64
}

// begin begins to restore a part of the state.
func (r *restorer) begin(t *tree) {
	r.tree, r.zeros = t, noChunk
	if id, ok := t.Find(zeroHash); ok && isZeroChunk(t.Catalog, id) {
		r.zeros = id
	}
	r.first, r.have = make([]uint32, t.Len()+2), make([]atomic.Bool, t.Len())
	r.left, r.complete = make([]atomic.Int64, len(t.nodes)), make([]atomic.Bool, len(t.nodes))
	var done Progress
	for i, n := range t.nodes {
		left := n.Size
		for _, id := range n.chunks {
			if r.isHole(n, id) {
				left -= t.Size(id)
				continue
			}
			r.first[id+2]++ // each moves down by one below
		}
		r.left[i].Store(left)
		done.Bytes += n.Size - left
		switch {
		case !n.Mode.IsRegular():
			r.others = append(r.others, n)
		case left == 0:
			done.Files++
		}
	}
	r.meter.add(done)
	for id := range t.Len() {
		r.first[id+2] += r.first[id+1]
	}
	r.locations = make([]location, r.first[t.Len()+1])
	for i, n := range t.nodes {
		offset := int64(0)
		for _, id := range n.chunks {
			if !r.isHole(n, id) {
				r.locations[r.first[id+1]] = location{uint32(i), offset}
				r.first[id+1]++
			}
			offset += t.Size(id)
		}
	}
}

// memory returns how many bytes of memory it takes to know the part.
func (r *restorer) memory() int64 {
	const chunk, place, node = 8, 16, nodeMemory + 12 // of first and have, locations, and left and complete
	return r.tree.Memory() + chunk*int64(len(r.have)) + place*int64(len(r.locations)) + node*int64(len(r.tree.nodes))
}

// isHole reports whether a chunk of a file is known to be zeros, which need not be fetched nor
// written: the file is made as long as it should be, and a hole reads as zeros. A file of a
// single chunk is made when that is written.
func (r *restorer) isHole(n *node, id catalog.ID) bool {
	return r.zeros == id && len(n.chunks) > 1
}

// missing returns the chunks of files that were not found in the old directory.
func (r *restorer) missing() []catalog.ID {
	var ids []catalog.ID
	for id := range r.have {
		if r.first[id] < r.first[id+1] && !r.have[id].Load() {
			ids = append(ids, catalog.ID(id))
		}
	}
	return ids
}

// fetched returns a function that writes chunks which were fetched.
func (r *restorer) fetched() func([]got) error {
	w := r.writer()
	return func(list []got) error {
		var moved int64
		for _, g := range list {
			moved += r.tree.StoredSize(g.id)
		}
		r.meter.add(Progress{Moved: moved})
		return r.write(w, list)
	}
}

// write writes chunks to all of their locations. Chunks that follow one another in a file
// are written together.
func (r *restorer) write(w *writer, list []got) error {
	var done Progress
	for _, g := range list {
		hole := isZero(g.data) // the file is as long as it should be, and a hole reads as zeros
		for _, p := range r.locations[r.first[g.id]:r.first[g.id+1]] {
			if err := r.writeAt(w, p, g.data, hole); err != nil {
				return errors.Join(err, w.close())
			}
			done.Bytes += int64(len(g.data))
			if r.left[p.node].Add(-int64(len(g.data))) == 0 {
				done.Files++
			}
		}
	}
	if err := w.close(); err != nil {
		return err
	}
	r.meter.add(done)
	return nil
}

// writeAt writes a chunk to one location.
func (r *restorer) writeAt(w *writer, p location, data []byte, hole bool) error {
	switch {
	case len(r.tree.nodes[p.node].chunks) == 1:
		return w.makeFile(p.node, data)
	case hole:
		return nil
	}
	return w.write(p, data)
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
