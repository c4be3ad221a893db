package soak

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A tally counts what happens.
type tally struct {
	mu sync.Mutex
	n  map[string]int64
}

func (t *tally) add(what string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[what] += n
}

func (t *tally) get(what string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[what]
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(t.n)) {
		fmt.Fprintf(&b, "%12d %s\n", t.n[what], what)
	}
	return b.String()
}

// A record is what all processes together know of one task: what was to be
// committed, and what those who did were told.
type record struct {
	*testing.T
	task string

	mu       sync.Mutex
	attempts map[string]*attempt
	claimed  uint64 // the highest epoch of a claim that succeeded
	newest   uint64 // the highest number of a commit that was acknowledged
	namings  []*naming
}

// An attempt is one snapshot that was handed to Commit.
type attempt struct {
	name      string
	on        string // the newest attempt that the owner knew to be committed
	epoch     uint64 // of the owner
	savepoint string

	fenced uint64 // the highest epoch that had been claimed before Commit was called
	told   bool   // Commit has returned
	seq    uint64 // of the checkpoint, if it was acknowledged
	err    error  // what the owner was told, if it was not
}

func newRecord(t *testing.T, task string) *record {
	return &record{T: t, task: task, attempts: make(map[string]*attempt)}
}

func (r *record) badf(f string, args ...any) {
	r.Helper()
	r.Errorf("task %q: "+f, append([]any{r.task}, args...)...)
}

// hasClaimed notes a claim that succeeded, and reports whether another was the
// highest before.
func (r *record) hasClaimed(epoch uint64) (takeover bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	takeover = r.claimed > 0
	r.claimed = max(r.claimed, epoch)
	return takeover
}

// begin notes that an attempt begins.
func (r *record) begin(a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.fenced = r.claimed
	r.attempts[a.name] = a
}

// tell notes what an owner is told of an attempt. Nobody can commit once another
// has claimed.
func (r *record) tell(a *attempt, c *checkpoint.Checkpoint, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.told, a.err = true, err
	if err != nil {
		return
	}
	a.seq = c.Seq
	r.newest = max(r.newest, c.Seq)
	if a.fenced > a.epoch {
		r.badf("attempt %s of epoch %d is committed as %d, and epoch %d had been claimed before it began", a.name, a.epoch, c.Seq, a.fenced)
	}
}

// atLeast returns the number that whoever reads from now on finds, or a higher.
func (r *record) atLeast() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest
}

// found is told of a checkpoint that was read: it is of an attempt, which was
// not refused.
func (r *record) found(c *checkpoint.Checkpoint, s *state) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[s.Attempt]
	switch {
	case c.Offsets["in"] != s.Attempt:
		r.badf("checkpoint %d has offset %q and the state of attempt %s", c.Seq, c.Offsets["in"], s.Attempt)
	case a == nil:
		r.badf("checkpoint %d is of attempt %s, which nobody made", c.Seq, s.Attempt)
	case a.refused():
		r.badf("checkpoint %d is of attempt %s, of which its owner was told: %v", c.Seq, s.Attempt, a.err)
	case a.seq != 0 && a.seq != c.Seq:
		r.badf("checkpoint %d is of attempt %s, which was acknowledged as %d", c.Seq, s.Attempt, a.seq)
	}
}

// isAttempt is found for a state that was read from a fork: it is of an attempt, which was
// not refused.
func (r *record) isAttempt(s *state) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.attempts[s.Attempt]; a == nil || a.refused() {
		r.badf("a fork is of attempt %s, which nobody made, or which was refused", s.Attempt)
	}
}

// refused reports whether the owner was told that the attempt is not, and never
// will be, committed.
func (a *attempt) refused() bool { return a.err != nil && !a.unknown() }

func (a *attempt) unknown() bool {
	return !a.told || errors.Is(a.err, checkpoint.ErrUnknown)
}
