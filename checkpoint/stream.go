package checkpoint

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// addStreams adds the files of streams, and the directories that they need, to the
// nodes that were found.
func (w *scan) addStreams() {
	if len(w.streams) == 0 {
		return
	}
	have := make(map[string]bool)
	for _, f := range w.found {
		have[f.Path] = true
	}
	add := func(name string, mode fs.FileMode, seen fileStamp) {
		if !have[name] {
			have[name] = true
			w.found = append(w.found, &found{node{Entry: format.Entry{Path: name, Mode: mode}}, seen})
		}
	}
	for _, s := range w.streams {
		for dir := path.Dir(s.name); dir != "."; dir = path.Dir(dir) {
			add(dir, fs.ModeDir|0o755, fileStamp{made: true})
		}
		add(s.name, 0o644, fileStamp{made: true, stream: s.reader})
	}
	slices.SortFunc(w.found, func(a, b *found) int { return format.ComparePaths(a.Path, b.Path) })
}

// readStreams packs the streams, one after the other. Which chunks of base are
// stored again is decided before they come: see repacking.
func (b *builder) readStreams(l *pipeline) error {
	if len(b.scan.streams) > 0 && b.base.tree != nil {
		b.choose(b.base.tree.need())
	}
	for _, f := range b.scan.found {
		if f.seen.stream == nil {
			continue
		}
		if err := b.readStream(l, f); err != nil {
			return err
		}
	}
	return nil
}

// readStream packs one stream. A Read that waits for its writer is ended, if that
// can be done, when an upload has failed or the save's context has ended.
func (b *builder) readStream(l *pipeline, f *found) (err error) {
	from := stream{f.Path, f.seen.stream}
	uploads := b.packer.ctx
	stop := context.AfterFunc(uploads, func() { from.interrupt(context.Cause(uploads)) })
	f.Size, err = l.add(from.reader, cut.Data, &f.chunks)
	f.seen.stream = nil // it is the caller's, and f stays in memory until the next commit
	interrupted := !stop()
	switch {
	case err == nil:
		b.meter.add(Progress{Files: 1, AllBytes: f.Size})
		return nil
	case interrupted:
		return context.Cause(uploads)
	}
	return fmt.Errorf("stream %q: %w", from.name, err)
}
