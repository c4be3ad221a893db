package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/internal/atomicdir"
)

// ErrNotEmpty means that a restore's target has something in it, and that
// RestoreOptions.Replace was not set.
var ErrNotEmpty = atomicdir.ErrNotEmpty

// RestoreOptions say how a checkpoint is restored.
type RestoreOptions struct {
	// Replace replaces a target directory that is not empty. Its files are read, and
	// data that they have in common with the checkpoint is not fetched again. Nothing
	// may use the directory any more: see [Owner.Resume].
	Replace bool
	// FileOwners gives all files, directories and links the owner and group, by number,
	// that they were saved with: see [Source.FileOwners]. Restore fails with ErrFileOwners,
	// before it fetches any data of files, if they were saved without or this process may
	// not do that.
	FileOwners bool
	// Sub restores only what is below that directory of the state, as if it were the
	// whole state: one part of a [Join], for example. It is a valid path by io/fs. If it
	// is empty, everything is restored.
	// Restore fails with an error that wraps fs.ErrNotExist if there is no such
	// directory.
	Sub string
	// Transient does not wait until the restored files are on the disk. That is for a
	// directory which nobody uses after a loss of power unless it is restored again: then
	// it may hold anything. Of a process that is killed it makes no difference.
	Transient bool
	// Background lets the requests of commits, and of other restores, come first: nobody
	// waits for the state yet.
	Background bool
	// Progress, if it is not nil, is called as the restore proceeds, from several
	// goroutines but one call at a time. The restore waits for it.
	Progress func(Progress)

	ownersIfSaved bool // FileOwners, if the checkpoint has them
}

// Restore makes dir the checkpoint's state. It builds the state in a new directory
// beside dir, checks every byte, and then puts that in place of dir in one step. If
// Restore fails or the process is killed, dir is as it was. Restore needs
// permission to write to dir's parent. Its requests come before those of commits that
// wait at Options.Requests.
//
// Permissions and modification times are restored, except those of links. If the file
// system cannot store a time, the file gets another one, and Options.Logger a warning.
// Owners of files are restored only if opts says so. Without owners, setuid and setgid are not
// restored either: the program would run with the rights of whoever has restored it.
//
// Another process that may change names in dir's parent can make Restore fail, and can
// replace dir. But Restore never writes, changes or removes anything except the new
// directory and, with Replace, the old one.
func (c *Checkpoint) Restore(ctx context.Context, dir string, opts RestoreOptions) error {
	ctx, end, err := c.task.job.life.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	urgency := backend.Urgent
	if opts.Background {
		urgency = backend.Background
	}
	ctx = backend.WithUrgency(ctx, urgency)
	if dir == "" {
		return backend.Invalidf("a restore without a directory: for the working directory, say \".\"")
	}
	if opts.Sub != "" && !fs.ValidPath(opts.Sub) {
		return backend.Invalidf("%q is not a valid path of a directory in the state", opts.Sub)
	}
	p, err := c.plan(ctx, &opts)
	if err != nil {
		return err
	}
	begin := atomicdir.Begin
	if opts.Transient {
		begin = atomicdir.BeginTransient
	}
	out, err := begin(dir, opts.Replace)
	if err != nil {
		return err
	}
	r := &restorer{root: out.Root(), meter: &meter{report: opts.Progress}, owners: opts.FileOwners, synced: !opts.Transient}
	r.meter.add(p.total)
	if err := c.restore(ctx, r, p, out.Old()); err != nil {
		return errors.Join(err, out.Abort())
	}
	if err := out.Commit(r.finish()); err != nil {
		return err
	}
	if n := r.odd.Load(); n > 0 {
		c.task.job.opts.Logger.WarnContext(ctx, "the file system cannot hold the times of some files, which have other ones now",
			"task", c.Task, "checkpoint", c.Seq, "files", n)
	}
	return nil
}

func (c *Checkpoint) restore(ctx context.Context, r *restorer, p *restorePlan, old *os.Root) error {
	if err := r.checkOwners(p.owners); err != nil {
		return err
	}
	for tree, err := range p.trees(ctx) {
		if err != nil {
			return err
		}
		r.begin(tree)
		if err := c.restorePart(ctx, r, old, p.isWhole()); err != nil {
			return err
		}
	}
	return r.setOthers()
}

// restorePart restores a part of the state. whole says that it is everything.
func (c *Checkpoint) restorePart(ctx context.Context, r *restorer, old *os.Root, whole bool) error {
	defer r.end()
	if err := r.makeNodes(ctx); err != nil {
		return err
	}
	if err := r.reuse(ctx, old, whole); err != nil {
		return err
	}
	if err := c.fetch(ctx, r.tree.Catalog, r.missing(), r.fetched); err != nil {
		return err
	}
	return r.setFiles(ctx)
}

// handlers is how many goroutines make files, or set their attributes, at a time.
const handlers = 8

// makeNodes makes all directories, links and files. A file that exists already is an
// error: on a file system that ignores the case of names, two files must not become one.
// A file of a single chunk is made later, when that chunk is written.
func (r *restorer) makeNodes(ctx context.Context) error {
	for _, n := range r.tree.nodes {
		if err := makeNode(r.root, n); err != nil {
			return err
		}
	}
	return r.eachFile(ctx, func(at *folder, n *node) error {
		if len(n.chunks) == 1 {
			return nil
		}
		f, err := newFile(at, n)
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(n.Size), f.Close())
	})
}

// makeNode makes a directory or a link.
func makeNode(root *os.Root, n *node) error {
	path, err := filepath.Localize(n.Path)
	switch {
	case err != nil:
		return fmt.Errorf("%q cannot be a file name on this system: %w", n.Path, err)
	case n.Mode.IsDir() && n.Path != ".":
		return root.Mkdir(path, 0o700)
	case n.Mode.Type() == fs.ModeSymlink:
		return root.Symlink(n.Target, path)
	}
	return nil
}

func newFile(at *folder, n *node) (*os.File, error) {
	return at.open(n.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
}

// A folder is the directory of the file that was opened last. Files come in the order of the
// tree, and whoever opens each from the root opens all directories on the way again. It is
// used by one goroutine.
type folder struct {
	root *os.Root
	path string
	dir  *os.Root // nil if it is root itself, or none was opened yet
}

// find returns the directory of a file, and its name in there.
func (f *folder) find(file string) (*os.Root, string, error) {
	dir, name := path.Split(file)
	if dir == "" {
		return f.root, name, nil
	}
	if f.dir == nil || dir != f.path {
		f.close()
		opened, err := f.root.OpenRoot(filepath.FromSlash(dir))
		if err != nil {
			return nil, "", err
		}
		f.dir, f.path = opened, dir
	}
	return f.dir, name, nil
}

func (f *folder) open(file string, flags int) (*os.File, error) {
	dir, name, err := f.find(file)
	if err != nil {
		return nil, err
	}
	return dir.OpenFile(name, flags, 0o600)
}

func (f *folder) close() {
	if f.dir != nil {
		_ = f.dir.Close() // it was only a place to begin at
		f.dir = nil
	}
}

// eachFile calls do with every regular file that is not complete, several at a time.
func (r *restorer) eachFile(ctx context.Context, do func(*folder, *node) error) error {
	group, ctx := errgroup.WithContext(ctx)
	share := (len(r.tree.nodes) + handlers - 1) / handlers
	for first := 0; first < len(r.tree.nodes); first += share {
		nodes := r.tree.nodes[first:min(first+share, len(r.tree.nodes))]
		group.Go(func() error {
			at := folder{root: r.root}
			defer at.close()
			for i, n := range nodes {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if !n.Mode.IsRegular() || r.complete[first+i].Load() {
					continue
				}
				if err := do(&at, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// A restorer writes chunks to the files that they belong to. It may be used by several
// goroutines at once.
type restorer struct {
	root   *os.Root
	meter  *meter
	owners bool         // whether owners are restored
	synced bool         // whether all is to be on the disk in the end
	odd    atomic.Int64 // how many files have times that the file system cannot store
	others []*node      // the directories and links so far

	tree  *tree      // the part that is being restored
	zeros catalog.ID // of the longest chunk of zeros, or noChunk

	// The locations of chunk id are locations[first[id]:first[id+1]].
	first     []uint32
	locations []location
	have      []atomic.Bool  // by chunk id: it was found in the old directory
	left      []atomic.Int64 // by node: how many bytes are not written yet
	complete  []atomic.Bool  // by node: it is written, and has its attributes

	mu      sync.Mutex
	folders []*folder // of all writers
}

// noChunk is the ID of no chunk: a catalog ends before it.
const noChunk catalog.ID = math.MaxUint32

// A location is an offset in a file.
type location struct {
	node   uint32
	offset int64
}

// begin begins to restore a part of the state.
func (r *restorer) begin(t *tree) {
	r.tree, r.zeros = t, noChunk
	if id, ok := t.Find(zeroHash); ok && isZeroChunk(t.Catalog, id) {
		r.zeros = id
	}
	r.first, r.have = make([]uint32, t.Len()+1), make([]atomic.Bool, t.Len())
	r.left, r.complete = make([]atomic.Int64, len(t.nodes)), make([]atomic.Bool, len(t.nodes))
	var done Progress
	for i, n := range t.nodes {
		left := n.Size
		for _, id := range n.chunks {
			if r.isHole(n, id) {
				left -= t.Size(id)
				continue
			}
			r.first[id+1]++
		}
		r.left[i].Store(left)
		done.Bytes += n.Size - left
		switch {
		case !n.Mode.IsRegular():
			r.others = append(r.others, n)
		case left == 0:
			done.Files++
		}
	}
	r.meter.add(done)
	for id := range t.Len() {
		r.first[id+1] += r.first[id]
	}
	r.locations = make([]location, r.first[t.Len()])
	next := slices.Clone(r.first)
	for i, n := range t.nodes {
		offset := int64(0)
		for _, id := range n.chunks {
			if !r.isHole(n, id) {
				r.locations[next[id]] = location{uint32(i), offset}
				next[id]++
			}
			offset += t.Size(id)
		}
	}
}

// isHole reports whether a chunk of a file is known to be zeros, which need not be fetched nor
// written: the file is made as long as it should be, and a hole reads as zeros. A file of a
// single chunk is made when that is written.
func (r *restorer) isHole(n *node, id catalog.ID) bool {
	return r.zeros == id && len(n.chunks) > 1
}

// missing returns the chunks of files that were not found in the old directory.
func (r *restorer) missing() []catalog.ID {
	var ids []catalog.ID
	for id := range r.have {
		if r.first[id] < r.first[id+1] && !r.have[id].Load() {
			ids = append(ids, catalog.ID(id))
		}
	}
	return ids
}

// fetched returns a function that writes chunks which were fetched.
func (r *restorer) fetched() func([]got) error {
	w := r.writer()
	return func(list []got) error {
		var moved int64
		for _, g := range list {
			moved += r.tree.StoredSize(g.id)
		}
		r.meter.add(Progress{Moved: moved})
		return r.write(w, list)
	}
}

// write writes chunks to all of their locations. Chunks that follow one another in a file
// are written together.
func (r *restorer) write(w *writer, list []got) error {
	var done Progress
	for _, g := range list {
		hole := isZero(g.data) // the file is as long as it should be, and a hole reads as zeros
		for _, p := range r.locations[r.first[g.id]:r.first[g.id+1]] {
			if !hole || len(r.tree.nodes[p.node].chunks) == 1 {
				if err := w.write(p, g.data); err != nil {
					return errors.Join(err, w.close())
				}
			}
			done.Bytes += int64(len(g.data))
			if r.left[p.node].Add(-int64(len(g.data))) == 0 {
				done.Files++
			}
		}
	}
	if err := w.close(); err != nil {
		return err
	}
	r.meter.add(done)
	return nil
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// A writer writes to one file after the other. It is used by one goroutine.
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
	if n := w.tree.nodes[node]; len(n.chunks) == 1 {
		w.file, err = newFile(w.folder, n)
	} else {
		w.file, err = w.folder.open(n.Path, os.O_WRONLY)
	}
	return err
}

// closeFile closes the file. One of a single chunk is complete, so it gets its attributes.
func (w *writer) closeFile() error {
	file := w.file
	w.file = nil
	n := w.tree.nodes[w.node]
	if len(n.chunks) != 1 {
		return file.Close()
	}
	w.complete[w.node].Store(true)
	if err := file.Close(); err != nil {
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
