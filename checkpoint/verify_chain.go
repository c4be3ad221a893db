package checkpoint

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// chain makes sure that a retained manifest is the one that the manifest after it was made
// from (I2), where both were read. Another one that was put in its place, from another
// job or an earlier life of this one, has a right checksum all the same.
func (v *verifier) chain(ctx context.Context) error {
	for _, s := range v.subjects {
		before, m := v.read[s.Seq], v.read[s.Seq+1]
		if before == nil || m == nil || m.Base == nil || before.Token == m.Base.Token || !history.SameObject(m.Base.Time, s.Time) {
			continue
		}
		// One of the two may have been made late, after the verification began.
		late, err := v.task.log.MadeLate(ctx, []format.Retained{s.Retained, v.timed(s.Seq + 1)})
		if err != nil {
			return err
		}
		if len(late) > 0 {
			continue
		}
		key := format.ManifestKey(v.task.log.Dir, s.Seq)
		v.found(key, Damaged, fmt.Sprintf("manifest %s is not the one from which the next manifest was made: it was replaced", key), s)
	}
	return nil
}

// timed returns the number and the time of a manifest that was read: the newest one, or
// that of a subject.
func (v *verifier) timed(seq uint64) format.Retained {
	i := slices.IndexFunc(v.subjects, func(s *subject) bool { return s.Seq == seq })
	if i < 0 {
		return format.Retained{Seq: seq, Time: v.newest.Time}
	}
	return v.subjects[i].Retained
}
