package dir

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The copy of a sparse file has its holes, and is found to have grown or shrunk.
func TestCopyOfASparseFile(t *testing.T) {
	const size = 64 << 20
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	data := bytes.Repeat([]byte("data"), 25<<10)
	from, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	for _, at := range []int64{3 << 20, size / 2} {
		if _, err := from.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Truncate(size); err != nil {
		t.Fatal(err)
	}
	p := &pass{mirror: newMirror(dir, dir, Options{}), ctx: context.Background()}
	before, err := from.Stat()
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "copy")
	if err := p.copyTo(to, from, before); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the copy is not what was copied")
	}
	blocks := func(path string) int64 {
		var s syscall.Stat_t
		if err := syscall.Stat(path, &s); err != nil {
			t.Fatal(err)
		}
		return s.Blocks
	}
	if a, b := blocks(to), blocks(path); a > b+16 {
		t.Errorf("the copy takes %d blocks, and the file %d", a, b)
	}
	if err := from.Truncate(size / 4); err != nil {
		t.Fatal(err)
	}
	if err := p.copyTo(filepath.Join(dir, "short"), from, before); err == nil {
		t.Error("a file that has shrunk was copied")
	}
}
