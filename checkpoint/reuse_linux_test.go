package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A reuse restores a checkpoint over an old state.
type reuse struct {
	*live
	made   *checkpoint.Checkpoint // of the live state
	bucket *mem.Bucket
	job    *checkpoint.Job // of a process that only restores
	target string
}

const (
	reuseFiles = 8
	reuseSize  = 512 << 10 // approximate size of each file
)

// newReuse saves a state, and restores it to a target.
func newReuse(t tester) *reuse {
	t.Helper()
	r := &reuse{live: newLive(t), target: filepath.Join(tempDir(t), "state")}
	for i := range reuseFiles {
		r.write(fmt.Sprint("d", i%3, "/", i), bytesOf(uint64(i), reuseSize+i))
	}
	r.write("small", []byte("small"))
	r.write("empty", nil)
	r.must(os.Symlink("d0", r.path("link")))
	r.bucket = mem.NewBucket(time.Now)
	_, task := jobOf(t, r.bucket, checkpoint.Options{})
	o := claim(t, task)
	commit(t, o, r.snapshot())
	r.job, task = jobOf(t, r.bucket, checkpoint.Options{})
	old, err := task.Latest(t.Context())
	r.must(err)
	r.must(old.Restore(t.Context(), r.target, checkpoint.RestoreOptions{}))
	r.saved()

	for i := range pages {
		r.writeAt(fmt.Sprint("d", i%3, "/", i%3), int64(3+9*i)<<14, noise(16<<10 + i)[:16<<10])
	}
	commit(t, o, r.snapshot())
	r.made, err = task.Latest(t.Context())
	r.must(err)
	return r
}

const (
	pages   = 3 // these are 1 % of the state
	changed = pages * 16 << 10
)

// restore restores over the target, and returns the number of bytes that it fetched.
func (r *reuse) restore() int64 {
	r.Helper()
	before := r.job.Stats().Get.Bytes
	r.must(r.made.Restore(r.Context(), r.target, checkpoint.RestoreOptions{Replace: true}))
	if got, want := digest(r.tester, os.DirFS(r.target)), digest(r.tester, os.DirFS(r.dir)); got != want {
		r.Errorf("it gives back\n%s\nwant\n%s", got, want)
	}
	return r.job.Stats().Get.Bytes - before
}

// Data that the target already has is not fetched, wherever it is in the target.
func TestRestoreOverAnOldStateFetchesWhatIsMissing(t *testing.T) {
	at := func(r *reuse, name string) string { return filepath.Join(r.target, name) }
	for _, c := range []struct {
		name  string
		spoil func(r *reuse)
		bound int64
	}{
		{"as it was", func(*reuse) {}, 4 * changed},
		{"names changed", func(r *reuse) {
			r.must(os.Rename(at(r, "d0"), at(r, "elsewhere")))
			r.must(os.Rename(at(r, "d1/1"), at(r, "d1/other")))
		}, 4 * changed},
		{"all in one file", func(r *reuse) {
			var all []byte
			for i := range reuseFiles {
				data, err := os.ReadFile(at(r, fmt.Sprint("d", i%3, "/", i)))
				r.must(err)
				all = append(append(all, "between"...), data...)
			}
			r.must(os.RemoveAll(r.target))
			r.must(os.MkdirAll(r.target, 0o755))
			r.must(os.WriteFile(at(r, "all"), all, 0o600))
		}, 4*changed + (reuseFiles+1)*2*64<<10},
		{"a file twice", func(r *reuse) {
			data, err := os.ReadFile(at(r, "d0/0"))
			r.must(err)
			r.must(os.WriteFile(at(r, "again"), data, 0o600))
		}, 4 * changed},
		{"a bit of a file flipped", func(r *reuse) {
			data, err := os.ReadFile(at(r, "d1/4"))
			r.must(err)
			data[reuseSize/2] ^= 1
			r.must(os.WriteFile(at(r, "d1/4"), data, 0o600))
		}, 4*changed + 64<<10},
		{"a file cut short", func(r *reuse) { r.must(os.Truncate(at(r, "d1/4"), reuseSize-200<<10)) }, 4*changed + 264<<10},
		{"a file removed", func(r *reuse) { r.must(os.Remove(at(r, "d1/4"))) }, 4*changed + reuseSize + 64<<10},
		{"a directory where a file was", func(r *reuse) {
			r.must(errors.Join(os.Remove(at(r, "d1/4")), os.Mkdir(at(r, "d1/4"), 0)))
		}, 4*changed + reuseSize + 64<<10},
		{"pipes, sockets and links", func(r *reuse) {
			r.must(errors.Join(
				os.Remove(at(r, "d1/4")), syscall.Mkfifo(at(r, "d1/4"), 0o644),
				os.Symlink("loop", at(r, "loop")), os.Symlink("/", at(r, "root")), os.Symlink("../..", at(r, "out")),
			))
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at(r, "s"), Net: "unix"})
			r.must(err)
			l.SetUnlinkOnClose(false)
			r.must(l.Close())
		}, 4*changed + reuseSize + 64<<10},
		{"restored already", func(r *reuse) { r.restore() }, 64 << 10},
		{"nothing there", func(r *reuse) { r.must(os.RemoveAll(r.target)) }, reuseFiles*(reuseSize+64<<10) + 4*changed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReuse(t)
			c.spoil(r)
			n := r.restore()
			if n > c.bound {
				t.Errorf("%d bytes were fetched, want at most %d", n, c.bound)
			}
			t.Logf("%d bytes were fetched", n)
		})
	}
}

// A file of the target that cannot be read is fetched.
func TestRestoreOverAFileThatCannotBeRead(t *testing.T) {
	if os.Geteuid() == 0 { // who may read everything
		asNobody(t)
		return
	}
	r := newReuse(t)
	if err := errors.Join(os.Chmod(filepath.Join(r.target, "d1/4"), 0), os.Chmod(filepath.Join(r.target, "d2"), 0)); err != nil {
		t.Fatal(err)
	}
	const unread = 3 * (reuseSize + 64<<10) // d1/4, d2/2 and d2/5
	if n := r.restore(); n < reuseSize || n > 4*changed+unread {
		t.Errorf("%d bytes were fetched", n)
	}
}

// asNobody runs the test as a user without rights.
func asNobody(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
}

// A restore that is cancelled, at any time, leaves the target as it was and nothing
// beside it.
func TestRestoreThatIsCancelled(t *testing.T) {
	r := newReuse(t)
	absent := filepath.Join(filepath.Dir(r.target), "absent")
	whole := r.job.Stats().Get.Calls
	r.must(r.made.Restore(t.Context(), absent, checkpoint.RestoreOptions{}))
	whole = r.job.Stats().Get.Calls - whole
	r.must(os.RemoveAll(absent))
	if whole < 5 {
		t.Fatalf("a restore took %d requests", whole)
	}

	store := &givingUp{Store: r.bucket.Open()}
	job := newJob(t, store, checkpoint.Options{})
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	task, err := job.Task("orders/7")
	r.must(err)
	made, err := task.Latest(t.Context())
	r.must(err)
	for _, target := range []string{r.target, absent} {
		before, givenUp := digest(t, os.DirFS(r.target)), 0
		for n := int64(1); n <= whole+1; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			store.cancel = cancel
			store.left.Store(n)
			err := made.Restore(ctx, target, checkpoint.RestoreOptions{Replace: true})
			cancel()
			if err == nil {
				break
			}
			givenUp++
			r.wantAsItWas(err, before)
		}
		if givenUp == 0 {
			t.Errorf("%s: it was cancelled %d times", target, givenUp)
		}
		if got, want := digest(t, os.DirFS(target)), digest(t, os.DirFS(r.dir)); got != want {
			t.Errorf("%s: it gives back\n%s\nwant\n%s", target, got, want)
		}
		r.must(os.RemoveAll(absent))
	}
}

// The same while it reads the old state, and between its progress reports.
func TestRestoreThatIsCancelledWhenItReports(t *testing.T) {
	r := newReuse(t)
	before := digest(t, os.DirFS(r.target))
	reports := 0
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		left := n
		err := r.made.Restore(ctx, r.target, checkpoint.RestoreOptions{Replace: true, Progress: func(checkpoint.Progress) {
			if left--; left == 0 {
				cancel()
			}
		}})
		cancel()
		if err == nil {
			break
		}
		reports++
		r.wantAsItWas(err, before)
		n += n / 2
	}
	if reports < 3 {
		t.Errorf("it was cancelled %d times", reports)
	}
	if got, want := digest(t, os.DirFS(r.target)), digest(t, os.DirFS(r.dir)); got != want {
		t.Errorf("it gives back\n%s\nwant\n%s", got, want)
	}
}

func (r *reuse) wantAsItWas(err error, before string) {
	r.Helper()
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "\n") {
		r.Errorf("err = %v", err)
	}
	left, _ := os.ReadDir(filepath.Dir(r.target))
	if len(left) != 1 || digest(r.tester, os.DirFS(r.target)) != before {
		r.Fatalf("it left %v, with\n%s\nwant\n%s", left, digest(r.tester, os.DirFS(r.target)), before)
	}
}

// givingUp ends a context during one of its reads.
type givingUp struct {
	backend.Store
	cancel func()
	left   atomic.Int64
}

func (g *givingUp) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	n, err := g.Store.Get(ctx, key, offset, p)
	if g.left.Add(-1) == 0 {
		g.cancel()
	}
	return n, err
}
