package main

// Mistakes in how a list of retained checkpoints is stored in pieces.

var inLists = []mistake{
	{
		name:   "the list that a manifest has replaced stays",
		file:   "checkpoint/internal/history/committed.go",
		old:    `return slices.DeleteFunc(c.ListSegments(), func(id format.SegmentID) bool { return named[id] })`,
		new:    `return nil`,
		breaks: "I7",
		tests:  by("checkpoint", "TestListsTakeNoMoreThanTwiceOne"),
	},
	{
		name:   "the pieces that a manifest repeats are deleted with its base's index",
		file:   "checkpoint/internal/history/committed.go",
		old:    `named[id] = true`,
		new:    `_ = id`,
		breaks: "I1",
		tests:  by("checkpoint", "TestListsOfManySteps", "TestPiecesWithManyEdits"),
	},
	{
		name: "the newest list is garbage to a collector",
		file: "checkpoint/collect.go",
		old: `	for _, id := range m.ListSegments() {
		a.segments[id], a.writers[id.Epoch] = true, id.Writer
	}`,
		new:    ``,
		breaks: "I1",
		tests:  by("checkpoint", "TestListOfARollbackIsKept", "TestListsTakeNoMoreThanTwiceOne"),
	},
	{
		name: "the pieces of the newest list are garbage to a collector",
		file: "checkpoint/internal/format/pieces.go",
		old: `	for i := range m.Pieces {
		ids = append(ids, m.Pieces[i].Segment)
	}`,
		new:    ``,
		breaks: "I1",
		tests:  by("checkpoint", "TestListOfARollbackIsKept", "TestListsTakeNoMoreThanTwiceOne"),
	},
	{
		name: "a list counts as needed while the manifest that named it is retained",
		file: "checkpoint/internal/format/manifest.go",
		old: `	if c := m.Checkpoint; c != nil && c.ContentAt != nil && c.Of == "" {
		ids`,
		new: `	if m.RetainedAt != nil {
		ids = append(ids, m.RetainedAt.Segment)
	}
	if c := m.Checkpoint; c != nil && c.ContentAt != nil && c.Of == "" {
		ids`,
		breaks: "I7",
		tests:  by("checkpoint", "TestOutdatedListsAreCollected"),
	},
	{
		name:   "the newest list is garbage to a verification",
		file:   "checkpoint/verify.go",
		old:    `for _, id := range m.ListSegments() {`,
		new:    `for _, id := range m.ListSegments()[:0] {`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestListsTakeNoMoreThanTwiceOne"),
	},
	{
		name:   "each flush makes a piece of its own",
		file:   "checkpoint/lists.go",
		old:    `to := w.fitting(0, size/4)`,
		new:    `to := min(0, size)`,
		breaks: "what an index takes",
		tests:  by("checkpoint", "TestListsTakeNoMoreThanTwiceOne"),
	},
	{
		name:   "a piece takes as much as it likes",
		file:   "checkpoint/lists.go",
		old:    `len(p.stored) > maxPiece && half > 0`,
		new:    `len(p.stored) < 0 && half > 0`,
		breaks: "what a commit sends",
		tests:  by("checkpoint", "TestPieceThatIsTooLarge"),
	},
	{
		name:   "edits are repeated for ever",
		file:   "checkpoint/lists.go",
		old:    `if w.editsSize() > maxEdits {`,
		new:    `if w.editsSize() > 100*maxEdits {`,
		breaks: "an amendment has room",
		tests:  by("checkpoint", "TestPiecesWithManyEdits"),
	},
	{
		name:   "a policy's edits may take all the room",
		file:   "checkpoint/lists.go",
		old:    `switch edits := w.editsSize(); {`,
		new:    `switch edits := min(0, w.editsSize()); {`,
		breaks: "an amendment has room",
		tests:  by("checkpoint", "TestPolicyThatDropsEverySecond"),
	},
	{
		name:   "pieces of which little is left stay as they are",
		file:   "checkpoint/lists.go",
		old:    `if 2*len(p.Live) >= p.N {`,
		new:    `if len(p.Live) > 0 {`,
		breaks: "I7",
		tests:  by("checkpoint", "TestPiecesOfWhichLittleIsLeft"),
	},
	{
		name:   "the index names pieces of which nothing is left",
		file:   "checkpoint/lists.go",
		old:    `w.changed = w.changed || len(left) < len(w.layout.Pieces)`,
		new:    ``,
		breaks: "what is read is what was written",
		tests:  by("checkpoint", "TestPieceIsDroppedAtOnce"),
	},
	{
		name:   "who prunes leaves the list that was",
		file:   "checkpoint/collect.go",
		old:    `case c.dropped[id], c.outdated[id],`,
		new:    `case c.dropped[id],`,
		breaks: "I7",
		tests:  by("checkpoint", "TestPruneDeletesTheListThatWas"),
	},
	{
		name:   "edits count what is left of the pieces before",
		file:   "checkpoint/internal/format/pieces.go",
		old:    `at += p.N`,
		new:    `at += len(p.Live)`,
		breaks: "I3",
		tests:  append(by("checkpoint/internal/format", "TestEdits"), by("checkpoint", "TestListsOfManySteps")...),
	},
	{
		name:   "a list that ends before its edits passes",
		file:   "checkpoint/internal/format/edits.go",
		old:    `if n := len(e.Removed); n > 0 && e.Removed[n-1][1] >= w.at {`,
		new:    `if n := len(e.Removed); n > 0 && e.Removed[n-1][1] < 0 {`,
		breaks: "what is read is what was written",
		tests:  by("checkpoint/internal/format", "TestJoinOfWhatIsNone"),
	},
	{
		name:   "pieces may share a segment",
		file:   "checkpoint/internal/format/pieces.go",
		old:    `if seen[id] {`,
		new:    `if seen[id] && id == (SegmentID{}) {`,
		breaks: "what a hostile store costs",
		tests:  by("checkpoint/internal/format", "TestIndexThatIsNone"),
	},
}
