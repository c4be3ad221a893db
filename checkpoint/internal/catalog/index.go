package catalog

import (
	"hash/maphash"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// An index finds chunks by their hashes: of several with the same one, the newest. It is a hash table
// with open addressing. A slot has the number of a chunk, and the hash is that of the chunk, so a chunk
// takes 7 to 20 bytes; a map from hashes would take 60 to 110. The zero index is empty.
type index struct {
	seed maphash.Seed // so that nobody can store hashes that take the same slots
	tags []uint8      // free, removed, or some bits of the hash, which tell most chunks apart
	ids  []ID         // of a slot whose tag is neither
	used int          // slots that are not free
}

const (
	free    = 0 // a search ends here
	removed = 1 // a search goes on
)

// slot returns where the search for a hash begins, and the tag of its chunk.
func (x *index) slot(h *format.Hash) (slot int, tag uint8) {
	sum := maphash.Bytes(x.seed, h[:])
	return int(sum & uint64(len(x.tags)-1)), max(uint8(sum>>56), removed+1)
}

// search returns the slot of the chunk with a hash, or, if there is none, the free one where it would be.
// There must be a free one.
func (x *index) search(h *format.Hash, all *chunks) (slot int, tag uint8, ok bool) {
	slot, tag = x.slot(h)
	for x.tags[slot] != free {
		if x.tags[slot] == tag && all.at(x.ids[slot]).hash == *h {
			return slot, tag, true
		}
		slot = x.after(slot)
	}
	return slot, tag, false
}

func (x *index) after(slot int) int { return (slot + 1) & (len(x.tags) - 1) }

func (x *index) find(h *format.Hash, all *chunks) (ID, bool) {
	if x.used == 0 {
		return 0, false
	}
	slot, _, ok := x.search(h, all)
	return x.ids[slot], ok
}

// put makes the newest chunk of all the one that is found.
func (x *index) put(id ID, all *chunks) {
	if !x.hasRoom(1) {
		x.build(all.len(), all)
		return
	}
	slot, tag, ok := x.search(&all.at(id).hash, all)
	if !ok {
		x.used++
	}
	x.tags[slot], x.ids[slot] = tag, id
}

// remove makes a chunk unknown, if it is the one that is found.
func (x *index) remove(id ID, all *chunks) {
	slot, _, ok := x.search(&all.at(id).hash, all)
	if !ok || x.ids[slot] != id {
		return
	}
	x.tags[slot] = removed
	if x.tags[x.after(slot)] == free { // no search has to go on from here
		x.tags[slot] = free
		x.used--
	}
}

// grow makes room for n more chunks than all.
func (x *index) grow(n int, all *chunks) {
	if !x.hasRoom(n) {
		x.build(all.len()+n, all)
	}
}

// hasRoom reports whether n more slots may be used: with more than three quarters of them, searches
// would take long.
func (x *index) hasRoom(n int) bool { return (x.used+n)*4 <= len(x.tags)*3 }

// build makes the index anew, of all chunks, with room for n.
func (x *index) build(n int, all *chunks) {
	size := 8
	for size < 2*n {
		size *= 2
	}
	*x = index{seed: maphash.MakeSeed(), tags: make([]uint8, size), ids: make([]ID, size)}
	for id := range ID(all.len()) {
		x.put(id, all)
	}
}

func (x *index) memory() int64 { return 5 * int64(len(x.tags)) }
