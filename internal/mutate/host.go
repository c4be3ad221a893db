package main

// Mistakes in what a host program relies on: when a job is closed, when a state
// may be replaced, and that nobody waits for ever.

var inHosts = []mistake{
	{
		name:   "a job is closed under its calls",
		file:   "checkpoint/lifetime.go",
		old:    `if !l.closed || l.calls > 0 || l.cleanups > 0 {`,
		new:    `if !l.closed || l.cleanups > 0 {`,
		breaks: "a call comes to its end",
		tests:  by("checkpoint", "TestJobCloseWaits"),
	},
	{
		name:   "a job that is being closed lets new calls in",
		file:   "checkpoint/lifetime.go",
		old:    `if l.closed {`,
		new:    `if l.closed && ctx == nil {`,
		breaks: "a call comes to its end",
		tests:  by("checkpoint", "TestJobCloseEndsReads", "TestClosedJob"),
	},
	{
		name:   "a call's own requests are refused when the job is being closed",
		file:   "checkpoint/lifetime.go",
		old:    `return context.WithValue(ctx, within{l}, true), func() { l.end(&l.calls) }, nil`,
		new:    `return ctx, func() { l.end(&l.calls) }, nil`,
		breaks: "a call comes to its end",
		tests:  by("checkpoint", "TestJobCloseWaits"),
	},
	{
		name:   "a job does not wait for the clean-up",
		file:   "checkpoint/lifetime.go",
		old:    `if !l.closed || l.calls > 0 || l.cleanups > 0 {`,
		new:    `if !l.closed || l.calls > 0 {`,
		breaks: "a call comes to its end",
		tests:  by("checkpoint", "TestJobCloseWaitsForCleanUp"),
	},
	{
		name: "whoever lists a job's tasks holds it open",
		file: "checkpoint/lifetime.go",
		old: `			end()
			end = func() {}`,
		new: `			defer end()
			end = func() {}`,
		breaks: "a call comes to its end",
		tests:  by("checkpoint", "TestJobClosedWhileItIsListed"),
	},
	{
		name:   "a state in use is replaced by a second Resume",
		file:   "checkpoint/owner.go",
		old:    `o.inUse = "has resumed already, into " + dir`,
		new:    ``,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestResumeMustComeFirst"),
	},
	{
		name:   "a state in use is replaced by a Resume after a Commit",
		file:   "checkpoint/owner.go",
		old:    `o.inUse = cmp.Or(o.inUse, "has committed already")`,
		new:    `_ = cmp.Or(o.inUse, "has committed already")`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestResumeMustComeFirst"),
	},
	{
		name: "the writer of a stream is not told that its save failed",
		file: "checkpoint/source.go",
		old: `	if err == nil {
		return
	}
	for _, from := range s.streams {`,
		new:    `	for _, from := range s.streams[:0] {`,
		breaks: "a call comes to its end",
		tests:  by("checkpoint", "TestWriterOfAStreamHearsOfTheFailure"),
	},
	{
		name:   "a silent writer holds a commit that has failed",
		file:   "checkpoint/stream.go",
		old:    `func() { from.interrupt(context.Cause(uploads)) })`,
		new:    `func() {})`,
		breaks: "a call comes to its end",
		tests:  by("checkpoint", "TestSilentWriterDoesNotHoldACommit"),
	},
}
