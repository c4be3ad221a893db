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
	"github.com/holdfast-io/holdfast/internal/filetimes"
)

// A node is one file, directory or link of a state in memory.
type node struct {
	format.Entry // its Chunks and Table are not used
	chunks       []catalog.ID
	table        []catalog.ID // the chunks of the table that lists chunks, if there is one
}

// A scan is a state that was opened, and what was found in it, in the order of
// format.ComparePaths.
type scan struct {
	*Source
	fsys  fs.FS
	close func() error
	began time.Time
	nodes []node
	seen  []fileStamp // seen[i] belongs to nodes[i]

	unkept      int    // how many have attributes that a checkpoint does not keep
	firstUnkept string // the first of these
}

// A fileStamp is what this save has seen of a file. Its change time and inode tell whether
// the file was replaced or written to during the save. The node has a copy of them only if
// later saves may rely on them.
type fileStamp struct {
	changed time.Time // change time (ctime); zero if it is not known
	inode   uint64
	stream  io.Reader // of the content, if that does not come from a file
	made    bool      // it is in no file system: a stream, or a directory that contains one
	read    bool      // its content was read for this save
}

// scan opens the state and lists what is in it.
func (s *Source) scan(ctx context.Context) (*scan, error) {
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

// describe copies what info says into node i, and returns the node. A file that changed
// less than a tick before the scan began may be written to again without another change
// time, so its change time is treated as unknown.
func (w *scan) describe(i int, info fs.FileInfo) *node {
	n, seen := &w.nodes[i], &w.seen[i]
	n.Mode, n.ModTime = info.Mode(), info.ModTime()
	n.Owner = w.ownerOf(info)
	seen.changed, seen.inode = filetimes.Identity(info)
	n.Size, n.ChangeTime, n.Inode = 0, time.Time{}, 0
	if !n.Mode.IsRegular() {
		return n
	}
	n.Size = info.Size()
	if seen.changed.Before(w.began.Add(-filetimes.Tick(seen.changed))) {
		n.ChangeTime, n.Inode = seen.changed, seen.inode
	}
	return n
}

// fail returns err, which occurred at path, with the name of the file.
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

// atPath adds the name of the file to an error, unless the error has it already, and on
// one line. Errors of the store are not about a file, and stay as they are.
func atPath(base, path string, err error) error {
	if errors.As(err, new(*backend.Error)) {
		return err
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) && pe.Error() == err.Error() {
		err = fmt.Errorf("%s: %w", pe.Op, pe.Err)
	} else if base == "" && path == "." {
		return err // it is about an fs.FS as a whole, which has no name
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

// fingerprint returns a hash of all that is known of a state without opening its files.
// If two scans of a state have the same fingerprint, nothing has changed between them. It
// returns zero if there is a file whose changes might not show in it.
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
