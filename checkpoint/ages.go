package checkpoint

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file says how old checkpoints are. A time of the store's may be wrong: a clock
// was set, a machine began with the wrong year. What a policy drops is gone for good,
// so a time that stands alone is not believed. docs/protocol.md has the argument.

// outOfOrder is by how much a commit's time must be before that of an earlier one to
// show that one of them is wrong. A4 allows a store less than that.
const outOfOrder = FenceWindow / 4

// reckon returns the time from which the ages of a list of checkpoints count back,
// and the list, in which a time that turns out to be wrong is corrected for good.
//
// The time of the last commit is the one that nobody has looked at yet. If it is
// before another's, one of the two is wrong, and the machine's clock, which is
// neither's, decides which. That one counts from the latest moment at which it can
// have been committed: rather let it stay too long.
//
// Ages count from the last commit's time, unless the machine's clock and all other
// checkpoints are before it: then from the latest of those.
//
// What it returns for no checkpoints is the zero time.
func reckon(list []format.Retained, machine time.Time) ([]format.Retained, time.Time) {
	if len(list) == 0 {
		return nil, time.Time{}
	}
	list = slices.Clone(list)
	last := lastCommit(list)
	var before time.Time // of all others, the latest
	for i := range list {
		if i != last {
			before = latest(before, list[i].From())
		}
	}
	at := list[last].From()
	switch {
	case !at.Before(before.Add(-outOfOrder)):
	case before.After(machine.Add(outOfOrder)): // so says the machine, too
		for i := range list {
			if list[i].From().After(at) {
				list[i].CountsFrom = at
			}
		}
		before = at
	default:
		list[last].CountsFrom, at = machine, machine
	}
	return list, latest(before, earliest(at, machine))
}

// lastCommit returns which one of a list of checkpoints was committed last. After a
// task has gone back it is not the first.
func lastCommit(list []format.Retained) int {
	last := 0
	for i := range list {
		if list[i].Seq > list[last].Seq {
			last = i
		}
	}
	return last
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// A stamp is a time of the store's, and when that was by the process's own clock,
// which no one sets.
type stamp struct{ store, own time.Time }

func newStamp(store time.Time) stamp {
	return stamp{store, time.Now()} //nolint:forbidigo // a second opinion: nothing is decided by it alone
}

// passed returns how much time has passed in the process since s.
func (s stamp) passed() time.Duration {
	return time.Since(s.own) //nolint:forbidigo // likewise
}

// follow returns the stamp of a time that the store told just now. In one process
// the store's time goes forward as fast as the process's own clock, and at most twice
// as fast. So if the store's clock and the machine's are one, and are set far ahead,
// not all is old at once; and after the machine was suspended it catches up.
func (s stamp) follow(store time.Time) stamp {
	passed := s.passed()
	return newStamp(latest(s.store.Add(passed), earliest(store, s.store.Add(2*passed))))
}
