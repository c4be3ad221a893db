package natsleases

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/runner"
)

// A member is one process among those that divide the tasks. All of it belongs to the
// goroutine of run, but for what is sent to its channels.
type member struct {
	kv      keyValue
	workers workers
	opts    Options
	id      string
	log     *slog.Logger

	held    map[string]*lease    // by task
	rest    map[string]time.Time // tasks that are not taken again before a time
	ended   chan *lease          // each lease of held comes here once, when its task runs no more
	leaving bool                 // this process takes nothing any more, and gives back what it has
	grace   context.Context      // of what is done in the end
	parts   []string             // the members that the last balance has counted
	checked int                  // how many leases check has looked for

	view
}

// A lease says that this process works on a task.
type lease struct {
	task     string
	revision uint64                  // of its key
	leaving  bool                    // the task is to end here
	lost     bool                    // somebody else has the lease
	adopted  time.Time               // since when it is this process's beyond its part; zero if it is not
	end      context.CancelCauseFunc // of its start, if that has not succeeded yet
	err      error                   // why the task was not started; set when it comes to member.ended
}

// signs is how often a process says that it is there within Options.Expiry, maxRequest bounds
// the time of one request, and maxLeaving how many tasks are given back to others at once: a
// task stands while it waits for its last commit. adoption is for how many times Expiry a
// process keeps a task that another one should have.
const (
	signs      = 4
	maxRequest = 2 * time.Second
	maxLeaving = 8
	adoption   = 30
)

func (m *member) request(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(m.opts.Expiry/signs, maxRequest))
}

// run works on this process's part of the tasks until ctx ends, and then gives it back. It
// returns an error if the bucket cannot be watched, or if a task can never be started.
func (m *member) run(ctx context.Context) (err error) {
	ticker := time.NewTicker(m.opts.Expiry / signs)
	defer ticker.Stop()
	defer m.unwatch()
	m.watch(ctx)
	m.sign(ctx)
	end := ctx.Done()
	for {
		if m.leaving && len(m.held) == 0 {
			m.leave(ctx)
			return err
		}
		m.balance(ctx)
		select {
		case w := <-m.watched:
			if why := m.watches(w); why != nil {
				end, err = nil, why
				m.stopAll()
			}
		case e, ok := <-m.updates:
			if !ok {
				m.updates = nil // watchAgain begins anew
			}
			m.noteAll(e, ok)
		case l := <-m.ended:
			m.giveBack(l)                                           //nolint:contextcheck // also when ctx has ended
			if errors.Is(l.err, backend.ErrInvalid) && !l.leaving { // it can never be started
				end, err = nil, l.err
				m.stopAll()
			}
		case <-ticker.C:
			m.sign(ctx)
			m.watchAgain(ctx)
			m.check(ctx)
			m.sweep(ctx)
		case <-end:
			end = nil
			m.stopAll()
		case <-m.grace.Done():
			m.leave(ctx)
			return err // Run waits for what still runs
		}
	}
}

// noteAll notes an update, and all others that are there.
func (m *member) noteAll(e jetstream.KeyValueEntry, ok bool) {
	for ; ok; e, ok = m.next() {
		m.note(e)
		if l := m.heldBy(e); l != nil {
			m.log.Warn("a lease was lost", "task", l.task)
			m.lose(l)
		}
	}
}

// heldBy returns the lease of this process that an update says is somebody else's, or nil.
func (m *member) heldBy(e jetstream.KeyValueEntry) *lease {
	if e == nil || !strings.HasPrefix(e.Key(), taskPrefix) {
		return nil
	}
	for _, l := range m.held {
		if taskKey(l.task) == e.Key() && e.Revision() > l.revision && decode(e.Value()).ID != m.id {
			return l
		}
	}
	return nil
}

// sign says that this process is there. If NATS does not hear it, the tasks go on: see the
// package's documentation.
func (m *member) sign(ctx context.Context) { //nolint:contextcheck // likewise
	if m.leaving {
		ctx = m.grace
	}
	ctx, cancel := m.request(ctx)
	defer cancel()
	if _, err := m.kv.Put(ctx, memberPrefix+m.id, m.me()); err != nil {
		m.log.WarnContext(ctx, "the leases could not be renewed; the tasks go on", "err", err)
		return
	}
	m.heard = time.Now()
}

func (m *member) me() []byte { return holder{m.id, m.opts.Name, m.leaving}.encode() }

// balance takes or gives back tasks until this process has its part.
func (m *member) balance(ctx context.Context) {
	if m.leaving || !m.complete || !m.inTouch() {
		return
	}
	ids := m.members()
	same := slices.Equal(ids, m.parts)
	for _, l := range m.held {
		if !same || time.Since(l.adopted) > adoption*m.opts.Expiry { // whoever should have it may be able to by now
			l.adopted = time.Time{}
		}
	}
	m.parts = ids
	want := m.part(ids)
	m.takeMore(ctx, ids, want)
	m.stopSome(want)
}

// counts returns how many tasks of its part this process has, and how many are ending here.
func (m *member) counts() (have, leaving int) {
	for _, l := range m.held {
		switch {
		case l.leaving:
			leaving++
		case l.adopted.IsZero():
			have++
		}
	}
	return have, leaving
}

// takeMore takes tasks that are free: those of this process's part, and those that whoever
// should take them does not take.
func (m *member) takeMore(ctx context.Context, ids []string, want int) {
	tasks := m.opts.Tasks
	have, _ := m.counts()
	first := slices.Index(ids, m.id) * len(tasks) / len(ids) // so that not all try for the same
	for i := range tasks {
		task := tasks[(i+first)%len(tasks)]
		since, free := m.isFree(task)
		stuck := time.Since(since) > 2*m.opts.Expiry // longer than a process leaves a task alone that it has lost
		if !free || have >= want && !stuck {
			continue
		}
		if ctx.Err() != nil || time.Since(m.heard) > m.opts.Expiry/signs {
			return // others are to hear of this process in time
		}
		if m.take(ctx, task, have >= want) && have < want {
			have++
		}
	}
}

// stopSome gives tasks back that are others' part.
func (m *member) stopSome(want int) {
	have, leaving := m.counts()
	for _, task := range slices.Backward(m.opts.Tasks) {
		l := m.held[task]
		if l == nil || l.leaving || !l.adopted.IsZero() || have <= want || leaving >= maxLeaving {
			continue
		}
		m.log.Info("a task is given back: there are other processes to work on it", "task", task)
		m.stop(l)
		have--
		leaving++
	}
}

// part returns how many tasks are this process's.
func (m *member) part(ids []string) int {
	part, more := len(m.opts.Tasks)/len(ids), len(m.opts.Tasks)%len(ids)
	if slices.Index(ids, m.id) < more {
		part++
	}
	return part
}

// isFree reports whether a task may be taken, and since when. A lease of this process that it
// does not know of is one that it took without being told so.
func (m *member) isFree(task string) (since time.Time, free bool) {
	if m.held[task] != nil || time.Now().Before(m.rest[task]) {
		return time.Time{}, false
	}
	s, ok := m.seen[taskKey(task)]
	switch {
	case !ok:
		return m.since, true
	case s.ID == m.id:
		return time.Now(), true
	case s.ID == "":
		return later(s.at, m.since), true
	}
	since, free = m.endOf(s.ID)
	return later(since, s.at), free
}

// take takes a task, and starts it. It reports whether it is this process's. beyond says that
// it is not of its part.
func (m *member) take(ctx context.Context, task string, beyond bool) bool {
	asking, cancel := m.request(ctx)
	defer cancel()
	key := taskKey(task)
	s, ok := m.seen[key]
	var revision uint64
	var err error
	if ok {
		revision, err = m.kv.Update(asking, key, m.me(), s.revision)
	} else {
		revision, err = m.kv.Create(asking, key, m.me())
	}
	if err != nil {
		m.rest[task] = time.Now().Add(m.opts.Expiry / signs)
		if isConflict(err) { // somebody else was first
			m.lookAgain(asking, key)
		} else if ctx.Err() == nil {
			m.log.WarnContext(ctx, "a lease could not be taken", "task", task, "err", err)
		}
		return false
	}
	m.log.InfoContext(ctx, "a lease was taken", "task", task, "from", s.Name)
	m.seen[key] = sighting{holder{ID: m.id, Name: m.opts.Name}, revision, time.Now()}
	l := &lease{task: task, revision: revision}
	if beyond {
		l.adopted = time.Now()
	}
	m.start(ctx, l)
	return true
}

func isConflict(err error) bool {
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists)
}

// lookAgain corrects what was seen of a key: the bucket may have lost what no update tells of.
func (m *member) lookAgain(ctx context.Context, key string) {
	switch e, err := m.kv.Get(ctx, key); {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		delete(m.seen, key)
	case err == nil && e.Revision() != m.seen[key].revision:
		m.seen[key] = sighting{decode(e.Value()), e.Revision(), time.Now()}
	}
}

// start works on a task until it ends.
func (m *member) start(ctx context.Context, l *lease) {
	m.held[l.task] = l
	ctx, l.end = context.WithCancelCause(context.WithoutCancel(ctx))
	go func() {
		if l.err = m.workers.Start(ctx, l.task); l.err == nil {
			<-m.workers.Done(l.task)
		}
		m.ended <- l
	}()
}

// stop ends a task here, with a last commit. What came of it, Run and the log tell.
func (m *member) stop(l *lease) {
	if !l.leaving {
		m.end(l, runner.ErrReleased, m.workers.Stop)
	}
}

// stopAll ends all tasks here. First others are told to count on this process no more.
func (m *member) stopAll() {
	m.leaving = true
	for _, l := range m.held {
		m.stop(l)
	}
	m.sign(m.grace)
}

// lose ends a task here without a commit: somebody else has its lease.
func (m *member) lose(l *lease) {
	if !l.lost {
		l.lost = true
		m.end(l, runner.ErrAbandoned, m.workers.Lost)
	}
}

func (m *member) end(l *lease, why error, do func(context.Context, string) error) {
	l.leaving = true
	l.end(why) // do does not see a start that has not begun yet
	go func() { _ = do(m.grace, l.task) }()
}

// giveBack lets others have a task that does not run here any more.
func (m *member) giveBack(l *lease) {
	delete(m.held, l.task)
	l.end(nil)
	switch {
	case l.err != nil && !l.leaving: // others come first
		m.log.Warn("a task could not be started; it is tried again", "task", l.task, "err", l.err)
		m.rest[l.task] = time.Now().Add(3 * m.opts.Expiry)
	case !l.leaving || l.lost:
		m.rest[l.task] = time.Now().Add(m.opts.Expiry)
	}
	if l.lost {
		return
	}
	ctx, cancel := m.request(m.grace)
	defer cancel()
	key := taskKey(l.task)
	revision, err := m.kv.Update(ctx, key, holder{}.encode(), l.revision)
	switch {
	case err == nil:
		m.seen[key] = sighting{holder{}, revision, time.Now()}
	case isConflict(err):
		m.lookAgain(ctx, key)
	default:
		m.log.Warn("a lease could not be given back; it expires", "task", l.task, "err", err)
	}
}

// leave takes the sign away that this process is there.
func (m *member) leave(ctx context.Context) {
	ctx, cancel := m.request(context.WithoutCancel(ctx))
	defer cancel()
	if err := m.kv.Delete(ctx, memberPrefix+m.id); err != nil {
		m.log.WarnContext(ctx, "others are not told that this process ends; they find out", "err", err)
	}
}

// check looks whether the bucket still has one of this process's leases, another one each time.
// If not, it has lost them, and no update tells of that: they are written anew.
func (m *member) check(ctx context.Context) {
	var held []*lease
	for _, task := range m.opts.Tasks {
		if l := m.held[task]; l != nil && !l.leaving {
			held = append(held, l)
		}
	}
	if m.leaving || len(held) == 0 {
		return
	}
	m.checked++
	asking, cancel := m.request(ctx)
	defer cancel()
	_, err := m.kv.Get(asking, taskKey(held[m.checked%len(held)].task))
	if !errors.Is(err, jetstream.ErrKeyNotFound) {
		return
	}
	m.log.WarnContext(ctx, "the bucket has lost leases; they are written anew")
	for _, l := range held {
		revision, err := m.kv.Create(asking, taskKey(l.task), m.me())
		if err == nil {
			l.revision = revision
			m.seen[taskKey(l.task)] = sighting{holder{ID: m.id, Name: m.opts.Name}, revision, time.Now()}
		}
	}
}

// sweep removes the signs of processes that are long gone.
func (m *member) sweep(ctx context.Context) {
	if m.leaving || !m.complete || !m.inTouch() {
		return
	}
	for key, s := range m.seen {
		if !strings.HasPrefix(key, memberPrefix) || time.Since(later(s.at, m.since)) <= 10*m.opts.Expiry {
			continue
		}
		delete(m.seen, key)
		if s.ID != "" {
			ctx, cancel := m.request(ctx)
			_ = m.kv.Delete(ctx, key, jetstream.LastRevision(s.revision)) // or the next process does it
			cancel()
		}
	}
}
