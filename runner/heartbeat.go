package runner

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// startHeart begins to give signs of life for as long as the task is owned: also while it is
// restored, while a commit takes long, and during the last one.
func (t *Task) startHeart() {
	every := t.runner.opts.Heartbeat
	t.alive = time.Now() // by the claim
	if every == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.ctx))
	ended := make(chan struct{})
	t.stopHeart = func() {
		cancel()
		<-ended
	}
	go func() {
		defer close(ended)
		t.beat(ctx, every)
	}()
}

// beat sends a heartbeat whenever there was no commit, and no heartbeat, for so long.
func (t *Task) beat(ctx context.Context, every time.Duration) {
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		t.mu.Lock()
		wait := every - time.Since(t.alive)
		t.mu.Unlock()
		if wait <= 0 {
			wait = every - t.sendHeartbeat(ctx, every)
		}
		timer.Reset(max(wait, 0))
	}
}

// slowestHeartbeat is how long a heartbeat may take, whatever the interval: one that comes late
// is better than one that is given up and begun again.
const slowestHeartbeat = 10 * time.Second

// sendHeartbeat sends one heartbeat, and returns how long that took. A failure is of no
// consequence but that others may take the task over; unless it says that they have.
func (t *Task) sendHeartbeat(ctx context.Context, every time.Duration) time.Duration {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, max(every, slowestHeartbeat))
	defer cancel()
	err := t.owner.Heartbeat(bounded)
	switch {
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, checkpoint.ErrFenced), errors.Is(err, checkpoint.ErrLost):
		t.runner.telemetry.failed(ctx, "fenced")
		t.log.WarnContext(ctx, "the task is not this process's any more", "err", err)
		t.finishWith(err, false)
	default:
		t.runner.telemetry.failed(ctx, "heartbeat")
		t.log.WarnContext(ctx, "a heartbeat failed; whoever waits for one may take the task over", "err", err)
	}
	return time.Since(began)
}
