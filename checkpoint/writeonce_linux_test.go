package checkpoint_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A file that is written only once is not opened while its modification time is the
// same, whatever its inode and links are, even if a restore has written it. Other
// data under the same name and of the same size is noticed.
func TestWriteOnceFilesAreOpenedIfTheirTimeIsAnother(t *testing.T) {
	l, bucket := newLive(t), mem.NewBucket(time.Now)
	source := func() checkpoint.Snapshot {
		return checkpoint.Snapshot{State: l.source().WriteOnce("*.sst")}
	}
	_, task := jobOf(t, bucket, checkpoint.Options{Memory: 1 << 20})
	o := claim(t, task)
	written := time.Unix(1_700_000_000, 123_456_789)
	write := func(name string, seed uint64, size int, at time.Time) {
		l.write(name, bytesOf(seed, size))
		l.must(os.Chtimes(l.path(name), at, at))
	}
	write("1.sst", 1, 200<<10, written)
	write("2.sst", 2, 100, written)
	write("CURRENT", 3, 10, written)
	commit(t, o, source())
	l.wantOpened("1.sst", "2.sst", "CURRENT")

	l.saved()
	l.must(os.Link(l.path("1.sst"), filepath.Join(t.TempDir(), "link"))) // this moves its change time
	l.must(os.Remove(l.path("2.sst")))
	write("2.sst", 2, 100, written) // with another inode
	made := commit(t, o, source())
	l.wantOpened()
	l.wantBack(made)

	l.must(os.RemoveAll(l.path(".")))
	l.must(made.Restore(t.Context(), l.path("."), checkpoint.RestoreOptions{}))
	made = commit(t, o, source())
	l.wantOpened("CURRENT") // only its name is known
	l.wantBack(made)

	l.saved()
	write("1.sst", 4, 200<<10, written.Add(time.Nanosecond))
	l.must(os.Remove(l.path("2.sst")))
	write("2.sst", 5, 100, written.Add(-time.Hour))
	made = commit(t, o, source())
	l.wantOpened("1.sst", "2.sst", "CURRENT") // it had been too young for its times to be relied on
	l.wantBack(made)

	commit(t, o, checkpoint.Snapshot{State: l.source().WriteOnce("*.sst").Reread()})
	l.wantOpened("1.sst", "2.sst", "CURRENT")
	if _, err := o.Commit(t.Context(), checkpoint.Snapshot{State: l.source().WriteOnce("[")}); err == nil {
		t.Error("a bad pattern is accepted")
	}
}
