package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// newDatedTask makes a task with four checkpoints: one a day, the second a savepoint,
// the last two on one day. It returns the owner of the last one.
func newDatedTask(t *testing.T) (*hook, string, *checkpoint.Owner) {
	t.Helper()
	var now time.Time
	h, url := newHook(t, func() time.Time { return now })
	job := newJob(t, h.bucket.Open(), checkpoint.Options{Retention: checkpoint.Retention{Last: checkpoint.KeepAll}})
	owner, err := claim(t, job, "orders")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(context.Background()) })
	for n, at := range []string{"2026-11-20T10:00:00Z", "2026-11-21T10:00:00Z", "2026-11-22T09:00:00Z", "2026-11-22T10:00:00Z"} {
		if now, err = time.Parse(time.RFC3339, at); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 20_000)                         // more than fits into a manifest, and cannot be compressed
		_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(data) // never fails
		s := checkpoint.Snapshot{State: checkpoint.FS(fstest.MapFS{"file": {Data: data}})}
		if n == 1 {
			s.Savepoint, s.SavepointExpiresAfter = "before upgrade", 48*time.Hour
		}
		if _, err := owner.Commit(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	return h, url, owner
}

func TestPruneOutput(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("", 2*60*60)
	t.Cleanup(func() { time.Local = local })
	policy := []string{"--keep-last", "1", "--keep-hourly", "2"}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"prune-dry", append(policy, "--dry-run")},
		{"prune", policy},
	} {
		for form, args := range map[string][]string{"txt": c.args, "json": append(c.args, "--json")} {
			t.Run(c.name+"."+form, func(t *testing.T) {
				_, url, owner := newDatedTask(t)
				if err := owner.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
				golden(t, c.name+"."+form, ok(t, append([]string{"prune", url, "orders"}, args...)...))
			})
		}
	}
}

func TestPruneBesideAnOwner(t *testing.T) {
	_, url, owner := newDatedTask(t)
	ok(t, "prune", url, "orders", "--keep-last", "1")
	if got := okJSON[[]checkpointDoc](t, "ls", url, "orders"); len(got) != 2 { // a savepoint is kept
		t.Errorf("%d checkpoints are left", len(got))
	}
	if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{}); err != nil {
		t.Errorf("the owner: %v", err)
	}
}

// TestPruneIsStoppedAnywhere interrupts a prune before or after each of its requests.
// Its message must be true, and a second prune must complete it.
func TestPruneIsStoppedAnywhere(t *testing.T) {
	for _, late := range []bool{false, true} {
		for at := 1; ; at++ {
			h, url, owner := newDatedTask(t)
			if err := owner.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			gate := make(chan struct{}, 1) // checkpoints are read in parallel
			n, reached := 0, false
			h.do = func(ctx context.Context, op, key string, perform func() error) error {
				gate <- struct{}{}
				defer func() { <-gate }()
				if n++; n == at {
					reached = true
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
			args := []string{"prune", url, "orders", "--keep-last", "2"}
			r := holdfastWith(t, ctx, args...)
			cancel()
			h.do = perform
			if !reached {
				break
			}
			pruned := strings.Count(ok(t, "ls", url, "orders"), "\n") == 4 // a savepoint is kept
			switch {
			case r.code == 0 && !pruned:
				t.Errorf("stopped at request %d: it reports success, but did not prune", at)
			case r.code == 0:
				t.Errorf("stopped at request %d: exit code 0", at)
			case pruned && !strings.Contains(r.stderr, "it may have been pruned") && !strings.Contains(r.stderr, "); 1 checkpoint was dropped; "):
				t.Errorf("stopped at request %d: it pruned, but says %s", at, r.stderr)
			case !pruned && strings.Contains(r.stderr, "dropped"):
				t.Errorf("stopped at request %d: it did not prune, but says %s", at, r.stderr)
			case r.code != 0 && r.code != exitFailed:
				t.Errorf("stopped at request %d: exit code %d", at, r.code)
			}
			ok(t, args...)
			if got := strings.Count(ok(t, "ls", url, "orders"), "\n"); got != 4 {
				t.Errorf("stopped at request %d: %d lines after the next one", at, got)
			}
		}
	}
}

func TestDuration(t *testing.T) {
	const day = 24 * time.Hour
	for v, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "36h": 36 * time.Hour, "7d": 7 * day, "2w": 14 * day, "1w2d12h": 9*day + 12*time.Hour,
		"1d1h30m": day + 90*time.Minute, "007d": 7 * day, "1.5h": 90 * time.Minute, "106751d": 106751 * day, "1ns": 1,
	} {
		var got time.Duration
		if err := duration(&got)(v); err != nil || got != want {
			t.Errorf("duration(%q) = %v, %v; want %v", v, got, err, want)
		}
	}
	for _, v := range []string{
		"", "0", "0d", "0w0d0s", "-1h", "-7d", "7", "d", "7 d", "7d ", "1.5d", "2d1w", "7D", "1w1w", "week", "7d\n",
		"1y", "106752d", "99999999999999999999d", "15250w7d", "15249w9d", "106751d24h", "1d-1h", "9223372036s1d", "9999999h",
	} {
		got := time.Duration(-1)
		if err := duration(&got)(v); err == nil || strings.Contains(err.Error(), "\n") || got != -1 {
			t.Errorf("duration(%q) = %v, %v; want an error of one line", v, got, err)
		}
	}
}

// A save takes the same flags.
func TestSaveWithAPolicy(t *testing.T) {
	_, url, owner := newDatedTask(t)
	if err := owner.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	mustWrite(t, filepath.Join(state, "file"), "data")
	saved := ok(t, "save", url, "orders", state, "--keep-daily", "3", "--savepoint", "tonight", "--savepoint-expires", "1w")
	if !strings.Contains(saved, `checkpoint 7 of "orders" (savepoint "tonight")`) {
		t.Errorf("%s", saved)
	}
	var seqs []uint64
	list := okJSON[[]checkpointDoc](t, "ls", url, "orders")
	for _, c := range list {
		seqs = append(seqs, c.Seq)
	}
	if got := fmt.Sprint(seqs); got != "[7 5 3 2]" {
		t.Errorf("checkpoints %s, want [7 5 3 2]", got)
	}
	if list[0].Expires != "2026-11-29T10:00:00Z" || list[1].Expires != "" || list[2].Expires != "2026-11-23T10:00:00Z" {
		t.Errorf("they expire at %q, %q, %q", list[0].Expires, list[1].Expires, list[2].Expires)
	}
}
