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
	Manifest uint64 `json:"manifest"` // the report is as of this one; 0 if none can be read

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
	// Foreign are keys in the task's directory that this library has not made.
	Foreign []string `json:"foreign"`

	// DataRead counts the bytes of stored data that were read and found right.
	DataRead int64 `json:"data_read"`

	// RestoreTest is the record of the last [Task.TestRestore] that found its checkpoint
	// intact: of this one, if the report is of such a test. Nil if there never was one.
	RestoreTest *RestoreTest `json:"restore_test"`

	// For Repair.
	drop    []uint64 // what can be dropped of Damaged
	blocked error    // why no manifest can be made
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
		Task: v.task.Name(), Damaged: []uint64{}, Problems: []Problem{}, Foreign: []string{},
		DataRead: v.live, RestoreTest: v.recorded,
	}
	r.Foreign = append(r.Foreign, v.foreign...)
	damaged := make(map[uint64]bool)
	for _, p := range v.problems {
		p.affects = slices.DeleteFunc(p.affects, func(s *subject) bool { return s.gone })
		if len(p.affects) == 0 && !p.unknown {
			continue // it affects no one any more
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
		if !s.gone && !s.damaged {
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

// plan says what can be done about what was found.
func (v *verifier) plan(r *VerifyReport) {
	dir := v.task.log.Dir
	switch {
	case v.unreadable > 0:
		r.blocked = fmt.Errorf("task %q: manifest %s, its newest, is %w, which cannot be repaired, because nobody knows what it has retired",
			r.Task, format.ManifestKey(dir, v.unreadable), ErrCorrupt)
	case v.unlisted:
		r.blocked = fmt.Errorf("task %q: segment %s is %w, which cannot be repaired, because it lists the checkpoints that there are",
			r.Task, format.SegmentKey(dir, v.step.RetainedAt.Segment), ErrCorrupt)
	}
	for _, s := range v.subjects {
		if s.damaged && !s.gone && !s.repeated {
			r.drop = append(r.drop, s.Seq)
		}
	}
}

// count says what the objects that exist are.
func (v *verifier) count(r *VerifyReport) {
	if v.step == nil {
		for _, size := range v.segments {
			r.Unclear.add(CollectResult{Segments: 1, Bytes: size})
		}
		return
	}
	r.Manifest = v.step.Seq
	unclear := v.unlisted || v.unreadable > 0
	retained := make(map[uint64]bool)
	for _, s := range v.subjects {
		retained[s.Seq] = !s.gone
		unclear = unclear || s.checkpoint == nil && !s.gone
	}
	for id, size := range v.segments {
		to := &r.InFlight
		switch {
		case v.named[id]:
			to = &r.Live
		case v.lost[id]:
			to = &r.Lost
		case v.step.Abandoned(id) && unclear:
			to = &r.Unclear
		case v.step.Abandoned(id):
			to = &r.Garbage
		}
		to.add(CollectResult{Segments: 1, Bytes: size})
		if at := v.written[id].UTC(); to == &r.InFlight && (r.InFlightSince.IsZero() || at.Before(r.InFlightSince)) {
			r.InFlightSince = at
		}
	}
	for _, o := range v.manifests {
		_, seq, _ := format.ParseManifestKey(o.Key)
		if seq < v.step.Seq && !retained[seq] && !v.unlisted && v.step.Time.Sub(o.ModTime) > FenceWindow {
			r.Garbage.add(CollectResult{Manifests: 1, Bytes: o.Size})
		}
	}
}
