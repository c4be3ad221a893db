// Package explore enumerates the orders in which the steps of several actors can happen. A
// step is one operation of an actor. The package does not run the actors: its caller does,
// asks it at each point which of the possible steps comes next, and starts the actors from
// the beginning for each schedule.
//
// Two steps that do not conflict have the same effect in either order. Of all
// the schedules that differ in nothing but the order of such steps, a Search
// runs one, by sleep sets (P. Godefroid, Partial-Order Methods for the
// Verification of Concurrent Systems, 1996).
package explore

import (
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"slices"
)

// A Step is something that may happen next. At one point of a schedule no two
// steps are equal. A step is equal to itself as found in another schedule, when
// steps that do not conflict with it came in another order.
type Step[S any] interface {
	comparable
	// Actor is whose step it is.
	Actor() int
	// Rare reports whether it is to be drawn less often than others.
	Rare() bool
	// Conflicts reports whether the order of the two matters, which is so at
	// least if one takes away, adds or changes the other. It is symmetric.
	Conflicts(S) bool
}

// A Search is one way through the schedules: all that differ in the first Depth
// steps, each with one continuation, drawn at random. With a Depth that no
// schedule reaches these are all that there are.
type Search[S Step[S]] struct {
	Depth int

	path   []node[S]
	run    run[S]
	random *rand.Rand
}

// A node is a point at which a schedule may go on in several ways.
type node[S any] struct {
	enabled []S
	asleep  []S // steps that would lead to what has been seen
	choice  int
}

// A run is the present schedule.
type run[S any] struct {
	at      int
	asleep  []S
	choices []int
	actors  map[int]uint64 // priorities
	bold    bool           // by priorities
}

// ErrOther means that running the same steps once more has led elsewhere.
var ErrOther = errors.New("the same steps have led to another state: what runs them is not deterministic")

// Begin begins a schedule, whose random part is drawn by seed.
func (s *Search[S]) Begin(seed uint64) {
	s.random = rand.New(rand.NewPCG(seed, 0))
	s.run = run[S]{actors: make(map[int]uint64), bold: s.random.IntN(3) == 0}
}

// Choose returns which of the steps that are possible is the next, or false if
// all that can follow has been seen in another order: then the schedule is to
// be given up. enabled is not changed and not kept.
func (s *Search[S]) Choose(enabled []S) (choice int, ok bool, err error) {
	r := &s.run
	switch {
	case r.at < len(s.path):
		n := &s.path[r.at]
		if !slices.Equal(n.enabled, enabled) {
			return 0, false, ErrOther
		}
		choice, r.asleep = n.choice, n.asleep
	case r.at < s.Depth:
		if choice = first(enabled, r.asleep); choice < 0 {
			return 0, false, nil
		}
		s.path = append(s.path, node[S]{slices.Clone(enabled), r.asleep, choice})
	default:
		// What follows may have been seen. To go on is better than to find that
		// out at the very end.
		choice, r.asleep = s.draw(enabled), nil
	}
	r.at++
	r.choices = append(r.choices, choice)
	step := enabled[choice]
	r.asleep = slices.DeleteFunc(slices.Clone(r.asleep), func(other S) bool { return other == step || step.Conflicts(other) })
	return choice, true, nil
}

// Choices returns what has been chosen in this schedule so far.
func (s *Search[S]) Choices() []int { return s.run.choices }

// Next goes on to the next schedule, which Begin begins. It returns false when
// there is none.
func (s *Search[S]) Next() bool {
	for len(s.path) > 0 {
		n := &s.path[len(s.path)-1]
		n.asleep = append(slices.Clone(n.asleep), n.enabled[n.choice])
		if n.choice = first(n.enabled, n.asleep); n.choice >= 0 {
			return true
		}
		s.path = s.path[:len(s.path)-1]
	}
	return false
}

// first returns the first step that is not asleep, or -1.
func first[S comparable](enabled, asleep []S) int {
	return slices.IndexFunc(enabled, func(step S) bool { return !slices.Contains(asleep, step) })
}

// draw returns a step at random. In every third
// schedule one actor goes on until chance takes its turn away, so that others
// can be far ahead of it.
func (s *Search[S]) draw(enabled []S) int {
	best, most := -1, uint64(0)
	for i, step := range enabled {
		weight := s.random.Uint64() >> 1
		if s.run.bold {
			weight = s.priority(step.Actor()) + s.random.Uint64()>>40
		}
		if step.Rare() && s.random.IntN(16) != 0 {
			weight >>= 50
		}
		if best < 0 || weight > most {
			best, most = i, weight
		}
	}
	if s.random.IntN(8) == 0 {
		s.run.actors[enabled[best].Actor()] = s.random.Uint64() >> 2
	}
	return best
}

func (s *Search[S]) priority(actor int) uint64 {
	p, ok := s.run.actors[actor]
	if !ok {
		p = s.random.Uint64() >> 1
		s.run.actors[actor] = p
	}
	return p
}

// A Trace tells schedules apart: two that differ in nothing but the order of
// steps that do not conflict have the same Sum, and others, but for chance, have
// not. The zero Trace is empty.
type Trace[S Step[S]] struct {
	steps  []S
	hashes []uint64
	sum    uint64
}

var seed = maphash.MakeSeed()

// Add adds the next step.
func (t *Trace[S]) Add(step S) {
	h := maphash.Comparable(seed, step)
	for i, before := range t.steps {
		if before.Conflicts(step) {
			h += mix(t.hashes[i])
		}
	}
	h = mix(h)
	t.steps, t.hashes = append(t.steps, step), append(t.hashes, h)
	t.sum += mix(h)
}

// Sum returns what equal traces have in common, in this process.
func (t *Trace[S]) Sum() uint64 { return t.sum }

// Reset makes the trace empty.
func (t *Trace[S]) Reset() { t.steps, t.hashes, t.sum = t.steps[:0], t.hashes[:0], 0 }

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
