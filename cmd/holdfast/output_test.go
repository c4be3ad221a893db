package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

var update = flag.Bool("update", false, "rewrite testdata/golden and docs/cli.md with what the commands print")

// golden compares printed text with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run go test -update if that is meant:\n%s", path, got)
	}
}

// TestOutput compares the results that the commands print with golden files.
func TestOutput(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("", 2*60*60)
	t.Cleanup(func() { time.Local = local })

	// The store's clock advances by a minute with each object.
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	h, url := newHook(t, func() time.Time { now = now.Add(time.Minute); return now })
	saveLibrary(t, h)

	state := filepath.Join(t.TempDir(), "state")
	log := filepath.Join(state, "wal", "000007.log")
	written := time.Date(2026, 11, 22, 9, 59, 0, 0, time.UTC)
	write := func(content string) {
		mustWrite(t, log, noise(content, 3_000_000))
		for _, path := range []string{log, filepath.Dir(log), state} {
			if err := os.Chtimes(path, written, written); err != nil {
				t.Fatal(err)
			}
		}
	}
	out := t.TempDir()
	for _, c := range []struct {
		name string
		new  string   // written to the state before the command
		args []string // FORM stands for a word that differs between the forms
	}{
		{"verify", "", []string{"verify", url, "orders/7"}},
		{"save", "one", []string{"save", url, "orders/7", state, "--offset", "orders/7=4800"}},
		{"save-same", "", []string{"save", url, "orders/7", state, "--offset", "orders/7=4805"}},
		{"save-named", "two", []string{"save", url, "orders/7", state, "--savepoint", "before FORM"}},
		{"ls", "", []string{"ls", url}},
		{"ls-task", "", []string{"ls", url, "orders/7"}},
		{"show", "", []string{"show", url, "orders/7", "--at", "2"}},
		{"show-bare", "", []string{"show", url, "offsets\u202eonly"}},
		{"gc", "", []string{"gc", url, "--dry-run"}},
		{"restore", "", []string{"restore", url, "orders/7", filepath.Join(out, "FORM")}},
	} {
		for _, form := range []string{"txt", "json"} {
			t.Run(c.name+"."+form, func(t *testing.T) {
				if c.new != "" {
					write(c.new + form)
					time.Sleep(200 * time.Millisecond) // the next save reads a younger file again
				}
				var args []string
				for _, a := range c.args {
					args = append(args, strings.ReplaceAll(a, "FORM", form))
				}
				if form == "json" {
					args = append(args, "--json")
				}
				got := strings.ReplaceAll(ok(t, args...), out, "OUT")
				got = writtenBy.ReplaceAllString(got, "holdfast on HOST, process PID")
				golden(t, c.name+"."+form, overhead.ReplaceAllString(got, "${1}0000"))
			})
		}
	}
}

// overhead matches the size of the file's list of chunks, which is added to its
// 3,000,000 bytes. A few bytes of it depend on its inode, whose number has more or
// fewer digits.
var overhead = regexp.MustCompile(`("new_bytes": 300)\d{4}\b`)

// writtenBy is what this program says of itself.
var writtenBy = regexp.MustCompile(`holdfast(\.test)?( [0-9a-z.]+)? on \S+, process \d+`)

// saveLibrary makes checkpoints of states that are hard to make in a directory of a
// test.
func saveLibrary(t *testing.T, h *hook) {
	t.Helper()
	job := newJob(t, h.bucket.Open(), checkpoint.Options{WrittenBy: "wordcount v2.3.0 on worker-3, process 4711"})
	at := time.Date(2026, 11, 22, 9, 58, 7, 1e6, time.UTC)
	for _, c := range []struct {
		task string
		checkpoint.Snapshot
	}{
		{"orders/7", checkpoint.Snapshot{
			Offsets: map[string]string{"orders/7": "4711", "refunds/7": "12"},
			Labels:  map[string]string{"host": "worker-3", "note": "two\nlines & <more>", "empty": "", "version": "2.3.0-rc.1+20261122"},
			State: checkpoint.FS(fstest.MapFS{
				".":                 {Mode: fs.ModeDir | 0o750, ModTime: at},
				"CURRENT":           {Data: []byte("MANIFEST-000001\n"), Mode: 0o644, ModTime: at},
				"empty":             {Mode: 0o600, ModTime: at},
				"db":                {Mode: fs.ModeDir | fs.ModeSticky | 0o777, ModTime: at},
				"db/000001.sst":     {Data: make([]byte, 1<<20), Mode: 0o444, ModTime: at},
				"db/000002.sst":     {Data: make([]byte, 3<<20/2), Mode: 0o444, ModTime: at},
				"db/latest":         {Data: []byte("000002.sst"), Mode: fs.ModeSymlink | 0o777, ModTime: at},
				"db/a \x1b[31mtrap": {Data: []byte("x"), Mode: fs.ModeSetuid | 0o755, ModTime: at},
			}),
		}},
		{"offsets\u202eonly", checkpoint.Snapshot{
			Offsets:    map[string]string{"only": "9"},
			OffsetsAre: checkpoint.LastDone,
		}},
	} {
		task, err := job.Task(c.task)
		if err != nil {
			t.Fatal(err)
		}
		owner, err := task.Claim(t.Context(), checkpoint.ClaimOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := owner.Commit(t.Context(), c.Snapshot); err != nil {
			t.Fatal(err)
		}
		if c.task == "orders/7" {
			if err := owner.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := owner.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB",
		1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB", 1 << 40: "1.0 TiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"plain, with ünïcode":    "plain, with ünïcode",
		"first\nsecond\n\nthird": "first; second; third",
		"tab\tand \x1b[31mred":   `tab\tand \x1b[31mred`,
		"right\u202eleft":        `right\u202eleft`,
	} {
		if got := oneLine(text); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestExplain covers the errors that the other tests do not cause.
func TestExplain(t *testing.T) {
	about := func(op string, err error) error {
		return &backend.Error{Op: op, Store: "s3://bucket", Key: "key", Err: err}
	}
	odd := backend.Invalidf("a directory has this name")
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{odd, exitUsage, "a directory has this name"},
		{about("open", odd), exitUsage, "open s3://bucket/key: a directory has this name"},
		{about("create", odd), exitFailed, "create s3://bucket/key: a directory has this name"},
		{about("get", backend.ErrThrottled), exitFailed, "get s3://bucket/key: the store asks to slow down; try again later"},
		{fmt.Errorf("task %q, checkpoint 7: %w", "orders", checkpoint.ErrGone), exitAbsent,
			`task "orders", checkpoint 7: checkpoint is no longer retained; 'holdfast ls' shows those that are`},
		{errors.Join(errors.New("one"), errors.New("two")), exitFailed, "one; two"},
		{fmt.Errorf("save: %w", checkpoint.ErrFenced), exitRival, "save: fenced: another writer has taken the task over; save again if this state is still wanted"},
		{fmt.Errorf("%w: %w", checkpoint.ErrUnknown, backend.ErrNoSpace), exitFailed,
			"outcome unknown: no space left in the store; it may have been done: look with 'holdfast ls' before you do it again"},
	} {
		if text, code := explain(t.Context(), c.err); code != c.code || text != c.text {
			t.Errorf("explain(%v) = %q, %d; want %q, %d", c.err, text, code, c.text, c.code)
		}
	}
}
