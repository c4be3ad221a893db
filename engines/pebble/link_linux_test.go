package pebble

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Pebble would copy the whole database there.
func TestCutsOnAnotherFileSystem(t *testing.T) {
	p := newPlace(t)
	memory, err := os.MkdirTemp("/dev/shm", "holdfast-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	var here, there syscall.Stat_t
	if syscall.Stat(filepath.Dir(p.dir), &here) != nil || syscall.Stat(memory, &there) != nil || here.Dev == there.Dev {
		t.Skip("temporary files are in /dev/shm")
	}
	_, err = Open(p.dir, small(), memory)
	wantError(t, err, memory, p.dir, "on the file system of the database")
	mustOpen(t, p, small()) // nothing is held
}
