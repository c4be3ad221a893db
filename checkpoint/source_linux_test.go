package checkpoint_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// asOrdinaryUser takes root's right to ignore permissions from the test's thread, if
// it has it.
func asOrdinaryUser(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	runtime.LockOSThread()
	if err := syscall.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setfsuid(0); err != nil {
			panic(err)
		}
		runtime.UnlockOSThread()
	})
}

// openDir returns a directory that everyone may read.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFilesThatACheckpointCannotHold(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(path string) error
		file string
		kind error
		text string // after the directory
	}{
		{name: "an unreadable file", file: "d/f", kind: fs.ErrPermission, text: "/d/f: openat: permission denied",
			make: func(path string) error { return os.WriteFile(path, []byte("x"), 0) }},
		{name: "an unreadable directory", file: "d/f", kind: fs.ErrPermission, text: "/d/f: openat: permission denied",
			make: func(path string) error { return os.Mkdir(path, 0) }},
		{name: "a named pipe", file: "d/f", text: "/d/f: it is a named pipe, which a checkpoint cannot hold; leave it out of the directory",
			make: func(path string) error { return syscall.Mkfifo(path, 0o644) }},
		{name: "a socket", file: "d/f", text: "/d/f: it is a socket, which a checkpoint cannot hold; leave it out of the directory",
			make: func(path string) error {
				l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
				if err != nil {
					return err
				}
				l.SetUnlinkOnClose(false)
				return l.Close()
			}},
		{name: "a device", file: "d/f", text: "/d/f: it is a device, which a checkpoint cannot hold; leave it out of the directory",
			make: func(path string) error {
				if os.Geteuid() != 0 { // only root can make one; but any directory of devices has some
					return errors.ErrUnsupported
				}
				return syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|3)
			}},
		{name: "a name that is not UTF-8", file: "d/\xff\xfe", make: func(path string) error { return os.WriteFile(path, nil, 0o644) },
			text: `/d/\xff\xfe": the name is not valid UTF-8, which a checkpoint cannot hold; rename it`},
		{name: "a directory whose name is not UTF-8", file: "d/\xff", make: func(path string) error { return os.Mkdir(path, 0o755) },
			text: `/d/\xff": the name is not valid UTF-8, which a checkpoint cannot hold; rename it`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := openDir(t)
			if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.make(filepath.Join(dir, c.file)); errors.Is(err, errors.ErrUnsupported) {
				t.Skip("this user cannot make it")
			} else if err != nil {
				t.Fatal(err)
			}
			o := claim(t, newTask(t))
			asOrdinaryUser(t)
			_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.Dir(dir)})
			if err == nil || !strings.HasSuffix(strings.TrimPrefix(err.Error(), `"`), dir+c.text) || strings.Count(err.Error(), dir) != 1 {
				t.Errorf("err = %v\nwant  %s", err, dir+c.text)
			}
			if c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("err = %v, want %v", err, c.kind)
			}
		})
	}
}
