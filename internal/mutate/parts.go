package main

// Mistakes in states that have several parts, in the last look at a state's files,
// in what an owner is asked, and in which requests come first.

var inParts = []mistake{
	{
		name:   "a part is restored with what lies beside it",
		file:   "checkpoint/tree.go",
		old:    `return strings.CutPrefix(e.Path, dir+"/")`,
		new:    `return strings.CutPrefix(e.Path, dir)`,
		breaks: "what a restore writes",
		tests:  by("checkpoint", "TestJoin", "TestSubOfANameThatBeginsAnother"),
	},
	{
		name: "a promise for one part holds for all",
		file: "checkpoint/join.go",
		old:  `s.reread, s.full, s.owners = s.reread || part.reread,`,
		new: `s.immutable = append(s.immutable, part.immutable...)
		s.reread, s.full, s.owners = s.reread || part.reread,`,
		breaks: "what a save stores",
		tests:  by("checkpoint", "TestPromiseOfAPart"),
	},
	{
		name: "of several streams the first is told of a failure",
		file: "checkpoint/source.go",
		old: `		if from.interrupt(err) {
			continue
		}`,
		new: `		if from.interrupt(err) {
			return
		}`,
		breaks: "a writer waits for ever",
		tests:  by("checkpoint", "TestStreamOfAPartFails"),
	},
	{
		name: "a stream is looked for in the directory",
		file: "checkpoint/recheck.go",
		old: `	for len(r.then) > 0 && r.then[0].seen.made {
		r.then = r.then[1:]
	}
`,
		new:    ``,
		breaks: "a save of parts fails",
		tests:  by("checkpoint", "TestJoin"),
	},
	{
		name: "no file is looked at again",
		file: "checkpoint/recheck.go",
		old: `if err := w.fail(f.Path, r.compareNode(r.pipeline, f, n)); err != nil {
			return err
		}`,
		new:    ``,
		breaks: "a checkpoint of two moments",
		tests:  by("checkpoint", "TestFilesThatChangeWhileAnotherIsRead", "TestChangeInAPart"),
	},
	{
		name:   "a write in the same tick passes",
		file:   "checkpoint/recheck.go",
		old:    `if !now.seen.changed.Equal(f.seen.changed) || f.seen.read && w.unsettled(now.seen.changed) {`,
		new:    `if !now.seen.changed.Equal(f.seen.changed) {`,
		breaks: "a checkpoint of two moments",
		tests:  by("checkpoint", "TestWriteInTheSameTick"),
	},
	{
		name:   "the times of a file that was not opened are relied on",
		file:   "checkpoint/scan.go",
		old:    `f.ChangeTime, f.Inode = old.ChangeTime, old.Inode`,
		new:    ``,
		breaks: "what a save stores",
		tests:  by("checkpoint", "TestPromiseThatIsTakenBack"),
	},
	{
		name: "an owner that asks settles nothing",
		file: "checkpoint/owner.go",
		old: `	if err := o.ready(ctx); err != nil {
		return err
	}
	return o.refresh(ctx)`,
		new: `	if o.ended != nil {
		return o.ended
	}
	return o.refresh(ctx)`,
		breaks: "I3",
		tests:  by("checkpoint", "TestCheckSettles"),
	},
	{
		name:   "an owner that asks is told of no successor",
		file:   "checkpoint/internal/history/fence.go",
		old:    `return l.NewestOfWriter(ctx, own.Manifest)`,
		new:    `return own, nil, nil`,
		breaks: "an owner that is fenced goes on",
		tests:  by("checkpoint", "TestOwnerChecks"),
	},
	{
		name:   "a clean-up is not cut short",
		file:   "checkpoint/cleaner.go",
		old:    `	stop := context.AfterFunc(ctx, c.cancel)`,
		new:    `	stop := func() bool { return true }`,
		breaks: "Close waits for ever",
		tests:  by("checkpoint", "TestCloseCutsTheCleanUpShort"),
	},
	{
		name:   "the owners of files are lost in a job that goes on",
		file:   "checkpoint/owner.go",
		old:    `RestoreOptions{Replace: true, ownersIfSaved: true}`,
		new:    `RestoreOptions{Replace: true}`,
		breaks: "what a commit after a resume stores",
		tests:  by("checkpoint", "TestResumeBringsOwnersBack"),
	},
	{
		name:   "a clean-up comes before a commit",
		file:   "checkpoint/cleaner.go",
		old:    `context.WithCancel(backend.WithUrgency(ctx, backend.Background))`,
		new:    `context.WithCancel(backend.WithUrgency(ctx, backend.Normal))`,
		breaks: "restore before commit before clean-up",
		tests:  by("checkpoint", "TestRestoreBeforeCommitBeforeCleanUp"),
	},
	{
		name:   "a restore waits behind commits",
		file:   "checkpoint/restore.go",
		old:    `urgency := backend.Urgent`,
		new:    `urgency := backend.Normal`,
		breaks: "restore before commit before clean-up",
		tests:  by("checkpoint", "TestRestoreBeforeCommitBeforeCleanUp"),
	},
}
