package explore_test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/internal/explore"
)

// A step reads or writes one variable.
type step struct {
	thread, n int // the n-th of a thread
	variable  int
	write     bool
}

func (s step) Actor() int { return s.thread }
func (s step) Rare() bool { return s.n == 1 }
func (s step) Conflicts(o step) bool {
	return s.thread == o.thread || s.variable == o.variable && (s.write || o.write)
}

// A program is threads, which take their steps in order.
type program [][]step

func (p program) enabled(done []int) (enabled []step) {
	for thread, n := range done {
		if n < len(p[thread]) {
			enabled = append(enabled, p[thread][n])
		}
	}
	return enabled
}

// schedule runs the program once, and reports whether it was not given up.
func (p program) schedule(choose func([]step) (int, bool)) (sum uint64, whole bool) {
	var trace explore.Trace[step]
	done := make([]int, len(p))
	for {
		enabled := p.enabled(done)
		if len(enabled) == 0 {
			return trace.Sum(), true
		}
		i, ok := choose(enabled)
		if !ok {
			return 0, false
		}
		trace.Add(enabled[i])
		done[enabled[i].thread]++
	}
}

// every returns how many schedules there are of each trace.
func (p program) every() map[uint64]int {
	traces := map[uint64]int{}
	var path []int
	for {
		at := 0
		sizes := []int{}
		sum, _ := p.schedule(func(enabled []step) (int, bool) {
			if at == len(path) {
				path = append(path, 0)
			}
			sizes = append(sizes, len(enabled))
			at++
			return path[at-1], true
		})
		traces[sum]++
		for at--; at >= 0 && path[at] == sizes[at]-1; at-- {
		}
		if at < 0 {
			return traces
		}
		path = append(path[:at:at], path[at]+1)
	}
}

// search returns how often a Search ran each trace.
func (p program) search(t rapid.TB, depth int) map[uint64]int {
	traces := map[uint64]int{}
	s := explore.Search[step]{Depth: depth}
	for n := uint64(0); ; n++ {
		s.Begin(n)
		sum, whole := p.schedule(func(enabled []step) (int, bool) {
			i, ok, err := s.Choose(enabled)
			if err != nil {
				t.Fatal(err)
			}
			return i, ok
		})
		if whole {
			traces[sum]++
		}
		if !s.Next() {
			return traces
		}
	}
}

func threads(n, steps int, variable func(thread, n int) int) (p program) {
	for i := range n {
		var list []step
		for k := range steps {
			list = append(list, step{i, k, variable(i, k), true})
		}
		p = append(p, list)
	}
	return p
}

func TestSearch(t *testing.T) {
	for name, c := range map[string]struct {
		program         program
		schedules, want int
	}{
		"one thread":      {threads(1, 4, func(int, int) int { return 0 }), 1, 1},
		"nothing shared":  {threads(3, 2, func(thread, _ int) int { return thread }), 90, 1},
		"all shared":      {threads(3, 2, func(int, int) int { return 0 }), 90, 90},
		"one of two":      {threads(2, 2, func(thread, n int) int { return thread * n }), 6, 3},
		"nothing happens": {program{}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			every := c.program.every()
			all := 0
			for _, n := range every {
				all += n
			}
			got := c.program.search(t, 100)
			if all != c.schedules || len(every) != c.want || len(got) != c.want {
				t.Errorf("%d schedules, %d traces, of which %d were run; want %d, %d", all, len(every), len(got), c.schedules, c.want)
			}
		})
	}
}

// Of any program, every trace is run, and once.
func TestSearchIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p program
		for i := range rapid.IntRange(1, 3).Draw(t, "threads") {
			var list []step
			for n := range rapid.IntRange(0, 3).Draw(t, "steps") {
				list = append(list, step{i, n, rapid.IntRange(0, 2).Draw(t, "variable"), rapid.Bool().Draw(t, "write")})
			}
			p = append(p, list)
		}
		every, got := p.every(), p.search(t, 100)
		if len(got) != len(every) {
			t.Errorf("%d traces of %d", len(got), len(every))
		}
		for sum, n := range got {
			if n != 1 || every[sum] == 0 {
				t.Errorf("a trace was run %d times; there are %d schedules of it", n, every[sum])
			}
		}
	})
}

// Beyond its depth a Search draws one continuation.
func TestDepth(t *testing.T) {
	p := threads(2, 4, func(int, int) int { return 0 })
	for depth, want := range []int{1, 2, 4, 8, 16, 30} {
		n := 0
		for _, times := range p.search(t, depth) {
			n += times
		}
		if n != want {
			t.Errorf("to depth %d there are %d schedules, want %d", depth, n, want)
		}
	}
}

// A seed draws the same schedule each time, and seeds together draw them all.
func TestRandom(t *testing.T) {
	p := threads(2, 3, func(int, int) int { return 0 })
	draw := func(seed uint64) []int {
		var s explore.Search[step]
		s.Begin(seed)
		p.schedule(func(enabled []step) (int, bool) {
			i, ok, _ := s.Choose(enabled)
			return i, ok
		})
		if s.Next() {
			t.Error("a schedule without a choice has a successor")
		}
		return s.Choices()
	}
	seen := map[string]bool{}
	for seed := range uint64(20000) {
		choices := draw(seed)
		if seed < 100 && !slices.Equal(choices, draw(seed)) {
			t.Fatalf("seed %d draws two schedules", seed)
		}
		text := ""
		for _, c := range choices {
			text += string(rune('0' + c))
		}
		seen[text] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d schedules of 20 were drawn", len(seen))
	}
}

func TestOtherStateIsNoticed(t *testing.T) {
	s := explore.Search[step]{Depth: 9}
	a, b := step{thread: 1}, step{thread: 2}
	s.Begin(0)
	for range 2 {
		if _, _, err := s.Choose([]step{a, b}); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Next() {
		t.Fatal("there is no other schedule")
	}
	s.Begin(0)
	if _, _, err := s.Choose([]step{b}); !errors.Is(err, explore.ErrOther) {
		t.Errorf("err = %v, want ErrOther", err)
	}
}
