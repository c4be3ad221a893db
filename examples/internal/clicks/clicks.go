// Package clicks is what the examples with a broker have in common: clicks on pages, which are
// their input, the counts of them in a Pebble database, which are their state, and the
// comparison of the counts in the newest checkpoints with the truth.
package clicks

import (
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"strconv"
)

// A Click is an event: somebody has looked at a page.
type Click struct {
	Partition int
	Page      string
}

// Pages is how many pages there are. Some are looked at much more often than others.
const Pages = 20_000

// All yields the first n clicks that follow from a seed, with their numbers from 0 on. They are
// the same ones each time.
func All(seed uint64, n, partitions int) iter.Seq2[int, Click] {
	return func(yield func(int, Click) bool) {
		chance := rand.NewZipf(rand.New(rand.NewPCG(seed, 1)), 1.05, 20, Pages-1)
		for i := range n {
			page := "/page/" + strconv.FormatUint(chance.Uint64(), 10)
			h := fnv.New32a()
			_, _ = h.Write([]byte(page)) // never fails
			if !yield(i, Click{int(h.Sum32() % uint32(partitions)), page}) {
				return
			}
		}
	}
}

// Truth counts the clicks on each page of each partition: no stream, no database, no
// checkpoints.
func Truth(seed uint64, n, partitions int) []map[string]uint64 {
	counts := make([]map[string]uint64, partitions)
	for p := range counts {
		counts[p] = make(map[string]uint64)
	}
	for _, c := range All(seed, n, partitions) {
		counts[c.Partition][c.Page]++
	}
	return counts
}
