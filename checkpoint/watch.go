package checkpoint

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// An owner looks, after a clean-up, whether somebody else has removed its manifests. It
// does so when both have passed since its last look: lookAfter, and lookCommits commits.
//
// Ten minutes, because a manifest that is at most a quarter of the fence window old cannot
// have been deleted by a collector, so that one that is missing was removed by someone
// else. Nine commits, so that an owner that commits rarely sends few more requests, and because
// the default policy keeps the last ten checkpoints, of which the same is known: these,
// and the one that the last look has seen.
const (
	lookAfter   = 10 * time.Minute
	lookCommits = 9
)

// A watch says when to look next, and from where.
type watch struct {
	since   history.Seen // what the last look has seen
	at      clock.Stamp  // of the last look
	commits int          // since the last look
}

// newWatch returns the watch of the writer that made manifest s.
func newWatch(s *history.Committed) watch {
	return watch{since: history.Seen{Seq: s.Seq, Time: s.Time}, at: clock.Now(s.Time)}
}

// due counts commits, and reports whether to look.
func (w *watch) due(commits int) bool {
	w.commits += commits
	return w.commits >= lookCommits && w.at.Passed() >= lookAfter
}

// look makes sure, once in a while, that nobody else has removed manifests up to r's. The
// owner's next call returns what it has found.
func (c *cleaner) look(ctx context.Context, r *retirement) {
	if !c.watch.due(r.manifests) {
		return
	}
	err := c.task.log.CheckUnbroken(ctx, r.by, c.watch.since, r.kept)
	switch {
	case err == nil:
		c.watch = newWatch(r.by)
	case errors.Is(err, ErrLost), errors.Is(err, backend.ErrUnsupported):
		c.broken.Store(&err)
	default:
		c.watch.commits = 0 // the store could not be asked: look again after as many commits
	}
}

// unbroken returns the error with which a look has shown that the history is broken.
func (c *cleaner) unbroken() error {
	if err := c.broken.Load(); err != nil {
		return *err
	}
	return nil
}
