package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// ownerOf returns who owns what info describes, if that is to be saved and known.
func (s *Source) ownerOf(info fs.FileInfo) *format.Owner {
	if !s.owners {
		return nil
	}
	return owner(info)
}

// checkOwners makes sure that all owners are known if they are to be saved.
func (w *scan) checkOwners() error {
	if !w.owners {
		return nil
	}
	for i := range w.nodes {
		if n := &w.nodes[i]; n.Owner == nil {
			return w.fail(n.Path, fmt.Errorf("%w: who owns it is not known here", ErrOwners))
		}
	}
	return nil
}

// owned reports whether a tree says who owns what is in it, or has nothing in it.
func (t *tree) owned() bool { return len(t.nodes) == 0 || t.nodes[0].Owner != nil }

// checkOwners makes sure that this process may give files to all owners in the
// tree, before anything is fetched. The directory is empty.
func (r *restorer) checkOwners() error {
	if !r.owners {
		return nil
	}
	const name = ".holdfast-owners"
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(r.giveToAll(name), f.Close(), r.root.Remove(name))
}

// giveToAll gives one file to every owner in the tree.
func (r *restorer) giveToAll(name string) error {
	seen := make(map[format.Owner]bool)
	for i := range r.tree.nodes {
		o := r.tree.nodes[i].Owner
		if seen[*o] {
			continue
		}
		seen[*o] = true
		if err := own(r.root, name, o); err != nil {
			return err
		}
	}
	return nil
}

// own gives a file, directory or link to an owner.
func own(root *os.Root, path string, o *format.Owner) error {
	err := root.Lchown(path, int(o.UID), int(o.GID))
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		pe := (*fs.PathError)(nil)
		if !errors.As(err, &pe) {
			pe = &fs.PathError{Err: err}
		}
		err = fmt.Errorf("%w: giving files to user %d and group %d, which takes root: %w", ErrOwners, o.UID, o.GID, pe.Err)
	}
	return err
}
