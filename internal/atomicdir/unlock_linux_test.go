package atomicdir

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A link that was put in the place of a directory does not lead a change of modes to
// another one.
func TestAccessIsNotGivenThroughALink(t *testing.T) {
	base := tempDir(t)
	for name, mode := range map[string]fs.FileMode{"victim": 0o500, "closed": 0} {
		if err := os.Mkdir(filepath.Join(base, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("victim", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	dir, err := os.OpenRoot(base)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := giveAccess(dir, "link"); err == nil {
		t.Error("a link was followed")
	}
	if err := giveAccess(dir, "closed"); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]fs.FileMode{"victim": 0o500, "closed": 0o700} {
		if info, err := os.Stat(filepath.Join(base, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
	}
}
