package checkpoint

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
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
			before = clock.Latest(before, list[i].From())
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
	return list, clock.Latest(before, clock.Earliest(at, machine))
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
