package atomicdir

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Nobody else can put anything into the new directory, whatever the umask is. Once in
// place, it has the mode of any new directory, unless finish gives it another one.
func TestBuiltInPrivate(t *testing.T) {
	for _, umask := range []int{0, 0o002, 0o022, 0o077} {
		parent := tempDir(t)
		old := syscall.Umask(umask)
		defer syscall.Umask(old)
		d := begin(t, filepath.Join(parent, "x"), false)
		info, err := os.Stat(d.at())
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode(); got != fs.ModeDir|0o700 {
			t.Errorf("umask %03o: it is built in a directory with mode %v", umask, got)
		}
		if err := fill(d.at(), "new"); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(nil); err != nil {
			t.Fatal(err)
		}
		info, err = os.Stat(filepath.Join(parent, "x"))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := info.Mode(), fs.ModeDir|0o777&^fs.FileMode(umask); got != want {
			t.Errorf("umask %03o: the target has mode %v, want %v", umask, got, want)
		}
		wantGeneration(t, filepath.Join(parent, "x"), "new")
	}
}
