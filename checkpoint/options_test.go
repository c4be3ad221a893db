package checkpoint_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// Invalid options are refused at once, and not only at the first commit.
func TestInvalidOptionsAreRefused(t *testing.T) {
	for want, opts := range map[string]checkpoint.Options{
		"Memory is 1048575 bytes; it must be at least 1048576": {Memory: 1<<20 - 1},
		"Memory is -1 bytes": {Memory: -1},
		"Requests is -2":     {Requests: -2},
		`compression is "lz4"; it must be auto, off or zstd`: {Compression: "lz4"},
		"CommitTimeout is -1s":                               {CommitTimeout: -time.Second},
		"-3 checkpoints are to stay":                         {Retention: checkpoint.Retention{Daily: -3}},
	} {
		job, err := checkpoint.New(mem.NewBucket(time.Now).Open(), opts)
		if job != nil || !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want ErrInvalid: %s", err, want)
		}
	}
}

// If Open refuses the options, it does not leave the store open.
func TestOpenRefusesInvalidOptions(t *testing.T) {
	_, err := checkpoint.Open(t.Context(), "file://"+t.TempDir(), checkpoint.Options{Requests: -1})
	if !errors.Is(err, backend.ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
}

// A commit ends when it has taken too long, and its error says that this was the
// option's limit.
func TestCommitTimeout(t *testing.T) {
	inWorld(t, func(w *world) {
		store := faultstore.Wrap(w, w.bucket.Open())
		job := newJob(w, store, checkpoint.Options{CommitTimeout: 30 * time.Second, Backoff: backend.Backoff{Attempts: 1000}})
		o, err := claimIn(w.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrThrottled})
		began := time.Now()
		_, err = o.Commit(w.Context(), at(1))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "longer than 30s, which is Options.CommitTimeout") {
			t.Errorf("%v, want DeadlineExceeded by Options.CommitTimeout", err)
		}
		if took := time.Since(began); took > 31*time.Second {
			t.Errorf("it took %v", took)
		}
		// If it was the caller's limit, the error does not name the option.
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if _, err := o.Commit(ctx, at(1)); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "CommitTimeout") {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
		store.Heal()
		commit(w, o, at(2))
	})
}

// What is missing is named before anything is sent.
func TestNilIsRefused(t *testing.T) {
	if _, err := checkpoint.New(nil, checkpoint.Options{}); !errors.Is(err, backend.ErrInvalid) {
		t.Errorf("a job without a store: %v", err)
	}
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		for name, s := range map[string]checkpoint.Source{
			"stream": checkpoint.Stream("x", nil),
			"fs":     checkpoint.FS(nil),
			"join":   checkpoint.Join(map[string]checkpoint.Source{"a": checkpoint.Stream("x", nil)}),
		} {
			if _, err := o.Commit(w.Context(), checkpoint.Snapshot{State: s}); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A call on an owner that has released its task is one on something that is closed.
func TestReleasedOwnerIsClosed(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		mustDo(t, o.Release(w.Context()))
		if _, err := o.Commit(w.Context(), at(1)); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("commit: %v", err)
		}
		if err := o.Check(w.Context()); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("check: %v", err)
		}
	})
}
