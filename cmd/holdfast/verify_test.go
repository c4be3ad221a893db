package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// TestVerifyWithoutTheList deletes the retained list of a task, which is too long for
// a manifest, and then does what the message advises.
func TestVerifyWithoutTheList(t *testing.T) {
	h, url := newHook(t, time.Now)
	owner := claimTask(t, h)
	const n = 150
	for i := range n {
		if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{Savepoint: fmt.Sprintf("%0127d.", i)}); err != nil {
			t.Fatal(err)
		}
	}
	store := h.bucket.Open()
	var lists []string
	for o, err := range store.List(t.Context(), "orders/segments", "") {
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, o.Key)
	}
	if err := store.Delete(t.Context(), lists[len(lists)-1]); err != nil {
		t.Fatal(err)
	}
	r := holdfast(t, "verify", url, "orders", "--repair", "--take-over")
	if r.code != exitCorrupt || !strings.Contains(r.stderr, "'holdfast verify TASK --repair --give-up-list' keeps the checkpoints that 'holdfast ls TASK' still shows") {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	known := holdfast(t, "ls", url, "orders")
	listed := strings.Count(known.stdout, "\n") - 1 // there is a header line
	if known.code != exitCorrupt || listed < 1 || listed >= n {
		t.Errorf("exit code %d, %d checkpoints are listed", known.code, listed)
	}
	for _, args := range [][]string{{"verify", url, "--repair", "--give-up-list"}, {"verify", url, "orders", "--give-up-list"}} {
		if r := holdfast(t, args...); r.code != exitUsage || !strings.Contains(r.stderr, "--give-up-list is for --repair of one TASK") {
			t.Errorf("%q: exit code %d, %s", args, r.code, r.stderr)
		}
	}
	if r := holdfast(t, "verify", url, "orders", "--repair", "--give-up-list"); r.code != exitRival {
		t.Errorf("of a claimed task: exit code %d, %s", r.code, r.stderr)
	}
	if out := ok(t, "verify", url, "orders", "--repair", "--give-up-list", "--take-over"); !strings.Contains(out, "orders: kept what can be read of the list of checkpoints; the others are given up") {
		t.Errorf("%s", out)
	}
	if now := ok(t, "ls", url, "orders"); now != known.stdout {
		t.Errorf("ls shows\n%s\nand before\n%s", now, known.stdout)
	}
	ok(t, "verify", url, "orders")
}
