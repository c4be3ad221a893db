package atomicdir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A link that another user has made is not followed, also if it is not the target
// itself but on the path to it.
func TestLinksOfOthersOnTheWay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making another user's link takes root")
	}
	base := t.TempDir()
	victim, theirs, ours := filepath.Join(base, "victim"), filepath.Join(base, "theirs"), filepath.Join(base, "ours")
	for _, dir := range []string{filepath.Join(victim, "conf"), theirs, ours} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(theirs, "p")
	for _, err := range []error{
		os.WriteFile(filepath.Join(victim, "conf", "secret"), []byte("precious"), 0o600),
		os.Symlink(victim, link),
		os.Chown(theirs, 12345, 12345), os.Lchown(link, 12345, 12345),
		os.Symlink(link, filepath.Join(ours, "q")),        // made by this user, but leads to another user's link
		os.Symlink("../victim", filepath.Join(ours, "r")), // made by this user
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{
		filepath.Join(link, "conf"), filepath.Join(link, "conf", "new", "x"), filepath.Join(ours, "q", "conf"),
	} {
		d, err := Begin(target, true)
		if err == nil {
			_ = d.Abort()
		}
		if err == nil || !strings.Contains(err.Error(), link+": a symbolic link that another user may have made") {
			t.Errorf("%s: %v", target, err)
		}
	}
	d, err := Begin(filepath.Join(ours, "r", "conf"), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Abort(); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(filepath.Join(victim, "conf", "secret")); err != nil || string(data) != "precious" {
		t.Errorf("%q, %v", data, err)
	}
}
