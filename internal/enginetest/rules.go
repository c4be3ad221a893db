package enginetest

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Rules tests what an engine says of cuts that are asked for at the wrong time.
func (k Kind) Rules(t *testing.T) {
	t.Run("one cut at a time", k.oneAtATime)
	t.Run("a cut of a closed engine", k.closed)
	t.Run("close while a cut is in use", k.closeInUse)
	t.Run("a context that has ended", k.ended)
	t.Run("a context that ends before the commit does", k.endsInUse)
	t.Run("a cut that nobody reads", k.unread)
}

func (k Kind) mustStart(t *testing.T) (DB, *checkpoint.Owner, map[string]string) {
	t.Helper()
	owner := mustClaim(t, "mem://"+t.Name())
	db, model := k.mustOpen(t, owner, newPlace(t.TempDir())), make(map[string]string)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := write(db, model, 1, 50); err != nil {
		t.Fatal(err)
	}
	return db, owner, model
}

func mustCut(t *testing.T, db DB) (checkpoint.Source, func() error) {
	t.Helper()
	src, remove, err := db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return src, remove
}

func (k Kind) oneAtATime(t *testing.T) {
	db, owner, model := k.mustStart(t)
	want := maps.Clone(model)
	src, remove := mustCut(t, db)
	if _, _, err := db.Cut(t.Context()); !errors.Is(err, k.ErrBusy) {
		t.Errorf("a second cut: %v; want %v", err, k.ErrBusy)
	}
	if err := write(db, model, 100, 50); err != nil {
		t.Fatal(err)
	}
	c, err := owner.Commit(t.Context(), checkpoint.Snapshot{State: src})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(remove(), remove()); err != nil {
		t.Error(err)
	}
	k.mustHold(t, c, want)
	_, remove = mustCut(t, db)
	if err := remove(); err != nil {
		t.Error(err)
	}
}

func (k Kind) closed(t *testing.T) {
	db, _, _ := k.mustStart(t)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.Cut(t.Context()); !errors.Is(err, k.ErrClosed) {
		t.Errorf("%v; want %v", err, k.ErrClosed)
	}
}

func (k Kind) closeInUse(t *testing.T) {
	db, owner, _ := k.mustStart(t)
	src, remove := mustCut(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{State: src}); !errors.Is(err, k.ErrClosed) {
		t.Errorf("a commit of what was closed: %v; want %v", err, k.ErrClosed)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
}

func (k Kind) ended(t *testing.T) {
	db, _, _ := k.mustStart(t)
	cause := errors.New("the operator is tired")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, _, err := db.Cut(ctx); !errors.Is(err, cause) {
		t.Errorf("%v; want %v", err, cause)
	}
	_, remove := mustCut(t, db) // nothing is left of the one that failed
	if err := remove(); err != nil {
		t.Error(err)
	}
}

func (k Kind) endsInUse(t *testing.T) {
	db, owner, _ := k.mustStart(t)
	cause := errors.New("the operator is tired")
	ctx, cancel := context.WithCancelCause(t.Context())
	src, remove, err := db.Cut(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel(cause)
	if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{State: src}); !errors.Is(err, cause) {
		t.Errorf("a commit whose cut was given up: %v; want %v", err, cause)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
}

func (k Kind) unread(t *testing.T) {
	db, owner, _ := k.mustStart(t)
	src, remove := mustCut(t, db)
	if err := remove(); err != nil {
		t.Error(err)
	}
	if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{State: src}); err == nil {
		t.Error("a cut that was removed was committed")
	}
}
