package pebble

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"go.uber.org/goleak"

	_ "github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/local"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		fmt.Fprintln(os.Stderr, runChild(url, os.Getenv(childDir)))
		os.Exit(1)
	}
	// A few of each property every time; ask for more with -rapid.checks.
	if err := flag.Set("rapid.checks", "10"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// small is options with which a few kilobytes are many memtables and tables.
func small() *pebbledb.Options {
	opts := &pebbledb.Options{MemTableSize: 64 << 10, L0CompactionThreshold: 2, Logger: quiet{pebbledb.DefaultLogger}}
	for i := range opts.TargetFileSizes {
		opts.TargetFileSizes[i] = 32 << 10
	}
	return opts
}

// withBlobs is small with values in files of their own.
func withBlobs() *pebbledb.Options {
	opts := small()
	opts.FormatMajorVersion = pebbledb.FormatNewest
	opts.Experimental.ValueSeparationPolicy = func() pebbledb.ValueSeparationPolicy {
		return pebbledb.ValueSeparationPolicy{Enabled: true, MinimumSize: 100, MaxBlobReferenceDepth: 5, TargetGarbageRatio: 0.2}
	}
	return opts
}

// quiet keeps Pebble's errors and drops its news.
type quiet struct{ pebbledb.Logger }

func (quiet) Infof(string, ...any) {}

// place is where a database and its cuts are.
type place struct{ dir, cuts string }

func newPlace(t testing.TB) place {
	run := t.TempDir()
	return place{filepath.Join(run, "state"), filepath.Join(run, "cuts")}
}

func mustOpen(t testing.TB, p place, opts *pebbledb.Options) *Engine {
	t.Helper()
	e, err := Open(p.dir, opts, p.cuts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func mustCut(t testing.TB, e *Engine) (checkpoint.Source, func() error) {
	t.Helper()
	src, remove, err := e.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return src, remove
}

// mustClaim returns an owner of a task at url.
func mustClaim(t testing.TB, url string) *checkpoint.Owner {
	t.Helper()
	job, err := checkpoint.Open(t.Context(), url, checkpoint.Options{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	task, err := job.Task("orders/7")
	if err != nil {
		t.Fatal(err)
	}
	owner, err := task.Claim(t.Context(), checkpoint.ClaimOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(context.Background()) })
	return owner
}

func mustCommit(t testing.TB, o *checkpoint.Owner, src checkpoint.Source) *checkpoint.Checkpoint {
	t.Helper()
	c, err := o.Commit(t.Context(), checkpoint.Snapshot{State: src})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// mustRestore returns a fresh directory with the checkpoint in it.
func mustRestore(t testing.TB, c *checkpoint.Checkpoint) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	if err := c.Restore(t.Context(), dir, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustWrite(t testing.TB, e *Engine, key, value string) {
	t.Helper()
	if err := e.DB.Set([]byte(key), []byte(value), pebbledb.NoSync); err != nil {
		t.Fatal(err)
	}
}

// read returns all that a database holds, which Pebble has checked.
func read(dir string, opts *pebbledb.Options) (map[string]string, error) {
	opts.ReadOnly = true
	db, err := pebbledb.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := db.CheckLevels(nil); err != nil {
		return nil, err
	}
	it, err := db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	got := make(map[string]string)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		got[string(it.Key())] = string(value)
	}
	return got, it.Error()
}
