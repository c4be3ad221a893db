package runner_test

import (
	"context"
	"log/slog"
	"time"

	"github.com/holdfast-io/holdfast/runner"
)

// standBy waits until the task has no owner any more, and takes it over.
func standBy(ctx context.Context, r *runner.Runner, dir string, open func(context.Context, *runner.Restored) (runner.Cutter, error)) (*runner.Task, error) {
	s, err := r.Follow(ctx, "words", runner.FollowSpec{Dir: dir})
	if err != nil {
		return nil, err
	}
	why, err := s.Wait(ctx, 5*time.Second) // for a release, or so long without a sign of life
	if err != nil {
		return nil, err
	}
	slog.Info("taking over", "task", s.Name(), "why", why)
	return s.Promote(ctx, runner.Spec{Open: open})
}

var _ = standBy // docs/runner.md shows it
