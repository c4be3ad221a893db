package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// TestVerifyWithoutTheList takes away the list of a task's checkpoints, which
// is too long for a manifest, and does then what it is told.
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
	keys := func(prefix string) (all []string) {
		for o, err := range store.List(t.Context(), prefix, "") {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, o.Key)
		}
		return all
	}
	lists := keys("orders/segments")
	if err := store.Delete(t.Context(), lists[len(lists)-1]); err != nil {
		t.Fatal(err)
	}
	r := holdfast(t, "verify", url, "orders", "--repair", "--fence")
	if r.code != exitCorrupt || !strings.HasSuffix(r.stderr, "move its newest manifests out of the store one by one until 'holdfast ls' lists the others\n") {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	if err := store.Delete(t.Context(), keys("orders/manifests")[0]); err != nil {
		t.Fatal(err)
	}
	// There is a line of titles, too.
	if got := strings.Count(ok(t, "ls", url, "orders"), "\n"); got != n {
		t.Errorf("%d checkpoints are listed, want %d", got-1, n-1)
	}
	ok(t, "verify", url, "orders")
}
