package pebble

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Whatever was written, deleted, flushed and compacted before, and is written
// while the cut is made and committed, a restored cut is the state at its moment.
func TestRestoredCutIsTheStateAtItsMoment(t *testing.T) {
	for name, opts := range map[string]func() *pebbledb.Options{"tables": small, "blobs": withBlobs} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				newHost(t, rt, opts).work()
			})
		})
	}
}

// A host writes to a database and to a model of it.
type host struct {
	t    *testing.T
	rt   *rapid.T
	opts func() *pebbledb.Options
	run  string // a directory
	url  string

	engine *Engine
	owner  *checkpoint.Owner
	lives  int
	model  map[string]string
	writes int
}

func newHost(t *testing.T, rt *rapid.T, opts func() *pebbledb.Options) *host {
	run := t.TempDir()
	h := &host{t: t, rt: rt, opts: opts, run: run, url: "file://" + filepath.ToSlash(run) + "/store", model: make(map[string]string)}
	h.start()
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.rt.Fatal(err)
	}
}

// start claims the task, and opens what its checkpoint holds.
func (h *host) start() {
	h.owner = mustClaim(h.t, h.url)
	h.lives++
	life := filepath.Join(h.run, fmt.Sprint("life-", h.lives))
	dir := filepath.Join(life, "state")
	_, err := h.owner.Resume(h.t.Context(), dir)
	h.must(err)
	h.engine, err = Open(dir, h.opts(), filepath.Join(life, "cuts"))
	h.must(err)
}

func (h *host) work() {
	defer func() { h.must(h.engine.Close()) }()
	saved := make(map[string]string)
	for range rapid.IntRange(1, 8).Draw(h.rt, "steps") {
		switch rapid.SampledFrom([]string{"write", "write", "write", "cut", "cut", "flush", "compact", "crash"}).Draw(h.rt, "step") {
		case "write":
			h.write(rapid.IntRange(1, 200).Draw(h.rt, "writes"))
		case "flush":
			h.must(h.engine.DB.Flush())
		case "compact":
			h.must(h.engine.DB.Compact(h.t.Context(), []byte("a"), []byte("z"), false))
		case "cut":
			saved = h.cut()
		case "crash": // what was not committed is lost
			h.must(h.engine.Close())
			h.start()
			h.model = maps.Clone(saved)
		}
	}
}

// write writes so many batches.
func (h *host) write(n int) {
	for range n {
		h.writes++
		b := h.engine.DB.NewBatch()
		for k := range 1 + h.writes%3 {
			key := fmt.Sprintf("key-%03d", (h.writes*7+k*31)%300)
			value := strings.Repeat(fmt.Sprint(h.writes, " "), 1+h.writes*13%400)
			if h.writes%97 == 0 {
				value = strings.Repeat(value, 100) // more than a memtable holds
			}
			switch {
			case h.writes%11 == 0:
				h.must(b.Delete([]byte(key), nil))
				delete(h.model, key)
			case h.writes%53 == 0:
				end := fmt.Sprintf("key-%03d", (h.writes*7+k*31)%300+5)
				h.must(b.DeleteRange([]byte(key), []byte(end), nil))
				maps.DeleteFunc(h.model, func(k, _ string) bool { return key <= k && k < end })
			default:
				h.must(b.Set([]byte(key), []byte(value), nil))
				h.model[key] = value
			}
		}
		h.must(b.Commit(pebbledb.NoSync))
		h.must(b.Close())
	}
}

// cut commits a cut while the host goes on, compares what is restored from it,
// and returns the state at its moment.
func (h *host) cut() map[string]string {
	want := maps.Clone(h.model)
	src, remove, err := h.engine.Cut(h.t.Context())
	h.must(err)
	committed := make(chan *checkpoint.Checkpoint, 1)
	var failed error
	go func() {
		defer close(committed)
		c, err := h.owner.Commit(context.Background(), checkpoint.Snapshot{State: src})
		failed = err
		committed <- c
	}()
	h.write(rapid.IntRange(0, 300).Draw(h.rt, "meanwhile"))
	c := <-committed
	h.must(failed)
	h.must(remove())
	dir := filepath.Join(h.run, fmt.Sprint("restored-", c.Seq))
	h.must(c.Restore(h.t.Context(), dir, checkpoint.RestoreOptions{}))
	got, err := read(dir, h.opts())
	h.must(err)
	if !maps.Equal(got, want) {
		h.rt.Fatalf("checkpoint %d has %d keys; at the cut there were %d, of the same values or others", c.Seq, len(got), len(want))
	}
	return want
}
