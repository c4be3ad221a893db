// Package powerloss models what a loss of power can leave on a disk.
//
// A [Disk] is told what processes do with files, in their order. At any moment
// it yields every state that a loss of power in that moment can leave, as a
// [Tree] that can be made on a real disk and looked at.
//
// # The models
//
// Data of a file that was not fsynced since it was written is there up to the
// end of any of its writes, or the file is as long as it was and has zeros in
// their place. That does not depend on the names of the file, which an fsync of
// it does not make durable. Real file systems promise more: ext4 with
// data=ordered writes data before the size that covers it, and both ext4 and XFS
// make a new file's name durable with the first fsync of the file.
//
// Of names there are two models:
//
//   - [Ordered] is a journal, as of ext4 and XFS. What was done to directories
//     becomes durable in the order in which it was done, whatever directories
//     these are: a loss takes away the last few operations. An fsync of a
//     directory makes durable what was done to that, and all before it.
//   - [Independent] is weaker, and each of Ordered's states is one of its. Each
//     name in each directory is, by itself, what it was made at any time since
//     the last fsync of the directory, or before that. A rename can leave both
//     names or none; what was done later can be there when what was done earlier
//     is not. Btrfs is as weak across directories: an fsync writes a log of what
//     it was asked for, and of nothing else.
//
// Neither lets a loss of power damage what was durable.
package powerloss

import (
	"fmt"
	"path"
	"strings"
)

// A Disk is what processes see, and how much of it is durable. Paths are
// relative to one directory, which is durable itself, and slash-separated.
//
// A call that makes no sense, such as to remove what is not there, panics: then
// the Disk was not told of everything. A Disk is used by one goroutine at a time.
type Disk struct {
	root  *dir
	count int // of operations on directories
	floor int // by Ordered, of those that are durable
}

// A dir is a directory, whatever its names are.
type dir struct {
	names    map[string][]change // since its last fsync; the first is what was durable then
	last     int                 // of the operations on it
	together bool
}

// A change gives a name a meaning: a *dir, a *file, or nil.
type change struct {
	op   int
	node any
}

// A file is written from its beginning to its end.
type file struct {
	writes [][]byte
	synced int       // of writes
	now    []content // what a loss can leave; nil if that must be found anew
}

// New returns a disk that has what is in t, all of it durable.
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

// Together says that the names in a directory are lost together: all are what
// they were at its last fsync, or all are what they are now, or each one that
// was there at some time since then is there. It is for directories that are
// never fsynced, whose names grow without bound, and in which no name matters to
// another. The data of files that have names only there is not varied. It has no
// effect on Ordered.
func (d *Disk) Together(path string) { d.dir(path).together = true }

// Has reports whether there is something at a path.
func (d *Disk) Has(path string) bool { return d.find(path) != nil }

// Mkdir makes an empty directory.
func (d *Disk) Mkdir(path string) { d.add(path, newDir()) }

// Create makes an empty file.
func (d *Disk) Create(path string) { d.add(path, &file{}) }

// Write adds data, which must not change any more, at the end of a file.
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

// Link gives a file another name.
func (d *Disk) Link(path, name string) { d.add(name, d.file(path)) }

// Rename gives a file or directory another name, in place of whatever had it.
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

// Remove removes the name of a file, or an empty directory.
func (d *Disk) Remove(path string) {
	if in, ok := d.must(path).(*dir); ok {
		for name := range in.names {
			if in.now(name) != nil {
				panic(fmt.Sprintf("powerloss: %s is removed, and has %s in it", path, name))
			}
		}
	}
	d.count++
	d.set(path, nil)
}

func (d *Disk) add(path string, node any) {
	if d.Has(path) {
		panic(fmt.Sprintf("powerloss: %s is there already", path))
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
		panic(fmt.Sprintf("powerloss: %s is no directory", path))
	}
	return in
}

func (d *Disk) file(path string) *file {
	f, ok := d.must(path).(*file)
	if !ok {
		panic(fmt.Sprintf("powerloss: %s is no file", path))
	}
	return f
}

func (d *Disk) must(path string) any {
	node := d.find(path)
	if node == nil {
		panic(fmt.Sprintf("powerloss: there is no %s", path))
	}
	return node
}

// find returns what is at a path, nil if nothing is.
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
