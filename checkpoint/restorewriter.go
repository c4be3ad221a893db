package checkpoint

import (
	"errors"
	"io/fs"
	"os"
)

// A writer makes files of one chunk, and writes to those of more, one after the other. It is used by one
// goroutine.
type writer struct {
	*restorer
	folder *folder

	file *os.File // nil if none is open
	node uint32   // the file's
	at   int64    // offset in the file at which run belongs
	run  []byte   // data that is not written yet; it is the caller's memory
}

func (r *restorer) writer() *writer {
	w := &writer{restorer: r, folder: &folder{root: r.root}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.folders = append(r.folders, w.folder)
	return w
}

// end ends a part: it closes what the writers have open, and forgets what was known.
func (r *restorer) end() {
	for _, f := range r.folders {
		f.close()
	}
	r.tree, r.folders, r.first, r.locations, r.have, r.left, r.complete = nil, nil, nil, nil, nil, nil, nil
}

// maxRun bounds one write(2), in bytes. Larger writes were slower.
const maxRun = 1 << 20

// writebackSize is from how many bytes on a write is followed by a system call that makes
// the kernel begin to write them to the disk. Smaller writes are left to the sync at the
// end.
const writebackSize = 256 << 10

// write writes data, at the latest when the writer is closed. The caller must not change
// data before that.
func (w *writer) write(p location, data []byte) error {
	if w.continues(p, data) {
		w.run = w.run[:len(w.run)+len(data)]
		return nil
	}
	if w.file != nil {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.file == nil || w.node != p.node {
		if err := w.open(p.node); err != nil {
			return err
		}
	}
	w.at, w.run = p.offset, data
	return nil
}

// continues reports whether data directly follows w.run, both in the file and in memory.
// That is so for most chunks that were fetched with one request.
func (w *writer) continues(p location, data []byte) bool {
	n := len(w.run)
	return w.file != nil && w.node == p.node && w.at+int64(n) == p.offset && n+len(data) <= min(maxRun, cap(w.run)) &&
		&w.run[:n+1][n] == &data[0]
}

func (w *writer) open(node uint32) (err error) {
	if w.file != nil {
		if err := w.closeFile(); err != nil {
			return err
		}
	}
	w.node = node
	w.file, err = w.folder.open(w.tree.nodes[node].Path, os.O_WRONLY)
	return err
}

func (w *writer) closeFile() error {
	file := w.file
	w.file = nil
	return file.Close()
}

// makeFile makes a file of a single chunk, whose attributes it gets at once.
func (w *writer) makeFile(node uint32, data []byte) error {
	w.complete[node].Store(true)
	n := w.tree.nodes[node]
	perm := n.Mode.Perm()
	if !w.owners && n.Mode&^(fs.ModeSetuid|fs.ModeSetgid) == perm && isUsualTime(n.ModTime) {
		return w.folder.makeWhole(n.Path, data, perm, n.ModTime)
	}
	f, err := newFile(w.folder, n)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return w.setAttributesOfFile(w.folder, n)
}

func (w *writer) flush() error {
	run := w.run
	w.run = nil
	_, err := w.file.WriteAt(run, w.at)
	if err == nil && w.synced && len(run) >= writebackSize {
		startWriteback(w.file, w.at, int64(len(run)))
	}
	return err
}

func (w *writer) close() error {
	if w.file == nil {
		return nil
	}
	if err := w.flush(); err != nil {
		file := w.file
		w.file = nil
		return errors.Join(err, file.Close())
	}
	return w.closeFile()
}
