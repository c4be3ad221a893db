package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"

	"github.com/zeebo/blake3"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A node is one file, directory or link of a state in memory.
type node struct {
	format.Entry // without chunks and table
	chunks       []catalog.ID
	table        []catalog.ID // if chunks have one that is stored
}

// A scan is a state that was opened, and what was seen of it, in the order of
// a tree.
type scan struct {
	*Source
	fsys  fs.FS
	close func() error
	began time.Time
	nodes []node
	seen  []fileStamp // by node
}

// A fileStamp tells a file from others, and from what it was: when its inode last
// changed, and the inode's number. It is zero if that is not known. A node has it
// only if it says whether the file changes again.
type fileStamp struct {
	changed time.Time
	inode   uint64
	stream  io.Reader // of the content, if it is not a file's
	made    bool      // it is in no file system: a stream, or a directory around it
	read    bool      // its content was read for this save
}

// walk opens the state and finds out what it consists of.
func (s *Source) walk(ctx context.Context) (*scan, error) {
	now := time.Now() //nolint:forbidigo // what is compared with it are files' times, not the protocol's
	w := &scan{Source: s, began: now, close: func() error { return nil }}
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.open == nil {
		w.addStreams()
		return w, nil
	}
	var err error
	if w.fsys, w.close, err = s.open(); err != nil {
		return nil, err
	}
	err = fs.WalkDir(w.fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = w.add(path, d)
		}
		return w.fail(path, err)
	})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.addStreams()
	return w, nil
}

// add adds what is at path.
func (w *scan) add(path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	w.nodes, w.seen = append(w.nodes, node{Entry: format.Entry{Path: path}}), append(w.seen, fileStamp{})
	n := w.describe(len(w.nodes)-1, info)
	switch {
	case !fs.ValidPath(path):
		return errors.New("the name is not valid UTF-8, which a checkpoint cannot hold; rename it")
	case n.Mode.IsDir():
	case n.Mode.Type() == fs.ModeSymlink:
		n.Target, err = readLink(w.fsys, path)
	case n.Mode.IsRegular():
	default:
		err = fmt.Errorf("it is a %s, which a checkpoint cannot hold; leave it out of the directory", typeName(n.Mode))
	}
	return err
}

// tick returns in what steps the file system counts time whose clock showed t.
// Linux counts in jiffies, of 10 ms at most, and Windows in 16 ms; 100 ms leave
// something for a server's clock. FAT counts in 2 s, others in whole seconds.
func tick(t time.Time) time.Duration {
	if t.Nanosecond() == 0 {
		return 2 * time.Second
	}
	return 100 * time.Millisecond
}

// describe takes over what info says of a node, which it returns. A file that
// changed less than a tick before the walk began may be written to without any
// sign, so its change time is taken for unknown.
func (w *scan) describe(i int, info fs.FileInfo) *node {
	n, seen := &w.nodes[i], &w.seen[i]
	n.Mode, n.ModTime = info.Mode(), info.ModTime()
	n.Owner = w.ownerOf(info)
	seen.changed, seen.inode = identity(info)
	n.Size, n.ChangeTime, n.Inode = 0, time.Time{}, 0
	if !n.Mode.IsRegular() {
		return n
	}
	n.Size = info.Size()
	if seen.changed.Before(w.began.Add(-tick(seen.changed))) {
		n.ChangeTime, n.Inode = seen.changed, seen.inode
	}
	return n
}

// fail returns what it means that err happened at path.
func (w *scan) fail(path string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) && path != "." {
		err = errRemoved
	}
	base, path := w.locate(path)
	return atPath(base, path, err)
}

// atPath names the file that an error is about, once, and on one line. Errors
// of the store are about no file.
func atPath(base, path string, err error) error {
	if errors.As(err, new(*backend.Error)) {
		return err
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) && pe.Error() == err.Error() {
		err = fmt.Errorf("%s: %w", pe.Op, pe.Err)
	} else if base == "" && path == "." {
		return err // an fs.FS as a whole has no name, and says itself what it is
	}
	name := filepath.Join(base, filepath.FromSlash(path))
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
		name = quoted
	}
	return fmt.Errorf("%s: %w", name, err)
}

func readLink(fsys fs.FS, path string) (string, error) {
	if _, ok := fsys.(fs.ReadLinkFS); !ok {
		return "", errors.New("it is a symbolic link, which this file system cannot read: it has no ReadLink")
	}
	return fs.ReadLink(fsys, path)
}

func typeName(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "file of an unknown kind"
}

// fingerprint returns a hash of what can be known of a state without opening its
// files: if it is the same again, nothing has changed. It returns zero if there
// is a file whose changes might go unseen.
func fingerprint(nodes []node) (sum format.Hash) {
	h := blake3.New()
	var b []byte
	for i := range nodes {
		n := &nodes[i]
		if n.Mode.IsRegular() && n.ChangeTime.IsZero() {
			return format.Hash{}
		}
		b = fmt.Appendf(b[:0], "%q %q %d %d %d.%d %d.%d %d %v\n", n.Path, n.Target, n.Mode, n.Size,
			n.ModTime.Unix(), n.ModTime.Nanosecond(), n.ChangeTime.Unix(), n.ChangeTime.Nanosecond(), n.Inode, n.Owner)
		_, _ = h.Write(b) // which never fails
	}
	h.Sum(sum[:0])
	return sum
}
