package checkpoint_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// Options that mean nothing are refused at once, and not at the first commit.
func TestOptionsThatCannotBe(t *testing.T) {
	for want, opts := range map[string]checkpoint.Options{
		"SegmentSize is 65535 bytes; it must be from 65536 to 67108864":    {SegmentSize: 64<<10 - 1},
		"SegmentSize is 67108865 bytes; it must be from 65536 to 67108864": {SegmentSize: 64<<20 + 1},
		"SegmentSize is -1 bytes":    {SegmentSize: -1},
		"Uploads is -1":              {Uploads: -1},
		"Requests is -2":             {Requests: -2},
		"CommitTimeout is -1s":       {CommitTimeout: -time.Second},
		"-3 checkpoints are to stay": {Retention: checkpoint.Retention{Daily: -3}},
	} {
		job, err := checkpoint.New(mem.NewBucket(time.Now).Open(), opts)
		if job != nil || !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want ErrInvalid: %s", err, want)
		}
	}
}

// Open does not leave a store open whose job it refuses.
func TestOpenWithOptionsThatCannotBe(t *testing.T) {
	_, err := checkpoint.Open(t.Context(), "file://"+t.TempDir(), checkpoint.Options{Requests: -1})
	if !errors.Is(err, backend.ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
}

// A commit ends when it has taken too long, and its error says whose limit that was.
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
		// A limit of the caller's own is not said to be the option's.
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if _, err := o.Commit(ctx, at(1)); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "CommitTimeout") {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
		store.Heal()
		commit(w, o, at(2))
	})
}
