package checkpoint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A VerifyReport is what a verification has found, as of the newest manifest that
// could be read. Its fields are for reading.
type VerifyReport struct {
	Task     string `json:"task"`
	Manifest uint64 `json:"manifest"`          // the report is as of this one; 0 if none can be read
	Deleted  bool   `json:"deleted,omitempty"` // the task was deleted, and not claimed since

	// Checkpoints counts those that were verified, and Intact those of which
	// nothing is missing and nothing was found damaged. The rest are in Damaged.
	Checkpoints int      `json:"checkpoints"`
	Intact      int      `json:"intact"`
	Damaged     []uint64 `json:"damaged"` // their numbers, the highest first

	// Problems are all objects that are missing or damaged, by key.
	Problems []Problem `json:"problems"`

	Live     CollectResult `json:"live"`      // the segments that checkpoints name
	Garbage  CollectResult `json:"garbage"`   // what Collect would delete
	InFlight CollectResult `json:"in_flight"` // segments that a writer may yet name
	// InFlightSince is when the first of them was sent, by the store's clock. If that is
	// long ago, their writer was killed, or the manifest that named them was lost.
	InFlightSince time.Time `json:"in_flight_since,omitzero"`
	// Lost are segments that prove that manifests were lost: see [ErrLost].
	Lost CollectResult `json:"lost"`
	// Unclear are segments that a checkpoint which cannot be read may name.
	Unclear CollectResult `json:"unclear"`
	// OtherObjects are keys in the task's directory that this library has not made.
	OtherObjects []string `json:"other_objects"`

	// Forks are those for which checkpoints of this task are kept: Repair drops none of these,
	// damaged or not.
	Forks []ForkInfo `json:"forks,omitempty"`

	// Unheld is set if the task is a fork, and needs data of a task that does not keep it:
	// the data may be deleted. See [Task.Detach].
	Unheld *ForkInfo `json:"unheld,omitempty"`

	// NeedlessHolds are checkpoints that are kept for forks which do not need them any more.
	// That is no damage: Collect ends it.
	NeedlessHolds []NeedlessHold `json:"needless_holds,omitempty"`

	// DataRead counts the bytes of stored data that were read and found right.
	DataRead int64 `json:"data_read"`

	// RestoreTest is the record of the last [Task.TestRestore] that found its checkpoint
	// intact: of this one, if the report is of such a test. Nil if there never was one.
	RestoreTest *RestoreTest `json:"restore_test"`

	// For Repair.
	drop     []uint64 // what can be dropped of Damaged
	blocked  error    // why no manifest can be made
	listLost bool     // because a part of the list of checkpoints is lost
}

// A NeedlessHold is a checkpoint that is kept for a fork which does not need it.
type NeedlessHold struct {
	ForkInfo
	// Lost says that someone has removed the fork's manifests. Then CollectOptions.Lost is
	// needed to end the hold, so that the fork can be brought back until then.
	Lost bool `json:"lost"`
}

// A Problem is an object that is missing or damaged.
type Problem struct {
	Object  string      `json:"object"` // its key
	Kind    ProblemKind `json:"kind"`
	Error   string      `json:"error"`   // what is wrong; of several things, the first that was found
	Affects []uint64    `json:"affects"` // the checkpoints that need it, the highest number first
}

// ProblemKind says what is wrong with an object.
type ProblemKind string

// The kinds of problem.
const (
	Missing ProblemKind = "missing" // a read of it found that it does not exist
	Damaged ProblemKind = "damaged" // it is not what was written
)

// Err returns an error that wraps ErrCorrupt if there are problems, one that wraps
// ErrLost if there are none but manifests were lost, or nil.
func (r *VerifyReport) Err() error {
	if len(r.Problems) == 0 && r.Lost.Segments > 0 {
		return fmt.Errorf("task %q: the store has %s of which its history, up to manifest %d, knows nothing: what they were sent for is not in it any more: %w",
			r.Task, r.Lost.inSegments(), r.Manifest, ErrLost)
	}
	if u := r.Unheld; len(r.Problems) == 0 && u != nil {
		return fmt.Errorf("task %q: it needs data of checkpoint %d of task %q, and that one does not keep it for this fork, so that it may be deleted; detach it, or save it anew with all its data: %w",
			r.Task, u.Seq, u.Task, ErrCorrupt)
	}
	if len(r.Problems) == 0 {
		return nil
	}
	p, more := r.Problems[0], ""
	if n := len(r.Problems) - 1; n > 0 {
		more = fmt.Sprintf(", and %d more", n)
	}
	return fmt.Errorf("task %q: %w: of %d checkpoints %d are intact; %s is %s%s",
		r.Task, ErrCorrupt, r.Checkpoints, r.Intact, p.Object, p.Kind, more)
}

// report sums up what was found.
func (v *verifier) report() *VerifyReport {
	r := &VerifyReport{
		Task: v.task.Name(), Damaged: []uint64{}, Problems: []Problem{}, OtherObjects: []string{},
		DataRead: v.live, RestoreTest: v.recorded, Unheld: v.unheld, NeedlessHolds: v.needless,
	}
	if v.newest != nil {
		_, r.Forks = forks(v.newest.Manifest)
	}
	r.OtherObjects = append(r.OtherObjects, v.otherObjects...)
	r.Deleted = v.newest != nil && v.unreadable == 0 && v.newest.Kind == format.KindDeleted
	damaged := make(map[uint64]bool)
	for _, p := range v.problems {
		p.affects = slices.DeleteFunc(p.affects, func(s *subject) bool { return s.retired })
		if len(p.affects) == 0 && !p.unknown {
			continue // all checkpoints that needed it have been retired
		}
		seqs := make(map[uint64]bool)
		for _, s := range p.affects {
			seqs[s.Seq], damaged[s.Seq] = true, true
		}
		p.Affects = highestFirst(seqs)
		r.Problems = append(r.Problems, p.Problem)
	}
	slices.SortFunc(r.Problems, func(a, b Problem) int { return cmp.Compare(a.Object, b.Object) })
	r.Damaged = append(r.Damaged, highestFirst(damaged)...)
	r.Checkpoints = len(r.Damaged)
	for _, s := range v.subjects {
		if !s.retired && !s.damaged {
			r.Checkpoints++
			r.Intact++
		}
	}
	v.plan(r)
	v.count(r)
	return r
}

func highestFirst(set map[uint64]bool) []uint64 {
	list := slices.AppendSeq([]uint64{}, maps.Keys(set))
	slices.SortFunc(list, func(a, b uint64) int { return cmp.Compare(b, a) })
	return list
}

// plan finds out what Repair can do about the damage.
func (v *verifier) plan(r *VerifyReport) {
	dir := v.task.log.Dir
	switch {
	case v.unreadable > 0:
		r.blocked = fmt.Errorf("task %q: manifest %s, its newest, is %w, which cannot be repaired, because nobody knows what it has retired",
			r.Task, format.ManifestKey(dir, v.unreadable), ErrCorrupt)
	case v.unlisted != "":
		r.listLost = true
		r.blocked = fmt.Errorf("task %q: segment %s is %w, which cannot be repaired, because it lists the checkpoints that there are, or some of them; "+
			"they can only be given up",
			r.Task, v.unlisted, ErrCorrupt)
	}
	for _, s := range v.subjects {
		if s.damaged && !s.retired && !s.repeated {
			r.drop = append(r.drop, s.Seq)
		}
	}
}

// count sorts the objects that exist into the groups of the report.
func (v *verifier) count(r *VerifyReport) {
	if v.newest == nil {
		for _, size := range v.segments {
			r.Unclear.add(CollectResult{Segments: 1, Bytes: size})
		}
		return
	}
	r.Manifest = v.newest.Seq
	unclear := v.unlisted != "" || v.unreadable > 0
	retained := make(map[uint64]bool)
	for _, s := range v.subjects {
		retained[s.Seq] = !s.retired
		unclear = unclear || s.checkpoint == nil && !s.retired
	}
	for id, size := range v.segments {
		to := &r.InFlight
		switch {
		case v.named[id]:
			to = &r.Live
		case v.lost[id]:
			to = &r.Lost
		case v.newest.Abandoned(id) && unclear:
			to = &r.Unclear
		case v.newest.Abandoned(id):
			to = &r.Garbage
		}
		to.add(CollectResult{Segments: 1, Bytes: size})
		if at := v.written[id].UTC(); to == &r.InFlight && (r.InFlightSince.IsZero() || at.Before(r.InFlightSince)) {
			r.InFlightSince = at
		}
	}
	for _, o := range v.manifests {
		_, seq, _ := format.ParseManifestKey(o.Key)
		if seq < v.newest.Seq && !retained[seq] && v.unlisted == "" && v.newest.Time.Sub(o.ModTime) > FenceWindow {
			r.Garbage.add(CollectResult{Manifests: 1, Bytes: o.Size})
		}
	}
}
