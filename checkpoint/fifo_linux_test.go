package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// becomeFIFO replaces the file at path, or the directory with all its content, by a
// named pipe.
func becomeFIFO(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), syscall.Mkfifo(path, 0o644)); err != nil {
		t.Error(err)
	}
}

// neverWaits runs do. If do waits until somebody opens the other end of a FIFO, the
// test fails, and opens it.
func neverWaits(t *testing.T, fifo string, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Errorf("it waits for a writer of the FIFO")
	}
	f, err := os.OpenFile(fifo, os.O_RDWR, 0) // this open does not wait
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return <-done
}

// If a file becomes a FIFO after its directory was listed, a save does not wait for
// somebody to write to it.
func TestFileThatBecomesAFIFO(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := claim(t, newTask(t))
	swap := sync.OnceFunc(func() { becomeFIFO(t, path) })
	err := neverWaits(t, path, func() error {
		_, err := o.Commit(t.Context(), checkpoint.Snapshot{
			State:    checkpoint.Dir(dir),
			Progress: func(checkpoint.Progress) { swap() }, // called first when the directory was listed
		})
		return err
	})
	if !errors.Is(err, checkpoint.ErrChanged) || !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("err = %v", err)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("data"), 0o644)); err != nil {
		t.Fatal(err)
	}
	commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(dir)})
}

// The same for a directory, which is opened to be listed.
func TestDirectoryThatBecomesAFIFO(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	o := claim(t, newTask(t))
	// A save checks its context before it lists a directory: first ".", then "d".
	ctx := &countedContext{Context: t.Context(), calls: 2, do: func() { becomeFIFO(t, path) }}
	err := neverWaits(t, path, func() error {
		_, err := o.Commit(ctx, checkpoint.Snapshot{State: checkpoint.Dir(dir)})
		return err
	})
	if ctx.calls > 0 || err == nil || !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("err = %v after %d calls", err, 2-ctx.calls)
	}
}

// A countedContext runs do when it is asked for the n-th time whether it has ended.
type countedContext struct {
	context.Context
	mu    sync.Mutex
	calls int
	do    func()
}

func (c *countedContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls--; c.calls == 0 {
		c.do()
	}
	return c.Context.Err()
}

// A FIFO is refused as a state's directory.
func TestFIFOThatIsNoDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	becomeFIFO(t, path)
	o := claim(t, newTask(t))
	err := neverWaits(t, path, func() error {
		_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.Dir(path)})
		return err
	})
	if want := "open " + path + ": not a directory"; err == nil || err.Error() != want {
		t.Errorf("err = %v, want %s", err, want)
	}
}

// A restore looks in the old directory for data that need not be fetched. If a file
// there becomes a FIFO, its data is fetched.
func TestOldFileThatBecomesAFIFO(t *testing.T) {
	state := t.TempDir()
	const files = 200 // more than are opened before the first was read
	for i := range files {
		if err := os.WriteFile(filepath.Join(state, fmt.Sprintf("%03d", i)), noise(2000+i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	made := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{State: checkpoint.Dir(state)})
	target := filepath.Join(t.TempDir(), "target")
	if err := made.Restore(t.Context(), target, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	last := filepath.Join(target, fmt.Sprintf("%03d", files-1))
	swap := sync.OnceFunc(func() { becomeFIFO(t, last) })
	err := neverWaits(t, last, func() error {
		return made.Restore(t.Context(), target, checkpoint.RestoreOptions{Replace: true, Progress: func(p checkpoint.Progress) {
			if p.Bytes > 0 && p.Files > 0 {
				swap()
			}
		}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := digest(t, os.DirFS(target)), digest(t, os.DirFS(state)); got != want {
		t.Errorf("it is\n%s\nwant\n%s", got, want)
	}
}
