package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A RestoreTest records that a checkpoint could be restored at some time: all of its data
// was read, and every byte was correct.
type RestoreTest struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"` // of its commit, by the store's clock
	At   time.Time `json:"at"`   // when it was read, by the store's clock
}

// LastRestoreTest returns what the last [Task.TestRestore] has recorded, or
// nil if there was none. The checkpoint may have been retired since. It sends
// two requests.
func (t *Task) LastRestoreTest(ctx context.Context) (*RestoreTest, error) {
	key := format.RestoreTestKey(t.log.Dir)
	for o, err := range t.job.store.List(ctx, key, "") {
		if err != nil {
			return nil, err
		}
		if o.Key != key {
			break
		}
		p, err := t.readRestoreTest(ctx, &o)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // deleted since
		}
		return p, err
	}
	return nil, nil
}

func (t *Task) readRestoreTest(ctx context.Context, o *backend.Object) (*RestoreTest, error) {
	p, err := readRecord(ctx, t, o.Key, "record of the last restore test, "+o.Key, format.DecodeProof)
	if err != nil {
		return nil, err
	}
	return &RestoreTest{p.Seq, p.Time.UTC(), o.ModTime.UTC()}, nil
}

// readRecord reads an object beside the manifests. name is what an error about its content
// calls it.
func readRecord[T any](ctx context.Context, t *Task, key, name string, decode func(data []byte, task string) (*T, error)) (*T, error) {
	data := make([]byte, format.MaxRecord+1)
	n, err := t.job.store.Get(ctx, key, 0, data)
	if err != nil {
		return nil, err
	}
	r, err := decode(data[:n], t.Name())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// recordRestoreTest records that a checkpoint could be restored. The record replaces
// the one before. No decision depends on it: it tells people how long ago the last test
// was.
func (t *Task) recordRestoreTest(ctx context.Context, c *Checkpoint) (*RestoreTest, error) {
	p := format.Proof{Task: t.Name(), Seq: c.Seq, Time: c.Time}
	data, err := p.Encode()
	if err != nil {
		return nil, err
	}
	o, err := t.job.store.Put(ctx, format.RestoreTestKey(t.log.Dir), data)
	if err != nil {
		return nil, err
	}
	return &RestoreTest{c.Seq, c.Time, o.ModTime.UTC()}, nil
}
