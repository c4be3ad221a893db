package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// failingReader fails after its data.
type failingReader struct {
	*strings.Reader
	err error
}

func (r failingReader) Read(p []byte) (int, error) {
	if r.Len() == 0 {
		return 0, r.err
	}
	return r.Reader.Read(p)
}

// However a commit ends, in the middle of many uploads or before them, it leaves nothing
// that can be seen, no goroutine (the world waits for all of them), and all of its memory
// to those that follow.
func TestCommitThatFailsLeavesNothing(t *testing.T) {
	errSource := errors.New("the source failed")
	unreadable := func(bytes int) checkpoint.Snapshot {
		s := at(1)
		s.State = checkpoint.Stream("s", failingReader{strings.NewReader(string(noise(bytes))), errSource})
		return s
	}
	for _, memory := range []int64{1 << 20, 32 << 20} {
		bytes := int(memory/16)*9/2 + 1 // four segments and a half
		for _, c := range []struct {
			what  string
			state checkpoint.Snapshot
			fault faultstore.Fault
			want  error
		}{
			{"an upload among others fails", with(1, bytes), faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", On: 3, Err: backend.ErrNoSpace}, backend.ErrNoSpace},
			{"all uploads fail", with(1, bytes), faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", Err: backend.ErrNoSpace}, backend.ErrNoSpace},
			{"the source fails in a segment", unreadable(bytes), faultstore.Fault{}, errSource},
			{"time is over during uploads", with(1, bytes), faultstore.Fault{Kind: faultstore.Delay, Verb: "put", For: 24 * time.Hour}, context.DeadlineExceeded},
		} {
			t.Run(fmt.Sprintf("%s, %d MiB", c.what, memory>>20), func(t *testing.T) {
				inWorld(t, func(w *world) {
					store := faultstore.Wrap(w, w.bucket.Open())
					job := newJob(w, store, checkpoint.Options{Memory: memory, CommitTimeout: time.Hour})
					o, err := claimIn(w.Context(), job)
					if err != nil {
						t.Fatal(err)
					}
					w.Cleanup(func() { _ = o.Close(context.Background()) })
					if c.fault.Kind != "" {
						store.Arm(c.fault)
					}
					if _, err := o.Commit(w.Context(), c.state); !errors.Is(err, c.want) {
						t.Fatalf("%v, want %v", err, c.want)
					}
					store.Heal()
					w.wantHistory("")
					if !checkpoint.MemoryIsFree(job) {
						t.Error("some memory is not given back")
					}
					commit(w, o, with(2, bytes))
					synctest.Wait()
					w.wantHistory("2")
					w.wantReadable()
					if !checkpoint.MemoryIsFree(job) {
						t.Error("some memory is not given back by a commit that succeeds")
					}
				})
			})
		}
	}
}

// The same of restores, in the middle of many downloads.
func TestRestoreThatFailsLeavesNothing(t *testing.T) {
	for what, c := range map[string]struct {
		fault faultstore.Fault
		want  error
	}{
		"a download among others fails": {faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", On: 5, Err: backend.ErrPermission}, backend.ErrPermission},
		"time is over":                  {faultstore.Fault{Kind: faultstore.Delay, Verb: "get", Key: "segments", For: 24 * time.Hour}, context.DeadlineExceeded},
		"one is damaged":                {faultstore.Fault{Kind: faultstore.Corrupt, Verb: "get", On: 6}, checkpoint.ErrCorrupt},
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			inWorld(t, func(w *world) {
				store := faultstore.Wrap(w, w.bucket.Open())
				job := newJob(w, store, checkpoint.Options{Memory: 1 << 20})
				o, err := claimIn(w.Context(), job)
				if err != nil {
					t.Fatal(err)
				}
				w.Cleanup(func() { _ = o.Close(context.Background()) })
				made := commit(w, o, with(1, 1<<20))
				ctx, cancel := context.WithTimeout(w.Context(), time.Hour)
				defer cancel()
				store.Arm(c.fault)
				if err := made.Restore(ctx, dir, checkpoint.RestoreOptions{}); !errors.Is(err, c.want) {
					t.Fatalf("%v, want %v", err, c.want)
				}
				if names, _ := filepath.Glob(dir + "*"); len(names) > 0 {
					t.Errorf("%q is left", names)
				}
				store.Heal()
				if !checkpoint.MemoryIsFree(job) {
					t.Error("some memory is not given back")
				}
				if err := made.Restore(w.Context(), dir, checkpoint.RestoreOptions{}); err != nil {
					t.Error(err)
				}
				if !checkpoint.MemoryIsFree(job) {
					t.Error("some memory is not given back by a restore that succeeds")
				}
			})
		})
	}
}

// Who waits for memory that others have gives up when the time is over, and goes on when
// there is some.
func TestWaitForMemory(t *testing.T) {
	for what, do := range map[string]func(ctx context.Context, dir string, o *checkpoint.Owner, c *checkpoint.Checkpoint) error{
		"a commit": func(ctx context.Context, _ string, o *checkpoint.Owner, _ *checkpoint.Checkpoint) error {
			_, err := o.Commit(ctx, with(2, 200<<10))
			return err
		},
		"a restore": func(ctx context.Context, dir string, _ *checkpoint.Owner, c *checkpoint.Checkpoint) error {
			return c.Restore(ctx, filepath.Join(dir, "state"), checkpoint.RestoreOptions{})
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			inWorld(t, func(w *world) {
				_, job, _ := w.open(checkpoint.Options{Memory: 1 << 20})
				o, err := claimIn(w.Context(), job)
				if err != nil {
					t.Fatal(err)
				}
				w.Cleanup(func() { _ = o.Close(context.Background()) })
				made := commit(w, o, with(1, 200<<10))
				giveBack := checkpoint.TakeMemory(job)
				ctx, cancel := context.WithTimeout(w.Context(), time.Hour)
				defer cancel()
				if err := do(ctx, dir, o, made); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v, want DeadlineExceeded", err)
				}
				// A commit whose data fits into small segments does not need it.
				commit(w, o, with(3, 2<<10))
				time.AfterFunc(time.Minute, giveBack)
				began := time.Now()
				if err := do(w.Context(), dir, o, made); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took < time.Minute || took > time.Hour {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// A part that is larger than all memory is stored all the same.
func TestPartLargerThanTheMemory(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(checkpoint.Options{Memory: 1 << 20})
		s := with(1, 100<<10)
		data := noise(800 << 10) // more than half of Memory, however it is compressed
		for i := range len(data) / 64 {
			s.Offsets[fmt.Sprint(i)] = fmt.Sprintf("%x", data[64*i:64*(i+1)])
		}
		commit(w, o, s)
		w.wantReadable()
	})
}
