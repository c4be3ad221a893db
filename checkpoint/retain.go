package checkpoint

import (
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Retention says which checkpoints stay when a new one is committed. It
// becomes true by that commit; objects that nothing needs any more are
// deleted after it. Savepoints always stay.
type Retention struct {
	// Last is how many checkpoints stay, the new one included. Zero means
	// DefaultLast, KeepAll all of them.
	Last int
}

const (
	// DefaultLast is how many checkpoints stay when nothing else is said. With
	// one a second that is a few seconds' choice of where to go back to: what
	// is to stay longer is a savepoint.
	DefaultLast = 10
	// KeepAll as Retention.Last keeps every checkpoint.
	KeepAll = -1
)

// pick returns those of old that stay beside a new checkpoint. The one that was
// the current one last comes first in old: after a task has gone back, that is
// the one that it went back to.
func (r Retention) pick(old []format.Retained) []format.Retained {
	last := r.Last
	if last == 0 {
		last = DefaultLast
	}
	var kept []format.Retained
	for i, c := range old {
		if last < 0 || i < last-1 || c.Savepoint != "" {
			kept = append(kept, c)
		}
	}
	return kept
}

// others returns all without the step's own checkpoint.
func (s *step) others(all []format.Retained) []format.Retained {
	return slices.DeleteFunc(slices.Clone(all), func(r format.Retained) bool {
		return s.Checkpoint != nil && r.Seq == s.Checkpoint.Seq
	})
}

// allCheckpoints lists a step's own checkpoint, and then those that it retains.
func (s *step) allCheckpoints(retained []format.Retained) []format.Retained {
	c := s.checkpoint()
	if c == nil {
		return retained
	}
	return append([]format.Retained{{Seq: c.Seq, Time: c.Time, Savepoint: c.Savepoint}}, retained...)
}
