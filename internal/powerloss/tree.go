package powerloss

import (
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A Tree is the content of a directory with all its subdirectories. Each directory
// comes before its own content.
type Tree []Entry

// An Entry is a directory, or a file with its content.
type Entry struct {
	Path string
	Dir  bool
	Data []byte // must not be changed

	sum [sha256.Size]byte
}

// Key returns the same value for equal trees, and different values for different
// ones.
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

// Without returns t without a path and what is below it.
func (t Tree) Without(path string) Tree {
	return slices.DeleteFunc(slices.Clone(t), func(e Entry) bool {
		return e.Path == path || len(e.Path) > len(path) && e.Path[:len(path)+1] == path+"/"
	})
}

// Make writes t to a directory, which is empty or does not exist.
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

// Read returns the content of a directory. It leaves out everything except files and
// directories.
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
