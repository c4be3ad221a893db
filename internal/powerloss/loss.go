package powerloss

import (
	"crypto/sha256"
	"iter"
	"maps"
	"slices"
)

// A Model says which changes of names a loss of power may undo: see the package's
// documentation.
type Model int

// The two models.
const (
	Ordered Model = iota
	Independent
)

// Losses yields the states that a loss of power at this moment can leave. It may
// yield equal states more than once; [Tree.Key] tells whether two states are equal.
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

// Now returns the state that processes see.
func (d *Disk) Now() Tree {
	w := &walk{model: Ordered, op: d.count}
	w.dir(d.root, "", false)
	return w.tree
}

// A walk builds one state.
type walk struct {
	choices *choices // nil: nothing is lost
	model   Model
	op      int // for Ordered: the last operation that is durable
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

// asOf returns what a name stood for after operation op.
func asOf(list []change, op int) (node any) {
	for _, c := range list {
		if c.op <= op {
			node = c.node
		}
	}
	return node
}

// distinct returns the changes, the last one first, without those that give the name
// the same meaning again.
func distinct(list []change) []change {
	var found []change
	for _, c := range slices.Backward(list) {
		if !slices.ContainsFunc(found, func(f change) bool { return f.node == c.node }) {
			found = append(found, c)
		}
	}
	return found
}

// together returns what a name stands for if all names of its directory are lost
// together.
func together(list []change, how int) any {
	switch how {
	case 0:
		return list[len(list)-1].node
	case 1:
		return list[0].node
	default: // each name that existed at some time exists
		for _, c := range slices.Backward(list) {
			if c.node != nil {
				return c.node
			}
		}
		return nil
	}
}

// A content is what a file may contain after a loss of power.
type content struct {
	data []byte
	sum  [sha256.Size]byte
}

// losses returns what a loss of power can leave of a file's data. The first is all of
// it.
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

// A place is where something is chosen: what a name in a directory stands for, or
// what a file contains.
type place struct {
	node any
	name string
}

// choices enumerates all combinations of choices at all places.
type choices struct {
	picked []int
	of     []int // the number of alternatives at each place
	places map[place]int
	begun  bool
}

// next goes on to the next combination, and reports whether there is one.
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

// choose returns a number from 0 to n-1: within one combination, always the same one
// for a place.
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
