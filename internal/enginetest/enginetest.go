// Package enginetest tests the cuts of a database, whichever it is: the same for each of
// the engines that keep keys and values.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"testing"

	_ "github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/local"
)

// A DB is an open engine, with the keys and values of its database.
type DB interface {
	Cut(ctx context.Context) (src checkpoint.Source, remove func() error, err error)
	Close() error

	// Get returns the value of a key, or "" if there is none.
	Get(key string) (string, error)

	// Write makes all these changes in one transaction.
	Write(set map[string]string, remove []string) error
}

// A preparer is a DB of which the next cut can be made quicker.
type preparer interface {
	Prepare(ctx context.Context) error
}

// A Kind of database.
type Kind struct {
	// Open opens the database in dir, which was restored. cuts is empty at first.
	Open func(dir, cuts string) (DB, error)

	// Read returns all that is in a database that was restored, after its own check of
	// it has found nothing.
	Read func(dir string) (map[string]string, error)

	ErrBusy, ErrClosed error // of Cut

	// Prepares says that the next cut can be made quicker by Prepare, as a Preparer of
	// package runner has it.
	Prepares bool
}

// A place is where a database and its cuts are.
type place struct{ dir, cuts string }

func newPlace(run string) place {
	return place{filepath.Join(run, "state"), filepath.Join(run, "cuts")}
}

// mustOpen opens what the owner's checkpoint holds.
func (k Kind) mustOpen(t testing.TB, o *checkpoint.Owner, p place) DB {
	t.Helper()
	if _, err := o.Resume(t.Context(), p.dir); err != nil {
		t.Fatal(err)
	}
	db, err := k.open(p)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// open opens a database, which must be a preparer if the kind says so, and only then.
func (k Kind) open(p place) (DB, error) {
	db, err := k.Open(p.dir, p.cuts)
	if err != nil {
		return nil, err
	}
	if _, ok := db.(preparer); ok != k.Prepares {
		return nil, errors.Join(fmt.Errorf("that the database has Prepare is %t; it must be %t", ok, k.Prepares), db.Close())
	}
	return db, nil
}

// mustHold restores a checkpoint, and compares it.
func (k Kind) mustHold(t testing.TB, c *checkpoint.Checkpoint, want map[string]string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	if err := c.Restore(t.Context(), dir, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := k.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("checkpoint %d has %d keys; at the cut there were %d, of the same values or others", c.Seq, len(got), len(want))
	}
}

// mustClaim returns an owner of the task that all tests use.
func mustClaim(t testing.TB, url string) *checkpoint.Owner {
	t.Helper()
	job, err := checkpoint.Open(t.Context(), url, checkpoint.Options{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	task, err := job.Task(taskName)
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

const taskName = "orders/7"

// write changes a database and a model of it: n transactions, from the first one on.
func write(db DB, model map[string]string, first, n int) error {
	for i := first; i < first+n; i++ {
		set, remove := make(map[string]string), []string(nil)
		for k := range 1 + i%5 {
			key := fmt.Sprintf("key-%04d", (i*7+k*131)%1000)
			if i%11 == 0 {
				remove = append(remove, key)
				delete(model, key)
				continue
			}
			set[key] = fmt.Sprintf("%0*d", 1+i*13%700, i)
			model[key] = set[key]
		}
		if err := db.Write(set, remove); err != nil {
			return err
		}
	}
	return nil
}
