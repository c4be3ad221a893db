package main

// Mistakes in what is told to those who watch a run, and in which stores are refused. What
// they break is a rule of docs/run.md, docs/runner.md or docs/deploy.

var inWatched = []mistake{
	{
		name:   "an attempt does not say which one it is",
		file:   "backend/trace.go",
		old:    `attempt, _ := ctx.Value(attemptKey{}).(int)`,
		new:    `attempt := 1`,
		breaks: "a span for each attempt",
		tests:  by("backend", "TestTrace"),
	},
	{
		name:   "a listing that goes on after a failure looks like a new one",
		file:   "backend/retry.go",
		old:    `s.store.List(WithAttempt(ctx, n), prefix, after)`,
		new:    `s.store.List(ctx, prefix, after)`,
		breaks: "a span for each attempt",
		tests:  by("backend", "TestTrace"),
	},
	{
		name:   "a manifest that is sent again looks like a new one",
		file:   "checkpoint/internal/history/protocol.go",
		old:    `l.Store.Create(backend.WithAttempt(ctx, n), key, a.data)`,
		new:    `l.Store.Create(ctx, key, a.data)`,
		breaks: "a span for each attempt",
		tests:  by("runner", "TestRequestsThatAreRepeated"),
	},
	{
		name:   "the trace of a claim grows for as long as its owner lives",
		file:   "runner/telemetry.go",
		old:    `if !trace.SpanFromContext(ctx).IsRecording() {`,
		new:    `if ctx == nil {`,
		breaks: "clean-ups have no spans",
		tests:  by("runner", "TestRequestsAfterTheirSpan"),
	},
	{
		name:   "the first time that a run is fenced is not seen by Prometheus",
		file:   "runner/telemetry.go",
		old:    `for _, kind := range kinds {`,
		new:    `for _, kind := range kinds[1:] {`,
		breaks: "counters begin at 0",
		tests:  by("runner", "TestFailuresAreCountedFromZero"),
	},
	{
		name:   "a run is ready while its state is restored",
		file:   "cmd/holdfast/monitor.go",
		old:    `if !m.ready.Load() {`,
		new:    `if m.epoch.Load() > 0 && !m.ready.Load() {`,
		breaks: "ready means restored",
		tests:  by("cmd/holdfast", "TestRunIsReady"),
	},
	{
		name:   "a run is ready while its program ends",
		file:   "cmd/holdfast/supervise.go",
		old:    "func (s *supervisor) stop() {\n\ts.setReady(false)\n",
		new:    "func (s *supervisor) stop() {\n",
		breaks: "ready means restored",
		tests:  by("cmd/holdfast", "TestRunIsReady"),
	},
	{
		name:   "a restore that was tested looks as if it never was",
		file:   "cmd/holdfast/supervise.go",
		old:    `s.monitor.restoreTest.Store(last)`,
		new:    `s.monitor.restoreTest.CompareAndSwap(last, last)`,
		breaks: "a proven restore is told of",
		tests:  by("cmd/holdfast", "TestRunMetrics"),
	},
	{
		name:   "a Multi-Region Access Point is taken for a bucket",
		file:   "s3/open.go",
		old:    `return strings.HasSuffix(bucket, ".mrap") ||`,
		new:    `return strings.HasSuffix(bucket, "/.mrap") ||`,
		breaks: "A1",
		tests:  by("s3", "TestOpenRefuses"),
	},
	{
		name:   "the endpoint of a Multi-Region Access Point is taken for a service",
		file:   "s3/open.go",
		old:    `if strings.HasSuffix(e.Hostname(), ".accesspoint.s3-global.amazonaws.com") {`,
		new:    `if e.Hostname() == ".accesspoint.s3-global.amazonaws.com" {`,
		breaks: "A1",
		tests:  by("s3", "TestOpenRefuses"),
	},
}
