package natsleases

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/runner"
)

// A member is one process among those that divide the tasks. All of it belongs to the
// goroutine of run, but for what is sent to ended.
type member struct {
	kv      keyValue
	workers workers
	opts    Options
	id      string
	log     *slog.Logger

	seen  map[string]sighting  // what the bucket has, by key
	held  map[string]*lease    // by task
	rest  map[string]time.Time // tasks that have ended by themselves: until when they are not taken again
	ended chan *lease          // each lease of held comes here once, when its task runs no more

	renewed time.Time // when renew began last
	touched time.Time // when NATS was last told that this process is there
	since   time.Time // since when it was told so without a gap
}

// A sighting is what a key had when it was seen.
type sighting struct {
	holder
	revision uint64
	at       time.Time // by this process's clock
}

// A lease says that this process works on a task.
type lease struct {
	task     string
	revision uint64                  // of its key; touched by renew alone while that runs
	leaving  bool                    // the task is to end here
	end      context.CancelCauseFunc // of its start, if that has not succeeded yet
	lost     bool                    // somebody else has the lease
	err      error                   // why the task was not started; set when it comes to member.ended
}

// renewals is how often a lease is renewed within Options.Expiry, and concurrently is how
// many requests are under way at once.
const (
	renewals     = 4
	concurrently = 16
)

// run works on this process's part of the tasks until ctx ends, and then gives it back.
func (m *member) run(ctx context.Context, updates <-chan jetstream.KeyValueEntry) error {
	if !m.look(ctx, updates) {
		return context.Cause(ctx)
	}
	ticker := time.NewTicker(m.opts.Expiry / renewals)
	defer ticker.Stop()
	work, end := context.WithoutCancel(ctx), ctx.Done()
	m.renew(work)
	for {
		if end != nil {
			m.balance(ctx)
		} else if len(m.held) == 0 {
			return m.leave(work)
		}
		select {
		case e, ok := <-updates:
			if !ok {
				updates = nil // the connection was closed: what was seen grows old
			}
			m.note(e)
		case l := <-m.ended:
			m.giveBack(work, l)
		case <-ticker.C:
			m.renew(work)
		case <-end:
			end = nil
			for _, l := range m.held {
				m.stop(l) //nolint:contextcheck // ctx has ended, and the time of grace goes on
			}
		case <-m.workers.Grace().Done():
			return m.leave(work) // Run waits for what still runs
		}
	}
}

// look waits until all is seen that the bucket has. It reports whether it is.
func (m *member) look(ctx context.Context, updates <-chan jetstream.KeyValueEntry) bool {
	for {
		select {
		case e, ok := <-updates:
			if !ok || e == nil { // nil comes after what there was
				return true
			}
			m.note(e)
		case <-ctx.Done():
			return false
		}
	}
}

// note remembers what was seen.
func (m *member) note(e jetstream.KeyValueEntry) {
	switch {
	case e == nil, e.Revision() < m.seen[e.Key()].revision: // the second: this process has changed it since
	case e.Operation() != jetstream.KeyValuePut:
		delete(m.seen, e.Key())
	default:
		m.seen[e.Key()] = sighting{decode(e.Value()), e.Revision(), time.Now()}
	}
}

// isFresh reports whether what was seen was renewed within Options.Expiry. The time in which
// this process did not reach NATS, or slept, does not count: others may not have reached it
// either.
func (m *member) isFresh(s sighting) bool {
	from := s.at
	if m.since.After(from) {
		from = m.since
	}
	return time.Since(from) < m.opts.Expiry
}

// inTouch reports whether this process has reached NATS lately.
func (m *member) inTouch() bool { return time.Since(m.touched) < m.opts.Expiry/2 }

// renew renews all leases, and the sign that this process is there. What cannot be renewed
// because NATS is not there stays: see the package's documentation.
func (m *member) renew(ctx context.Context) {
	m.renewed = time.Now()
	ctx, cancel := context.WithTimeout(ctx, m.opts.Expiry/renewals)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(concurrently)
	group.Go(func() error {
		_, err := m.kv.Put(ctx, memberPrefix+m.id, m.me())
		if err == nil {
			m.touch()
		}
		return err
	})
	for _, l := range m.held {
		if !l.lost {
			group.Go(func() error { return m.renewOne(ctx, l) })
		}
	}
	if err := group.Wait(); err != nil {
		m.log.WarnContext(ctx, "leases could not be renewed; the tasks go on", "err", err)
	}
	for _, l := range m.held {
		if l.lost && !l.leaving {
			m.log.WarnContext(ctx, "a lease was lost", "task", l.task)
			m.lose(l) //nolint:contextcheck // it ends with the time of grace
		}
	}
	m.sweep(ctx)
}

// touch notes that NATS was reached.
func (m *member) touch() {
	if !m.inTouch() {
		m.since = time.Now()
	}
	m.touched = time.Now()
}

func (m *member) me() []byte { return holder{m.id, m.opts.Name}.encode() }

func (m *member) renewOne(ctx context.Context, l *lease) error {
	revision, err := m.kv.Update(ctx, taskKey(l.task), m.me(), l.revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		revision, err = m.renewAgain(ctx, l)
	}
	if err == nil && !l.lost {
		l.revision = revision
	}
	return err
}

// renewAgain renews a lease whose revision is another one than the last that is known: it
// was renewed, and the reply was lost, or somebody else has it.
func (m *member) renewAgain(ctx context.Context, l *lease) (uint64, error) {
	e, err := m.kv.Get(ctx, taskKey(l.task))
	if errors.Is(err, jetstream.ErrKeyNotFound) || err == nil && decode(e.Value()).ID != m.id {
		l.lost = true
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return m.kv.Update(ctx, taskKey(l.task), m.me(), e.Revision())
}

// sweep removes the signs of processes that are long gone. One that lives all the same
// makes another.
func (m *member) sweep(ctx context.Context) {
	for key, s := range m.seen {
		if strings.HasPrefix(key, memberPrefix) && time.Since(s.at) > 10*m.opts.Expiry {
			_ = m.kv.Delete(ctx, key) // or the next time
		}
	}
}

// balance takes or gives back tasks until this process has its part.
func (m *member) balance(ctx context.Context) {
	if !m.inTouch() {
		return
	}
	have, want, first := len(m.held), m.part(), m.rank()
	for _, l := range m.held {
		if l.leaving {
			have--
		}
	}
	tasks := m.opts.Tasks
	for i := range tasks {
		task := tasks[(i+first)%len(tasks)]
		late := time.Since(m.renewed) > m.opts.Expiry/renewals // what is held comes first
		if have < want && !late && m.isFree(task) && m.take(ctx, task) {
			have++
		}
	}
	for _, task := range slices.Backward(tasks) {
		if l := m.held[task]; have > want && l != nil && !l.leaving {
			m.log.InfoContext(ctx, "a task is given back: there are other processes to work on it", "task", task)
			m.stop(l) //nolint:contextcheck // it ends with the time of grace
			have--
		}
	}
}

// members returns the ids of the processes that are there, this one too, in an order that all
// of them agree on.
func (m *member) members() []string {
	ids := []string{m.id}
	for key, s := range m.seen {
		if id, ok := strings.CutPrefix(key, memberPrefix); ok && id != m.id && m.isFresh(s) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// part returns how many tasks are this process's.
func (m *member) part() int {
	ids := m.members()
	part, more := len(m.opts.Tasks)/len(ids), len(m.opts.Tasks)%len(ids)
	if slices.Index(ids, m.id) < more {
		part++
	}
	return part
}

// rank returns where in the list of tasks this process begins to look for free ones, so that
// not all try for the same.
func (m *member) rank() int {
	ids := m.members()
	return slices.Index(ids, m.id) * len(m.opts.Tasks) / len(ids)
}

// isFree reports whether a task may be taken: nobody has it, or whoever had it has not
// renewed the lease for long. A lease of this process that it does not know of is one that it
// took without being told so.
func (m *member) isFree(task string) bool {
	if m.held[task] != nil || time.Now().Before(m.rest[task]) {
		return false
	}
	s, ok := m.seen[taskKey(task)]
	return !ok || s.ID == "" || s.ID == m.id || !m.isFresh(s)
}

// take takes a task, and starts it. It reports whether it is this process's.
func (m *member) take(ctx context.Context, task string) bool {
	ctx, cancel := context.WithTimeout(ctx, m.opts.Expiry/renewals)
	defer cancel()
	key := taskKey(task)
	s, ok := m.seen[key]
	var revision uint64
	var err error
	if ok {
		revision, err = m.kv.Update(ctx, key, m.me(), s.revision)
	} else {
		revision, err = m.kv.Create(ctx, key, m.me())
	}
	if err != nil {
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) && !errors.Is(err, jetstream.ErrKeyExists) {
			m.log.WarnContext(ctx, "a lease could not be taken", "task", task, "err", err)
		}
		m.rest[task] = time.Now().Add(m.opts.Expiry / renewals) // somebody else was first, or NATS is not there
		return false
	}
	m.log.InfoContext(ctx, "a lease was taken", "task", task, "from", s.Name)
	m.seen[key] = sighting{holder{m.id, m.opts.Name}, revision, time.Now()}
	m.start(ctx, &lease{task: task, revision: revision})
	return true
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
func (m *member) stop(l *lease) { m.end(l, runner.ErrReleased, m.workers.Stop) }

// lose ends a task here without a commit: somebody else has its lease.
func (m *member) lose(l *lease) { m.end(l, runner.ErrAbandoned, m.workers.Lost) }

func (m *member) end(l *lease, why error, do func(context.Context, string) error) {
	if l.leaving {
		return
	}
	l.leaving = true
	l.end(why) // do does not see a start that has not begun yet
	go func() { _ = do(m.workers.Grace(), l.task) }()
}

// giveBack lets others have a task that does not run here any more.
func (m *member) giveBack(ctx context.Context, l *lease) {
	delete(m.held, l.task)
	l.end(nil)
	if l.err != nil && !l.leaving {
		m.log.WarnContext(ctx, "a task could not be started", "task", l.task, "err", l.err)
	}
	if !l.leaving || l.lost {
		m.rest[l.task] = time.Now().Add(m.opts.Expiry)
	}
	if l.lost {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, m.opts.Expiry/renewals)
	defer cancel()
	revision, err := m.kv.Update(ctx, taskKey(l.task), holder{}.encode(), l.revision)
	switch {
	case err == nil:
		m.seen[taskKey(l.task)] = sighting{holder{}, revision, time.Now()}
	case !errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		m.log.WarnContext(ctx, "a lease could not be given back; it expires", "task", l.task, "err", err)
	}
}

// leave takes the sign away that this process is there.
func (m *member) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.Expiry/renewals)
	defer cancel()
	if err := m.kv.Delete(ctx, memberPrefix+m.id); err != nil {
		m.log.WarnContext(ctx, "others are not told that this process ends; they find out", "err", err)
	}
	return nil
}
