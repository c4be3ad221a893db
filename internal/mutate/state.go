package main

// Mistakes in what a checkpoint holds of a state, and in how it is given back.

var inStates = []mistake{
	{
		name: "the manifest is sent before all segments are",
		file: "checkpoint/build.go",
		old: `err = b.packer.finish()
	} else {`,
		new: `err = b.packer.flush()
	} else {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestFailedUploadLeavesTheBase", "TestSegmentsOfFailedCommitsAreDeleted"),
	},
	{
		name:   "a commit whose upload failed stays in the base's catalog",
		file:   "checkpoint/build.go",
		old:    `func (b *builder) undo() { b.catalog.Reset(b.mark) }`,
		new:    `func (b *builder) undo() {}`,
		breaks: "I1",
		tests:  by("checkpoint", "TestFailedCommitLeavesTheBase"),
	},
	{
		name:   "the same list of files is enough, though the save is to read all",
		file:   "checkpoint/build.go",
		old:    `sum == b.base.content.Walk && !b.walk.reread`,
		new:    `sum == b.base.content.Walk`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestWhatIsOpened"),
	},
	{
		name: "tables that were made before the state became inline data stay",
		file: "checkpoint/build.go",
		old: `for _, n := range b.tabled {
		n.table = nil
	}`,
		new:    ``,
		breaks: "I1",
		tests:  by("checkpoint", "TestSmallStateOfManyChunks"),
	},
	{
		name:   "a base that can not be read stops the next save",
		file:   "checkpoint/build.go",
		old:    `*b, err = baseline{}, nil`,
		new:    `*b = baseline{}`,
		breaks: "a new checkpoint does not need it",
		tests:  by("checkpoint", "TestDamagedBaseIsNotBuiltUpon", "TestCommitAfterTheBaseCouldNotBeRead"),
	},
	{
		name:   "segments of one save get one number",
		file:   "checkpoint/pack.go",
		old:    `p.next.N++`,
		new:    ``,
		breaks: "I6",
		tests:  by("checkpoint", "TestSegmentsOfDroppedCheckpointsAreDeleted"),
	},
	{
		name: "a segment's memory is used again before it is sent",
		file: "checkpoint/pack.go",
		old: `_, err := p.store.Put(p.ctx, format.SegmentKey(p.dir, s.ID), buf)
		p.free <- buf`,
		new: `p.free <- buf
		_, err := p.store.Put(p.ctx, format.SegmentKey(p.dir, s.ID), buf)`,
		breaks: "I1",
		tests:  by("checkpoint", "TestSegmentsAreSentAsTheyWere"),
	},
	{
		name:   "a segment is kept as long as one chunk of it is needed",
		file:   "checkpoint/move.go",
		old:    `2*live < s.Size:`,
		new:    `live == 0:`,
		breaks: "I7",
		tests:  by("checkpoint", "TestWhatMoves", "TestMovingWhatCanNotBeReadTwice"),
	},
	{
		name:   "small segments are kept, however many there are",
		file:   "checkpoint/move.go",
		old:    `if len(list) < crowd {`,
		new:    `if len(list) >= 0 {`,
		breaks: "I7",
		tests:  by("checkpoint", "TestCrowdsBecomeOneSegment"),
	},
	{
		name:   "new data is found in segments that are not worth keeping",
		file:   "checkpoint/move.go",
		old:    `return id, ok && !b.isSparse(id)`,
		new:    `return id, ok`,
		breaks: "I7",
		tests:  by("checkpoint", "TestMovingWhatCanNotBeReadTwice"),
	},
	{
		name:   "what is read to be moved is taken for what it was",
		file:   "checkpoint/move.go",
		old:    `if m.catalog.Chunk(id).Hash != m.catalog.Chunk(m.moved[at]).Hash {`,
		new:    `if m.catalog.Chunk(id).Size != m.catalog.Chunk(m.moved[at]).Size {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileThatChangesBeforeItIsMoved"),
	},
	{
		name:   "what moves is written into the base's own lists",
		file:   "checkpoint/move.go",
		old:    `n.chunks, shared = slices.Clone(n.chunks), false`,
		new:    `shared = false`,
		breaks: "I1",
		tests:  by("checkpoint", "TestFailedCommitLeavesTheBase"),
	},
	{
		name:   "a table stays although what it lists has moved",
		file:   "checkpoint/move.go",
		old:    `n.table = nil // it is another one now`,
		new:    `_ = n.table`,
		breaks: "I1",
		tests:  by("checkpoint", "TestWhatMoves", "TestIncrementalCheckpointsGiveBackTheirState"),
	},
	{
		name:   "files that changed a moment ago are taken for known",
		file:   "checkpoint/walk.go",
		old:    `if seen.changed.Before(w.began.Add(-tick(seen.changed))) {`,
		new:    `if seen.changed.Before(w.began) {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileOfTheSameTickIsOpenedAgain"),
	},
	{
		name:   "times of whole seconds are taken for exact",
		file:   "checkpoint/walk.go",
		old:    `if t.Nanosecond() == 0 {`,
		new:    `if t.IsZero() {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileOfTheSameTickIsOpenedAgain"),
	},
	{
		name:   "a state is the same although a file's changes may go unseen",
		file:   "checkpoint/walk.go",
		old:    `if n.Mode.IsRegular() && n.ChangeTime.IsZero() {`,
		new:    `if n.Mode.IsRegular() && n.ModTime.IsZero() {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileOfTheSameTickIsOpenedAgain"),
	},
	{
		name:   "a state is the same although an inode is another",
		file:   "checkpoint/walk.go",
		old:    `n.ChangeTime.Nanosecond(), n.Inode, n.Owner)`,
		new:    `n.ChangeTime.Nanosecond(), 0, n.Owner)`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestEveryTraceOfAChangeIsSeen"),
	},
	{
		name:   "a state is the same although its owners are others",
		file:   "checkpoint/walk.go",
		old:    `n.ChangeTime.Nanosecond(), n.Inode, n.Owner)`,
		new:    `n.ChangeTime.Nanosecond(), n.Inode, "")`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestChangeOfAnOwnerIsSeen"),
	},
	{
		name:   "times are told apart by 64 bits of nanoseconds",
		file:   "checkpoint/walk.go",
		old:    `n.ModTime.Unix(), n.ModTime.Nanosecond(), `,
		new:    `n.ModTime.UnixNano(), 0, `,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestTimesThatDifferBy584YearsAreNotTheSame"),
	},
	{
		name:   "a file is the same although its change time is another",
		file:   "checkpoint/scan.go",
		old:    `return n.ChangeTime.Equal(old.ChangeTime) && n.ModTime`,
		new:    `return n.ModTime`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestEveryTraceOfAChangeIsSeen"),
	},
	{
		name:   "a file may be written to while it is read",
		file:   "checkpoint/scan.go",
		old:    `if err := compare(before, after, read); err != nil {`,
		new:    `if err := compare(after, after, read); err != nil {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileThatChangesWhileItIsRead"),
	},
	{
		name:   "a file may be written to while it is read, with its time put back",
		file:   "checkpoint/scan.go",
		old:    `if was != b.walk.seen[i].changed {`,
		new:    `if was.IsZero() && was != b.walk.seen[i].changed {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileThatChangesWhileItIsRead", "TestChangeTimeMoves"),
	},
	{
		name: "a file's times are relied on wherever it is",
		file: "checkpoint/scan.go",
		old: `if known, err = catchMappedWrites(f); err != nil {
			return err
		}`,
		new: `if _, err = catchMappedWrites(f); err != nil {
			return err
		}`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFilesInMemoryAreReadEachTime", "TestWriteThroughAMapToADirtyPage"),
	},
	{
		name:   "the pages of a file whose times are relied on may be dirty",
		file:   "checkpoint/mapped_linux.go",
		old:    `unix.SyncFileRange(fd, 0, 0, all)`,
		new:    `unix.SyncFileRange(fd, 0, 0, all&0)`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestWriteThroughAMapToADirtyPage", "TestWritesThroughMaps"),
	},
	{
		name: "a file is protected from unseen writes when it was read",
		file: "checkpoint/scan.go",
		old: `	if known {
		if known, err = catchMappedWrites(f); err != nil {
			return err
		}
	}
	read, err := l.add(f, cut.Data, &n.chunks)
	if err != nil {
		return err
	}
`,
		new: `	read, err := l.add(f, cut.Data, &n.chunks)
	if err != nil {
		return err
	}
	if known {
		if known, err = catchMappedWrites(f); err != nil {
			return err
		}
	}
`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestWriteThroughAMapWhileItIsRead"),
	},
	{
		name: "a tmpfs is taken for a disk",
		file: "checkpoint/mapped_linux.go",
		old:  `unix.BTRFS_SUPER_MAGIC: unix.Fsync,`,
		new: `unix.BTRFS_SUPER_MAGIC: unix.Fsync,
	unix.TMPFS_MAGIC: unix.Fsync,`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFilesInMemoryAreReadEachTime", "TestWriteThroughAMapToADirtyPage"),
	},
	{
		name:   "what was read is not looked at again",
		file:   "checkpoint/build.go",
		old:    `err = b.lookAgain(ctx, l)`,
		new:    `err = nil`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "a file may come while others are read",
		file:   "checkpoint/look.go",
		old:    `return w.fail(path, errAdded)`,
		new:    `return nil`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "a file may go while others are read",
		file:   "checkpoint/look.go",
		old:    `if err == nil && next < len(w.nodes) {`,
		new:    `if err == nil && next == 0 {`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "a file may be replaced while others are read",
		file:   "checkpoint/look.go",
		old:    `case inode != w.seen[i].inode, link`,
		new:    `case inode == 0 && w.seen[i].inode != 0, link`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "a file may be written to while others are read, with its time put back",
		file:   "checkpoint/look.go",
		old:    `if now != w.seen[i].changed || w.seen[i].read && w.unsettled(now) {`,
		new:    `if now.IsZero() {`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "a FIFO is opened as a file is",
		file:   "checkpoint/dir_unix.go",
		old:    `syscall.O_NONBLOCK | syscall.O_NOCTTY`,
		new:    `syscall.O_NOCTTY`,
		breaks: "a save ends",
		tests:  by("checkpoint", "TestFileThatBecomesAFIFO", "TestDirectoryThatBecomesAFIFO"),
	},
	{
		name:   "what was opened may be something else than a file",
		file:   "checkpoint/dir.go",
		old:    `if err == nil && !info.Mode().IsRegular() {`,
		new:    `if err == nil && info.Mode()&fs.ModeSocket != 0 {`,
		breaks: "a save ends",
		tests:  by("checkpoint", "TestFileThatBecomesAFIFO", "TestStatesThatAreRefused"),
	},
	{
		name:   "a chunk that comes twice is stored twice",
		file:   "checkpoint/pipeline.go",
		old:    `if !p.known && !p.again { // it may have come twice`,
		new:    `if p.known && !p.again {`,
		breaks: "I7",
		tests:  by("checkpoint", "TestWhatComesTwice"),
	},
}

var inRestores = []mistake{
	{
		name:   "data is not held against its hash",
		file:   "checkpoint/fetch.go",
		old:    `if sum := format.Sum(data); sum != c.Hash {`,
		new:    `if sum := format.Sum(data); sum == (format.Hash{}) {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestDamageIsFound", "TestRestoreOfADamagedStateChangesNothing"),
	},
	{
		name:   "what a reader lost to a collector is taken for damaged",
		file:   "checkpoint/task.go",
		old:    `return r.Seq == seq }) {`,
		new:    `return r.Seq != 0 }) {`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestReaderThatIsTooSlow", "TestReaderIsOvertaken"),
	},
	{
		name:   "what is lost is taken for retired",
		file:   "checkpoint/task.go",
		old:    `return r.Seq == seq }) {`,
		new:    `return false }) {`,
		breaks: "I3",
		tests:  by("checkpoint", "TestDamageIsFound", "TestVerifyMissing"),
	},
	{
		name:   "a manifest of another kind passes for a checkpoint's",
		file:   "checkpoint/task.go",
		old:    `if m.Kind != format.KindCommit {`,
		new:    `if m.Kind == format.KindDeleted {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestRetainedManifestThatCameLate"),
	},
	{
		name: "what could not be written of the old state is not fetched either",
		file: "checkpoint/reuse.go",
		old: `if err := w.write(w.writer, found); err != nil {
			return err
		}`,
		new:    `_ = w.write(w.writer, found)`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestRestoreThatCanNotWrite"),
	},
	{
		name:   "a chunk of the old state is written once, wherever it belongs",
		file:   "checkpoint/restore.go",
		old:    `for _, p := range r.places[r.first[g.id]:r.first[g.id+1]] {`,
		new:    `for _, p := range r.places[r.first[g.id] : r.first[g.id]+1] {`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestWhatComesTwice"),
	},
	{
		name:   "runs of data go on across a hole",
		file:   "checkpoint/restore.go",
		old:    `w.node == p.node && w.at+int64(n) == p.offset && `,
		new:    `w.node == p.node && `,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestEveryCheckpointGivesBackItsState", "TestRestoreOverAnOldStateFetchesWhatIsMissing"),
	},
	{
		name:   "a file of zeros alone is not made",
		file:   "checkpoint/restore.go",
		old:    `if !hole || len(r.tree.nodes[p.node].chunks) == 1 {`,
		new:    `if !hole {`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestWhatComesTwice"),
	},
	{
		name:   "setuid and setgid are restored without the owner",
		file:   "checkpoint/attributes.go",
		old:    `mode := n.Mode &^ (fs.ModeSetuid | fs.ModeSetgid)`,
		new:    `mode := n.Mode`,
		breaks: "nobody gets another user's rights",
		tests:  by("checkpoint", "TestSetuidIsNotRestored"),
	},
	{
		name:   "times are set in 64 bits of nanoseconds",
		file:   "checkpoint/attributes.go",
		old:    `err := setAnyTime(r.root, path, t)`,
		new:    `err := r.root.Chtimes(path, t, t)`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestTimesOfAnyYear"),
	},
	{
		name: "what a living process builds is swept",
		file: "internal/atomicdir/sweep.go",
		old:  `continue // its owner lives`,
		new: `_ = d.remove(name, nil)
			continue`,
		breaks: "a restore gives back the state",
		tests:  by("internal/atomicdir", "TestLeftoversOfTheDeadAreSwept"),
	},
	{
		name:   "what came meanwhile is replaced unasked",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `if !d.replace { // it was empty when it was looked at`,
		new:    `if d.target == "" {`,
		breaks: "a restore gives back the state",
		tests:  by("internal/atomicdir", "TestTargetThatIsFilledMeanwhile"),
	},
	{
		name: "an existing directory is replaced in two steps",
		file: "internal/atomicdir/atomicdir.go",
		old: `err = d.exchange()
	if errors.Is(err, errors.ErrUnsupported) {`,
		new: `err = errors.ErrUnsupported
	if errors.Is(err, errors.ErrUnsupported) {`,
		breaks: "a restore leaves the old state or the new",
		tests:  by("internal/atomicdir", "TestKilledWhileItReplaces"),
	},
	{
		name:   "the old directory is not put back",
		file:   "internal/atomicdir/sweep.go",
		old:    `errors.Is(err, fs.ErrNotExist) && d.mayRemove(old, known) {`,
		new:    `err == nil && d.mayRemove(old, known) {`,
		breaks: "a restore leaves the old state or the new",
		tests:  by("internal/atomicdir", "TestKilledBetweenTwoRenames"),
	},
	{
		name:   "what is in the directory that is built is not fsynced",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `err := d.syncTree()`,
		new:    `var err error`,
		breaks: "a restore leaves the old state or the new",
		tests:  by("internal/atomicdir", "TestPowerLoss"),
	},
	{
		name:   "the directory that is built is not fsynced",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `return d.orSyncAll(d.syncFolder(d.built))`,
		new:    `return nil`,
		breaks: "a restore leaves the old state or the new",
		tests:  by("internal/atomicdir", "TestPowerLoss"),
	},
	{
		name: "the directory of what is built is not fsynced",
		file: "internal/atomicdir/atomicdir.go",
		old: `func (d *Dir) settle() error {
	if err := d.syncFolder(d.parent); err != nil {
		return err
	}`,
		new:    `func (d *Dir) settle() error {`,
		breaks: "a restore that has returned lasts",
		tests:  by("internal/atomicdir", "TestPowerLoss"),
	},
	{
		name:   "others may enter the directory that is built",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `return d.parent.Mkdir(d.aside, 0o700)`,
		new:    `return d.parent.Mkdir(d.aside, 0o777)`,
		breaks: "a restore gives back the state",
		tests:  by("internal/atomicdir", "TestBuiltInPrivate"),
	},
	{
		name:   "what was made is taken for what has its name",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `if err := d.checkNew(made); err != nil {`,
		new:    `if err := made.Chmod(".", 0o700); err != nil {`,
		breaks: "nothing but the target is touched",
		tests:  by("internal/atomicdir", "TestTricksAtEveryStep"),
	},
	{
		name:   "what is put in place is not compared with what was built",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `if !d.parent.has(d.aside, d.built) {`,
		new:    `if d.tried {`,
		breaks: "a restore gives back the state",
		tests:  by("internal/atomicdir", "TestTricksAtEveryStep"),
	},
	{
		name:   "what is removed is known by its name alone",
		file:   "internal/atomicdir/sweep.go",
		old:    `return info.IsDir() && (!d.shared || slices.Contains(known, identityOf(info)))`,
		new:    `return info.IsDir() && (!d.shared || !slices.Contains(known, identity{}))`,
		breaks: "nothing but the target is touched",
		tests:  by("internal/atomicdir", "TestTricksAtEveryStep", "TestOnlyWhatIsNotedIsSwept"),
	},
	{
		name:   "a note is believed whoever has written it",
		file:   "internal/atomicdir/sweep.go",
		old:    `if !sameOwner(info, mine) || info.Mode() != mine.Mode() {`,
		new:    `if info == nil || mine == nil {`,
		breaks: "nothing but the target is touched",
		tests:  by("internal/atomicdir", "TestForgedNotesAreNotBelieved"),
	},
	{
		name:   "what was moved out of sight is removed although it may be in place",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `if !there && d.tried {`,
		new:    `if !there && d.parent == nil {`,
		breaks: "a restore leaves the old state or the new",
		tests:  by("internal/atomicdir", "TestEveryStepFails"),
	},
	{
		name:   "links are followed whoever has made them",
		file:   "internal/atomicdir/target.go",
		old:    `if !mayLead(link, dir) {`,
		new:    `if dir == link {`,
		breaks: "nothing but the target is touched",
		tests:  by("internal/atomicdir", "TestLinksOfOthersAreNotFollowed"),
	},
}
