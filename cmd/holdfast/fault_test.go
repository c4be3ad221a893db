package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// makeState fills a directory with more than fits into a manifest, and returns it.
// Two states with different content share no data.
func makeState(t *testing.T, content string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	mustWrite(t, filepath.Join(dir, "content"), content)
	mustWrite(t, filepath.Join(dir, "large"), noise(content, 150_000))
	return dir
}

// noise returns n bytes that cannot be compressed and depend only on seed.
func noise(seed string, n int) string {
	var key [32]byte
	copy(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return string(b)
}

// manyOffsets are more offsets than fit into a manifest.
func manyOffsets() []string {
	var args []string
	for i := range 2000 {
		args = append(args, "--offset", fmt.Sprintf("partition-%d=%d", i, i))
	}
	return args
}

// wantCheckpoints checks that exactly these checkpoints of a task exist, the newest
// first, and that the newest restores the content of state.
func wantCheckpoints(t *testing.T, url, state string, want ...uint64) {
	t.Helper()
	var got []uint64
	for _, c := range okJSON[[]checkpointDoc](t, "ls", url, "orders") {
		got = append(got, c.Seq)
	}
	if !slices.Equal(got, want) {
		t.Errorf("checkpoints %v, want %v", got, want)
	}
	out := filepath.Join(t.TempDir(), "out")
	ok(t, "restore", url, "orders", out)
	if diff := difference(t, out, state); diff != "" {
		t.Errorf("restored: %s", diff)
	}
}

// difference describes how two directories differ; "" if they do not.
func difference(t *testing.T, a, b string) string {
	t.Helper()
	for _, name := range []string{"content", "large"} {
		was, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			return err.Error()
		}
		want, err := os.ReadFile(filepath.Join(b, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(was) != string(want) {
			return fmt.Sprintf("%s is %.20q... of %d bytes; expected %.20q... of %d", name, was, len(was), want, len(want))
		}
	}
	return ""
}

// TestSaveIsStoppedAnywhere interrupts a save before or after each of its requests.
// Its message must be true, no partial checkpoint may be seen, and the next save must
// succeed.
func TestSaveIsStoppedAnywhere(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	for _, late := range []bool{false, true} {
		for at := 1; ; at++ {
			h, url := newHook(t, time.Now)
			ok(t, "save", url, "orders", before)
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex // segments are uploaded in parallel
			n, where := 0, ""
			h.do = func(ctx context.Context, op, key string, perform func() error) error {
				mu.Lock()
				defer mu.Unlock()
				n++
				if n == at {
					where = op + " " + key
					if !late {
						cancel()
					}
				}
				if ctx.Err() != nil {
					return &backend.Error{Op: op, Key: key, Err: ctx.Err()}
				}
				if n == at {
					defer cancel()
				}
				return perform()
			}
			r := holdfastWith(t, ctx, append([]string{"save", url, "orders", after}, manyOffsets()...)...)
			cancel()
			h.do = perform
			if where == "" {
				break // the save has fewer requests
			}
			seqs := okJSON[[]checkpointDoc](t, "ls", url, "orders")
			saved := len(seqs) == 2
			t.Logf("request %d (%s), late %v: saved %v, exit code %d, %s", at, where, late, saved, r.code, r.stderr)
			switch {
			case r.code == 0 && !saved:
				t.Errorf("stopped at request %d: it reports success, but did not save", at)
			case r.code != 0 && saved && strings.Contains(r.stderr, "nothing was saved"):
				t.Errorf("stopped at request %d: it saved, but says %s", at, r.stderr)
			case r.code != 0 && r.code != exitFailed:
				t.Errorf("stopped at request %d: exit code %d", at, r.code)
			}
			if saved {
				wantCheckpoints(t, url, after, 2, 1)
			} else {
				wantCheckpoints(t, url, before, 1)
			}
			ok(t, "save", url, "orders", after)
		}
	}
}

// TestStoreIsFull makes each kind of write fail as in a full store.
func TestStoreIsFull(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	for _, verb := range []string{"put", "create"} {
		t.Run(verb, func(t *testing.T) {
			h, url := newHook(t, time.Now)
			ok(t, "save", url, "orders", before)
			h.do = func(_ context.Context, op, key string, perform func() error) error {
				if op == verb {
					return &backend.Error{Op: op, Store: url, Key: key, Err: fmt.Errorf("%w: quota", backend.ErrNoSpace)}
				}
				return perform()
			}
			r := holdfast(t, "save", url, "orders", after)
			if want := "no space left in the store: quota; nothing was saved; make room in the store and try again\n"; r.code != exitFailed || !strings.HasSuffix(r.stderr, want) {
				t.Errorf("exit code %d, %s; want 1, %s", r.code, r.stderr, want)
			}
			h.do = perform
			wantCheckpoints(t, url, before, 1)
			wantObjects(t, h, 2)
			ok(t, "save", url, "orders", after)
			wantCheckpoints(t, url, after, 2, 1)
		})
	}
}

// wantObjects checks the number of objects: a failed save leaves none.
func wantObjects(t *testing.T, h *hook, want int) {
	t.Helper()
	var keys []string
	for o, err := range h.bucket.Open().List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	if len(keys) != want {
		t.Errorf("%d objects, want %d: %q", len(keys), want, keys)
	}
}

// TestFileChangesWhileItIsSaved writes to a file of which a part has been uploaded.
func TestFileChangesWhileItIsSaved(t *testing.T) {
	state := makeState(t, "before ")
	h, url := newHook(t, time.Now)
	ok(t, "save", url, "orders", state)
	changing := filepath.Join(state, "subdir", "changing")
	// More than the save reads ahead of its uploads.
	mustWrite(t, changing, noise("changing", 128<<20))
	h.do = func(_ context.Context, op, key string, perform func() error) error {
		if op == "put" {
			f, err := os.OpenFile(changing, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.WriteString("more"); err != nil {
				return err
			}
		}
		return perform()
	}
	r := holdfast(t, "save", url, "orders", state)
	h.do = perform
	if r.code != exitFailed || !strings.Contains(r.stderr, state+"/subdir/changing: changed while it was saved: ") ||
		!strings.Contains(r.stderr, "save from a copy or a snapshot") {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	wantCheckpoints(t, url, state, 1)
	wantObjects(t, h, 2)
}

// TestRestoreReadsTheNewestAgain retires the newest checkpoint while it is read, as a
// running job does.
func TestRestoreReadsTheNewestAgain(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	h, url := newHook(t, time.Now)
	ok(t, "save", url, "orders", before)
	overtaken := 0
	h.do = func(ctx context.Context, op, key string, do func() error) error {
		if op == "get" && strings.HasPrefix(key, "orders/segments/0000000000000001-") {
			overtaken++
			h.do = perform
			if r := runQuietly(ctx, "save", url, "orders", after, "--keep-last", "1"); r.code != 0 {
				return fmt.Errorf("%s", r.stderr)
			}
			if err := h.bucket.Open().Delete(ctx, key); err != nil {
				return err
			}
		}
		return do()
	}
	out := filepath.Join(t.TempDir(), "out")
	ok(t, "restore", url, "orders", out)
	if overtaken != 1 {
		t.Fatalf("overtaken %d times", overtaken)
	}
	if diff := difference(t, out, after); diff != "" {
		t.Error(diff)
	}
	// A checkpoint that was chosen by its number is not replaced by another one.
	if r := holdfast(t, "restore", url, "orders", out, "--force", "--at", "1"); r.code != exitAbsent {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
}

// A save refuses a task that is claimed, because the owner may be alive, and says whose it
// is. With --take-over it fences the owner.
func TestSaveTakesOverFromAnOwner(t *testing.T) {
	state := makeState(t, "state ")
	h, url := newHook(t, time.Now)
	job := newJob(t, h.bucket.Open(), checkpoint.Options{WrittenBy: "orders v7 on web-7"})
	task, err := job.Task("orders")
	if err != nil {
		t.Fatal(err)
	}
	owner, err := task.Claim(t.Context(), checkpoint.ClaimOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())

	type taskDoc struct {
		Task      string         `json:"task"`
		Epoch     uint64         `json:"epoch"`
		Claimed   bool           `json:"claimed"`
		WrittenBy string         `json:"written_by"`
		Newest    *checkpointDoc `json:"newest"`
	}
	tasks := okJSON[[]taskDoc](t, "ls", url)
	if len(tasks) != 1 || !tasks[0].Claimed || tasks[0].Newest != nil || tasks[0].WrittenBy != "orders v7 on web-7" || tasks[0].Epoch != 1 {
		t.Errorf("a claimed task: %+v", tasks)
	}
	if out := ok(t, "ls", url); !strings.Contains(out, "none") || !strings.Contains(out, "orders v7 on web-7") {
		t.Errorf("a claimed task: %s", out)
	}
	if list := okJSON[[]checkpointDoc](t, "ls", url, "orders"); list == nil || len(list) > 0 {
		t.Errorf("checkpoints of a claimed task: %v", list)
	}
	for _, args := range [][]string{{"show", url, "orders"}, {"restore", url, "orders", filepath.Join(state, "new")}} {
		r := holdfast(t, args...)
		if want := `holdfast: task "orders" has no checkpoint`; r.code != exitAbsent || !strings.HasPrefix(r.stderr, want) {
			t.Errorf("%s: exit code %d, %s", args[0], r.code, r.stderr)
		}
	}

	r := holdfast(t, "save", url, "orders", state)
	for _, want := range []string{`task "orders" belongs to epoch 1, writer `, "(orders v7 on web-7); it has committed nothing yet", "--take-over"} {
		if r.code != exitRival || !strings.Contains(r.stderr, want) {
			t.Errorf("exit code %d, %s, want %s", r.code, r.stderr, want)
		}
	}
	if r := holdfast(t, "save", url, "orders", state, "--take-over"); r.code != 0 || r.stderr != "" {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{}); !errors.Is(err, checkpoint.ErrFenced) {
		t.Errorf("the earlier owner's commit: %v", err)
	}
	if r := holdfast(t, "save", url, "orders", state); r.code != 0 || r.stderr != "" {
		t.Errorf("after a save, which releases the task: exit code %d, %s", r.code, r.stderr)
	}
	if tasks := okJSON[[]taskDoc](t, "ls", url); tasks[0].Claimed || tasks[0].Newest.Seq != 3 {
		t.Errorf("a saved task: %+v", tasks)
	}
}

type fullDevice struct{}

func (fullDevice) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestResultIsNotPrinted checks that a command fails if its result cannot be printed,
// and does not claim that nothing was done.
func TestResultIsNotPrinted(t *testing.T) {
	state := makeState(t, "state ")
	_, url := newHook(t, time.Now)
	ok(t, "save", url, "other", state)
	ok(t, "save", url, "another", state)
	ok(t, "startpoint", "set", url, "other", "p", "--at", "7")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"save", url, "orders", state}, "holdfast: checkpoint 1 was saved, but the result could not be printed: no space left on device\n"},
		{[]string{"restore", url, "orders", filepath.Join(t.TempDir(), "out")}, "holdfast: checkpoint 1 was restored, but the result could not be printed: no space left on device\n"},
		{[]string{"ls", url}, "holdfast: the result could not be printed: no space left on device\n"},
		{[]string{"startpoint", "rm", url, "other", "p"}, "holdfast: 1 startpoint of task \"other\" was removed, but the result could not be printed: no space left on device\n"},
		{[]string{"startpoint", "set", url, "orders", "p", "--at", "7"}, "holdfast: a startpoint of task \"orders\" was set, but the result could not be printed: no space left on device\n"},
		{[]string{"gc", url}, "holdfast: what no checkpoint needs was deleted, but the result could not be printed: no space left on device\n"},
		{[]string{"gc", url, "--dry-run"}, "holdfast: the result could not be printed: no space left on device\n"},
		{[]string{"prune", url, "--all-tasks", "--keep-last", "1"}, "holdfast: what the policy does not keep was dropped, but the result could not be printed: no space left on device\n"},
		{[]string{"verify", url, "--repair"}, "holdfast: what could be repaired was repaired, but the result could not be printed: no space left on device\n"},
		{[]string{"rm", url, "orders", "--dry-run"}, "holdfast: the result could not be printed: no space left on device\n"},
		{[]string{"rm", url, "orders"}, "holdfast: task \"orders\" was deleted, but the result could not be printed: no space left on device\n"},
		{[]string{"rm", url, "--all-tasks"}, "holdfast: 2 of 2 tasks were deleted, but the result could not be printed: no space left on device\n"},
	} {
		var stderr strings.Builder
		code := run(t.Context(), c.args, fullDevice{}, &stderr, func(string) string { return "" })
		if code != exitFailed || stderr.String() != c.want {
			t.Errorf("%s: exit code %d, %s", c.args[0], code, stderr.String())
		}
	}
}

// TestLibraryLogsAreNotes makes a save fail, and then its clean-up.
func TestLibraryLogsAreNotes(t *testing.T) {
	h, url := newHook(t, time.Now)
	h.do = func(_ context.Context, op, key string, perform func() error) error {
		if op == "put" || op == "delete" {
			return &backend.Error{Op: op, Store: url, Key: key, Err: fs.ErrPermission}
		}
		return perform()
	}
	r := holdfast(t, "save", url, "orders", makeState(t, "state "))
	note, message, _ := strings.Cut(r.stderr, "\n")
	if r.code != exitFailed || !strings.HasPrefix(note, `holdfast: note: segments of a failed save remain (task orders, segments 1): delete hook`) ||
		!strings.HasSuffix(message, "permission denied; get access to it, or run as a user who has it\n") {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
}
