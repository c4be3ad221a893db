package atomicdir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTargetsThatCannotBeReplaced(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	here := filepath.Join(dir, "here")
	if err := os.Mkdir(here, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Chdir(here)
	targets := map[string]string{file: "not a directory", ".": "working directory", here: "working directory"}
	if info, err := os.Stat("/proc"); err == nil && info.IsDir() && os.Geteuid() == 0 { // others may not write beside it
		targets["/proc"] = "mount point"
	}
	for target, want := range targets {
		d, err := Begin(target, true)
		if err == nil {
			t.Errorf("%s: no error", target)
			_ = d.Abort()
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", target, err, want)
		}
	}
}
