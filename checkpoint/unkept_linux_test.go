package checkpoint_test

import (
	"bytes"
	"encoding/binary"
	"errors"
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

// posixACL is an ACL that lets another user read, as the kernel takes it.
func posixACL() []byte {
	acl := binary.LittleEndian.AppendUint32(nil, 2) // its version
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, ^uint32(0)}, {2, 4, 4711}, {4, 5, ^uint32(0)}, {0x10, 5, ^uint32(0)}, {0x20, 5, ^uint32(0)}} {
		acl = binary.LittleEndian.AppendUint16(acl, e.tag)
		acl = binary.LittleEndian.AppendUint16(acl, e.perm)
		acl = binary.LittleEndian.AppendUint32(acl, e.id)
	}
	return acl
}

// setAttribute sets an extended attribute, or skips the test where there is none.
func setAttribute(t *testing.T, path, name string, value []byte) {
	t.Helper()
	err := unix.Setxattr(path, name, value, 0)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		t.Skipf("%s cannot be set here: %v", name, err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A save says, once, that attributes and ACLs of files are not kept.
func TestSaveTellsOfAttributes(t *testing.T) {
	many := strings.Repeat("x", 200)
	for name, c := range map[string]struct {
		set  func(t *testing.T, dir string)
		want string // in the log
	}{
		"none":             {func(*testing.T, string) {}, ""},
		"user's attribute": {func(t *testing.T, dir string) { setAttribute(t, dir+"/d/f", "user.origin", []byte("here")) }, "files=1 first=d/f"},
		"many attributes": {func(t *testing.T, dir string) {
			for _, n := range "abcd" {
				setAttribute(t, dir+"/d/g", "user."+many+string(n), []byte("1"))
			}
		}, "files=1 first=d/g"},
		"ACL of a file":        {func(t *testing.T, dir string) { setAttribute(t, dir+"/d/f", "system.posix_acl_access", posixACL()) }, "files=1 first=d/f"},
		"ACL of a directory":   {func(t *testing.T, dir string) { setAttribute(t, dir+"/d", "system.posix_acl_access", posixACL()) }, "files=1 first=d"},
		"ACL for what will be": {func(t *testing.T, dir string) { setAttribute(t, dir+"/d", "system.posix_acl_default", posixACL()) }, "files=1 first=d"},
		"another's attribute":  {func(t *testing.T, dir string) { setAttribute(t, dir+"/d/f", "trusted.theirs", []byte("1")) }, ""},
		"two of them": {func(t *testing.T, dir string) {
			setAttribute(t, dir, "user.a", []byte("1"))
			setAttribute(t, dir+"/d/g", "user.b", []byte("1"))
		}, "files=2 first=."},
	} {
		t.Run(name, func(t *testing.T) {
			for how, state := range map[string]func(dir string) checkpoint.Source{
				"alone": checkpoint.Dir,
				"in a part": func(dir string) checkpoint.Source {
					return checkpoint.Join(map[string]checkpoint.Source{"p": checkpoint.Dir(dir)})
				},
			} {
				dir := t.TempDir()
				if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
					t.Fatal(err)
				}
				for _, f := range []string{"d/f", "d/g"} {
					if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				c.set(t, dir)
				var log bytes.Buffer
				task := openTask(t, mem.NewBucket(time.Now), checkpoint.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				o := claim(t, task)
				for n := range 2 {
					if err := os.WriteFile(filepath.Join(dir, "new"), []byte{byte(n)}, 0o644); err != nil {
						t.Fatal(err)
					}
					commit(t, o, checkpoint.Snapshot{State: state(dir)})
				}
				want := c.want
				if how == "in a part" {
					want = strings.ReplaceAll(strings.Replace(want, "first=", "first=p/", 1), "p/.", "p")
				}
				lines := strings.Count(log.String(), "does not keep")
				if want == "" && lines > 0 || want != "" && (lines != 1 || !strings.Contains(log.String(), want+"\n")) {
					t.Errorf("%s: the log is %q; want one line with %q", how, &log, want)
				}
			}
		})
	}
}

// Nothing is asked of a file that is not opened.
func TestUnchangedFilesAreNotAskedForAttributes(t *testing.T) {
	l := newLive(t)
	l.write("d/f", noise(100<<10))
	l.saved()
	var log bytes.Buffer
	bucket := mem.NewBucket(time.Now)
	o := claim(t, openTask(t, bucket, checkpoint.Options{}))
	commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(l.dir)})
	l.must(o.Release(t.Context()))
	o = claim(t, openTask(t, bucket, checkpoint.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(l.dir)})
	if log.Len() > 0 {
		t.Errorf("the log is %q", &log)
	}
}

// BenchmarkAttributes shows what the look for attributes adds to a save of small files.
func BenchmarkAttributes(b *testing.B) {
	dir := b.TempDir()
	const files = 10_000
	for n := range files {
		if err := os.WriteFile(filepath.Join(dir, "f"+string(rune('a'+n%26))+time.Duration(n).String()), []byte{byte(n), byte(n >> 8)}, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		task := openTask(b, mem.NewBucket(time.Now), checkpoint.Options{})
		if _, err := task.Save(b.Context(), checkpoint.Snapshot{State: checkpoint.Dir(dir)}, checkpoint.SaveOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/files, "ns/file")
}
