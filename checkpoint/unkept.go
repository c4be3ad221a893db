package checkpoint

import "context"

// noteUnkept counts a file or directory that has attributes which a checkpoint does not
// keep.
func (w *scan) noteUnkept(path string, has bool) {
	if !has {
		return
	}
	if w.unkept == 0 {
		w.firstUnkept = path
	}
	w.unkept++
}

// noteUnkeptOf is noteUnkept for a directory, which is opened for that.
func (w *scan) noteUnkeptOf(dir string) {
	if tree, ok := w.fsys.(interface{ hasUnkept(dir string) bool }); ok {
		w.noteUnkept(dir, tree.hasUnkept(dir))
	}
}

// tellUnkept says, once, that something in the state is not kept. It knows only of what was
// read for this save, or is new: to look at the rest would take a system call for each file.
func (t *Task) tellUnkept(ctx context.Context, w *scan) {
	if w.unkept == 0 || t.toldUnkept.Swap(true) {
		return
	}
	t.job.opts.Logger.WarnContext(ctx, "the state has extended attributes or ACLs, which a checkpoint does not keep: a restore will not have them",
		"task", t.Name(), "files", w.unkept, "first", w.firstUnkept)
}
