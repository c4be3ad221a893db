package checkpoint

import (
	"context"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/filetimes"
)

// compareAll makes sure that the checkpoint is the state of one moment. After the last file
// was read, it lists the directory again, and checks that no file has changed since it was
// read (or, if it was not read, since it was listed), and that no name was added or
// removed. So all files are as they were between the last reading and this listing.
//
// It does not see writes through a memory map to pages that were dirty before, in files
// whose times are not recorded.
func (b *builder) compareAll(ctx context.Context, l *pipeline) error {
	w := b.scan
	if w.open == nil {
		return nil // a stream
	}
	again := w.another()
	r := recheck{builder: b, pipeline: l, now: again}
	m := &matcher{want: w.keeps, done: func(s span, last bool) error { return r.see(ctx, s, last) }}
	if w.spans[0].leaf >= 0 {
		m.leaves = b.leaves()
	}
	return again.list(ctx, m)
}

// A recheck compares what was found to what is there now, of which it sees a part at a time.
type recheck struct {
	*builder
	pipeline *pipeline
	now      *scan
	spans    int      // how many were compared
	begun    bool     // a part of the next one was compared
	then     []*found // what was found there, and has not been compared
}

// see compares what is there now in a span, or the next part of it.
func (r *recheck) see(ctx context.Context, s span, last bool) (err error) {
	was, now := r.scan.spans[r.spans], r.now.found[s.from:s.to]
	if last {
		r.spans++
	}
	if was.kept && s.kept {
		return nil
	}
	if !r.begun {
		r.then = r.scan.found[was.from:was.to]
		if was.kept {
			if r.then, err = r.reopen(ctx, was.leaf, now); err != nil {
				return err
			}
		}
	}
	r.begun = !last
	return r.compareWith(ctx, now, last)
}

// reopen returns what is in a leaf in which the first listing found nothing changed, and the
// second did, as if the first had found it.
func (b *builder) reopen(ctx context.Context, leaf int, now []*found) ([]*found, error) {
	if b.opened[leaf] == nil {
		if err := b.open(ctx, []int{leaf}); err != nil {
			return nil, ofBase(err)
		}
	}
	then := b.opened[leaf]
	inodes := make(map[string]uint64)
	for _, f := range now {
		inodes[f.Path] = f.seen.inode
	}
	for _, f := range then {
		if !f.Mode.IsRegular() {
			f.seen.inode = inodes[f.Path] // it is not known what it was; a link's time and target tell
		}
	}
	return then, nil
}

func (r *recheck) compareWith(ctx context.Context, now []*found, last bool) error {
	w := r.scan
	for _, n := range now {
		f := r.next()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case f == nil || format.ComparePaths(f.Path, n.Path) > 0:
			return w.fail(n.Path, errAdded)
		case f.Path != n.Path:
			return w.fail(f.Path, errRemoved)
		}
		if err := w.fail(f.Path, r.compareNode(r.pipeline, f, n)); err != nil {
			return err
		}
		r.then = r.then[1:]
	}
	if f := r.next(); last && f != nil {
		return w.fail(f.Path, errRemoved)
	}
	return nil
}

// next returns the next thing in the file system that was found, or nil.
func (r *recheck) next() *found {
	for len(r.then) > 0 && r.then[0].seen.made {
		r.then = r.then[1:]
	}
	if len(r.then) == 0 {
		return nil
	}
	return r.then[0]
}

// compareNode compares a node to what the file system has now under its name.
func (b *builder) compareNode(l *pipeline, f, now *found) error {
	w := b.scan
	err := f.differs(now)
	if err != nil && f.Mode.IsRegular() {
		// A directory's list may be older than its files: on Windows, it is for a file
		// with several links. So ask for the file itself.
		var info fs.FileInfo
		if info, err = fs.Lstat(w.fsys, f.Path); err == nil {
			w.describe(now, info)
			err = f.differs(now)
		}
	}
	if err != nil {
		return err
	}
	f.Mode, f.Owner = now.Mode, now.Owner
	switch {
	case f.Mode.IsDir():
		f.ModTime = now.ModTime // it differs if a file was added and removed again
	case f.Mode.Type() == fs.ModeSymlink:
	case w.isImmutable(f.Path), w.isWriteOnce(f.Path) && !f.seen.read:
	default:
		if !now.seen.changed.Equal(f.seen.changed) || f.seen.read && w.unsettled(now.seen.changed) {
			return b.readAgain(l, &f.node)
		}
	}
	return nil
}

// unsettled reports whether a file with that change time may have been written to again
// without getting another one: in the same tick of the clock.
func (w *scan) unsettled(changed time.Time) bool {
	return !changed.IsZero() && !changed.Before(w.began.Add(-filetimes.Tick(changed)))
}

// differs returns an error if a node was replaced or written to, by what is said of it now.
func (f *found) differs(now *found) error {
	link := f.Mode.Type() == fs.ModeSymlink // links are replaced, never written to
	switch {
	case now.Mode.Type() != f.Mode.Type():
		return errReplaced
	case f.Mode.IsDir():
		return nil
	case now.seen.inode != f.seen.inode, link && (!now.ModTime.Equal(f.ModTime) || now.Target != f.Target):
		return errReplaced
	case !link && (now.Size != f.Size || !now.ModTime.Equal(f.ModTime)):
		return errWritten
	}
	return nil
}
