package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A Heartbeat is a sign of life that an owner has given between its commits.
type Heartbeat struct {
	Epoch  uint64
	Writer string    // as in Status: of an owner that was fenced, it is another one
	N      uint64    // grows with each heartbeat of this owner
	Time   time.Time // by the clock of the owner's machine: for people, and for nothing else
}

// Heartbeat tells those who follow the task that its owner is alive. It is for an owner that
// commits more rarely than they are to wait: a commit is a sign of life as well.
//
// Heartbeat may be called while another call of this owner is under way, and does not wait
// for it. Otherwise it first asks, by one read, whether others have made a manifest, and
// returns ErrFenced if the task is not this owner's any more. So it sends two requests. The
// heartbeat replaces the one before. Nothing but the waiting of others depends on it.
func (o *Owner) Heartbeat(ctx context.Context) error {
	ctx, end, err := o.task.job.life.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := o.checkIfIdle(ctx); err != nil {
		return err
	}
	h := format.Heartbeat{Task: o.task.Name(), Epoch: o.epoch, Writer: o.writer, N: o.heartbeats.Add(1), Time: o.task.job.clock().UTC()}
	data, err := h.Encode()
	if err == nil {
		_, err = o.task.job.store.Put(ctx, format.HeartbeatKey(o.task.log.Dir), data)
	}
	return err
}

// checkIfIdle is Check by a read in place of a listing. It does nothing if another call of
// the owner is under way, or is to settle a commit: that finds out by itself.
func (o *Owner) checkIfIdle(ctx context.Context) error {
	if !o.lock.tryLock() {
		return nil
	}
	defer o.lock.unlock()
	if o.ended != nil || o.pending != nil {
		return o.ended
	}
	others, err := o.task.log.Has(ctx, o.base.Seq+1)
	if err == nil && others {
		err = o.refresh(ctx)
	}
	return err
}

// LastHeartbeat returns the last heartbeat of any of the task's owners, or nil if there is
// none. It sends one request. That a heartbeat is not the one of a moment ago shows that its
// owner was alive in between. Whether that one still has the task, Status says.
func (t *Task) LastHeartbeat(ctx context.Context) (*Heartbeat, error) {
	key := format.HeartbeatKey(t.log.Dir)
	h, err := readRecord(ctx, t, key, "heartbeat "+key, format.DecodeHeartbeat)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Heartbeat{h.Epoch, h.Writer.String(), h.N, h.Time.UTC()}, nil
}
