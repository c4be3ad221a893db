package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// setFiles sets the modes, times and owners of all files of a part that do not have them yet,
// after all data was written.
func (r *restorer) setFiles(ctx context.Context) error {
	return r.eachFile(ctx, r.setAttributesOfFile)
}

func (r *restorer) setAttributesOfFile(at *folder, n *node) error {
	dir, name, err := at.find(n.Path)
	if err != nil {
		return err
	}
	return r.setAttributesOf(dir, name, n)
}

// setOthers sets those of directories and links, after everything is there. A directory comes
// after its files and directories: creating them would change its time, and its mode may forbid
// it. The root directory comes last of all, when everything else is durable: see finish.
func (r *restorer) setOthers() error {
	for _, n := range slices.Backward(r.others) {
		if n.Path == "." {
			continue
		}
		if err := r.setAttributesOf(r.root, filepath.FromSlash(n.Path), n); err != nil {
			return err
		}
	}
	return nil
}

// finish returns a function that sets the root directory's attributes, or nil if the tree
// does not have them.
func (r *restorer) finish() func(*os.Root) error {
	if len(r.others) == 0 || r.others[0].Path != "." {
		return nil
	}
	return func(*os.Root) error { return r.setAttributesOf(r.root, ".", r.others[0]) }
}

// setAttributesOf sets the mode, time and owner of a file or directory; of a link, only
// the owner. The owner comes first, because changing it clears setuid and setgid.
func (r *restorer) setAttributesOf(dir *os.Root, name string, n *node) error {
	mode := n.Mode &^ (fs.ModeSetuid | fs.ModeSetgid)
	if r.owners {
		mode = n.Mode
		if err := own(dir, name, n.Owner); err != nil {
			return err
		}
	}
	if n.Mode.Type() == fs.ModeSymlink {
		return nil
	}
	if err := r.setTime(dir, name, n.ModTime); err != nil {
		return err
	}
	return dir.Chmod(name, mode)
}

// Every file system can store the times between these two. FAT's begin in 1980. ext3, and
// XFS without bigtime, count seconds since 1970 in 32 bits, which end in 2038.
var (
	firstTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Unix(1<<31-1, 0)
)

// isUsualTime reports whether every file system can store a time, or if there is none to be stored.
func isUsualTime(t time.Time) bool {
	return t.IsZero() || !t.Before(firstTime) && t.Before(lastTime)
}

// setTime sets a file's modification time, if it is known. It counts the times that the
// file system cannot store.
func (r *restorer) setTime(dir *os.Root, name string, t time.Time) error {
	if t.IsZero() {
		return nil
	}
	if isUsualTime(t) {
		return dir.Chtimes(name, t, t)
	}
	err := setAnyTime(dir, name, t)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ERANGE) || errors.Is(err, syscall.EOVERFLOW) || errors.Is(err, errors.ErrUnsupported) {
		r.odd.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	info, err := dir.Lstat(name)
	if err != nil {
		return err
	}
	if off := info.ModTime().Unix() - t.Unix(); off < -2 || off > 2 { // FAT counts in steps of 2 s
		r.odd.Add(1)
	}
	return nil
}
