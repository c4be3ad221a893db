package recipe

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// Golden sums of small states: figures are comparable only if the recipe stays.
// Whoever changes it raises the version in content.
var golden = []struct {
	name          string
	make          func(t *testing.T, dir string) (*State, error)
	files         int
	before, after string
}{
	{"files", func(t *testing.T, dir string) (*State, error) { return Files(t.Context(), dir, 4, 3<<20+5) }, 4, "873daa067babd052", "46ccea160fdadd9d"},
	{"small", func(t *testing.T, dir string) (*State, error) { return Small(t.Context(), dir, 1234) }, 1234, "bc0aeeb5025cdf40", "efe7119a8200ace2"},
	{"one", func(t *testing.T, dir string) (*State, error) { return One(t.Context(), dir, 5<<20) }, 1, "6aa506d3cb9b4f22", "865dda9c378a03e9"},
}

func TestFiles(t *testing.T) {
	for _, c := range golden {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			s, err := c.make(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			before := tree(t, dir)
			if sum := sumOf(before); sum != c.before {
				t.Errorf("made %s, want %s", sum, c.before)
			}
			checkSize(t, s, before, c.files)
			if err := s.Change(); err != nil {
				t.Fatal(err)
			}
			after := tree(t, dir)
			if sum := sumOf(after); sum != c.after {
				t.Errorf("changed it to %s, want %s", sum, c.after)
			}
			checkChange(t, s, before, after)
			for range 2 {
				if err := s.Rewind(); err != nil {
					t.Fatal(err)
				}
				if !maps.Equal(tree(t, dir), before) {
					t.Error("Rewind does not make it what it was")
				}
			}
		})
	}
}

// tree returns the content of every file below dir.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	fsys := os.DirFS(dir)
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(fsys, path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sumOf(tree map[string]string) string {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(tree)) {
		_, _ = fmt.Fprintf(h, "%q %q\n", path, tree[path])
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

func checkSize(t *testing.T, s *State, tree map[string]string, files int) {
	t.Helper()
	bytes := int64(0)
	for _, data := range tree {
		bytes += int64(len(data))
	}
	if s.Files != files || len(tree) != files || s.Bytes != bytes {
		t.Errorf("State has %d files and %d bytes, the directory %d and %d; want %d files", s.Files, s.Bytes, len(tree), bytes, files)
	}
}

// checkChange makes sure that one page in a hundred has new bytes, that these
// are spread over the state, and that nothing else has changed.
func checkChange(t *testing.T, s *State, before, after map[string]string) {
	t.Helper()
	pages, changed, bytes, touched := 0, 0, int64(0), 0
	for _, path := range slices.Sorted(maps.Keys(before)) {
		was, is := before[path], after[path]
		if len(was) != len(is) {
			t.Fatalf("%s had %d bytes and has %d", path, len(was), len(is))
		}
		if was != is {
			touched++
		}
		for at := 0; at < len(was); at += PageSize {
			pages++
			end := min(at+PageSize, len(was))
			if was[at:end] == is[at:end] {
				continue
			}
			changed++
			bytes += int64(end - at)
			if same := equalBytes(was[at:end], is[at:end]); same > (end-at)/2 {
				t.Errorf("%s: of the page at %d, %d bytes stayed", path, at, same)
			}
		}
	}
	if len(after) != len(before) || changed != pages/100 || bytes != s.Changed {
		t.Errorf("%d files became %d; %d of %d pages changed, %d bytes; State.Changed is %d", len(before), len(after), changed, pages, bytes, s.Changed)
	}
	if want := min(len(before), changed); touched < want/2 {
		t.Errorf("the changes are in %d files only", touched)
	}
}

func equalBytes(a, b string) (n int) {
	for i := range len(a) {
		if a[i] == b[i] {
			n++
		}
	}
	return n
}

func TestPebble(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "state")
	const records = 20_000
	s, err := Pebble(t.Context(), dir, filepath.Join(base, "work"), records)
	if err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	checkSize(t, s, before, len(before))
	first := contents(t, dir)
	if err := s.Change(); err != nil {
		t.Fatal(err)
	}
	after := tree(t, dir)
	second := contents(t, dir)
	fresh := int64(0)
	for path, data := range after {
		if before[path] != data || strings.HasPrefix(path, "marker.") {
			fresh += int64(len(data))
		}
	}
	if s.Changed < fresh || s.Changed > s.Bytes {
		t.Errorf("State.Changed is %d; files with %d bytes of %d have changed", s.Changed, fresh, s.Bytes)
	}
	differ := 0
	for key, value := range first {
		if second[key] != value {
			differ++
		}
	}
	// Some records are overwritten twice.
	if len(first) != records || len(second) != records || differ > records/100 || differ < records/100*9/10 {
		t.Errorf("of %d records, then %d, %d have changed; want about one in a hundred", len(first), len(second), differ)
	}
	if err := s.Rewind(); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(tree(t, dir), before) {
		t.Error("Rewind does not make it what it was")
	}
	const want = "f2b302ebeb9bf94f"
	if sum := sumOf(first); sum != want {
		t.Errorf("the records sum up to %s, want %s", sum, want)
	}
}

// contents returns what a checkpoint's database holds. It opens a copy.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open(copied, &pebble.Options{Logger: quiet{pebble.DefaultLogger}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	records := make(map[string]string)
	for ok := it.First(); ok; ok = it.Next() {
		records[string(it.Key())] = string(it.Value())
	}
	if err := it.Error(); err != nil {
		t.Fatal(err)
	}
	return records
}
