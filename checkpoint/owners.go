package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// ownerOf returns the owner of what info describes, or nil if owners are not to be saved,
// or it is not known.
func (s *Source) ownerOf(info fs.FileInfo) *format.Owner {
	if !s.owners {
		return nil
	}
	if of, ok := info.(interface{ owner() *format.Owner }); ok { // a checkpoint's own file
		return of.owner()
	}
	return owner(info)
}

// checkOwners makes sure that all owners are known if they are to be saved.
func (w *scan) checkOwners() error {
	if !w.owners {
		return nil
	}
	for _, f := range w.found {
		if f.Owner == nil {
			return w.fail(f.Path, fmt.Errorf("%w: who owns it is not known here", ErrFileOwners))
		}
	}
	return nil
}

// checkOwners makes sure, before anything is fetched, that this process may give files to
// all owners. It tries that with a file in the new directory, which is still empty.
func (r *restorer) checkOwners(all map[format.Owner]bool) error {
	if !r.owners {
		return nil
	}
	const name = ".holdfast-owners"
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for _, o := range slices.SortedFunc(maps.Keys(all), func(a, b format.Owner) int {
		return cmp.Or(cmp.Compare(a.UID, b.UID), cmp.Compare(a.GID, b.GID))
	}) { // the same one is named each time
		err = cmp.Or(err, own(r.root, name, &o))
	}
	return errors.Join(err, f.Close(), r.root.Remove(name))
}

// own gives a file, directory or link to an owner.
func own(root *os.Root, path string, o *format.Owner) error {
	err := root.Lchown(path, int(o.UID), int(o.GID))
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		pe := (*fs.PathError)(nil)
		if !errors.As(err, &pe) {
			pe = &fs.PathError{Err: err}
		}
		err = fmt.Errorf("%w: giving files to user %d and group %d, which takes root: %w", ErrFileOwners, o.UID, o.GID, pe.Err)
	}
	return err
}
