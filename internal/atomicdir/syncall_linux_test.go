package atomicdir

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Up to a number of files, each is synced by itself. More are synced together, and nothing is left out.
func TestManyFilesAreSyncedTogether(t *testing.T) {
	for files, want := range map[int]string{many: "sync", many + 1: "syncall", 2 * many: "syncall"} {
		f := &fault{at: -1}
		d, err := start(filepath.Join(t.TempDir(), "x"), false, f.step)
		if err != nil {
			t.Fatal(err)
		}
		for i := range files {
			if err := d.Root().WriteFile(fmt.Sprint(i), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Commit(nil); err != nil {
			t.Fatal(err)
		}
		synced := slices.DeleteFunc(f.steps, func(step string) bool {
			op, path, _ := strings.Cut(step, " ")
			return op != "syncall" && (op != "sync" || !strings.HasPrefix(filepath.Base(filepath.Dir(path)), ".x.holdfast-"))
		})
		if n := map[string]int{"sync": files, "syncall": 1}[want]; len(synced) != n || !strings.HasPrefix(synced[0], want+" ") {
			t.Errorf("%d files: %d steps, the first is %q; want %d of %s", files, len(synced), slices.Concat(synced, []string{""})[0], n, want)
		}
	}
}
