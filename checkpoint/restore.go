package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
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
	lists := r.memory()
	c.task.job.data.count(lists)
	defer c.task.job.data.count(-lists)
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
