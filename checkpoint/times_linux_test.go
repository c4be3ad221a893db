package checkpoint_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// setTime sets a file's modification time, in seconds and nanoseconds.
func setTime(t *testing.T, path string, at time.Time) {
	t.Helper()
	ts := unix.Timespec{Sec: at.Unix(), Nsec: int64(at.Nanosecond())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
}

func modTime(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// inMemory makes a directory on a file system that can store all times.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-test-")
	if err != nil {
		t.Skip("there is no file system in memory")
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Nanoseconds since 1970 in 64 bits cover the years from 1677 to 2262. Files may have
// other times.
func TestTimesOfAnyYear(t *testing.T) {
	dir := inMemory(t)
	state := filepath.Join(dir, "state")
	want := map[string]time.Time{
		"early":   time.Date(1066, 10, 14, 9, 0, 0, 1, time.UTC),
		"first":   time.Date(1677, 9, 21, 0, 12, 43, 0, time.UTC),
		"late":    time.Date(2400, 2, 29, 12, 0, 0, 123456789, time.UTC),
		"d/later": time.Date(12026, 1, 1, 0, 0, 0, 999999999, time.UTC),
		"d":       time.Date(9999, 12, 31, 23, 59, 59, 5, time.UTC),
	}
	if err := os.MkdirAll(filepath.Join(state, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if name != "d" {
			if err := os.WriteFile(filepath.Join(state, name), []byte(name), 0o444); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, at := range want {
		setTime(t, filepath.Join(state, name), at)
	}
	setTime(t, state, want["late"])
	o := claim(t, newTask(t))
	c := commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(state)})
	target := filepath.Join(dir, "target")
	if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	want["."] = want["late"]
	for name, at := range want {
		if got := modTime(t, filepath.Join(target, name)); !got.Equal(at) {
			t.Errorf("%s: %v, want %v", name, got, at)
		}
	}
}

// Two times that differ by 2^64 nanoseconds are not equal.
func TestTimesThatDifferBy584YearsAreNotTheSame(t *testing.T) {
	dir := inMemory(t)
	at := time.Date(2026, 11, 22, 10, 0, 1, 0, time.UTC)
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := claim(t, newTask(t))
	for _, at := range []time.Time{at, at.Add(1 << 62).Add(1 << 62).Add(1 << 62).Add(1 << 62)} {
		setTime(t, filepath.Join(dir, "d"), at)
		c := commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(dir)})
		entries, err := c.Entries(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := entries[1].ModTime; !got.Equal(at) {
			t.Errorf("%v is saved as %v", at, got)
		}
	}
}

// If the file system cannot store a time, that is reported once for all files.
func TestTimesThatAFileSystemCannotHold(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	probe := filepath.Join(filepath.Dir(target), "probe")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	far := time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)
	setTime(t, probe, far)
	if modTime(t, probe).Equal(far) {
		t.Skip("this file system holds all times")
	}
	state := inMemory(t)
	for name, at := range map[string]time.Time{
		"a": far, "b": far.AddDate(1000, 0, 0), "c": time.Date(1492, 10, 12, 0, 0, 0, 0, time.UTC),
		"normal": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), "before 1980": time.Date(1969, 7, 20, 0, 0, 0, 0, time.UTC),
	} {
		if err := os.WriteFile(filepath.Join(state, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		setTime(t, filepath.Join(state, name), at)
	}
	setTime(t, state, far)
	var log bytes.Buffer
	task := openTask(t, mem.NewBucket(time.Now), checkpoint.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	c := commit(t, claim(t, task), checkpoint.Snapshot{State: checkpoint.Dir(state)})
	if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "cannot hold the times") || !strings.Contains(got, "files=4") {
		t.Errorf("it was told: %q; want a line about 4", got)
	}
	if got, want := modTime(t, filepath.Join(target, "before 1980")), modTime(t, filepath.Join(state, "before 1980")); !got.Equal(want) {
		t.Errorf("%v, want %v", got, want)
	}
}
