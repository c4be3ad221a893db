package main

// Mistakes in what is deleted, and in what is not.

var inCollections = []mistake{
	{
		name:   "segments of the present epoch are collected",
		file:   "checkpoint/internal/history/committed.go",
		old:    `return id.Writer != c.Writer || c.Released`,
		new:    `return true`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectSegments"),
	},
	{
		name:   "segments of a later epoch are collected",
		file:   "checkpoint/internal/history/committed.go",
		old:    `return id.Epoch < c.Epoch`,
		new:    `return true`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectSegments"),
	},
	{
		name:   "segments are collected by age",
		file:   "checkpoint/collect.go",
		old:    `!lost && s.Abandoned(id):`,
		new:    `!lost && s.Time.Sub(o.ModTime) > FenceWindow:`,
		breaks: "I1, I7",
		tests:  by("checkpoint", "TestCollectSegments"),
	},
	{
		name:   "what a writer left that has released the task is not collected",
		file:   "checkpoint/internal/history/committed.go",
		old:    `return id.Writer != c.Writer || c.Released`,
		new:    `return id.Writer != c.Writer`,
		breaks: "I7",
		tests:  by("checkpoint", "TestCollectSegments"),
	},
	{
		name:   "manifests are collected within the fence window",
		file:   "checkpoint/collect.go",
		old:    `s.Time.Sub(o.ModTime) > FenceWindow:`,
		new:    `s.Time.Sub(o.ModTime) > FenceWindow/2:`,
		breaks: "I5",
		tests:  by("checkpoint", "TestCollectorKeepsTheWindow"),
	},
	{
		name:   "manifests age by the collector's clock",
		file:   "checkpoint/collect.go",
		old:    `s.Time.Sub(o.ModTime) > FenceWindow:`,
		new:    `time.Since(o.ModTime) > FenceWindow:`,
		breaks: "I5",
		tests:  by("checkpoint", "TestCollectManifests"),
	},
	{
		name:   "a retained manifest whose time is another is collected when it is old",
		file:   "checkpoint/collect.go",
		old:    `case !needed && s.Time`,
		new:    `case s.Time`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectInACopy", "TestCollectInACopyThatTookLong"),
	},
	{
		name:   "the newest manifest is taken for a step, whatever its time",
		file:   "checkpoint/internal/history/conditions.go",
		old:    `func SameObject(before, at time.Time) bool { return at.Sub(before).Abs() <= FenceWindow/2 }`,
		new:    `func SameObject(before, at time.Time) bool { return true }`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectorReadsALateManifestThatRetainsWhatStays"),
	},
	{
		name:   "a newest manifest that is gone passes for a step if one that it retains is there",
		file:   "checkpoint/collect.go",
		old:    `case found == 0 && (seq != s.Seq || !same):`,
		new:    `case found == 0 && seq == s.Seq && !same:`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectorReadsALateManifestThatRetainsWhatStays"),
	},
	{
		name: "a newest manifest that is gone passes for a step if no manifest is left",
		file: "checkpoint/collect.go",
		old: `if found == 0 {
		return`,
		new: `if found < 0 {
		return`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectorReadsALateManifestThatRetainsWhatStays"),
	},
	{
		name:   "retained manifests are taken for what they were, whatever their times",
		file:   "checkpoint/collect.go",
		old:    `if err == nil && len(late) > 0 {`,
		new:    `if err == nil && len(late) > len(all) {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectorReadsARetainedManifestThatCameLate"),
	},
	{
		name:   "segments are collected although a retained checkpoint cannot be read",
		file:   "checkpoint/collect.go",
		old:    `return fmt.Errorf("no segment was deleted: %w", damage)`,
		new:    `_ = fmt.Sprint(damage)`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectBesideDamage"),
	},
	{
		name:   "a segment with a part of a manifest counts as unnamed",
		file:   "checkpoint/internal/format/manifest.go",
		old:    `ids = append(ids, at.Segment)`,
		new:    `_ = at`,
		breaks: "I1",
		tests:  by("checkpoint", "TestListOfARollbackStays", "TestThousandsOfOffsets", "TestRepairOfALongList"),
	},
	{
		name:   "what proves that manifests were lost is collected after the next claim",
		file:   "checkpoint/internal/history/committed.go",
		old:    `return w != id.Writer && id.Writer.ClaimsFirst()`,
		new:    `return w == id.Writer && id.Epoch == 0`,
		breaks: "no evidence is lost",
		tests:  by("checkpoint", "TestLostManifestsOfAnOwner"),
	},
	{
		name:   "what proves that manifests were lost is collected",
		file:   "checkpoint/collect.go",
		old:    `!lost && s.Abandoned(id):`,
		new:    `s.Abandoned(id):`,
		breaks: "no evidence is lost",
		tests:  by("checkpoint", "TestLostManifestsOfAnOwner"),
	},
	{
		name:   "a save that lost a race proves that manifests were lost",
		file:   "checkpoint/internal/history/committed.go",
		old:    `return w != id.Writer && id.Writer.ClaimsFirst()`,
		new:    `return w != id.Writer`,
		breaks: "I7",
		tests:  by("checkpoint", "TestKilledSavesAreNotLostManifests"),
	},
	{
		name:   "a save under way proves that manifests were lost",
		file:   "checkpoint/internal/history/committed.go",
		old:    `return id.Writer.ClaimsFirst() || id.Epoch > c.Epoch+1`,
		new:    `return true`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestLostManifestsOfSaves", "TestFirstSaveThatWasKilledIsInNobodysWay"),
	},
	{
		name:   "only what owners have sent proves that manifests were lost",
		file:   "checkpoint/internal/history/committed.go",
		old:    `return id.Writer.ClaimsFirst() || id.Epoch > c.Epoch+1`,
		new:    `return id.Writer.ClaimsFirst()`,
		breaks: "no evidence is lost",
		tests:  by("checkpoint", "TestLostManifestsOfSaves"),
	},
	{
		name:   "a claim that came between two reads proves that manifests were lost",
		file:   "checkpoint/collect.go",
		old:    `lost, err := c.task.stillLost(ctx, later)`,
		new:    `lost, err := later, ctx.Err()`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestNoFalseProofBesideAClaim"),
	},
	{
		name:   "a verification that was overtaken finds lost manifests",
		file:   "checkpoint/lost.go",
		old:    `suspect = suspect || !v.named[id] && v.step.Disproves(id, v.writers)`,
		new:    `v.lost[id] = !v.named[id] && v.step.Disproves(id, v.writers)`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestNoFalseProofBesideAClaim"),
	},
	{
		name:   "whose checkpoint a claim repeats is not known",
		file:   "checkpoint/collect.go",
		old:    `if current != nil && current.Epoch != m.Epoch {`,
		new:    `if current != nil && current.Epoch > m.Epoch {`,
		breaks: "no evidence is lost",
		tests:  by("checkpoint", "TestLostManifestsBesideAClaim"),
	},
	{
		name:   "a claim that repeats a checkpoint whose manifest is lost stops the collector",
		file:   "checkpoint/collect.go",
		old:    `if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) || errors.Is(err, fs.ErrNotExist) {`,
		new:    `if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) || errors.Is(err, fs.ErrInvalid) {`,
		breaks: "I7",
		tests:  by("checkpoint", "TestLostManifestsBesideAClaim"),
	},
	{
		name:   "an owner's id says that it sends segments first",
		file:   "checkpoint/owner.go",
		old:    `history.ClaimsFirst`,
		new:    `history.SegmentsFirst`,
		breaks: "no evidence is lost",
		tests:  by("checkpoint", "TestLostManifestsOfAnOwner", "TestAllManifestsLost"),
	},
	{
		name:   "a save's id says that it claims first",
		file:   "checkpoint/save.go",
		old:    `history.SegmentsFirst`,
		new:    `history.ClaimsFirst`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestFirstSaveThatWasKilledIsInNobodysWay", "TestKilledSavesAreNotLostManifests"),
	},
	{
		name:   "the id of who goes back says that it claims first",
		file:   "checkpoint/rollback.go",
		old:    `history.SegmentsFirst`,
		new:    `history.ClaimsFirst`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestKilledRollbackProvesNothing"),
	},
	{
		name: "a task whose manifests are gone is taken for new by a claim",
		file: "checkpoint/owner.go",
		old: `if base == nil {
			if err := t.wantNew(ctx); err != nil {
				return nil, err
			}
		}`,
		new:    ``,
		breaks: "no evidence is lost",
		tests:  by("checkpoint", "TestAllManifestsLost"),
	},
	{
		name:   "a task whose manifests are gone is taken for new by a save",
		file:   "checkpoint/save.go",
		old:    `if err := t.wantNew(ctx); errors.Is(err, ErrGone) {`,
		new:    `if err := ctx.Err(); errors.Is(err, ErrGone) {`,
		breaks: "no evidence is lost",
		tests:  by("checkpoint", "TestAllManifestsLost"),
	},
	{
		name: "what is sent after another's first claim keeps a task from being claimed",
		file: "checkpoint/lost.go",
		old: `if seq > 0 {
		return`,
		new: `if seq > 1<<62 {
		return`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestFirstClaimsAtOnceLoseNothing"),
	},
	{
		name:   "who gives up what is lost takes the next epoch",
		file:   "checkpoint/lost.go",
		old:    `m.Epoch, m.Released = last+1, true`,
		new:    `m.Released = true`,
		breaks: "I1, I7",
		tests:  by("checkpoint", "TestGiveUpWhatIsLost"),
	},
	{
		name:   "who gives up what is lost fences the owner untold",
		file:   "checkpoint/lost.go",
		old:    `case base != nil && base.Claimed() && !fence:`,
		new:    `case base != nil && base.Claimed() && fence && t == nil:`,
		breaks: "I4",
		tests:  by("checkpoint", "TestGiveUpWhatIsLost"),
	},
	{
		name:   "a segment of an epoch that no manifest can have is one of ours",
		file:   "checkpoint/internal/format/keys.go",
		old:    `return id, ok && id.Epoch <= maxNumber`,
		new:    `return id, ok`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestSegmentOfNoEpoch"),
	},
	{
		name:   "the segments of the current checkpoint alone are named",
		file:   "checkpoint/collect.go",
		old:    `if current == nil || current.Seq != r.Seq {`,
		new:    `if current == nil {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectSegments", "TestCollectorThatSleeps"),
	},
}

var inCleanUps = []mistake{
	{
		name:   "what a retained checkpoint shares with a dropped one is deleted",
		file:   "checkpoint/cleaner.go",
		old:    `delete(needless, key)`,
		new:    `_ = key`,
		breaks: "I1",
		tests:  by("checkpoint", "TestSharedSegmentsStay"),
	},
	{
		name:   "what one needs that cannot be read is needed by none",
		file:   "checkpoint/cleaner.go",
		old:    `maps.DeleteFunc(needless, func(key string, _ bool) bool { return !strings.HasPrefix(key, c.own) })`,
		new:    `maps.DeleteFunc(needless, func(key string, _ bool) bool { return strings.HasPrefix(key, "/") })`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCleanUpBesideADamagedSavepoint", "TestDamagedSavepointDoesNotStopCleanUp"),
	},
	{
		name:   "what an owner reads of a checkpoint that it kept is taken for what it was",
		file:   "checkpoint/cleaner.go",
		old:    `late, err := c.task.log.MadeLate(ctx, read)`,
		new:    `late, err := c.task.log.MadeLate(ctx, nil)`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCleanUpReadsAManifestThatCameLate"),
	},
	{
		name:   "manifests are deleted within the fence window",
		file:   "checkpoint/cleaner.go",
		old:    `old := r.now.Sub(m.Time) > FenceWindow`,
		new:    `old := r.now.Sub(m.Time) > FenceWindow/2`,
		breaks: "I5",
		tests:  by("checkpoint", "TestManifestsAreDeletedWhenTheyAreOld"),
	},
	{
		name:   "manifests age by the owner's clock",
		file:   "checkpoint/cleaner.go",
		old:    `old := r.now.Sub(m.Time) > FenceWindow`,
		new:    `old := time.Since(m.Time) > FenceWindow`,
		breaks: "I5",
		tests:  by("checkpoint", "TestManifestsAreDeletedWhenTheyAreOld"),
	},
	{
		name:   "what a failed clean-up owed is forgotten",
		file:   "checkpoint/cleaner.go",
		old:    `c.owed = append(c.owed, r.gone...)`,
		new:    `c.owed = r.gone`,
		breaks: "I7",
		tests:  by("checkpoint", "TestCleanUpThatCanNotReadIsDoneAfterTheCollection"),
	},
	{
		name:   "keys that could not be deleted are forgotten",
		file:   "checkpoint/cleaner.go",
		old:    `c.garbage = append(c.garbage, keys...)`,
		new:    ``,
		breaks: "I7",
		tests:  by("checkpoint", "TestFailedDeletionIsDoneAfterTheNextCommit"),
	},
	{
		name:   "the manifest of a claim stays for ever",
		file:   "checkpoint/cleaner.go",
		old:    `if s.Kind != format.KindCommit {`,
		new:    `if s.Kind == format.KindRelease {`,
		breaks: "I7",
		tests:  by("checkpoint", "TestManifestsAreDeletedWhenTheyAreOld"),
	},
	{
		name: "an owner's first collection is not done again when it failed",
		file: "checkpoint/cleaner.go",
		old: `c.failed(err)
		return
	}
	c.swept = true`,
		new: `c.failed(err)
	}
	c.swept = true`,
		breaks: "I7",
		tests:  by("checkpoint", "TestOwnerCollectsWhatOthersLeft"),
	},
}

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
		tests:  by("checkpoint", "TestAgesCountFromTheLatest", "TestReckon"),
	},
	{
		name:   "ages count from one time that stands alone",
		file:   "checkpoint/ages.go",
		old:    `return list, clock.Latest(before, clock.Earliest(at, machine))`,
		new:    `return list, clock.Latest(before, at)`,
		breaks: "no one time drops anything",
		tests:  by("checkpoint", "TestOneTimeFarAhead", "TestReckon"),
	},
	{
		name:   "ages count from the machine's clock, however far behind it is",
		file:   "checkpoint/ages.go",
		old:    `return list, clock.Latest(before, clock.Earliest(at, machine))`,
		new:    `return list, clock.Earliest(clock.Latest(before, at), machine)`,
		breaks: "I7",
		tests:  by("checkpoint", "TestMachineWithAWrongClock", "TestReckon"),
	},
	{
		name:   "what was committed last is what was the current one last",
		file:   "checkpoint/ages.go",
		old:    `if list[i].Seq > list[last].Seq {`,
		new:    `if list[i].Seq > list[last].Seq && i == 0 {`,
		breaks: "no one time drops anything",
		tests:  by("checkpoint", "TestReckon"),
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
		tests:  by("checkpoint", "TestReckon"),
	},
	{
		name:   "times that are out of order by a second are wrong",
		file:   "checkpoint/ages.go",
		old:    `case !at.Before(before.Add(-outOfOrder)):`,
		new:    `case !at.Before(before):`,
		breaks: "A4",
		tests:  by("checkpoint", "TestReckon"),
	},
	{
		name:   "an owner believes what the store's clock and the machine's say together",
		file:   "checkpoint/owner.go",
		old:    `keep.pick(existing, clock.Earliest(now, o.ages.Store))`,
		new:    `keep.pick(existing, now)`,
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
		old:    `ExpiresAfter: c.ExpiresAfter, CountsFrom: c.CountsFrom}`,
		new:    `ExpiresAfter: c.ExpiresAfter}`,
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
		name:   "a step that goes back retains its own checkpoint, too",
		file:   "checkpoint/internal/format/manifest.go",
		old:    `return m.Checkpoint != nil && r.Seq == m.Checkpoint.Seq`,
		new:    `return m.Checkpoint == nil`,
		breaks: "I7",
		tests:  by("checkpoint", "TestRollback", "TestPruneIsAStep"),
	},
	{
		name: "who prunes and is overtaken goes by what there was before",
		file: "checkpoint/prune.go",
		old:  `if p = keep.prune(all, t.job.clock()); len(p.gone) == 0 {`,
		new: `if p == nil {
			p = keep.prune(all, t.job.clock())
		}
		if len(p.gone) == 0 {`,
		breaks: "I3",
		tests:  by("checkpoint", "TestPruneIsOvertaken"),
	},
	{
		name:   "who prunes and was gone on from prunes once more",
		file:   "checkpoint/prune.go",
		old:    `if p != nil && p.done(all) {`,
		new:    `if p != nil && len(all) == 0 {`,
		breaks: "I4",
		tests:  by("checkpoint", "TestPruneIsGoneOnFrom"),
	},
	{
		name:   "pruning fences the owner",
		file:   "checkpoint/prune.go",
		old:    `if base.Claimed() && !fence {`,
		new:    `if base.Claimed() && fence && t == nil {`,
		breaks: "I4",
		tests:  by("checkpoint", "TestPruneFencesNobodyUntold"),
	},
	{
		name:   "what was the newest is not retained when the task goes back",
		file:   "checkpoint/rollback.go",
		old:    `sent, err = t.retain(ctx, m, m.Others(all))`,
		new:    `sent, err = t.retain(ctx, m, m.Others(all[1:]))`,
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
		old: `var before *history.Committed
	s, err = t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		before = base
		m, sent, err := t.backTo(ctx, base, c.Seq)
		if err != nil {
			return nil, err
		}
		m.Released, segments = released, uint32(sent)
		return m, nil
	})`,
		new: `var before *history.Committed
	var list format.SegmentID
	s, err = t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		before = base
		m, sent, err := t.backTo(ctx, base, c.Seq)
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
		tests:  by("checkpoint", "TestListOfARollbackStays"),
	},
}

var inRepairs = []mistake{
	{
		name:   "a repair keeps the current checkpoint although it is damaged",
		file:   "checkpoint/repair.go",
		old:    `if kept[0].Seq != all[0].Seq {`,
		new:    `if kept[0].Seq == all[0].Seq {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestRepairGoesBack", "TestRepair"),
	},
	{
		name:   "a repair keeps the task claimed",
		file:   "checkpoint/repair.go",
		old:    `m.Released = true`,
		new:    ``,
		breaks: "I7",
		tests:  by("checkpoint", "TestRepair"),
	},
	{
		name: "a repair keeps what was there when the report was made, and no more",
		file: "checkpoint/repair.go",
		old: `return slices.Contains(damaged, c.Seq) })
		switch {`,
		new: `return slices.Contains(damaged, c.Seq) || c.Seq > slices.Max(damaged)+3 })
		switch {`,
		breaks: "I3",
		tests:  by("checkpoint", "TestRepairIsOvertaken", "TestRepair"),
	},
	{
		name:   "a verification lists before it reads the newest manifest",
		file:   "checkpoint/verify.go",
		old:    `v.begin, v.list, v.open,`,
		new:    `v.list, v.begin, v.open,`,
		breaks: "no request for each segment",
		tests:  by("checkpoint", "TestVerifyAsksForNothingThatIsListed"),
	},
	{
		name:   "what was retired while it was verified is taken for lost",
		file:   "checkpoint/verify.go",
		old:    `s.gone = s.gone || err == nil`,
		new:    `_ = s.gone`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestVerifyIsOvertakenEachTime"),
	},
	{
		name:   "damaged data affects the first checkpoint alone that needs it",
		file:   "checkpoint/verify_data.go",
		old:    `if done && !right {`,
		new:    `if done && !right && s.damaged {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestVerifyDamagedData", "TestRepair"),
	},
	{
		name:   "what was found of one chunk holds for another of the same place",
		file:   "checkpoint/internal/format/chunk.go",
		old:    `return Sum(new(place).append(buf[:0], c))`,
		new:    `return Sum(new(place).append(buf[:0], &Chunk{Segment: c.Segment, Offset: c.Offset, Size: 1}))`,
		breaks: "a damaged byte is never handed out as data",
		tests:  by("checkpoint", "TestVerifyTellsChunksApart"),
	},
	{
		name:   "a segment that is too long passes",
		file:   "checkpoint/internal/segment/segment.go",
		old:    `case err == nil && n > 1:`,
		new:    `case err == nil && n > 2:`,
		breaks: "I6",
		tests:  by("checkpoint", "TestVerifyTruncated"),
	},
	{
		name:   "what a listing leaves out is missing",
		file:   "checkpoint/verify_unlisted.go",
		old:    `err := v.task.segments.Probe(ctx, seg)`,
		new:    `err := error(&fs.PathError{Op: "get", Path: "segment", Err: fs.ErrNotExist})`,
		breaks: "I3",
		tests:  by("checkpoint", "TestVerifyDoesNotTakeAListingsWord"),
	},
	{
		name: "a segment that cannot be read is damaged",
		file: "checkpoint/verify_unlisted.go",
		old: `case !errors.Is(err, ErrCorrupt):
		return err
	}
	v.wrong`,
		new: `}
	v.wrong`,
		breaks: "I3",
		tests:  by("checkpoint", "TestVerifyOfWhatIsNeitherListedNorRead"),
	},
	{
		name:   "a verification believes that the manifest that is listed last is the last one",
		file:   "checkpoint/verify.go",
		old:    `err = v.task.log.CheckNoneAfter(ctx, newest.Seq)`,
		new:    `err = nil`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestVerifyBehindAHiddenManifest"),
	},
	{
		name:   "who goes back takes what a listing leaves out for missing",
		file:   "checkpoint/rollback.go",
		old:    `err := t.segments.Probe(ctx, s)`,
		new:    `_, err := s, fs.ErrNotExist`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestRollbackDoesNotTakeAListingsWord"),
	},
	{
		name:   "a segment with a part of a manifest is said to be garbage",
		file:   "checkpoint/internal/format/manifest.go",
		old:    `ids = append(ids, at.Segment)`,
		new:    `_ = at`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestRepairOfALongList", "TestVerifyWhatIsWhole"),
	},
	{
		name:   "a checkpoint is proven although it is damaged",
		file:   "checkpoint/verify.go",
		old:    `v.isCurrent(s) && s.checkpoint != nil && !s.damaged {`,
		new:    `v.isCurrent(s) && s.checkpoint != nil {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestRestoreTest"),
	},
}
