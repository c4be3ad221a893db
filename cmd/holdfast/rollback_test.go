package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

type rollbackDoc struct {
	checkpointDoc
	Replaces *uint64 `json:"replaces"`
}

// newJob returns the job in a store.
func newJob(t *testing.T, store backend.Store, opts checkpoint.Options) *checkpoint.Job {
	t.Helper()
	job, err := checkpoint.New(store, opts)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func claim(t *testing.T, job *checkpoint.Job, name string) (*checkpoint.Owner, error) {
	t.Helper()
	task, err := job.Task(name)
	if err != nil {
		return nil, err
	}
	return task.Claim(t.Context(), checkpoint.ClaimOptions{})
}

// claimTask makes the test the owner of the task orders.
func claimTask(t *testing.T, h *hook) *checkpoint.Owner {
	t.Helper()
	job := newJob(t, h.bucket.Open(), checkpoint.Options{})
	owner, err := claim(t, job, "orders")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = owner.Close(context.Background()), job.Close(context.Background()) })
	return owner
}

// A rollback refuses a task that is claimed, because the owner may be alive, and says when
// that last committed. With --take-over it fences the owner.
func TestRollbackFencesAnOwner(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	h, url := newHook(t, time.Now)
	ok(t, "save", url, "orders", before)
	ok(t, "save", url, "orders", after)
	owner := claimTask(t, h)
	if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{}); err != nil {
		t.Fatal(err)
	}
	r := holdfast(t, "rollback", url, "orders", "1")
	if want := "its last commit was at 20"; r.code != exitRival || !strings.Contains(r.stderr, want) {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	if r = holdfast(t, "rollback", url, "orders", "1", "--take-over"); r.code != 0 || r.stderr != "" {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	if want := "checkpoint 1 of \"orders\" is the newest again, in place of checkpoint 4\n"; r.stdout != want {
		t.Errorf("%s, want %s", r.stdout, want)
	}
	if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{}); !errors.Is(err, checkpoint.ErrFenced) {
		t.Errorf("the earlier owner's commit: %v", err)
	}
	wantCheckpoints(t, url, before, 1, 4, 2)
	if r := holdfast(t, "rollback", url, "orders", "1"); r.code != 0 || r.stderr != "" {
		t.Errorf("after a rollback, which releases the task: exit code %d, %s", r.code, r.stderr)
	}
}

// TestRollbackOfABusyTask has the owner commit during the rollback. The rollback
// starts over from that commit, and does not claim to know which checkpoint was the
// current one.
func TestRollbackOfABusyTask(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	h, url := newHook(t, time.Now)
	ok(t, "save", url, "orders", before)
	ok(t, "save", url, "orders", after)
	owner := claimTask(t, h)
	var once sync.Once
	h.do = func(ctx context.Context, op, _ string, perform func() error) error {
		var err error
		if op == "create" {
			once.Do(func() { _, err = owner.Commit(ctx, checkpoint.Snapshot{}) })
		}
		return errors.Join(err, perform())
	}
	doc := okJSON[rollbackDoc](t, "rollback", url, "orders", "1", "--take-over")
	if doc.Seq != 1 || doc.Replaces != nil {
		t.Errorf("%+v", doc)
	}
	h.do = perform
	wantCheckpoints(t, url, before, 1, 4, 2)
}

// TestWritersGoOnAfterDamage makes a rollback from, and a save over, a checkpoint
// whose offsets cannot be read.
func TestWritersGoOnAfterDamage(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	for _, c := range []struct {
		name, note, result string
		args               []string
		state              string
		want               []uint64
	}{
		{"rollback", "", `checkpoint 1 of "orders" is the newest again`, []string{"rollback", "URL", "orders", "1"}, before, []uint64{1}},
		{"save", "the checkpoint before cannot be read; everything is saved anew", `saved checkpoint 3 of "orders"`,
			[]string{"save", "URL", "orders", after}, after, []uint64{3, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, url := newHook(t, time.Now)
			ok(t, "save", url, "orders", before)
			ok(t, append([]string{"save", url, "orders", after}, manyOffsets()...)...)
			removeSegments(t, h, "0000000000000002-")
			if r := holdfast(t, "show", url, "orders"); r.code != exitCorrupt {
				t.Fatalf("exit code %d, %s", r.code, r.stderr)
			}
			c.args[1] = url
			r := holdfast(t, c.args...)
			if r.code != 0 || !strings.HasPrefix(r.stdout, c.result) || !strings.Contains(r.stderr, c.note) {
				t.Errorf("exit code %d, %s%s", r.code, r.stdout, r.stderr)
			}
			r = holdfast(t, "ls", url, "orders", "--json")
			var got []uint64
			for _, c := range decode[[]checkpointDoc](t, r.stdout) {
				got = append(got, c.Seq)
			}
			if r.code != exitCorrupt || len(got) != len(c.want) || got[0] != c.want[0] {
				t.Errorf("exit code %d, checkpoints %v, want %v", r.code, got, c.want)
			}
			out := filepath.Join(t.TempDir(), "out")
			ok(t, "restore", url, "orders", out)
			if diff := difference(t, out, c.state); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func removeSegments(t *testing.T, h *hook, prefix string) {
	t.Helper()
	store := h.bucket.Open()
	removed := 0
	for o, err := range store.List(t.Context(), "orders/segments/"+prefix, "") {
		if err == nil {
			err = store.Delete(t.Context(), o.Key)
		}
		if err != nil {
			t.Fatal(err)
		}
		removed++
	}
	if removed == 0 {
		t.Fatal("there is no such segment")
	}
}

// TestRollbackIsStoppedAnywhere interrupts a rollback before or after each of its
// requests. Its message must be true, and the next one must succeed.
func TestRollbackIsStoppedAnywhere(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	for _, late := range []bool{false, true} {
		for at := 1; ; at++ {
			h, url := newHook(t, time.Now)
			ok(t, "save", url, "orders", before)
			ok(t, "save", url, "orders", after)
			ctx, cancel := context.WithCancel(t.Context())
			n, where := 0, ""
			h.do = func(ctx context.Context, op, key string, perform func() error) error {
				if n++; n == at {
					where = op + " " + key
					if late {
						defer cancel()
					} else {
						cancel()
					}
				}
				if ctx.Err() != nil {
					return &backend.Error{Op: op, Key: key, Err: ctx.Err()}
				}
				return perform()
			}
			r := holdfastWith(t, ctx, "rollback", url, "orders", "1")
			cancel()
			h.do = perform
			if where == "" {
				break // the rollback has fewer requests
			}
			back := okJSON[[]checkpointDoc](t, "ls", url, "orders")[0].Seq == 1
			t.Logf("request %d (%s), late %v: done %v, exit code %d, %s", at, where, late, back, r.code, r.stderr)
			switch {
			case r.code == 0 && !back:
				t.Errorf("stopped at request %d: it reports success, but was not done", at)
			case r.code != 0 && back && !strings.Contains(r.stderr, "it may have been done"):
				t.Errorf("stopped at request %d: it was done, but it says %s", at, r.stderr)
			case r.code != 0 && r.code != exitFailed:
				t.Errorf("stopped at request %d: exit code %d", at, r.code)
			}
			if back {
				wantCheckpoints(t, url, before, 1, 2)
			} else {
				wantCheckpoints(t, url, after, 2, 1)
			}
			ok(t, "rollback", url, "orders", "1")
			wantCheckpoints(t, url, before, 1, 2)
		}
	}
}

// TestRollbackIsKilled ends a rollback by SIGKILL before it commits its manifest.
func TestRollbackIsKilled(t *testing.T) {
	before, after := makeState(t, "before "), makeState(t, "after ")
	dir := t.TempDir()
	ok(t, "save", fileURL(dir), "orders", before)
	ok(t, "save", fileURL(dir), "orders", after)
	startTo(t, "rollback", gateURL(dir, "create"), "orders", "1").kill(t)
	wantCheckpoints(t, fileURL(dir), after, 2, 1)
	ok(t, "rollback", fileURL(dir), "orders", "1")
	wantCheckpoints(t, fileURL(dir), before, 1, 2)
}
