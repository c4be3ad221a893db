package powerloss

import (
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A Tree is what is in a directory: everything in it, each directory before
// what is in that.
type Tree []Entry

// An Entry is a directory, or a file and what it holds.
type Entry struct {
	Path string
	Dir  bool
	Data []byte // is not changed

	sum [sha256.Size]byte
}

// Key tells trees apart that differ.
func (t Tree) Key() [sha256.Size]byte {
	h := sha256.New()
	for _, e := range t {
		kind := byte('f')
		if e.Dir {
			kind = 'd'
		}
		h.Write([]byte(e.Path))
		h.Write([]byte{0, kind})
		h.Write(e.sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Without returns t without what is at a path and below it.
func (t Tree) Without(path string) Tree {
	return slices.DeleteFunc(slices.Clone(t), func(e Entry) bool {
		return e.Path == path || len(e.Path) > len(path) && e.Path[:len(path)+1] == path+"/"
	})
}

// Make makes t in a directory, which is empty or absent.
func (t Tree) Make(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, e := range t {
		name := filepath.Join(dir, filepath.FromSlash(e.Path))
		var err error
		if e.Dir {
			err = os.Mkdir(name, 0o777)
		} else {
			err = os.WriteFile(name, e.Data, 0o666)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Read returns what is in a directory. What is neither a file nor a directory
// is left out.
func Read(dir string) (Tree, error) {
	var t Tree
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		switch {
		case err != nil:
			return err
		case e.IsDir():
			t = append(t, Entry{Path: filepath.ToSlash(rel), Dir: true})
		case e.Type().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			t = append(t, Entry{Path: filepath.ToSlash(rel), Data: data, sum: sha256.Sum256(data)})
		}
		return nil
	})
	return t, err
}
