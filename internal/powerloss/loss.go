package powerloss

import (
	"crypto/sha256"
	"iter"
	"maps"
	"slices"
)

// A Model says what can be lost of names: see the package.
type Model int

// The models.
const (
	Ordered Model = iota
	Independent
)

// Losses yields the states that a loss of power in this moment can leave. States
// that are equal may come more than once: see [Tree.Key].
func (d *Disk) Losses(m Model) iter.Seq[Tree] {
	return func(yield func(Tree) bool) {
		first, last := d.count, d.count
		if m == Ordered {
			first = d.floor
		}
		for op := first; op <= last; op++ {
			for c := new(choices); c.next(); {
				w := &walk{choices: c, model: m, op: op}
				w.dir(d.root, "", false)
				if !yield(w.tree) {
					return
				}
			}
		}
	}
}

// Now returns what processes see.
func (d *Disk) Now() Tree {
	w := &walk{model: Ordered, op: d.count}
	w.dir(d.root, "", false)
	return w.tree
}

// A walk finds out one state.
type walk struct {
	choices *choices // nil: nothing is lost
	model   Model
	op      int // by Ordered, the last that is durable
	tree    Tree
}

func (w *walk) dir(in *dir, at string, private bool) {
	all := 0
	if in.together && w.model == Independent {
		all = w.choose(in, "", 3)
	}
	for _, name := range slices.Sorted(maps.Keys(in.names)) {
		list := in.names[name]
		var node any
		switch {
		case w.model == Ordered:
			node = asOf(list, w.op)
		case in.together:
			node = together(list, all)
		default:
			list = distinct(list)
			node = list[w.choose(in, name, len(list))].node
		}
		w.node(node, at+name, private || in.together)
	}
}

func (w *walk) node(node any, path string, private bool) {
	switch node := node.(type) {
	case *dir:
		w.tree = append(w.tree, Entry{Path: path, Dir: true})
		w.dir(node, path+"/", private)
	case *file:
		can := node.losses()
		i := 0 // nothing is lost
		if !private {
			i = w.choose(node, "", len(can))
		}
		w.tree = append(w.tree, Entry{Path: path, Data: can[i].data, sum: can[i].sum})
	}
}

func (w *walk) choose(node any, name string, n int) int {
	if w.choices == nil {
		return 0
	}
	return w.choices.choose(place{node, name}, n)
}

// asOf returns what a name stands for after an operation.
func asOf(list []change, op int) (node any) {
	for _, c := range list {
		if c.op <= op {
			node = c.node
		}
	}
	return node
}

// distinct returns the last change first, and no meaning of the name twice.
func distinct(list []change) []change {
	var found []change
	for _, c := range slices.Backward(list) {
		if !slices.ContainsFunc(found, func(f change) bool { return f.node == c.node }) {
			found = append(found, c)
		}
	}
	return found
}

// together returns what a name stands for if it is lost with all others.
func together(list []change, how int) any {
	switch how {
	case 0:
		return list[len(list)-1].node
	case 1:
		return list[0].node
	default: // what was there at some time is there
		for _, c := range slices.Backward(list) {
			if c.node != nil {
				return c.node
			}
		}
		return nil
	}
}

// A content is what a file may hold.
type content struct {
	data []byte
	sum  [sha256.Size]byte
}

// losses returns what a loss of power can leave of a file's data; the first is
// all of it.
func (f *file) losses() []content {
	if f.now != nil {
		return f.now
	}
	all := slices.Concat(f.writes...)
	f.now = append(f.now, newContent(all))
	end := len(all)
	for _, lost := range slices.Backward(f.writes[f.synced:]) {
		end -= len(lost)
		f.now = append(f.now, newContent(all[:end:end]))
	}
	if end < len(all) {
		zeros := slices.Clone(all)
		clear(zeros[end:])
		f.now = append(f.now, newContent(zeros))
	}
	return f.now
}

func newContent(data []byte) content { return content{data, sha256.Sum256(data)} }

// A place is where a choice is made: what a name in a directory stands for, or
// what a file holds.
type place struct {
	node any
	name string
}

// choices are one way to choose at every place, and then the next.
type choices struct {
	picked []int
	of     []int // how many there are at each place
	places map[place]int
	begun  bool
}

// next goes on to the next way, and reports whether there is one.
func (c *choices) next() bool {
	c.places = make(map[place]int)
	if !c.begun {
		c.begun = true
		return true
	}
	for len(c.picked) > 0 {
		last := len(c.picked) - 1
		if c.picked[last]++; c.picked[last] < c.of[last] {
			return true
		}
		c.picked, c.of = c.picked[:last], c.of[:last]
	}
	return false
}

// choose returns one of n, the same one whenever a place is come to again.
func (c *choices) choose(p place, n int) int {
	if n == 1 {
		return 0
	}
	i, ok := c.places[p]
	if !ok {
		i = len(c.places)
		c.places[p] = i
	}
	if i == len(c.picked) {
		c.picked, c.of = append(c.picked, 0), append(c.of, n)
	}
	return c.picked[i]
}
