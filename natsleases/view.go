package natsleases

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A view is what a process has seen of the bucket, by watching it.
type view struct {
	seen     map[string]sighting // by key
	complete bool                // all is seen that the bucket had when the watch began

	heard   time.Time // when NATS has taken this process's sign last
	touched time.Time // when that has come back through the watch
	since   time.Time // since when it has done so without a gap of half of Options.Expiry

	watched  chan watched // what a call of WatchAll has returned
	asking   bool         // there is such a call
	updates  <-chan jetstream.KeyValueEntry
	endWatch func() // ends the watch
}

// A sighting is what a key had when it was seen. One that was deleted is nobody's.
type sighting struct {
	holder
	revision uint64
	at       time.Time // by this process's clock
}

// watched is what came of a call of WatchAll.
type watched struct {
	watcher jetstream.KeyWatcher
	err     error
	stop    context.CancelFunc
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// watch begins to watch the bucket. It does not wait: NATS may not answer.
func (m *member) watch(ctx context.Context) {
	m.asking = true
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		w, err := m.kv.WatchAll(ctx)
		m.watched <- watched{w, err, cancel}
	}()
	m.endWatch = cancel
}

// watches takes what came of watch. Its error means that the bucket was never watched, because
// of a mistake that somebody has to correct.
func (m *member) watches(w watched) error {
	m.asking = false
	if w.err != nil {
		w.stop()
		if m.since.IsZero() {
			return fmt.Errorf("watching the leases in bucket %q: %w", m.kv.Bucket(), w.err)
		}
		m.log.Warn("the leases cannot be watched; it is tried again", "err", w.err)
		return nil
	}
	m.seen, m.complete, m.updates = make(map[string]sighting), false, w.watcher.Updates()
	m.endWatch = func() {
		_ = w.watcher.Stop() // its context ends as well
		w.stop()
		go func() { // so that nobody blocks who still has an update
			for range w.watcher.Updates() {
			}
		}()
	}
	return nil
}

// watchAgain begins anew if the watch has ended, or if NATS hears this process and the watch
// does not tell of that: the bucket was made anew, say.
func (m *member) watchAgain(ctx context.Context) {
	deaf := time.Since(m.touched) > m.opts.Expiry && time.Since(m.heard) < m.opts.Expiry/2
	if works := m.updates != nil && (!deaf || !m.complete); works || m.leaving || m.asking {
		return
	}
	m.unwatch()
	m.watch(ctx)
}

func (m *member) unwatch() {
	m.updates = nil
	if m.endWatch != nil {
		m.endWatch()
		m.endWatch = nil
	}
}

// next returns an update that is there already.
func (m *member) next() (e jetstream.KeyValueEntry, ok bool) {
	select {
	case e, ok = <-m.updates:
		if !ok {
			m.updates = nil // watchAgain begins anew
		}
	default:
	}
	return e, ok
}

// note remembers what was seen.
func (m *member) note(e jetstream.KeyValueEntry) {
	if e == nil { // it comes after what there was
		m.complete = true
		return
	}
	key := e.Key()
	switch {
	case e.Revision() < m.seen[key].revision: // this process has changed it since
	case e.Operation() == jetstream.KeyValuePut:
		m.seen[key] = sighting{decode(e.Value()), e.Revision(), time.Now()}
	default:
		m.seen[key] = sighting{holder{}, e.Revision(), time.Now()}
	}
	if key == memberPrefix+m.id { // so all that came before it is seen too
		m.touch()
	}
}

// touch notes that this process sees what the bucket has.
func (m *member) touch() {
	if !m.inTouch() {
		m.since = time.Now()
	}
	m.touched = time.Now()
}

// inTouch reports whether this process has seen the bucket lately.
func (m *member) inTouch() bool { return time.Since(m.touched) < m.opts.Expiry/2 }

// members returns the ids of the processes that are there and stay, this one too, in an order
// that all of them agree on.
func (m *member) members() []string {
	ids := []string{m.id}
	for key, s := range m.seen {
		if id, ok := strings.CutPrefix(key, memberPrefix); ok && id == s.ID && id != m.id && !s.Leaving && m.isFresh(s) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// isFresh reports whether what was seen was seen within Options.Expiry. The time in which this
// process did not see the bucket, or slept, does not count, but for gaps of less than half of
// Expiry: others may not have reached it either.
func (m *member) isFresh(s sighting) bool {
	return time.Since(later(s.at, m.since)) < m.opts.Expiry
}

// endOf reports whether a process counts as ended, and since when.
func (m *member) endOf(id string) (since time.Time, ended bool) {
	s, ok := m.seen[memberPrefix+id]
	switch {
	case !ok: // before this process came
		return m.since, true
	case s.ID == "":
		return later(s.at, m.since), true
	case m.isFresh(s):
		return time.Time{}, false
	}
	return later(s.at, m.since).Add(m.opts.Expiry), true
}
