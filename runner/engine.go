package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// All that the runner asks of package checkpoint is in this file.
//
// STAND-IN marks what package checkpoint will do itself: replace the body by the
// call that is named.

func claim(ctx context.Context, job *checkpoint.Job, task string) (*checkpoint.Owner, error) {
	return job.Claim(ctx, task) // STAND-IN: Job.Task, then Task.Claim(ctx, ClaimOptions{})
}

// checkName reports what is wrong with the name of a task.
func checkName(job *checkpoint.Job, task string) error {
	_, err := job.Task(task)
	return err
}

// newest returns the checkpoint that the owner goes on from, or nil if there is
// none.
func newest(ctx context.Context, o *checkpoint.Owner) (*checkpoint.Checkpoint, error) {
	c, err := o.Checkpoint(ctx)
	if errors.Is(err, checkpoint.ErrNoCheckpoint) {
		return nil, nil
	}
	return c, err
}

// stillOwner returns checkpoint.ErrFenced if another has claimed the task.
//
// STAND-IN: Owner.Check(ctx).
func stillOwner(ctx context.Context, job *checkpoint.Job, task string, o *checkpoint.Owner) error {
	t, err := job.Task(task)
	if err != nil {
		return err
	}
	status, err := t.Status(ctx)
	if err == nil && status.Epoch != o.Epoch() {
		err = fmt.Errorf("task %q, epoch %d: %w", task, o.Epoch(), checkpoint.ErrFenced)
	}
	return err
}

// settle finds out what came of a commit that is in doubt. Its error is
// checkpoint.ErrUnknown if that is still not known, and checkpoint.ErrFenced if
// another has claimed the task.
//
// STAND-IN: a call that settles and does nothing else (Owner.Check, if it does).
// An owner settles before it looks at what it is to commit, and this is nothing
// that it would.
func settle(ctx context.Context, o *checkpoint.Owner) error {
	_, err := o.Commit(ctx, checkpoint.Snapshot{OffsetsAre: "nothing to commit"})
	if errors.Is(err, fs.ErrInvalid) && !errors.Is(err, checkpoint.ErrUnknown) {
		return nil
	}
	return err
}

// closeOwner waits for the clean-up that commits have left behind.
//
// STAND-IN: Owner.Close(ctx).
func closeOwner(ctx context.Context, o *checkpoint.Owner) error {
	closed := make(chan error, 1)
	go func() { closed <- o.Close() }()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("clean-up: %w", context.Cause(ctx))
	}
}

// sizes returns the stores in a checkpoint, and the size of each in bytes.
func sizes(ctx context.Context, c *checkpoint.Checkpoint) (map[string]int64, error) {
	entries, err := c.Entries(ctx)
	if err != nil {
		return nil, err
	}
	stores := make(map[string]int64)
	for _, e := range entries {
		if e.Path != "." {
			name, _, _ := strings.Cut(e.Path, "/")
			stores[name] += e.Size
		}
	}
	return stores, nil
}

// restore makes dir what the checkpoint has of a store.
//
// STAND-IN: c.Restore(ctx, dir, RestoreOptions{Replace: true, Sub: store, Progress: progress}).
func restore(ctx context.Context, c *checkpoint.Checkpoint, store, dir string, progress func(checkpoint.Progress)) error {
	if store == "" {
		return c.Restore(ctx, dir, checkpoint.RestoreOptions{Replace: true, Progress: progress})
	}
	all, err := c.FS(ctx)
	if err != nil {
		return err
	}
	part, err := fs.Sub(all, store)
	if err != nil {
		return err
	}
	return errors.Join(removeTree(dir), os.CopyFS(dir, part))
}

// join is the state of named stores as one source; a single store "" is itself.
//
// STAND-IN: checkpoint.Join(stores), whose close does nothing.
func join(stores map[string]checkpoint.Source) (s checkpoint.Source, closeAll func(), err error) {
	if one, ok := stores[""]; ok || len(stores) == 0 {
		return one, func() {}, nil
	}
	joined := make(joinedFS)
	var closers []func() error
	closeAll = func() {
		for _, c := range closers {
			_ = c() // it was only read
		}
	}
	var immutable []string
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		source := stores[name]
		v := reflect.ValueOf(&source).Elem()
		open := *(*func() (fs.FS, func() error, error))(unsafe.Pointer(v.FieldByName("open").UnsafeAddr()))
		if open == nil {
			closeAll()
			return s, nil, fmt.Errorf("store %q is no directory: %w", name, errors.ErrUnsupported)
		}
		fsys, c, err := open()
		if err != nil {
			closeAll()
			return s, nil, fmt.Errorf("store %q: %w", name, err)
		}
		joined[name], closers = fsys, append(closers, c)
		immutable = append(immutable, *(*[]string)(unsafe.Pointer(v.FieldByName("immutable").UnsafeAddr()))...)
	}
	return checkpoint.FS(joined).Immutable(immutable...), closeAll, nil
}

// A joinedFS has each file system in a directory of its name.
type joinedFS map[string]fs.FS

func (j joinedFS) find(op, name string) (fs.FS, string, error) {
	first, rest, _ := strings.Cut(name, "/")
	sub, ok := j[first]
	if !ok {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	if rest == "" {
		rest = "."
	}
	return sub, rest, nil
}

func (j joinedFS) Open(name string) (fs.File, error) {
	if name == "." {
		return &rootDir{Reader: bytes.NewReader(nil), fsys: j}, nil
	}
	sub, rest, err := j.find("open", name)
	if err != nil {
		return nil, err
	}
	return sub.Open(rest)
}

func (j joinedFS) Lstat(name string) (fs.FileInfo, error) {
	if name == "." {
		for _, sub := range j {
			return fs.Lstat(sub, ".")
		}
	}
	sub, rest, err := j.find("lstat", name)
	if err != nil {
		return nil, err
	}
	return fs.Lstat(sub, rest)
}

func (j joinedFS) ReadLink(name string) (string, error) {
	sub, rest, err := j.find("readlink", name)
	if err != nil {
		return "", err
	}
	return fs.ReadLink(sub, rest)
}

type rootDir struct {
	*bytes.Reader
	fsys joinedFS
	read bool
}

func (d *rootDir) Close() error               { return nil }
func (d *rootDir) Stat() (fs.FileInfo, error) { return d.fsys.Lstat(".") }

func (d *rootDir) ReadDir(int) (list []fs.DirEntry, err error) {
	if d.read {
		return nil, io.EOF
	}
	d.read = true
	for _, name := range slices.Sorted(maps.Keys(d.fsys)) {
		info, err := fs.Lstat(d.fsys[name], ".")
		if err != nil {
			return nil, err
		}
		list = append(list, fs.FileInfoToDirEntry(named{info, filepath.Base(name)}))
	}
	return list, nil
}

type named struct {
	fs.FileInfo
	name string
}

func (n named) Name() string { return n.name }

// usage is what the job has asked of its store, by verb.
func usage(job *checkpoint.Job) map[string]verbUse {
	u := job.Usage() // STAND-IN: job.Stats()
	return map[string]verbUse{"create": u.Create, "put": u.Put, "get": u.Get, "list": u.List, "delete": u.Delete}
}

type verbUse = backend.Count
