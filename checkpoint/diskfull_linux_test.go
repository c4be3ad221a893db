package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A smallDisk is a small file system. Ballast fills it up.
type smallDisk struct {
	name string
	// mount mounts it at dir.
	mount func(t *testing.T, dir string)
	// leave leaves space for the given number of units. A unit is the least space
	// that a file takes.
	leave func(t *testing.T, dir string, units int)
}

const unit = 4 << 10

var smallDisks = []smallDisk{
	{"bytes", func(t *testing.T, dir string) { mountTmpfs(t, dir, "size=2m") }, leaveBytes},
	{"inodes", func(t *testing.T, dir string) { mountTmpfs(t, dir, "size=64m,nr_inodes=200") }, leaveInodes},
	{"ext4", mountExt4, leaveBytes},
}

func mountTmpfs(t *testing.T, dir, options string) {
	t.Helper()
	mounted(t, dir, syscall.Mount("tmpfs", dir, "tmpfs", 0, options))
}

// mounted unmounts dir at the end of the test, or skips the test if the mount failed.
func mounted(t *testing.T, dir string, err error) {
	t.Helper()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting takes privileges; the tests of packages local and atomicdir inject the errors")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// mountExt4 mounts an image, with a journal.
func mountExt4(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting takes privileges")
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 8<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", image).CombinedOutput(); err != nil {
		t.Skipf("there is no ext4 to be had: %v, %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("there is no loop device to be had: %v, %s", err, out)
	}
	mounted(t, dir, nil)
}

// leaveBytes fills the disk up, and then frees the given number of units.
func leaveBytes(t *testing.T, dir string, units int) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for err == nil {
		var n int
		n, err = f.Write(make([]byte, unit))
		size += int64(n)
		if err == nil && size%(64*unit) == 0 {
			err = f.Sync() // reserved space might still turn out to be missing
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(max(0, size-int64(units)*unit)), f.Sync()); err != nil {
		t.Fatal(err)
	}
}

// leaveInodes leaves room for the given number of files.
func leaveInodes(t *testing.T, dir string, units int) {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	if err := os.MkdirAll(ballast, 0o777); err != nil {
		t.Fatal(err)
	}
	var err error
	for n := 0; err == nil; n++ {
		err = os.WriteFile(filepath.Join(ballast, fmt.Sprint(units, "-", n)), nil, 0o666)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	made, err := os.ReadDir(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range made[:min(units, len(made))] {
		if err := os.Remove(filepath.Join(ballast, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func makeRoom(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
}

// onDisk runs do in a process without any cached state.
func onDisk(t *testing.T, dir string, do func(*checkpoint.Task) error) error {
	t.Helper()
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}
	job, err := checkpoint.Open(t.Context(), u.String(), checkpoint.Options{
		Memory: 1 << 20, Retention: checkpoint.Retention{Last: 2}, Backoff: backend.Backoff{Attempts: 1},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	task, err := job.Task("orders/7")
	if err == nil {
		err = do(task)
	}
	if closed := job.Close(context.Background()); closed != nil {
		t.Error(closed)
	}
	return err
}

// saveCount makes a checkpoint of the state at n.
func saveCount(t *testing.T, store string, n int) {
	t.Helper()
	dir := t.TempDir()
	if err := writeCount(dir, n); err != nil {
		t.Fatal(err)
	}
	err := onDisk(t, store, func(task *checkpoint.Task) error {
		_, err := task.Save(t.Context(), countSnapshot(dir, n), checkpoint.SaveOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func wantNoSpace(t *testing.T, units int, err error) {
	t.Helper()
	if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("with %d units of room: %v", units, err)
	}
}

// TestDiskOfARestoreIsFull restores over an older state with more and more space. As
// long as there is too little, the older state is unchanged, and nothing is left
// beside it.
func TestDiskOfARestoreIsFull(t *testing.T) {
	for _, d := range smallDisks {
		t.Run(d.name, func(t *testing.T) {
			disk := t.TempDir()
			d.mount(t, disk)
			store := t.TempDir()
			saveCount(t, store, 5)
			at := filepath.Join(disk, "at")
			target := filepath.Join(at, "state")
			restore := func(n int) error {
				return onDisk(t, store, func(task *checkpoint.Task) error {
					c, err := task.Latest(t.Context())
					if err == nil {
						err = c.Restore(t.Context(), target, checkpoint.RestoreOptions{Replace: true})
					}
					if err == nil {
						err = sameAsCount(os.DirFS(target), n)
					}
					return err
				})
			}
			if err := restore(5); err != nil {
				t.Fatal(err)
			}
			saveCount(t, store, 17)
			for units := 0; ; units++ {
				d.leave(t, disk, units)
				err := restore(17)
				if err == nil {
					t.Logf("%d units were too few", units-1)
					break
				}
				wantNoSpace(t, units, err)
				if err := sameAsCount(os.DirFS(target), 5); err != nil {
					t.Fatalf("with %d units of room: %v", units, err)
				}
				if left, err := os.ReadDir(at); err != nil || len(left) != 1 {
					t.Fatalf("with %d units of room there is left: %v, %v", units, left, err)
				}
			}
			makeRoom(t, disk)
		})
	}
}

// TestDiskOfTheStoreIsFull commits with more and more space. As long as there is too
// little, the previous checkpoint is the newest, and nothing is damaged or left over.
func TestDiskOfTheStoreIsFull(t *testing.T) {
	for _, d := range smallDisks {
		t.Run(d.name, func(t *testing.T) {
			disk, state := t.TempDir(), t.TempDir()
			d.mount(t, disk)
			dir := filepath.Join(disk, "store")
			saveCount(t, dir, 5)
			if err := writeCount(state, 17); err != nil {
				t.Fatal(err)
			}
			claims := 0
			for units := 0; ; units++ {
				d.leave(t, disk, units)
				err := onDisk(t, dir, func(task *checkpoint.Task) error { return commitOnce(t, task, state, &claims) })
				if err == nil {
					t.Logf("%d units were too few, %d of them enough for a claim", units-1, claims)
					break
				}
				wantNoSpace(t, units, err)
				wantCount(t, dir, 5)
				temporary, err := filepath.Glob(filepath.Join(dir, ".holdfast-tmp", "*.[0-9]*"))
				if err != nil || len(temporary) > 0 {
					t.Fatalf("with %d units of room there is left: %q, %v", units, temporary, err)
				}
			}
			makeRoom(t, disk)
			wantCount(t, dir, 17)
		})
	}
}

// commitOnce is the life of an owner that commits once.
func commitOnce(t *testing.T, task *checkpoint.Task, state string, claims *int) error {
	t.Helper()
	o, err := task.Claim(t.Context(), checkpoint.ClaimOptions{})
	if err != nil {
		return err
	}
	*claims++
	_, err = o.Commit(t.Context(), countSnapshot(state, 17))
	if closed := o.Close(context.Background()); closed != nil {
		t.Error(closed)
	}
	return err
}

// wantCount checks that the newest checkpoint is the state at n, that nothing is
// damaged, and that there is no garbage.
func wantCount(t *testing.T, dir string, n int) {
	t.Helper()
	err := onDisk(t, dir, func(task *checkpoint.Task) error {
		c, err := task.Latest(t.Context())
		var got fs.FS
		if err == nil {
			got, err = c.FS(t.Context())
		}
		if err == nil {
			err = sameAsCount(got, n)
		}
		if err != nil {
			return err
		}
		report, err := task.Verify(t.Context(), checkpoint.VerifyOptions{Data: true})
		if err == nil && report.Garbage.Segments+report.InFlight.Segments > 0 {
			err = fmt.Errorf("%+v", report)
		}
		return errors.Join(err, report.Err())
	})
	if err != nil {
		t.Fatal(err)
	}
}
