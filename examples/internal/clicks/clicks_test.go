package clicks

import (
	"slices"
	"testing"
)

// Whoever counts the clicks again counts the same ones.
func TestClicksAreTheSame(t *testing.T) {
	collect := func(seed uint64) (all []Click) {
		for _, c := range All(seed, 1000, 4) {
			all = append(all, c)
		}
		return all
	}
	if first := collect(7); len(first) != 1000 || !slices.Equal(first, collect(7)) || slices.Equal(first, collect(8)) {
		t.Errorf("%d clicks; want the same 1000 for a seed, and others for another one", len(first))
	}
}
