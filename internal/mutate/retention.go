package main

// Mistakes in which checkpoints are kept, and in pruning.

var inRetention = []mistake{
	{
		name:   "the new checkpoint does not count",
		file:   "checkpoint/retain.go",
		old:    `r.Last-- // for the new one`,
		new:    `_ = r.Last`,
		breaks: "I7",
		tests:  by("checkpoint", "TestRetention"),
	},
	{
		name:   "a savepoint without a term has run out",
		file:   "checkpoint/retain.go",
		old:    `(expires.IsZero() || now.Before(expires))`,
		new:    `now.Before(expires)`,
		breaks: "I3",
		tests:  by("checkpoint", "TestRetention", "TestPolicies"),
	},
	{
		name:   "ages count from the first of the list, not from the latest",
		file:   "checkpoint/ages.go",
		old:    `return list, clock.Latest(before, clock.Earliest(at, machine))`,
		new:    `return list, clock.Earliest(list[0].From(), machine)`,
		breaks: "I7",
		tests:  by("checkpoint", "TestAgesCountFromTheLatest", "TestCorrectTimes"),
	},
	{
		name:   "ages count from one time that stands alone",
		file:   "checkpoint/ages.go",
		old:    `return list, clock.Latest(before, clock.Earliest(at, machine))`,
		new:    `return list, clock.Latest(before, at)`,
		breaks: "no one time drops anything",
		tests:  by("checkpoint", "TestOneTimeFarAhead", "TestCorrectTimes"),
	},
	{
		name:   "ages count from the machine's clock, however far behind it is",
		file:   "checkpoint/ages.go",
		old:    `return list, clock.Latest(before, clock.Earliest(at, machine))`,
		new:    `return list, clock.Earliest(clock.Latest(before, at), machine)`,
		breaks: "I7",
		tests:  by("checkpoint", "TestMachineWithAWrongClock", "TestCorrectTimes"),
	},
	{
		name:   "what was committed last is what was the current one last",
		file:   "checkpoint/ages.go",
		old:    `if list[i].Seq > list[last].Seq {`,
		new:    `if list[i].Seq > list[last].Seq && i == 0 {`,
		breaks: "no one time drops anything",
		tests:  by("checkpoint", "TestCorrectTimes"),
	},
	{
		name:   "a time far ahead keeps its checkpoint until then",
		file:   "checkpoint/ages.go",
		old:    `case before.After(machine.Add(outOfOrder)):`,
		new:    `case before.After(machine.AddDate(300, 0, 0)):`,
		breaks: "I7",
		tests:  by("checkpoint", "TestOneTimeFarAhead", "TestSavepointFarAhead"),
	},
	{
		name:   "a time far back makes its checkpoint old",
		file:   "checkpoint/ages.go",
		old:    `list[last].CountsFrom, at = machine, machine`,
		new:    `at = machine`,
		breaks: "no one time drops anything",
		tests:  by("checkpoint", "TestOneTimeFarBack", "TestSavepointFarBack"),
	},
	{
		name:   "that the last one's time is too early makes the others too late",
		file:   "checkpoint/ages.go",
		old:    `case before.After(machine.Add(outOfOrder)):`,
		new:    `case !before.IsZero():`,
		breaks: "I7",
		tests:  by("checkpoint", "TestCorrectTimes"),
	},
	{
		name:   "times that are out of order by a second are wrong",
		file:   "checkpoint/ages.go",
		old:    `case !at.Before(before.Add(-outOfOrder)):`,
		new:    `case !at.Before(before):`,
		breaks: "A4",
		tests:  by("checkpoint", "TestCorrectTimes"),
	},
	{
		name:   "an owner believes what the store's clock and the machine's say together",
		file:   "checkpoint/owner.go",
		old:    `Retention.pick(existing, clock.Earliest(now, o.ages.Store), o.base.Held)`,
		new:    `Retention.pick(existing, now, o.base.Held)`,
		breaks: "no one clock drops anything",
		tests:  by("checkpoint", "TestOwnerOutlivesAWrongClock"),
	},
	{
		name:   "an owner whose machine was suspended stays behind for ever",
		file:   "checkpoint/internal/clock/clock.go",
		old:    `s.Store.Add(2*passed)`,
		new:    `s.Store.Add(passed)`,
		breaks: "I7",
		tests:  by("checkpoint", "TestOwnerThatWasSuspended"),
	},
	{
		name:   "one time far back stops an owner's time",
		file:   "checkpoint/internal/clock/clock.go",
		old:    `Now(Latest(s.Store.Add(passed), Earliest(store, s.Store.Add(2*passed))))`,
		new:    `Now(Earliest(store, s.Store.Add(2*passed)))`,
		breaks: "I7",
		tests:  by("checkpoint", "TestOneTimeFarBack", "TestSavepointFarBack"),
	},
	{
		name:   "periods are those of corrected times",
		file:   "checkpoint/retain.go",
		old:    `if periods[j].takes(c.Time) {`,
		new:    `if periods[j].takes(c.From()) {`,
		breaks: "I3",
		tests:  by("checkpoint", "TestPeriodsOutliveAClockThatIsSetBack"),
	},
	{
		name:   "a corrected time is forgotten when the task goes back",
		file:   "checkpoint/internal/format/manifest.go",
		old:    `CountsFrom: c.CountsFrom, Note: c.Note,`,
		new:    `Note: c.Note,`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCorrectedTimeStaysKnown"),
	},
	{
		name:   "weeks and days begin where the host's clock has them",
		file:   "checkpoint/retain.go",
		old:    `start := p.start(t.UTC())`,
		new:    `start := p.start(t)`,
		breaks: "I3",
		tests:  by("checkpoint", "TestDaysAreThoseOfUTC"),
	},
	{
		name:   "a rollback retains its own checkpoint, too",
		file:   "checkpoint/internal/format/manifest.go",
		old:    `return m.Checkpoint != nil && r.Seq == m.Checkpoint.Seq`,
		new:    `return m.Checkpoint == nil`,
		breaks: "I7",
		tests:  by("checkpoint", "TestRollback", "TestPruneIsAManifest"),
	},
	{
		name: "who prunes and is overtaken goes by what there was before",
		file: "checkpoint/prune.go",
		old:  `if p = keep.prune(all, t.job.clock(), base.Held); len(p.dropped) == 0 {`,
		new: `if p == nil {
			p = keep.prune(all, t.job.clock(), base.Held)
		}
		if len(p.dropped) == 0 {`,
		breaks: "I3",
		tests:  by("checkpoint", "TestPruneIsOvertaken"),
	},
	{
		name:   "who prunes and was gone on from prunes once more",
		file:   "checkpoint/prune.go",
		old:    `if again && p.done(all) {`,
		new:    `if again && len(all) == 0 {`,
		breaks: "I4",
		tests:  by("checkpoint", "TestPruneIsContinuedByAnother"),
	},
	{
		name:   "pruning deletes by what a late manifest retains",
		file:   "checkpoint/collect.go",
		old:    `case found == 0 && (seq != s.Seq || !same):`,
		new:    `case found == 0 && (seq != s.Seq || !same) && c.dropped == nil:`,
		breaks: "I1",
		tests:  by("checkpoint", "TestPrunerReadsALateManifest"),
	},
	{
		name: "pruning leaves what the present writer stored",
		file: "checkpoint/prune.go",
		old:  `c := &collector{task: t, dropped: named, outdated: make(map[format.SegmentID]bool)}`,
		new: `c := &collector{task: t, dropped: named, outdated: make(map[format.SegmentID]bool)}
	clear(c.dropped)`,
		breaks: "I7",
		tests:  by("checkpoint", "TestPruneBesideAnOwner"),
	},
	{
		name: "pruning deletes what a checkpoint that is kept needs too",
		file: "checkpoint/collect.go",
		old: `if a.segments[id] {
			continue`,
		new: `if a.segments[id] && !c.dropped[id] {
			continue`,
		breaks: "I1",
		tests:  by("checkpoint", "TestPruneCountsWhatIsShared"),
	},
	{
		name:   "what was the newest is not retained when the task goes back",
		file:   "checkpoint/rollback.go",
		old:    `keys, err := t.retain(ctx, m, base, base.Rest(all), m.Others(all), 0)`,
		new:    `keys, err := t.retain(ctx, m, base, base.Rest(all), m.Others(all[1:]), 0)`,
		breaks: "I3",
		tests:  by("checkpoint", "TestRollback"),
	},
	{
		name:   "an owner that went back numbers its segments from zero",
		file:   "checkpoint/rollback.go",
		old:    `o.segments = segments`,
		new:    `_ = segments`,
		breaks: "I6",
		tests:  by("checkpoint", "TestNoKeyIsWrittenTwice"),
	},
	{
		name: "the list of a rollback that was told that it failed is deleted",
		file: "checkpoint/rollback.go",
		old: `s, err = t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		if err := t.mayFence(base, fence); err != nil {
			return nil, err
		}
		m, sent, err := t.rollbackManifest(ctx, base, c.Seq)
		if err != nil {
			return nil, err
		}
		m.Released, segments = released, uint32(sent)
		return m, nil
	})`,
		new: `var list format.SegmentID
	s, err = t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		if err := t.mayFence(base, fence); err != nil {
			return nil, err
		}
		m, sent, err := t.rollbackManifest(ctx, base, c.Seq)
		if err != nil {
			return nil, err
		}
		m.Released, segments, list = released, uint32(sent), format.SegmentID{Epoch: m.Epoch, Writer: m.Writer}
		return m, nil
	})
	if err != nil {
		t.discard(ctx, []string{format.SegmentKey(t.log.Dir, list)})
	}`,
		breaks: "I1",
		tests:  by("checkpoint", "TestListOfARollbackIsKept"),
	},
}
