package main

// Mistakes in what a checkpoint holds of a state, and in how it is given back.

var inStates = []mistake{
	{
		name:   "a part of a manifest is compressed to nothing",
		file:   "checkpoint/pack.go",
		old:    `if int64(len(data)) > format.MaxSpilled(int64(len(encoded))) {`,
		new:    `if int64(len(data)) < 0 {`,
		breaks: "what is stored can be read",
		tests:  by("checkpoint", "TestPartsOfManifestsAreNotCompressedToNothing"),
	},
	{
		name:   "files that have one table each have a list of their own, renumbered twice",
		file:   "checkpoint/lazytree.go",
		old:    `if len(list) > 0 && !seen[&list[0]] {`,
		new:    `if len(list) > 0 {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFilesThatShareATable"),
	},
	{
		name:   "a table may be longer than its file can make it",
		file:   "checkpoint/internal/format/bounds.go",
		old:    `if sum += chunks[i].Size; sum > most {`,
		new:    `if sum += chunks[i].Size; sum > most && sum < 0 {`,
		breaks: "nobody takes memory beyond what is claimed",
		tests:  by("checkpoint/internal/format", "TestWhatNoCutMakesIsRefused"),
	},
	{
		name:   "a state may have more bytes than the manifest claims",
		file:   "checkpoint/internal/format/bounds.go",
		old:    `case e.Size > c.bytes:`,
		new:    `case e.Size > c.bytes && e.Size < 0:`,
		breaks: "nobody takes memory beyond what is claimed",
		tests:  by("checkpoint/internal/format", "TestWhatNoCutMakesIsRefused"),
	},
	{
		name:   "chunks may overlap",
		file:   "checkpoint/load.go",
		old:    `l.held[n] > l.places[ch.Segment] {`,
		new:    `l.held[n] < 0 {`,
		breaks: "nobody takes memory beyond what is claimed",
		tests:  by("checkpoint", "TestHostileStores"),
	},
	{
		name:   "of many files only the first are synced",
		file:   "internal/atomicdir/sync.go",
		old:    `		if len(paths) > many {`,
		new:    `		if len(paths) >= many {`,
		breaks: "what was restored is on the disk",
		tests:  by("internal/atomicdir", "TestManyFilesAreSyncedTogether"),
	},
	{
		name:   "a small file has the permissions that the umask leaves",
		file:   "checkpoint/wholefile_unix.go",
		old:    `if uint32(is.Mode)&0o7777 != perm {`,
		new:    `if is.Mode == 0 {`,
		breaks: "what was saved comes back",
		tests:  by("checkpoint", "TestPermissionsWhateverTheUmaskIs"),
	},
	{
		name:   "a small file has the time of its restore",
		file:   "checkpoint/wholefile_unix.go",
		old:    `	if err == nil && !t.IsZero() {`,
		new:    `	if err == nil && t.IsZero() {`,
		breaks: "what was saved comes back",
		tests:  by("checkpoint", "TestRestoreGivesBackTheTree"),
	},
	{
		name:   "a small file loses its sticky bit",
		file:   "checkpoint/restorewriter.go",
		old:    ` && n.Mode&^(fs.ModeSetuid|fs.ModeSetgid) == perm && `,
		new:    ` && `,
		breaks: "what was saved comes back",
		tests:  by("checkpoint", "TestPermissionsWhateverTheUmaskIs"),
	},
	{
		name:   "what is removed ends the search for others",
		file:   "checkpoint/internal/catalog/index.go",
		old:    `	x.tags[slot] = removed`,
		new:    `	x.tags[slot] = free`,
		breaks: "what is stored already is not stored again",
		tests:  by("checkpoint/internal/catalog", "TestIndexOfMany", "TestCatalogIsWhatItsModelIs"),
	},
	{
		name:   "two chunks are one if some bits of their hashes are the same",
		file:   "checkpoint/internal/catalog/index.go",
		old:    ` && all.at(x.ids[slot]).hash == *h {`,
		new:    ` {`,
		breaks: "I2",
		tests:  by("checkpoint/internal/catalog", "TestIndexOfMany"),
	},
	{
		name:   "what was removed takes memory for ever",
		file:   "checkpoint/internal/catalog/index.go",
		old:    `size := 8`,
		new:    `size := max(8, 2*len(x.tags))`,
		breaks: "an owner keeps only its index",
		tests:  by("checkpoint/internal/catalog", "TestIndexOfMany"),
	},
	{
		name:   "a chunk whose hash another has taken is added again",
		file:   "checkpoint/internal/catalog/catalog.go",
		old:    `s.unfound[*s.c.chunks.at(id)] = id`,
		new:    `_ = id`,
		breaks: "nobody takes memory beyond what is claimed",
		tests:  by("checkpoint/internal/catalog", "TestSetHasEachChunkOnce"),
	},
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
		name: "a commit whose upload failed stays in the base's catalog",
		file: "checkpoint/compare.go",
		old: `	b.catalog.Reset(b.mark)
	t := b.base.tree
`,
		new: `	t := b.base.tree
`,
		breaks: "I1",
		tests:  by("checkpoint", "TestFailedCommitLeavesTheBase"),
	},
	{
		name:   "the same list of files is enough, though the save is to read all",
		file:   "checkpoint/compare.go",
		old:    `if b.scan.reread || len(b.scan.streams) > 0 {`,
		new:    `if len(b.scan.streams) > 0 {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestWhatIsOpened"),
	},
	{
		name: "tables that were made before the state became inline data stay",
		file: "checkpoint/packtree.go",
		old: `for _, n := range b.tabled {
		n.table, n.Uses = nil, nil
	}`,
		new:    ``,
		breaks: "I1",
		tests:  by("checkpoint", "TestSmallStateOfManyChunks"),
	},
	{
		name:   "a base that cannot be read stops the next save",
		file:   "checkpoint/baseline.go",
		old:    `*b, err = baseline{}, nil`,
		new:    `*b = baseline{}`,
		breaks: "a new checkpoint does not need it",
		tests:  by("checkpoint", "TestDamagedBaseIsNotBuiltUpon", "TestCommitAfterTheBaseCouldNotBeRead", "TestDamagedLeaves"),
	},
	{
		name: "a leaf that cannot be read stops the next save",
		file: "checkpoint/compare.go",
		old: `		*b.base = baseline{}
		err = b.listAnew(ctx)
`,
		new: `		*b.base = baseline{}
`,
		breaks: "a new checkpoint does not need it",
		tests:  by("checkpoint", "TestDamagedBaseIsNotBuiltUpon", "TestDamagedLeaves"),
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
		if taken {
			p.memory.give(buf)
		}`,
		new: `if taken {
			p.memory.give(buf)
		}
		_, err := p.store.Put(p.ctx, format.SegmentKey(p.dir, s.ID), buf)`,
		breaks: "I1",
		tests:  by("checkpoint", "TestSegmentsAreSentAsTheyWere"),
	},
	{
		name:   "a segment is kept as long as one chunk of it is needed",
		file:   "checkpoint/repack.go",
		old:    `2*live < s.Size:`,
		new:    `live == 0:`,
		breaks: "I7",
		tests:  by("checkpoint", "TestWhatIsRepacked", "TestRepackOfDataThatCannotBeReadTwice"),
	},
	{
		name:   "small segments are kept, however many there are",
		file:   "checkpoint/repack.go",
		old:    `if len(list) < maxSmall {`,
		new:    `if len(list) >= 0 {`,
		breaks: "I7",
		tests:  by("checkpoint", "TestSmallSegmentsBecomeOne"),
	},
	{
		name:   "new data is found in segments that are not worth keeping",
		file:   "checkpoint/repack.go",
		old:    `return id, ok && !b.isSparse(id)`,
		new:    `return id, ok`,
		breaks: "I7",
		tests:  by("checkpoint", "TestRepackOfDataThatCannotBeReadTwice"),
	},
	{
		name:   "what is read to be moved is taken for what it was",
		file:   "checkpoint/repack.go",
		old:    `if m.catalog.Chunk(id).Hash != m.catalog.Chunk(m.moved[at]).Hash {`,
		new:    `if m.catalog.Chunk(id).Size != m.catalog.Chunk(m.moved[at]).Size {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestImmutableFileIsRepacked"),
	},
	{
		name:   "a file's attributes are lost without a word",
		file:   "checkpoint/scan.go",
		old:    `b.scan.noteUnkept(f.Path, hasUnkept(file))`,
		new:    ``,
		breaks: "what is lost is told",
		tests:  by("checkpoint", "TestSaveTellsOfAttributes"),
	},
	{
		name: "a directory's ACL is lost without a word",
		file: "checkpoint/scan.go",
		old: `			if !isOld {
`,
		new: `			if isOld {
`,
		breaks: "what is lost is told",
		tests:  by("checkpoint", "TestSaveTellsOfAttributes"),
	},
	{
		name:   "each commit says again that attributes are lost",
		file:   "checkpoint/unkept.go",
		old:    `t.toldUnkept.Swap(true)`,
		new:    `t.toldUnkept.Load()`,
		breaks: "noise",
		tests:  by("checkpoint", "TestSaveTellsOfAttributes"),
	},
	{
		name:   "what moves is written into the base's own lists",
		file:   "checkpoint/repack.go",
		old:    `n.chunks, shared = slices.Clone(n.chunks), false`,
		new:    `shared = false`,
		breaks: "I1",
		tests:  by("checkpoint", "TestFailedCommitLeavesTheBase"),
	},
	{
		name:   "a table stays although what it lists has moved",
		file:   "checkpoint/repack.go",
		old:    `n.table, n.Uses = nil, nil // the table lists other chunks now, so it is made again`,
		new:    `_ = n.table`,
		breaks: "I1",
		tests:  by("checkpoint", "TestWhatIsRepacked", "TestIncrementalCheckpointsGiveBackTheirState"),
	},
	{
		name:   "files that changed a moment ago are taken for known",
		file:   "checkpoint/listing.go",
		old:    `if f.seen.changed.Before(w.began.Add(-filetimes.Tick(f.seen.changed))) {`,
		new:    `if f.seen.changed.Before(w.began) {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileOfTheSameTickIsOpenedAgain"),
	},
	{
		name:   "times of whole seconds are taken for exact",
		file:   "internal/filetimes/tick.go",
		old:    `if t.Nanosecond() == 0 {`,
		new:    `if t.IsZero() {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileOfTheSameTickIsOpenedAgain"),
	},
	{
		name:   "a state is the same although a file's changes may go unseen",
		file:   "checkpoint/match.go",
		old:    `if n.Mode.IsRegular() && n.ChangeTime.IsZero() {`,
		new:    `if n.Mode.IsRegular() && n.ModTime.IsZero() {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileOfTheSameTickIsOpenedAgain"),
	},
	{
		name:   "a state is the same although an inode is another",
		file:   "checkpoint/match.go",
		old:    `b = binary.AppendUvarint(b, n.Inode)`,
		new:    ``,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestEveryTraceOfAChangeIsSeen"),
	},
	{
		name:   "a state is the same although its owners are others",
		file:   "checkpoint/match.go",
		old:    `if o := n.Owner; o != nil {`,
		new:    `if o := n.Owner; o != nil && o.UID > 1<<31 {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestChangeOfAnOwnerIsSeen"),
	},
	{
		name: "times are told apart by 64 bits of nanoseconds",
		file: "checkpoint/match.go",
		old: `b = binary.AppendVarint(b, n.ModTime.Unix())
	b = binary.AppendVarint(b, int64(n.ModTime.Nanosecond()))
`,
		new: `b = binary.AppendVarint(b, n.ModTime.UnixNano())
`,
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
		old:    `if was != f.seen.changed {`,
		new:    `if was.IsZero() && was != f.seen.changed {`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFileServersClockIsBehind"),
	},
	{
		name: "a file's times are relied on wherever it is",
		file: "checkpoint/scan.go",
		old: `if known, err = filetimes.Catch(file); err != nil {
			return err
		}`,
		new: `if _, err = filetimes.Catch(file); err != nil {
			return err
		}`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFilesInMemoryAreReadEachTime", "TestWriteThroughAMapToADirtyPage"),
	},
	{
		name:   "the pages of a file whose times are relied on may be dirty",
		file:   "internal/filetimes/catch_linux.go",
		old:    `unix.SyncFileRange(fd, 0, 0, all)`,
		new:    `unix.SyncFileRange(fd, 0, 0, all&0)`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestWriteThroughAMapToADirtyPage", "TestWritesThroughMaps"),
	},
	{
		name: "a file is protected from unseen writes when it was read",
		file: "checkpoint/scan.go",
		old: `	if known {
		if known, err = filetimes.Catch(file); err != nil {
			return err
		}
	}
	f.chunks = make([]catalog.ID, 0, max(before.Size(), 0)/int64(cut.Data.Max())+1) // it has so many at least
	read, err := l.add(withoutHoles(file, before), cut.Data, &f.chunks)
	if err != nil {
		return err
	}
`,
		new: `	f.chunks = make([]catalog.ID, 0, max(before.Size(), 0)/int64(cut.Data.Max())+1) // it has so many at least
	read, err := l.add(withoutHoles(file, before), cut.Data, &f.chunks)
	if err != nil {
		return err
	}
	if known {
		if known, err = filetimes.Catch(file); err != nil {
			return err
		}
	}
`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestWriteThroughAMapWhileItIsRead"),
	},
	{
		name: "a tmpfs is taken for a disk",
		file: "internal/filetimes/catch_linux.go",
		old:  `unix.BTRFS_SUPER_MAGIC: unix.Fsync,`,
		new: `unix.BTRFS_SUPER_MAGIC: unix.Fsync,
	unix.TMPFS_MAGIC: unix.Fsync,`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestFilesInMemoryAreReadEachTime", "TestWriteThroughAMapToADirtyPage"),
	},
	{
		name:   "what was read is not looked at again",
		file:   "checkpoint/build.go",
		old:    `err = b.compareAll(ctx, l)`,
		new:    `err = nil`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name: "a file may come while others are read",
		file: "checkpoint/recheck.go",
		old: `		case f == nil || format.ComparePaths(f.Path, n.Path) > 0:
`,
		new: `		case f == nil:
			return nil
		case format.ComparePaths(f.Path, n.Path) > 0:
`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name: "a file may go while others are read",
		file: "checkpoint/recheck.go",
		old: `			return w.fail(f.Path, errRemoved)
`,
		new: `			return nil
`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "the last file may go while others are read",
		file:   "checkpoint/recheck.go",
		old:    `if f := r.next(); last && f != nil {`,
		new:    `if f := r.next(); last && f == nil {`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "of many new files only the first are compared again",
		file:   "checkpoint/match.go",
		old:    `return m.give(span{leaf: -1, to: doneAtOnce}, false)`,
		new:    `return m.give(span{leaf: -1, to: doneAtOnce}, true)`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestManyFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "a file may be replaced while others are read",
		file:   "checkpoint/recheck.go",
		old:    `case now.seen.inode != f.seen.inode, link`,
		new:    `case now.seen.inode == 0 && f.seen.inode != 0, link`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "a file may be written to while others are read, with its time put back",
		file:   "checkpoint/recheck.go",
		old:    `if !now.seen.changed.Equal(f.seen.changed) || f.seen.read && w.unsettled(now.seen.changed) {`,
		new:    `if now.seen.changed.IsZero() {`,
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
		old:    `if !p.known && !p.again { // an equal piece may have been packed since prepare`,
		new:    `if p.known && !p.again {`,
		breaks: "I7",
		tests:  by("checkpoint", "TestDataThatOccursTwice"),
	},
}

var inRestores = []mistake{
	{
		name:   "data is not held against its hash",
		file:   "checkpoint/internal/segment/segment.go",
		old:    `if sum := format.Sum(data); sum != c.Hash {`,
		new:    `if sum := format.Sum(data); sum == (format.Hash{}) {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestDamageIsFound", "TestRestoreOfADamagedStateChangesNothing"),
	},
	{
		name:   "what a reader lost to a collector is taken for damaged",
		file:   "checkpoint/internal/history/retained.go",
		old:    `return r.Seq == seq }) {`,
		new:    `return r.Seq != 0 }) {`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestReaderThatIsTooSlow", "TestReaderIsOvertaken"),
	},
	{
		name:   "what is lost is taken for retired",
		file:   "checkpoint/internal/history/retained.go",
		old:    `return r.Seq == seq }) {`,
		new:    `return false }) {`,
		breaks: "I3",
		tests:  by("checkpoint", "TestDamageIsFound", "TestVerifyMissing"),
	},
	{
		name:   "a manifest of another kind passes for a checkpoint's",
		file:   "checkpoint/internal/history/retained.go",
		old:    `if err == nil && m.Kind != format.KindCommit {`,
		new:    `if err == nil && m.Kind == format.KindDeleted {`,
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
		tests:  by("checkpoint", "TestRestoreThatCannotWrite"),
	},
	{
		name:   "a chunk of the old state is written once, wherever it belongs",
		file:   "checkpoint/restorer.go",
		old:    `for _, p := range r.locations[r.first[g.id]:r.first[g.id+1]] {`,
		new:    `for _, p := range r.locations[r.first[g.id] : r.first[g.id]+1] {`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestDataThatOccursTwice"),
	},
	{
		name:   "runs of data go on across a hole",
		file:   "checkpoint/restorewriter.go",
		old:    `w.node == p.node && w.at+int64(n) == p.offset && `,
		new:    `w.node == p.node && `,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestEveryCheckpointGivesBackItsState", "TestRestoreOverAnOldStateFetchesWhatIsMissing"),
	},
	{
		name:   "a file of zeros alone is not made",
		file:   "checkpoint/restorer.go",
		old:    `case len(r.tree.nodes[p.node].chunks) == 1:`,
		new:    `case !hole && len(r.tree.nodes[p.node].chunks) == 1:`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestDataThatOccursTwice"),
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
		old:    `err := setAnyTime(dir, name, t)`,
		new:    `err := dir.Chtimes(name, t, t)`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestTimesOfAnyYear"),
	},
	{
		name: "the directory of a living process is swept",
		file: "internal/atomicdir/sweep.go",
		old:  `continue // its owner lives`,
		new: `_ = d.remove(name, nil)
			continue`,
		breaks: "a restore gives back the state",
		tests:  by("internal/atomicdir", "TestLeftoversOfTheDeadAreSwept"),
	},
	{
		name:   "a transient directory is synced",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `if op == "sync" || op == "syncall" {`,
		new:    `if op == "syncall" {`,
		breaks: "a restart does not wait for the disk",
		tests:  by("internal/atomicdir", "TestTransientIsNotSynced"),
	},
	{
		name:   "a target that was filled meanwhile is replaced unasked",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `if !d.replace { // the target was empty when Begin looked`,
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
		name:   "the content of the new directory is not fsynced",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `err := d.syncTree()`,
		new:    `var err error`,
		breaks: "a restore leaves the old state or the new",
		tests:  by("internal/atomicdir", "TestPowerLoss"),
	},
	{
		name:   "the new directory is not fsynced",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `return d.orSyncAll(d.syncFolder(d.built))`,
		new:    `return nil`,
		breaks: "a restore leaves the old state or the new",
		tests:  by("internal/atomicdir", "TestPowerLoss"),
	},
	{
		name: "the parent of the new directory is not fsynced",
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
		name:   "other users may enter the new directory",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `return d.parent.Mkdir(d.aside, 0o700)`,
		new:    `return d.parent.Mkdir(d.aside, 0o777)`,
		breaks: "a restore gives back the state",
		tests:  by("internal/atomicdir", "TestBuiltInPrivate"),
	},
	{
		name:   "the directory that has the name is not compared with the one that was made",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `if err := d.checkNew(made); err != nil {`,
		new:    `if err := made.Chmod(".", 0o700); err != nil {`,
		breaks: "nothing but the target is touched",
		tests:  by("internal/atomicdir", "TestTricksAtEveryStep"),
	},
	{
		name:   "the directory that is put in place is not compared with the one that was built",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `if !d.parent.has(d.aside, d.built) {`,
		new:    `if d.tried {`,
		breaks: "a restore gives back the state",
		tests:  by("internal/atomicdir", "TestTricksAtEveryStep"),
	},
	{
		name:   "a directory is removed for its name alone",
		file:   "internal/atomicdir/sweep.go",
		old:    `return info.IsDir() && (!d.shared || slices.Contains(known, identityOf(info)))`,
		new:    `return info.IsDir() && (!d.shared || !slices.Contains(known, identity{}))`,
		breaks: "nothing but the target is touched",
		tests:  by("internal/atomicdir", "TestTricksAtEveryStep", "TestOnlyWhatIsNotedIsSwept"),
	},
	{
		name:   "a note counts whoever has written it",
		file:   "internal/atomicdir/sweep.go",
		old:    `if !sameOwner(info, mine) || info.Mode() != mine.Mode() {`,
		new:    `if info == nil || mine == nil {`,
		breaks: "nothing but the target is touched",
		tests:  by("internal/atomicdir", "TestForgedNotesAreNotBelieved"),
	},
	{
		name:   "a new directory that lost its name is emptied although it may be in place",
		file:   "internal/atomicdir/atomicdir.go",
		old:    `if !there && d.tried {`,
		new:    `if !there && d.parent == nil {`,
		breaks: "a restore leaves the old state or the new",
		tests:  by("internal/atomicdir", "TestEveryStepFails"),
	},
	{
		name:   "symbolic links are followed whoever has made them",
		file:   "internal/atomicdir/way.go",
		old:    `if !mayLead(link, dir) {`,
		new:    `if dir == link {`,
		breaks: "nothing but the target is touched",
		tests:  by("internal/atomicdir", "TestLinksOfOthersAreNotFollowed", "TestLinksOfOthersOnTheWay"),
	},
	{
		name: "what is in leaves that were left out may change while others are read",
		file: "checkpoint/recheck.go",
		old: `	if was.kept && s.kept {
`,
		new: `	if was.kept {
`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestLeavesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "a file in a leaf that was left out has no inode",
		file:   "checkpoint/compare.go",
		old:    `list[i] = &found{*n, fileStamp{changed: n.ChangeTime, inode: n.Inode}}`,
		new:    `list[i] = &found{*n, fileStamp{changed: n.ChangeTime}}`,
		breaks: "no false alarm",
		tests:  by("checkpoint", "TestLeavesThatChangeWhileAnotherIsRead"),
	},
	{
		name:   "leaves that refer to data which is stored again stay",
		file:   "checkpoint/repack.go",
		old:    `if b.isKept(i) && (uses(l.Uses) || slices.ContainsFunc(l.chunks, b.isSparse)) {`,
		new:    `if b.isKept(i) && slices.ContainsFunc(l.chunks, b.isSparse) {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestDataOfLeavesThatAreNotRead"),
	},
	{
		name:   "leaves whose own data is stored again stay",
		file:   "checkpoint/repack.go",
		old:    `if b.isKept(i) && (uses(l.Uses) || slices.ContainsFunc(l.chunks, b.isSparse)) {`,
		new:    `if b.isKept(i) && uses(l.Uses) {`,
		breaks: "I1",
		tests:  by("checkpoint", "TestLeafInAManifest"),
	},
	{
		name: "a leaf that was read late stays after a commit that failed",
		file: "checkpoint/compare.go",
		old: `		t.leaves[i].nodes = nil
`,
		new: `		_ = i
`,
		breaks: "I1",
		tests:  by("checkpoint", "TestDataOfLeavesThatAreNotRead"),
	},
	{
		name: "what a leaf that was left out needs is forgotten",
		file: "checkpoint/lazytree.go",
		old: `	if l.nodes == nil {
		c.uses(l.Uses)
	}
`,
		new:    ``,
		breaks: "I1",
		tests:  by("checkpoint", "TestDataOfLeavesThatAreNotRead"),
	},
	{
		name: "what a table that was not read lists is forgotten",
		file: "checkpoint/lazytree.go",
		old: `	if n.isUnread() {
		c.uses(n.Uses)
	}
`,
		new:    ``,
		breaks: "I1",
		tests:  by("checkpoint", "TestTableThatIsNotRead"),
	},
	{
		name: "a leaf does not say what its tables list",
		file: "checkpoint/packtree.go",
		old: `			uses[u.Segment] += u.Bytes
`,
		new: `			_ = u
`,
		breaks: "I1",
		tests:  by("checkpoint", "TestIncrementalCheckpointsGiveBackTheirState"),
	},
	{
		name: "leaves do not grow together again",
		file: "checkpoint/compare.go",
		old: `		if before, ok := b.joins(i); ok {
`,
		new: `		if before, ok := b.joins(i); ok && i < 0 {
`,
		breaks: "the cost follows the change",
		tests:  by("checkpoint", "TestLeavesBeginWhereTheyBegan"),
	},
	{
		name:   "all leaves are read",
		file:   "checkpoint/compare.go",
		old:    `c.listMemory() < b.task.job.data.lists/readAllShare {`,
		new:    `true {`,
		breaks: "the cost follows the change",
		tests:  by("checkpoint", "TestCostFollowsTheChange"),
	},
	{
		name: "nothing of a file that is gone is found again",
		file: "checkpoint/scan.go",
		old: `	return append(old, rest...)
`,
		new: `	return nil
`,
		breaks: "the cost follows the change",
		tests:  by("checkpoint", "TestRenamedFileInAForest"),
	},
	{
		name:   "verify does not look at what leaves say",
		file:   "checkpoint/load_tables.go",
		old:    `if err == nil && wrong != nil {`,
		new:    `if err != nil && wrong != nil {`,
		breaks: "what is damaged is found",
		tests:  by("checkpoint", "TestVerifyLeavesThatSayTooLittle"),
	},
	{
		name:   "a restore in parts forgets the directories of the parts before",
		file:   "checkpoint/restorer.go",
		old:    `r.tree, r.zeros = t, noChunk`,
		new:    `r.tree, r.zeros, r.others = t, noChunk, nil`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestRestoreInParts"),
	},
	{
		name: "a small file with special bits has no attributes",
		file: "checkpoint/restorewriter.go",
		old: `	return w.setAttributesOfFile(w.folder, n)
`,
		new: `	return nil
`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestPermissionsWhateverTheUmaskIs"),
	},
	{
		name:   "a file goes to the directory of the one before",
		file:   "checkpoint/folder.go",
		old:    `if f.dir == nil || dir != f.path {`,
		new:    `if f.dir == nil {`,
		breaks: "a restore gives back the state",
		tests:  by("checkpoint", "TestRestoreGivesBackTheTree"),
	},
	{
		name:   "a restore in parts finds nothing in the old directory",
		file:   "checkpoint/reuse.go",
		old:    `if n.Size > 0 && !yield(n.Path) {`,
		new:    `if n.Size < 0 && !yield(n.Path) {`,
		breaks: "the cost follows the change",
		tests:  by("checkpoint", "TestRestoreInParts"),
	},
	{
		name:   "a table of which half was read counts as read",
		file:   "checkpoint/load_tables.go",
		old:    `found := func(ids []catalog.ID) { chunks[id] = append(chunks[id], ids...) }`,
		new:    `found := func(ids []catalog.ID) { chunks[id] = append(chunks[id], ids...); n.chunks = chunks[id] }`,
		breaks: "I1",
		tests:  by("checkpoint", "TestCommitAfterAReadFailed"),
	},
	{
		name: "a file whose table was not read is not compared",
		file: "checkpoint/scan.go",
		old: `	if n.isUnread() {
`,
		new: `	if n.isUnread() && n.Size < 0 {
`,
		breaks: "a checkpoint is the state of one moment",
		tests:  by("checkpoint", "TestTabledFileThatChangesBesideAnother"),
	},
	{
		name: "damage that is found late stops every commit",
		file: "checkpoint/repack.go",
		old: `		return ofBase(err)
`,
		new: `		return err
`,
		breaks: "a new checkpoint does not need it",
		tests:  by("checkpoint", "TestDataOfLeavesThatAreNotRead"),
	},
}
