// Package runner decides when a running program checkpoints.
//
// A program that consumes a queue or a stream owns its loop. A [Runner] gives
// it a handle for each of its tasks, with a gate: the program works in steps
// ([Task.Step]), and a checkpoint is cut when no step runs. The cut is quick and
// local; its upload goes on beside the loop. The runner owns time, uploads,
// failures, back-pressure, the order of shutting down and the run directory:
//
//	r, err := runner.New(job, runner.Options{})
//	task, err := r.Own(ctx, "orders/7", runner.Spec{Dir: dir, Open: open})
//	for records := range poll(task.Context()) {
//		err := task.Step(ctx, func(p *runner.Position) error {
//			p.Advance("orders/7", records.Next())
//			return db.Apply(records)
//		})
//	}
//	err = r.Drain(grace)
//
// [Run] is one call for the usual program: a worker for each task, all of whose
// calls come one at a time.
//
// Offsets and state are committed together or not at all. After a crash, input
// since the last checkpoint is processed again, on the state of that checkpoint:
// at least once for effects outside, exactly once in the state. docs/runner.md
// has the life of a commit, every option, and how to choose an interval.
package runner
