// Package powerloss models what a loss of power can leave on a disk.
//
// A [Disk] is told, in order, what processes do with files. At any moment it yields
// every state that a loss of power at that moment can leave. Each state is a [Tree],
// which can be written to a real disk and inspected.
//
// # The models
//
// A loss of power can cut off data that was written to a file since its last fsync:
// the file then ends after any one of these writes. Or the file keeps its length, and
// has zeros instead of that data. An fsync of a file does not make its names durable.
// Real file systems promise more: ext4 with data=ordered writes data before the size
// that covers it, and both ext4 and XFS make a new file's name durable with the first
// fsync of the file.
//
// For names there are two models:
//
//   - [Ordered] is a file system with a journal, such as ext4 and XFS. Operations on
//     directories become durable in the order in which they were done, even if the
//     directories differ: a loss of power undoes the last few operations. An fsync of a
//     directory makes durable the last operation on it, and all operations before that.
//   - [Independent] is weaker: all states of Ordered are possible, and more. Each name
//     in each directory has, separately, any of the meanings that it has had since the
//     last fsync of the directory. So after a rename both names may exist, or none, and a
//     later operation may be durable when an earlier one is not. Btrfs is as weak when
//     several directories are involved: an fsync writes only what it was asked to write.
//
// In neither model does a loss of power damage what was durable.
package powerloss

import (
	"fmt"
	"path"
	"strings"
)

// A Disk is the state that processes see, and how much of it is durable. Paths are
// slash-separated and relative to one directory, which is itself durable.
//
// An impossible call, such as the removal of a file that does not exist, panics: then
// the Disk was not told of all operations. Only one goroutine may use a Disk at a
// time.
type Disk struct {
	root  *dir
	count int // the number of operations on directories
	floor int // for Ordered: the number of operations that are durable
}

// A dir is a directory. Its identity does not depend on its names.
type dir struct {
	names    map[string][]change // the changes since its last fsync; the first is what was durable then
	last     int                 // the number of the last operation on it
	together bool
}

// A change gives a name a meaning: a *dir, a *file, or nil for none.
type change struct {
	op   int
	node any
}

// A file grows only: each write adds to its end.
type file struct {
	writes [][]byte
	synced int       // the number of writes that are durable
	now    []content // the result of losses; nil if it must be computed again
}

// New returns a disk with the content of t, all of it durable.
func New(t Tree) *Disk {
	d := &Disk{root: newDir()}
	for _, e := range t {
		var node any = &file{writes: [][]byte{e.Data}, synced: 1}
		if e.Dir {
			node = newDir()
		}
		in, name := d.split(e.Path)
		in.names[name] = []change{{0, node}}
	}
	return d
}

func newDir() *dir { return &dir{names: make(map[string][]change)} }

// Together says that the names in a directory are lost together. Either all are as
// they were at its last fsync, or all are as they are now, or every name that existed
// at some time since then exists. It is for directories that are never fsynced, that
// get ever more names, and in which one name does not depend on another. Data of
// files that have names only there is never lost. Together has no effect on Ordered.
func (d *Disk) Together(path string) { d.dir(path).together = true }

// Has reports whether a path exists.
func (d *Disk) Has(path string) bool { return d.find(path) != nil }

// Mkdir makes an empty directory.
func (d *Disk) Mkdir(path string) { d.add(path, newDir()) }

// Create makes an empty file.
func (d *Disk) Create(path string) { d.add(path, &file{}) }

// Write appends data to a file. The caller must not change data afterwards.
func (d *Disk) Write(path string, data []byte) {
	f := d.file(path)
	f.writes, f.now = append(f.writes, data), nil
}

// Sync is an fsync of a file.
func (d *Disk) Sync(path string) {
	f := d.file(path)
	f.synced, f.now = len(f.writes), nil
}

// SyncDir is an fsync of a directory.
func (d *Disk) SyncDir(path string) {
	in := d.dir(path)
	for name, list := range in.names {
		in.names[name] = list[len(list)-1:]
	}
	d.floor = max(d.floor, in.last)
}

// Link gives a file a second name.
func (d *Disk) Link(path, name string) { d.add(name, d.file(path)) }

// Rename renames a file or directory. It replaces whatever had the new name.
func (d *Disk) Rename(path, name string) {
	node := d.must(path)
	d.count++
	d.set(path, nil)
	d.set(name, node)
}

// Exchange exchanges the names of two files or directories.
func (d *Disk) Exchange(a, b string) {
	x, y := d.must(a), d.must(b)
	d.count++
	d.set(a, y)
	d.set(b, x)
}

// Remove removes a name of a file, or an empty directory.
func (d *Disk) Remove(path string) {
	if in, ok := d.must(path).(*dir); ok {
		for name := range in.names {
			if in.now(name) != nil {
				panic(fmt.Sprintf("powerloss: removal of %s, which is not empty: it has %s", path, name))
			}
		}
	}
	d.count++
	d.set(path, nil)
}

func (d *Disk) add(path string, node any) {
	if d.Has(path) {
		panic(fmt.Sprintf("powerloss: %s exists already", path))
	}
	d.count++
	d.set(path, node)
}

func (d *Disk) set(path string, node any) {
	in, name := d.split(path)
	list := in.names[name]
	if list == nil {
		list = []change{{}}
	}
	in.names[name] = append(list, change{d.count, node})
	in.last = d.count
}

func (d *Disk) split(p string) (*dir, string) {
	parent, name := path.Split(p)
	return d.dir(strings.TrimSuffix(parent, "/")), name
}

func (d *Disk) dir(path string) *dir {
	in, ok := d.must(path).(*dir)
	if !ok {
		panic(fmt.Sprintf("powerloss: %s is not a directory", path))
	}
	return in
}

func (d *Disk) file(path string) *file {
	f, ok := d.must(path).(*file)
	if !ok {
		panic(fmt.Sprintf("powerloss: %s is not a file", path))
	}
	return f
}

func (d *Disk) must(path string) any {
	node := d.find(path)
	if node == nil {
		panic(fmt.Sprintf("powerloss: %s does not exist", path))
	}
	return node
}

// find returns what is at a path, or nil.
func (d *Disk) find(path string) any {
	var node any = d.root
	if path == "" || path == "." {
		return node
	}
	for name := range strings.SplitSeq(path, "/") {
		in, ok := node.(*dir)
		if !ok {
			return nil
		}
		node = in.now(name)
	}
	return node
}

// now returns what a name stands for.
func (in *dir) now(name string) any {
	list := in.names[name]
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1].node
}
