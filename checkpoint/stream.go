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
	for i := range w.nodes {
		have[w.nodes[i].Path] = true
	}
	add := func(name string, mode fs.FileMode, seen fileStamp) {
		if !have[name] {
			have[name] = true
			w.nodes, w.seen = append(w.nodes, node{Entry: format.Entry{Path: name, Mode: mode}}), append(w.seen, seen)
		}
	}
	for _, s := range w.streams {
		for dir := path.Dir(s.name); dir != "."; dir = path.Dir(dir) {
			add(dir, fs.ModeDir|0o755, fileStamp{made: true})
		}
		add(s.name, 0o644, fileStamp{made: true, stream: s.reader})
	}
	w.sort()
}

// sort brings the nodes into the order of a tree.
func (w *scan) sort() {
	order := make([]int, len(w.nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return format.ComparePaths(w.nodes[a].Path, w.nodes[b].Path) })
	nodes, seen := make([]node, len(order)), make([]fileStamp, len(order))
	for to, from := range order {
		nodes[to], seen[to] = w.nodes[from], w.seen[from]
	}
	w.nodes, w.seen = nodes, seen
}

// readStreams packs the streams, one after the other. Which chunks of base are
// stored again is decided before they come: see repacking.
func (b *builder) readStreams(l *pipeline) error {
	if len(b.scan.streams) > 0 && b.base.tree != nil {
		b.choose(b.base.tree.need())
	}
	for i := range b.scan.nodes {
		if b.scan.seen[i].stream == nil {
			continue
		}
		if err := b.readStream(l, i); err != nil {
			return err
		}
	}
	return nil
}

// readStream packs one stream. A Read that waits for its writer is ended, if that
// can be done, when an upload has failed or the save's context has ended.
func (b *builder) readStream(l *pipeline, i int) (err error) {
	n, from := &b.scan.nodes[i], stream{b.scan.nodes[i].Path, b.scan.seen[i].stream}
	uploads := b.packer.ctx
	stop := context.AfterFunc(uploads, func() { from.interrupt(context.Cause(uploads)) })
	n.Size, err = l.add(from.reader, cut.Data, &n.chunks)
	interrupted := !stop()
	switch {
	case err == nil:
		b.meter.add(Progress{Files: 1, AllBytes: n.Size})
		return nil
	case interrupted:
		return context.Cause(uploads)
	}
	return fmt.Errorf("stream %q: %w", from.name, err)
}
