package main

// Mistakes in how a manifest is committed, and how a writer learns of it.

var inTheProtocol = []mistake{
	{
		name:   "what is taken is another's, without a look at the token",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `return l.readBack(ctx, a)`,
		new:    `return time.Time{}, a.taken("its key is taken")`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCommitWhoseOutcomeIsUnclear", "TestOwnCommitIsFoundUnderAnothersClaim"),
	},
	{
		name:   "what is taken is one's own, whoever's token it has",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `if m.Token != a.Manifest.Token {`,
		new:    `if m.Seq != a.Manifest.Seq {`,
		breaks: "I4",
		tests:  by("checkpoint", "TestClaimFencesEarlierOwner", "TestNumberTakenWhileWaiting"),
	},
	{
		name: "a read that finds nothing decides",
		file: "checkpoint/internal/history/protocol.go",
		old:  `a.inDoubt = a.inDoubt || !Refused(err)`,
		new: `a.inDoubt = a.inDoubt || !Refused(err)
		if _, err := l.Read(ctx, a.Manifest.Seq); errors.Is(err, fs.ErrNotExist) {
			a.inDoubt = false
		}`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCommitWhoseOutcomeIsUnclear"),
	},
	{
		name:   "a refusal makes an earlier open request forgotten",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `a.inDoubt = a.inDoubt || !Refused(err)`,
		new:    `a.inDoubt = !Refused(err)`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCommitWhoseOutcomeIsUnclear"),
	},
	{
		name:   "the end of the context is taken for a refusal",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `return !backend.Retryable(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)`,
		new:    `return !backend.Retryable(err)`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCommitWhoseContextEndsInTheRequest"),
	},
	{
		name:   "an attempt with an open request is lost like any other",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `kind = ErrOvertaken`,
		new:    `kind = ErrTaken`,
		breaks: "I1, I3",
		tests:  by("checkpoint", "TestCommitThatWasRetiredBeforeItWasSettled"),
	},
	{
		name:   "no look after a long pause",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `if away >= 0 && away <= FenceWindow/2 && apart`,
		new:    `if away >= 0 && apart`,
		breaks: "I5",
		tests:  by("checkpoint", "TestSleeperIsFencedWhenItsNumberIsFreeAgain"),
	},
	{
		name:   "no look after less than a whole window",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `if away >= 0 && away <= FenceWindow/2 && apart`,
		new:    `if away >= 0 && away <= FenceWindow && apart`,
		breaks: "I5",
		tests:  by("checkpoint", "TestSleeperIsFencedWhenItsNumberIsFreeAgain", "TestLongPauseCostsOneRequest"),
	},
	{
		name:   "a claim takes a reply's time for a listing's, whatever they are",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `l.checkTimes(m.Seq, made, newest.Time)`,
		new:    `l.checkTimes(m.Seq, made, made)`,
		breaks: "A4",
		tests:  by("checkpoint", "TestOwnerBehindAProxyWithAWrongClock", "TestRepliesAndListingsMustAgree"),
	},
	{
		name:   "who looks takes a reply's time for a listing's, whatever they are",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `l.checkTimes(seq, replied, at)`,
		new:    `l.checkTimes(seq, at, at)`,
		breaks: "A4",
		tests:  by("checkpoint", "TestRepliesAndListingsMustAgree", "TestOwnerMeetsAnotherClock"),
	},
	{
		name:   "replies and listings may differ by twice as much",
		file:   "checkpoint/internal/history/conditions.go",
		old:    `if listed.Sub(replied).Abs() <= maxApart {`,
		new:    `if listed.Sub(replied).Abs() <= 2*maxApart {`,
		breaks: "A4",
		tests:  by("checkpoint", "TestRepliesAndListingsMustAgree"),
	},
	{
		name:   "replies may only be too late",
		file:   "checkpoint/internal/history/conditions.go",
		old:    `if listed.Sub(replied).Abs() <= maxApart {`,
		new:    `if listed.Sub(replied) <= maxApart {`,
		breaks: "A4",
		tests:  by("checkpoint", "TestRepliesAndListingsMustAgree"),
	},
	{
		name:   "an owner does not notice that the clock of replies has changed",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `away <= FenceWindow/2 && apart.Abs() <= maxApart && passed <= FenceWindow/4 {`,
		new:    `away <= FenceWindow/2 && apart.Abs() <= 1000*maxApart && passed <= FenceWindow/4 {`,
		breaks: "A4",
		tests:  by("checkpoint", "TestOwnerMeetsAnotherClock"),
	},
	{
		name:   "an owner compares a reply with the reply before it",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `*listed = clock.Now(at)`,
		new:    `*listed = clock.Now(made)`,
		breaks: "A4",
		tests:  by("checkpoint", "TestOwnerMeetsAClockThatDriftsBetweenListings"),
	},
	{
		name:   "what was lost for certain is in doubt",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `a.inDoubt = a.inDoubt && !l.neverMade(ctx, a, m)`,
		new:    `_ = m`,
		breaks: "I3",
		tests:  by("checkpoint", "TestSaveThatLostARaceIsToldSo"),
	},
	{
		name:   "a number that was taken late passes for lost for certain",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `return base != nil && SameObject(base.Time, at)`,
		new:    `return base != nil`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCommitThatWasRetiredBeforeItWasSettled", "TestSaveThatWasRetiredAtOnceIsUnknown", "TestSaveThatIsGoneIsInDoubt"),
	},
	{
		name:   "what follows a late manifest shows what was there before",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `next.Base.Token == there.Token && SameObject(next.Base.Time, at) {`,
		new:    `next.Base.Token == there.Token {`,
		breaks: "I1, I3, I8",
		tests:  by("checkpoint", "TestSaveIsNotDeniedBecauseOfTwoLateManifests", "TestForkIsNotDeniedBecauseOfTwoLateManifests"),
	},
	{
		name:   "a rollback in doubt is made again",
		file:   "checkpoint/internal/history/protocol.go",
		old:    "a.inDoubt = true\n\treturn nil, a.fail(why)",
		new:    `return nil, ErrOvertaken`,
		breaks: "I3",
		tests:  by("checkpoint", "TestDeletionIsNotMadeAgain", "TestRollbackThatWasFollowedIsNotMadeAgainAfterAFailedGet"),
	},
	{
		name: "a rollback that was confirmed late is made again",
		file: "checkpoint/internal/history/protocol.go",
		old: `case errors.Is(err, cause.ErrFenced) && m.Released:
		return l.doneOnce(ctx, a, made, err)`,
		new: `case errors.Is(err, cause.ErrFenced) && m.Seq == 0:
		return l.doneOnce(ctx, a, made, err)`,
		breaks: "I3",
		tests:  by("checkpoint", "TestRollbackThatWasFollowedIsNotMadeAgain"),
	},
	{
		name:   "a manifest that others have continued from is lost",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `return r.Seq == a.Manifest.Seq }) {`,
		new:    `return false }) {`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCommitIsFoundUnderAClaimMadeWhileItLists"),
	},
	{
		name: "a claim does not check whether it is the newest manifest",
		file: "checkpoint/internal/history/protocol.go",
		old: `case errors.Is(err, cause.ErrFenced):
		return nil, ErrOvertaken
	case err != nil:`,
		new: `case errors.Is(err, cause.ErrFenced):
		return &Committed{m, made}, nil
	case err != nil:`,
		breaks: "I5",
		tests:  by("checkpoint", "TestCollectorReadsAManifestThatCameLate"),
	},
	{
		name:   "a claim does not make sure that the store refuses",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `switch err := l.checkConditions(ctx, m); {`,
		new:    `switch err := ctx.Err(); {`,
		breaks: "A1",
		tests:  by("checkpoint", "TestStoreThatIgnoresConditionsIsRefused"),
	},
	{
		name:   "a claim that lost starts over, whatever is listed",
		file:   "checkpoint/internal/history/conditions.go",
		old:    `_, _, err := l.newestFrom(ctx, taken.seq)`,
		new:    `_, _, err := l.newestFrom(ctx, 0)`,
		breaks: "A2",
		tests:  by("checkpoint", "TestStoreThatListsNothing"),
	},
	{
		name:   "a claim carries no retained list",
		file:   "checkpoint/internal/history/committed.go",
		old:    `m.Retained, m.RetainedAt, m.Edits, m.Pieces = c.Retained, c.RetainedAt, c.Edits, c.Pieces`,
		new:    ``,
		breaks: "I3",
		tests:  by("checkpoint", "TestRetention"),
	},
	{
		name:   "a claim carries no retained list that lies in a segment",
		file:   "checkpoint/internal/history/committed.go",
		old:    `m.Retained, m.RetainedAt, m.Edits, m.Pieces = c.Retained, c.RetainedAt, c.Edits, c.Pieces`,
		new:    `m.Retained = c.Retained`,
		breaks: "I3",
		tests:  by("checkpoint", "TestLongRetainedList", "TestListOfARollbackIsKept"),
	},
	{
		name:   "a claim keeps the epoch",
		file:   "checkpoint/internal/history/committed.go",
		old:    `base.Seq+1, base.Epoch+1`,
		new:    `base.Seq+1, base.Epoch`,
		breaks: "I7",
		tests:  by("checkpoint", "TestCollectSegments", "TestOwnerCollectsWhatOthersLeft", "TestClaimFencesEarlierOwner"),
	},
	{
		name:   "each claim makes the checkpoint younger",
		file:   "checkpoint/internal/history/committed.go",
		old:    `if current.Seq == c.Seq {`,
		new:    `if current.Seq <= c.Seq {`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCheckpointKeepsItsTime"),
	},
	{
		name: "who finds the newest manifest damaged goes on from the one before",
		file: "checkpoint/internal/history/newest.go",
		old: `continue // deleted since, so there are newer ones
		}`,
		new: `continue
		}
		if errors.Is(err, cause.ErrCorrupt) {
			return l.NewestIntact(ctx)
		}`,
		breaks: "I1, I2",
		tests:  by("checkpoint", "TestRepairRefuses", "TestUnreadableIsNotEmpty", "TestDamageIsFound"),
	},
	{
		name:   "a number that leaves no room for the next is read",
		file:   "checkpoint/internal/format/manifest.go",
		old:    `case m.Seq > maxNumber || m.Epoch > maxNumber:`,
		new:    `case m.Seq > maxNumber:`,
		breaks: "I2",
		tests:  by("checkpoint", "TestNumbersNearTheEndAreRefused"),
	},
	{
		name: "what no reader takes is written",
		file: "checkpoint/internal/format/manifest.go",
		old: `if err := m.check(m.Task, m.Seq); err != nil {
		return nil, unreadable("manifest", err)
	}`,
		new:    ``,
		breaks: "I2",
		tests:  by("checkpoint", "TestNothingIsWrittenThatCannotBeRead"),
	},
}

var inOwners = []mistake{
	{
		name:   "a claim takes the machine's time after its requests",
		file:   "checkpoint/owner.go",
		old:    `listed.Boot = began`,
		new:    `listed.Boot = t.log.SinceBoot()`,
		breaks: "I5",
		tests:  by("checkpoint", "TestClockIsSetBackWhileAClaimSleeps"),
	},
	{
		name:   "an owner after a newer version's manifest stays in doubt",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `if errors.Is(err, cause.ErrVersion) {`,
		new:    `if err == nil && errors.Is(err, cause.ErrVersion) {`,
		breaks: "I4",
		tests:  by("checkpoint", "TestNewerVersionFences"),
	},
	{
		name: "an attempt of unknown outcome is forgotten",
		file: "checkpoint/owner.go",
		old: `if errors.Is(err, ErrUnknown) {
		if`,
		new: `if errors.Is(err, ErrUnknown) {
		o.pending = nil
		if`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCommitWhoseOutcomeIsUnclear", "TestContextEndsDuringCommit"),
	},
	{
		name: "what was uploaded for an attempt of unknown outcome is deleted",
		file: "checkpoint/owner.go",
		old: `if errors.Is(err, ErrUnknown) {
		if`,
		new: `if errors.Is(err, ErrUnknown) {
		o.cleaner.discard(p.segments)
		if`,
		breaks: "I1",
		tests:  by("checkpoint", "TestSegmentsOfACommitInDoubtAreKept"),
	},
	{
		name: "what was uploaded for an attempt that was overtaken is deleted",
		file: "checkpoint/owner.go",
		old:  `return fmt.Errorf("%w: %w", err, ErrUnknown)`,
		new: `o.drop(p.built)
		return fmt.Errorf("%w: %w", err, ErrUnknown)`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCommitThatWasRetiredBeforeItWasSettled"),
	},
	{
		name: "an owner that was fenced tries again",
		file: "checkpoint/owner.go",
		old: `case errors.Is(err, ErrFenced):
		o.ended = err
	}
	o.drop`,
		new: `}
	o.drop`,
		breaks: "I4, I5",
		tests:  by("checkpoint", "TestFencedIsForGood"),
	},
	{
		name:   "what the commit before dropped is listed as existing",
		file:   "checkpoint/owner.go",
		old:    `o.make(ctx, m, kept, *b)`,
		new:    `o.make(ctx, m, o.existing, *b)`,
		breaks: "I1, I7",
		tests:  by("checkpoint", "TestRetention", "TestSegmentsOfDroppedCheckpointsAreDeleted"),
	},
	{
		name: "what a commit drops is deleted before it is made",
		file: "checkpoint/owner.go",
		old:  `o.pending = &pending{a, b, others}`,
		new: `o.pending = &pending{a, b, others}
		o.cleaner.retire(o.existing, others, o.base, o.base, nil)`,
		breaks: "I1",
		tests:  by("checkpoint", "TestSegmentsOfFailedCommitsAreDeleted"),
	},
	{
		name:   "the base is the first checkpoint that was read, not the last one made",
		file:   "checkpoint/owner.go",
		old:    `if p.content != nil {`,
		new:    `if p.content != nil && o.baseline.Checkpoint == nil {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestIncrementalCheckpointsGiveBackTheirState", "TestWhatIsRepacked"),
	},
	{
		name: "segments of a failed commit give their numbers back",
		file: "checkpoint/owner.go",
		old:  `o.segments += uint32(len(b.segments))`,
		new: `if err == nil {
		o.segments += uint32(len(b.segments))
	}`,
		breaks: "I6",
		tests:  by("checkpoint", "TestNoKeyIsWrittenTwice"),
	},
	{
		name:   "a commit that was refused stays in the base's catalog",
		file:   "checkpoint/owner.go",
		old:    `if b.undo != nil {`,
		new:    `if b.undo != nil && b.checkpoint == nil {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestFailedCommitLeavesTheBase"),
	},
	{
		name:   "a release drops the retained list",
		file:   "checkpoint/owner.go",
		old:    `o.base.Repeat(m)`,
		new:    `m.Checkpoint = o.base.Current()`,
		breaks: "I3",
		tests:  by("checkpoint", "TestReleaseKeepsTheHistory"),
	},
	{
		name: "an owner commits after its release was settled",
		file: "checkpoint/owner.go",
		old: `return o.ended
}

// next returns`,
		new: `return o.cleaner.unbroken()
}

// next returns`,
		breaks: "I1",
		tests:  by("checkpoint", "TestNoCommitAfterAReleaseOfUnknownOutcome"),
	},
}

var inSaves = []mistake{
	{
		name:   "a save does not make sure that it is in the history",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `listed, err := l.confirmByList(ctx, a, made)`,
		new:    `listed, err := time.Time{}, ctx.Err()`,
		breaks: "I5",
		tests:  by("checkpoint", "TestSaveThatIsNotConfirmedIsUnknown", "TestSaveThatWasRetiredAtOnceIsUnknown"),
	},
	{
		name:   "what was uploaded for a save of unknown outcome is deleted",
		file:   "checkpoint/save.go",
		old:    `if err == nil || errors.Is(err, ErrUnknown) {`,
		new:    `if err == nil {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestSegmentsOfASaveInDoubtAreKept"),
	},
	{
		name:   "a save that was gone on from says that nothing was saved",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `return nil, fmt.Errorf("%w: %w: %w; ls shows whether it was saved", cause.ErrConflict, cause.ErrUnknown, err)`,
		new:    `return nil, fmt.Errorf("%w: %w; ls shows whether it was saved", cause.ErrConflict, err)`,
		breaks: "I1, I3",
		tests:  by("checkpoint", "TestSaveThatWasRetiredAtOnceIsUnknown"),
	},
	{
		name:   "the segments of a save carry the epoch before",
		file:   "checkpoint/save.go",
		old:    `format.SegmentID{Epoch: m.Epoch, Writer: m.Writer}`,
		new:    `format.SegmentID{Epoch: m.Epoch - 1, Writer: m.Writer}`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCollectionBesideASave"),
	},
	{
		name:   "the first saves do not make sure that the store refuses",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `if a.Manifest.Seq <= 2 && !trusted {`,
		new:    `if a.Manifest.Seq == 1 && !trusted {`,
		breaks: "A1",
		tests:  by("checkpoint", "TestSecondSaveInAStoreThatIgnoresConditionsIsRefused"),
	},
}
