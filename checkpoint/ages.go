package checkpoint

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file says how old checkpoints are. A time of the store may be wrong: a clock was
// set, or a machine started with the wrong year. What a policy drops cannot be brought
// back, so no decision rests on a single time. docs/protocol.md, "Delete order", has the
// argument.

// outOfOrder is how much earlier than the commit before a commit's time must be to show
// that one of the two times is wrong. A store that satisfies A4 never exceeds it.
const outOfOrder = FenceWindow / 4

// correctTimes returns a list of checkpoints in which wrong times are corrected, and the
// time from which their ages count back, which is zero if the list is empty.
//
// Only the time of the last commit has not been checked before. If it is earlier than
// another one's, one of the two is wrong. The machine's clock, which is independent of
// both, decides which. The checkpoint with the wrong time then counts from the latest
// moment at which it can have been committed: it is better to keep it too long.
//
// Ages count back from the last commit's time. If that is later than the machine's clock
// and than all other checkpoints, they count back from the latest of those instead.
func correctTimes(list []format.Retained, machine time.Time) ([]format.Retained, time.Time) {
	if len(list) == 0 {
		return nil, time.Time{}
	}
	list = slices.Clone(list)
	last := lastCommit(list)
	var before time.Time // the latest time of all others
	for i := range list {
		if i != last {
			before = clock.Latest(before, list[i].From())
		}
	}
	at := list[last].From()
	switch {
	case !at.Before(before.Add(-outOfOrder)):
	case before.After(machine.Add(outOfOrder)): // the machine agrees that the others are wrong
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

// lastCommit returns the index of the checkpoint that was committed last. After a
// rollback that is not the first of the list.
func lastCommit(list []format.Retained) int {
	last := 0
	for i := range list {
		if list[i].Seq > list[last].Seq {
			last = i
		}
	}
	return last
}
