package runner

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// StartAt says where to begin to read an input partition.
type StartAt string

// Where an input partition may be read from.
const (
	Checkpointed StartAt = "checkpointed" // from the offset in the checkpoint
	Oldest       StartAt = "oldest"       // from the oldest that the input still has
	Newest       StartAt = "newest"       // from what comes next
	Refuse       StartAt = "refuse"       // not at all: it is an error, for a person to decide

	// AtTime is from what came at Start.Time, or next after it. Only a startpoint says so: a
	// host that cannot find that returns an error.
	AtTime StartAt = "time"
)

// An Input says where to begin to read one input partition when the checkpoint
// does not say so, or is not to be followed.
type Input struct {
	// Ignore leaves the checkpoint's offset aside, as if there were none. The
	// state is restored all the same.
	Ignore bool

	// Missing is for when the checkpoint has no offset of the partition, or there
	// is no checkpoint: Oldest, Newest or Refuse. Default Oldest, which loses
	// nothing.
	Missing StartAt

	// OutOfRange is for when the input no longer has the offset, which the host
	// finds out: Oldest, Newest or Refuse. Default Refuse: input that was not
	// processed is gone.
	OutOfRange StartAt
}

func (in Input) withDefaults() Input {
	defaultTo(&in.Missing, Oldest)
	defaultTo(&in.OutOfRange, Refuse)
	return in
}

func (in Input) check() error {
	in = in.withDefaults()
	for name, at := range map[string]StartAt{"Missing": in.Missing, "OutOfRange": in.OutOfRange} {
		switch at {
		case Oldest, Newest, Refuse:
		default:
			return backend.Invalidf("%s is %q; use %q, %q or %q", name, at, Oldest, Newest, Refuse)
		}
	}
	return nil
}

// A Start is where to begin to read an input partition.
type Start struct {
	At     StartAt   // Checkpointed, Oldest, Newest or AtTime
	Offset string    // if At is Checkpointed
	Time   time.Time // if At is AtTime

	// Startpoint is the id of the startpoint that says so, or "": see
	// checkpoint.Startpoint. One at an offset has At Checkpointed as well, so that the host
	// goes on with the state that was restored.
	Startpoint string
}

// starts decides where to begin to read each partition.
type starts struct {
	task    string
	inputs  map[string]Input
	offsets map[string]string // of the checkpoint, without those to be ignored
	orders  map[string]Start  // by startpoints, by partition

	mu    sync.Mutex
	asked map[string]bool // partitions for which the host has asked where to begin
}

func newStarts(task string, inputs map[string]Input, offsets map[string]string, orders map[string]Start) *starts {
	s := &starts{task: task, inputs: inputs, offsets: maps.Clone(offsets), orders: orders, asked: make(map[string]bool)}
	for partition, in := range inputs {
		if in.Ignore {
			delete(s.offsets, partition)
		}
	}
	return s
}

// start is the rule for the beginning.
func (s *starts) start(partition string) (Start, error) {
	s.mu.Lock()
	s.asked[partition] = true
	s.mu.Unlock()
	if order, ok := s.orders[partition]; ok {
		return order, nil
	}
	if offset, ok := s.offsets[partition]; ok {
		return Start{At: Checkpointed, Offset: offset}, nil
	}
	return s.rule(partition, s.inputs[partition].withDefaults().Missing, "the checkpoint has no offset of it")
}

func (s *starts) wasAsked(partition string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[partition]
}

// outOfRange is the rule for an offset that is gone.
func (s *starts) outOfRange(partition string) (Start, error) {
	return s.rule(partition, s.inputs[partition].withDefaults().OutOfRange, "its offset is no longer in the input")
}

func (s *starts) rule(partition string, at StartAt, why string) (Start, error) {
	if at == Refuse {
		return Start{}, fmt.Errorf("task %q, input %q: %s, and its rule is %q: say where to begin (runner.Oldest or runner.Newest), or go back to a checkpoint that fits the input",
			s.task, partition, why, Refuse)
	}
	return Start{At: at}, nil
}

// A Position is how far a step has come in its inputs.
type Position struct {
	ctx     context.Context
	offsets *offsets
	moved   map[string]string
	commit  bool
}

// Advance sets the offset of an input partition. It is kept if the step
// succeeds: a commit after it has the offset with the state.
func (p *Position) Advance(partition, offset string) {
	if p.moved == nil {
		p.moved = make(map[string]string)
	}
	p.moved[partition] = offset
}

// Offset returns the offset of an input partition, as this step sees it.
func (p *Position) Offset(partition string) (offset string, ok bool) {
	if offset, ok = p.moved[partition]; ok {
		return offset, true
	}
	return p.offsets.get(partition)
}

// Commit asks for a commit when the step has succeeded. It does not wait: see
// [Task.Commit]. In a hook it does nothing: a commit is under way.
func (p *Position) Commit() { p.commit = true }

// Context ends when a checkpoint waits for this step to end, and when the task
// ends. It is for waiting for input inside a step: what has begun is to be
// finished.
func (p *Position) Context() context.Context { return p.ctx }

// offsets is how far a task has come.
type offsets struct {
	mu sync.Mutex
	at map[string]string

	// orders are startpoints of partitions that have not advanced since. Until they do, at
	// has the checkpoint's offset, which is committed again.
	orders map[string]Start
}

func (o *offsets) get(partition string) (offset string, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if order, ordered := o.orders[partition]; ordered {
		return order.Offset, order.At == Checkpointed
	}
	offset, ok = o.at[partition]
	return offset, ok
}

func (o *offsets) set(moved map[string]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.Copy(o.at, moved)
	for partition := range moved {
		delete(o.orders, partition)
	}
}

// advanced reports whether a partition has advanced since its startpoint was set.
func (o *offsets) advanced(partition string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ordered := o.orders[partition]
	return !ordered
}

func (o *offsets) all() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.at)
}
