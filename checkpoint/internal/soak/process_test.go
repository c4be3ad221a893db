package soak

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// keepLast is how many checkpoints of a task stay, besides savepoints.
const keepLast = 5

var options = checkpoint.Options{
	Memory: 1 << 20, Retention: checkpoint.Retention{Last: keepLast}, Logger: slog.New(slog.DiscardHandler),
	// Half a second in all, so that an outage is longer than some have patience.
	Backoff: backend.Backoff{First: 20 * time.Millisecond, Max: 200 * time.Millisecond, Attempts: 6},
}

// A process has a network, a job and a directory of its own. It is one goroutine.
type process struct {
	*testing.T
	*tally
	name    string
	net     *network
	url     string          // of the job, by way of net
	rnd     *rand.Rand      // what it does
	dir     string          // the state's
	over    <-chan struct{} // closed when the soak is
	records []*record       // of all tasks
	truth   *checkpoint.Job // by a network without faults

	attempts int // that it has made
	troubles int // that have befallen it
}

// pause waits for as long as chance says, or until the soak is over. It reports
// whether the soak goes on.
func (p *process) pause(longest time.Duration) bool {
	t := time.NewTimer(upTo(p.rnd, longest))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.over:
		return false
	}
}

// expect fails the test unless an error is one of those allowed, or one that the
// network, or an end of patience, can be the cause of. It reports whether there
// is none.
func (p *process) expect(r *record, what string, err error, allowed ...error) bool {
	p.Helper()
	if err == nil {
		return true
	}
	for _, a := range allowed {
		if errors.Is(err, a) {
			p.add(what+": "+a.Error(), 1)
			return false
		}
	}
	if !networkFailed(err) {
		r.badf("%s: %s: %v", p.name, what, err)
	}
	p.add(what+" that failed for the network", 1)
	return false
}

func networkFailed(err error) bool {
	for _, e := range []error{checkpoint.ErrCorrupt, checkpoint.ErrVersion, checkpoint.ErrGone, checkpoint.ErrNoCheckpoint, checkpoint.ErrFenced, checkpoint.ErrConflict} {
		if errors.Is(err, e) {
			return false
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	return errors.As(err, new(*backend.Error)) && backend.Retryable(err)
}

// open opens the job anew.
func (p *process) open(ctx context.Context) *checkpoint.Job {
	job, err := checkpoint.Open(ctx, p.url, options)
	if err != nil {
		panic(err) // it sends no request
	}
	return job
}

// gone makes sure that a checkpoint has been retired, if an error says so.
func (p *process) gone(ctx context.Context, r *record, err error, c *checkpoint.Checkpoint) {
	if !errors.Is(err, checkpoint.ErrGone) {
		return
	}
	p.add("ErrGone", 1)
	if c == nil {
		return // it is not known which
	}
	task, err := p.truth.Task(r.task)
	if err != nil {
		panic(err) // the name is a good one
	}
	list, err := task.List(ctx)
	if err != nil {
		r.badf("which checkpoints there are: %v", err)
	}
	for _, other := range list {
		if other.Seq == c.Seq {
			r.badf("%s: checkpoint %d is said to be gone, and is retained", p.name, c.Seq)
		}
	}
}

// recordOf returns the record of a task. Of forks there is none; what goes wrong with one
// is told of the first task.
func (p *process) recordOf(task *checkpoint.Task) *record {
	if isFork(task.Name()) {
		return p.records[0]
	}
	for _, r := range p.records {
		if r.task == task.Name() {
			return r
		}
	}
	panic("there is a task " + task.Name())
}
