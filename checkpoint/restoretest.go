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

// A RestoreTest says that a checkpoint could be restored at some time: it was read as
// a restore reads it, and every byte was right.
type RestoreTest struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"` // of its commit, by the store's clock
	At   time.Time `json:"at"`   // when it was read, by the store's clock
}

// LastRestoreTest returns what the last [Task.TestRestore] has recorded, or
// nil if there was none. The checkpoint may have been retired since. It sends
// two requests.
func (t *Task) LastRestoreTest(ctx context.Context) (*RestoreTest, error) {
	key := format.ProvenKey(t.log.Dir)
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
	data := make([]byte, format.MaxProof+1)
	n, err := t.job.store.Get(ctx, o.Key, 0, data)
	if err != nil {
		return nil, err
	}
	p, err := format.DecodeProof(data[:n], t.Name())
	if err != nil {
		return nil, fmt.Errorf("record of the last restore test, %s: %w", o.Key, err)
	}
	return &RestoreTest{p.Seq, p.Time.UTC(), o.ModTime.UTC()}, nil
}

// recordRestoreTest records that a checkpoint could be restored. The record replaces
// the one before. Nothing hangs on it: it tells people how long ago it was.
func (t *Task) recordRestoreTest(ctx context.Context, c *Checkpoint) (*RestoreTest, error) {
	p := format.Proof{Task: t.Name(), Seq: c.Seq, Time: c.Time}
	data, err := p.Encode()
	if err != nil {
		return nil, err
	}
	o, err := t.job.store.Put(ctx, format.ProvenKey(t.log.Dir), data)
	if err != nil {
		return nil, err
	}
	return &RestoreTest{c.Seq, c.Time, o.ModTime.UTC()}, nil
}
