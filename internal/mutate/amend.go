package main

// Mistakes in how a task is changed beside its owner.

var inAmendments = []mistake{
	{
		name:   "an amendment fences the owner",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `return l.lost(ctx, a, err)`,
		new:    `return nil, err`,
		breaks: "an amendment disturbs nobody",
		tests:  by("checkpoint", "TestSavepointsBesideAnOwner"),
	},
	{
		name:   "an owner continues from an amendment that a later listing does not show",
		file:   "checkpoint/internal/history/fence.go",
		old:    `		if seq == seen {`,
		new:    `		if seen != 0 {`,
		breaks: "I2, I4",
		tests:  by("checkpoint", "TestOwnerReadsALateAmendment"),
	},
	{
		name:   "an owner continues from another writer's manifest",
		file:   "checkpoint/internal/history/fence.go",
		old:    `if read.Epoch != own.Epoch || read.Writer != own.Writer {`,
		new:    `if read.Epoch != own.Epoch && read.Kind == format.KindAmend {`,
		breaks: "I4",
		tests:  by("checkpoint", "TestOwnerChecks"),
	},
	{
		name: "an owner keeps the policy's result from before the race",
		file: "checkpoint/owner.go",
		old: `	for {
		m, kept := o.next(format.KindCommit), o.pick()`,
		new: `	kept := o.pick()
	for {
		m := o.next(format.KindCommit)`,
		breaks: "a savepoint is kept",
		tests:  by("checkpoint", "TestSavepointsBesideAnOwner"),
	},
	{
		name: "an owner does not check the name again after the race",
		file: "checkpoint/owner.go",
		old: `		if err := s.check(o.existing); err != nil {
			o.drop(*b)`,
		new: `		if err := ctx.Err(); err != nil {
			o.drop(*b)`,
		breaks: "a name is unique",
		tests:  by("checkpoint", "TestNameIsTakenMeanwhile"),
	},
	{
		name:   "a commit lists what the amendment changed as it was",
		file:   "checkpoint/owner.go",
		old:    `o.base, o.existing = newest, all`,
		new:    `o.base = newest`,
		breaks: "a savepoint is kept",
		tests:  by("checkpoint", "TestSavepointsBesideAnOwner", "TestCommitThatMakesAPieceIsAmended"),
	},
	{
		name:   "a list that was stored before the race is left behind",
		file:   "checkpoint/owner.go",
		old:    `o.cleaner.discard(b.lists)`,
		new:    ``,
		breaks: "I7",
		tests:  by("checkpoint", "TestCommitThatMakesAPieceIsAmended"),
	},
	{
		name:   "a list that is stored after the race takes the number of a segment",
		file:   "checkpoint/owner.go",
		old:    `o.segments += uint32(len(sent))`,
		new:    `_ = sent`,
		breaks: "I6",
		tests:  by("checkpoint", "TestCommitThatMakesAPieceIsAmended"),
	},
	{
		name:   "what an amendment dropped is not the owner's to delete",
		file:   "checkpoint/owner.go",
		old:    `o.cleaner.amended(before, all, base, newest)`,
		new:    `_, _ = before, base`,
		breaks: "I7",
		tests:  by("checkpoint", "TestOwnerDeletesAmendments", "TestRepair"),
	},
	{
		name:   "the manifests of amendments stay",
		file:   "checkpoint/cleaner.go",
		old:    `c.age(r.aging)`,
		new:    ``,
		breaks: "I7",
		tests:  by("checkpoint", "TestOwnerDeletesAmendments"),
	},
	{
		name: "a claim is lost to an amendment of it",
		file: "checkpoint/internal/history/protocol.go",
		old: `	case newest.Seq > m.Seq: // others have amended it, and it stands
		return newest, nil`,
		new: `	case newest.Seq > m.Seq: // others have amended it, and it stands
		return nil, ErrOvertaken`,
		breaks: "a claim that stands is used",
		tests:  by("checkpoint", "TestClaimIsAmended"),
	},
	{
		name: "a claim that was amended continues from what it was made of",
		file: "checkpoint/internal/history/protocol.go",
		old: `	case newest.Seq > m.Seq: // others have amended it, and it stands
		return newest, nil`,
		new: `	case newest.Seq > m.Seq: // others have amended it, and it stands
		return &Committed{m, made}, nil`,
		breaks: "the owner knows what there is",
		tests:  by("checkpoint", "TestClaimIsAmended"),
	},
	{
		name: "an amendment is not confirmed by a listing",
		file: "checkpoint/internal/history/amend.go",
		old: `	made, err := l.create(ctx, a)
	if err != nil {
		return err
	}
	return l.confirmAmendment(ctx, a, made)`,
		new: `	_, err = l.create(ctx, a)
	return err`,
		breaks: "I3, I5",
		tests:  by("checkpoint", "TestRepliesAndListingsMustAgree"),
	},
	{
		name: "who amends takes a late amendment of its own for the newest",
		file: "checkpoint/internal/history/amend.go",
		old: `	if seq == m.Seq {
		return nil
	}`,
		new: `	if seq <= m.Seq+5 {
		return nil
	}`,
		breaks: "I3",
		tests:  by("checkpoint", "TestAmenderThatSleeps"),
	},
	{
		name: "who amends refuses by what a late manifest says",
		file: "checkpoint/internal/history/amend.go",
		old: `slices.Equal(base.Held, held) {
		return l.Refuse(ctx, base, err)`,
		new: `slices.Equal(base.Held, held) {
		return err`,
		breaks: "I3",
		tests:  by("checkpoint", "TestAmenderThatSleeps"),
	},
	{
		name:   "who amends takes every amendment that was followed for lost",
		file:   "checkpoint/internal/history/amend.go",
		old:    `next.Base.Token == m.Token && SameObject(next.Base.Time, replied)`,
		new:    `next.Base.Token == m.Token && replied.IsZero()`,
		breaks: "an answer is as certain as it can be",
		tests:  by("checkpoint", "TestAmendmentOfTheLatestIsFollowed"),
	},
	{
		name:   "the latest is another checkpoint at the next attempt",
		file:   "checkpoint/savepoint.go",
		old:    `		if !again {`,
		new:    `		if !again || at == (Ref{}) {`,
		breaks: "one checkpoint is changed",
		tests:  by("checkpoint", "TestAmendmentOfTheLatestIsMadeOnce"),
	},
	{
		name:   "a commit that was made and amended is made once more",
		file:   "checkpoint/internal/history/fence.go",
		old:    `m.Kind == format.KindCommit && current != nil && current.Seq == m.Seq:`,
		new:    `m.Kind == format.KindCommit && current == nil && newest.Seq == m.Seq:`,
		breaks: "I2, I3",
		tests:  by("checkpoint", "TestOneReadThatFindsNothing"),
	},
	{
		name:   "a late claim fences an owner",
		file:   "checkpoint/internal/history/fence.go",
		old:    `		if seq == seen {`,
		new:    `		if seq == seen || seen != 0 && newer == nil && read.Epoch != own.Epoch {`,
		breaks: "only a claim fences",
		tests:  by("checkpoint", "TestLateClaimFencesNobody"),
	},
	{
		name:   "an amendment takes the room of the owner's next manifest",
		file:   "checkpoint/internal/format/edits.go",
		old:    `size+len(data) > 2*MaxPart)`,
		new:    `size+len(data) > 4*MaxPart)`,
		breaks: "an amendment disturbs nobody",
		tests:  by("checkpoint/internal/format", "TestEditsAreShort"),
	},
	{
		name:   "a name that an amendment has freed is refused",
		file:   "checkpoint/owner.go",
		old:    `if err = o.refresh(ctx); err == nil {`,
		new:    `if ctx.Err() == nil {`,
		breaks: "an answer is as certain as it can be",
		tests:  by("checkpoint", "TestNameOfARemovedSavepointIsFree"),
	},
	{
		name:   "an amendment is the owner's release",
		file:   "checkpoint/internal/history/amend.go",
		old:    `WrittenBy: base.WrittenBy, Released: base.Released,`,
		new:    `WrittenBy: base.WrittenBy, Released: true,`,
		breaks: "I4, I7",
		tests:  by("checkpoint", "TestPruneBesideAnOwner"),
	},
	{
		name:   "an amendment takes the task for its author's",
		file:   "checkpoint/internal/history/amend.go",
		old:    `WrittenBy: base.WrittenBy, Released: base.Released,`,
		new:    `WrittenBy: l.WrittenBy, Released: base.Released,`,
		breaks: "what ls says of the owner",
		tests:  by("checkpoint", "TestWrittenBy"),
	},
	{
		name:   "an amendment forgets the edits before it",
		file:   "checkpoint/internal/format/pieces.go",
		old:    `if _, before := p.changed[is.Seq]; before || is != was {`,
		new:    `if is != was {`,
		breaks: "I3",
		tests:  by("checkpoint", "TestAmendmentsOfALongList"),
	},
	{
		name:   "a range of removed checkpoints takes one that is kept with it",
		file:   "checkpoint/internal/format/pieces.go",
		old:    `p.Removed[n-1][0] == pos+1 {`,
		new:    `p.Removed[n-1][0] > pos {`,
		breaks: "I3",
		tests:  by("checkpoint/internal/format", "TestEdits"),
	},
	{
		name:   "a rollback takes the name from the commit's manifest",
		file:   "checkpoint/internal/history/retained.go",
		old:    `m.Checkpoint.Rename(r)`,
		new:    `m.Checkpoint.Time, m.Checkpoint.CountsFrom = r.Time, r.CountsFrom`,
		breaks: "a savepoint has one name",
		tests:  by("checkpoint", "TestRollbackToARenamedSavepoint"),
	},
	{
		name: "a release that was made, amended and deleted is made again",
		file: "checkpoint/internal/history/fence.go",
		old: `	case m.Released && newest.Released:
		return newest, nil`,
		new: `	case m.Released && newest.Released && newest.Seq < m.Seq:
		return newest, nil`,
		breaks: "I2",
		tests:  by("checkpoint", "TestReleaseInDoubtIsAmendedAndDeleted"),
	},
	{
		name:   "an owner that commits without a pause lets nobody in",
		file:   "checkpoint/owner.go",
		old:    `o.task.log.LetIn(ctx, &o.pace, o.base)`,
		new:    ``,
		breaks: "a claim is made in the end",
		tests:  by("checkpoint", "TestSlowOwnerSendsNoExtraRequests"), // TestQuickOwnerLetsOthersIn would not end
	},
	{
		name:   "an owner looks for announcements at each commit",
		file:   "checkpoint/internal/history/announce.go",
		old:    `p.looked.Passed() < lookEvery`,
		new:    `p.looked.Passed() < 0`,
		breaks: "one request a commit",
		tests:  by("checkpoint", "TestSlowOwnerSendsNoExtraRequests"),
	},
	{
		name:   "an announcement is never stale",
		file:   "checkpoint/internal/history/announce.go",
		old:    `at.IsZero() || base.Time.Sub(at) > announcedFor`,
		new:    `at.IsZero()`,
		breaks: "a stale announcement costs nothing",
		tests:  by("checkpoint", "TestStaleAnnouncement"),
	},
	{
		name:   "an announcement is not taken back",
		file:   "checkpoint/internal/history/announce.go",
		old:    `if c.announced != (clock.Stamp{}) {`,
		new:    `if ctx == nil {`,
		breaks: "I7",
		tests:  by("checkpoint", "TestQuickOwnerLetsOthersIn"),
	},
}
