//go:build unix

package checkpoint

import (
	"errors"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// makeWhole makes a file with all of its data, its permissions and its time. os.Root and os.File
// need some 12 system calls for that, and these are nearly all of the time of a restore of many small
// files. makeWhole needs 5: nobody else has the file, so none is needed to look whether it is a link, or
// can be polled.
func (f *folder) makeWhole(file string, data []byte, perm fs.FileMode, t time.Time) error {
	dir, name, err := f.find(file)
	if err != nil {
		return err
	}
	if f.file == nil {
		if f.file, err = dir.Open("."); err != nil {
			return err
		}
	}
	in := int(f.file.Fd())
	fd, err := uninterrupted(func() (int, error) {
		return unix.Openat(in, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm|0o600))
	})
	if err != nil {
		return &fs.PathError{Op: "openat", Path: file, Err: err}
	}
	op, err := fillFile(fd, data, uint32(perm))
	if closed := unix.Close(fd); err == nil && closed != nil {
		op, err = "close", closed
	}
	if err == nil && !t.IsZero() {
		op, err = "utimensat", setTimeAt(in, name, t)
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: file, Err: err}
	}
	return nil
}

// fillFile writes data to a new file, and gives it its permissions, unless it has them: a umask or the
// default ACL of its directory may have taken some.
func fillFile(fd int, data []byte, perm uint32) (op string, err error) {
	for len(data) > 0 {
		n, err := uninterrupted(func() (int, error) { return unix.Write(fd, data) })
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return "write", err
		}
		data = data[n:]
	}
	var is unix.Stat_t
	if err := uninterruptedly(func() error { return unix.Fstat(fd, &is) }); err != nil {
		return "fstat", err
	}
	if uint32(is.Mode)&0o7777 != perm { //nolint:unconvert // it has 16 bits on some systems
		return "fchmod", uninterruptedly(func() error { return unix.Fchmod(fd, perm) })
	}
	return "", nil
}

func setTimeAt(dir int, name string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return uninterruptedly(func() error {
		return unix.UtimesNanoAt(dir, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// uninterrupted calls a system call until no signal interrupts it, as package os does.
func uninterrupted(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func uninterruptedly(call func() error) error {
	_, err := uninterrupted(func() (int, error) { return 0, call() })
	return err
}
