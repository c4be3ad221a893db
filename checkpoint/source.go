package checkpoint

import (
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
)

// A Source is the state that a save reads: made by [Dir], [FS], [Stream] or
// [Join]. The zero Source is no state at all.
type Source struct {
	open      func() (tree fs.FS, close func() error, err error) // nil if there is none
	base      string                                             // where the tree is, for errors
	streams   []stream
	parts     map[string]Source // of Join
	immutable []string
	writeOnce []string
	reread    bool
	full      bool
	owners    bool
}

// Dir is the directory at path: its regular files, directories and symbolic
// links, with permissions and modification times. Links are stored as links
// and never followed, the directory itself excepted. Sockets, devices and
// pipes are refused.
//
// A file is not opened if its size, its times of modification and change, and
// its inode are as they were when the checkpoint before was made, and if every
// change since then is sure to have moved them. That is so on ext4, XFS and Btrfs,
// on Linux, also with writes through memory maps; elsewhere, and in a tmpfs, every
// file is opened. A save that reads a file has its dirty pages written to the disk.
//
// Extended attributes and ACLs are not kept. On Linux, Options.Logger is told once for each
// Task if a file that is read, or a new directory, has user.* attributes, a POSIX ACL or file
// capabilities.
//
// A save fails with ErrChanged if a file in the directory is written to, replaced,
// added or removed before the last file was read. docs/protocol.md, "What a save
// trusts", says what it cannot see.
func Dir(path string) Source {
	return Source{base: path, open: func() (fs.FS, func() error, error) {
		if path == "" {
			return nil, nil, backend.Invalidf("the state's directory has no name")
		}
		root, err := openRoot(path)
		if err != nil {
			return nil, nil, err
		}
		return dirFS{root}, root.Close, nil
	}}
}

// FS is everything in fsys. Symbolic links need an fsys that is an
// fs.ReadLinkFS. Its Open must not wait, which that of os.DirFS does for a FIFO: use
// [Dir] for a directory. Files are opened unless they are the operating system's, as those
// of os.DirFS are: see [Dir]. A file of fsys that wraps one of these has to be a
// syscall.Conn, too, and its FileInfo to have the same Sys.
func FS(fsys fs.FS) Source {
	return Source{open: func() (fs.FS, func() error, error) {
		if fsys == nil {
			return nil, nil, backend.Invalidf("the state's file system is nil")
		}
		return fsys, func() error { return nil }, nil
	}}
}

// Stream is a single file with the given name, a valid path by io/fs, whose
// content is what r yields until io.EOF.
//
// The reader is the caller's, and so is closing it after a save that went well,
// which has read it to its end. A save that fails has read some of it, and closes
// it, so that whoever writes to its other end does not wait for ever: by
// CloseWithError if r has that method, as an [io.PipeReader] does, or else by Close
// if it has that one. It does so too when the save is refused before it begins.
// Only CloseWithError interrupts a Read, when the context has ended or an upload
// has failed meanwhile.
func Stream(name string, r io.Reader) Source { return Source{streams: []stream{{name, r}}} }

// A stream is a file of a state that goes by once.
type stream struct {
	name   string
	reader io.Reader
}

// Immutable returns s with a promise: a file whose name matches one of the
// patterns, by [path.Match], is never changed once it is there, nor its name
// given to other data, as with the tables of an LSM tree. If the checkpoint
// before has it with the same path and size, it is not opened, even if it is
// another copy or has got another hard link since.
func (s Source) Immutable(patterns ...string) Source {
	s.immutable = slices.Concat(s.immutable, patterns)
	return s
}

// WriteOnce returns s with a weaker promise than [Source.Immutable]: a file whose
// name matches one of the patterns is written once, and not again with its time of
// modification unchanged. If the checkpoint before has it with the same path, size
// and time of modification, it is not opened, even if it has another inode or has
// got another hard link since. That is so for the tables of an LSM tree that are
// linked from the database, and for those that a restore has written, which get
// their times back. Another database's table of the same name and size has
// another time, and is read.
func (s Source) WriteOnce(patterns ...string) Source {
	s.writeOnce = slices.Concat(s.writeOnce, patterns)
	return s
}

// Reread returns s with every file opened and compared, whatever its times say
// and whatever was promised of it. It is for a state that something may have
// written to while it was saved before, unseen.
func (s Source) Reread() Source {
	s.reread = true
	return s
}

// Full returns s to be stored as a whole, as if there were no checkpoint before.
// A save takes for granted that what it shares with that is still in the store:
// after damage there, which [Task.Verify] finds, this makes a checkpoint that
// does not need it.
func (s Source) Full() Source {
	s.full = true
	return s
}

// FileOwners returns s with the owner and group of every file, directory and link, by
// number, which [Checkpoint.Restore] gives back if it is asked to, and [Owner.Resume]
// always: a commit after it would lose them otherwise. A state whose file system does not
// say who they are is refused with ErrFileOwners: it has to be a [Dir], on Linux or
// macOS.
func (s Source) FileOwners() Source {
	s.owners = true
	return s
}

// failed tells the other ends of streams that their save ended with err, unless
// that is nil.
func (s *Source) failed(err error) {
	if err == nil {
		return
	}
	for _, from := range s.streams {
		if from.interrupt(err) {
			continue
		}
		if r, ok := from.reader.(io.Closer); ok {
			_ = r.Close() // what the save failed with is the error to report
		}
	}
}

// interrupt ends a Read of the stream that may be under way, if it can be.
func (s *stream) interrupt(err error) bool {
	r, ok := s.reader.(interface{ CloseWithError(error) error })
	if ok {
		_ = r.CloseWithError(err) // as in failed
	}
	return ok
}

func (s *Source) empty() bool { return s.open == nil && len(s.streams) == 0 && s.parts == nil }

// isImmutable reports whether a file with that path was declared immutable.
func (s *Source) isImmutable(name string) bool {
	return s.promised(name, func(s *Source) []string { return s.immutable })
}

// isWriteOnce reports whether a file with that path was declared to be written
// once.
func (s *Source) isWriteOnce(name string) bool {
	return s.promised(name, func(s *Source) []string { return s.writeOnce })
}

// promised reports whether a file with that path matches one of the patterns, of
// the state or of the part that it is in.
func (s *Source) promised(name string, patterns func(*Source) []string) bool {
	first, rest, _ := strings.Cut(name, "/")
	if part, ok := s.parts[first]; ok && part.promised(rest, patterns) {
		return true
	}
	return matches(patterns(s), name)
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(pattern, path.Base(name)) // patterns were checked
		return ok
	})
}

func (s *Source) check() error {
	for _, pattern := range slices.Concat(s.immutable, s.writeOnce) {
		if _, err := path.Match(pattern, ""); err != nil {
			return backend.Invalidf("pattern %q of files that are immutable or written once: %v", pattern, err)
		}
	}
	for _, from := range s.streams {
		if !fs.ValidPath(from.name) || from.name == "." {
			return backend.Invalidf("stream name %q is not a valid path", from.name)
		}
		if from.reader == nil {
			return backend.Invalidf("stream %q has no reader", from.name)
		}
	}
	return s.checkParts()
}

// fill reads until p is full or r ends. io.ReadFull will not do: it says
// io.ErrUnexpectedEOF for the end, which a reader says itself when its own
// input, a compressed file or a network connection, was cut short.
func fill(ctx context.Context, p []byte, r io.Reader) (n int, end bool, err error) {
	for empty := 0; n < len(p); {
		if err := ctx.Err(); err != nil {
			return n, false, err
		}
		k, err := r.Read(p[n:])
		n += k
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
		if empty++; k > 0 {
			empty = 0
		} else if empty == 100 {
			return n, false, io.ErrNoProgress
		}
	}
	return n, false, nil
}
