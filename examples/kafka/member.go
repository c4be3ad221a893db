package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/runner"
)

// A member is this process as a member of the consumer group.
type member struct {
	brokers []string
	group   string
	topic   string
	session time.Duration
	log     *slog.Logger
	out     io.Writer // is told of each partition that goes on from a checkpoint

	client  *kgo.Client
	workers *runner.Workers
	failed  chan error // why the member cannot go on; it has room for one

	mu     sync.Mutex
	shares map[string]*share // by task
	last   map[string]*share // by task: the newest, which may be no more
	wake   func()            // ends the poll that waits for records
}

// A share is a partition that the group has given to this member.
type share struct {
	task      string
	partition int32
	end       context.CancelCauseFunc // of its goroutine
	ended     chan struct{}
	before    *share // of this task, which may not have ended yet; nil for none

	queue    *queue // of the counter that works on it; nil for none. Guarded by member.mu
	from     int64  // where that one begins
	restored bool   // it waits for records, and they are not fetched yet
	reading  bool   // what is fetched is what it waits for
	full     bool   // so much waits in the queue that no more is fetched
}

// lastCommits bounds how long the last commits of partitions that go elsewhere may hold up a
// rebalance. It is well below the rebalance's own limit, after which the broker gives them to
// others in any case.
const (
	rebalance   = 30 * time.Second
	lastCommits = 20 * time.Second
)

// assign works on the partitions that the group gives to this member, until ctx ends. It is an
// Assign of package runner.
func (m *member) assign(ctx context.Context, w *runner.Workers) (err error) {
	m.begins(w)
	m.mu.Lock() // the callbacks, which use the client, wait until it is there
	m.client, err = kgo.NewClient(
		kgo.SeedBrokers(m.brokers...),
		kgo.ConsumerGroup(m.group), kgo.ConsumeTopics(m.topic), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(m.session), kgo.HeartbeatInterval(m.session/5), kgo.RebalanceTimeout(rebalance),
		kgo.DisableAutoCommit(),                     // how far the job is, its checkpoints say, and nobody else
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // where to read on, nobody but the checkpoint says
		kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxWait(500*time.Millisecond), // a partition that was paused is in the next fetch
		kgo.OnPartitionsAssigned(m.assigned), kgo.OnPartitionsRevoked(m.revoked), kgo.OnPartitionsLost(m.lost),
	)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	polling, stop := context.WithCancel(ctx)
	var polled sync.WaitGroup
	polled.Go(func() { m.poll(polling) })
	select {
	case err = <-m.failed:
	case <-ctx.Done():
	}
	stop()
	polled.Wait()
	m.client.CloseAllowingRebalance() // it leaves the group, which revokes all partitions
	return err
}

// reachable is how long a broker may take to answer when a worker begins.
const reachable = 5 * time.Second

// reach makes sure that a broker answers. A member of a group whose brokers are not there waits for
// them without a word: as it should when it has worked, but not if their addresses are wrong.
func reach(ctx context.Context, brokers []string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RequestRetries(0))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, reachable, fmt.Errorf("no answer within %v", reachable))
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("no broker can be reached at %s; start one, or set -brokers to the addresses of yours: %w", strings.Join(brokers, ","), err)
	}
	return nil
}

func (m *member) begins(w *runner.Workers) {
	m.workers, m.failed, m.wake = w, make(chan error, 1), func() {}
	m.shares, m.last = make(map[string]*share), make(map[string]*share)
}

// tell writes a line for people. Without it, the work goes on.
func (m *member) tell(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = fmt.Fprintf(m.out, format+"\n", args...)
}

// fail ends the member.
func (m *member) fail(err error) {
	select {
	case m.failed <- err:
	default: // it ends already
	}
}

// poll hands the records that are fetched to the counters. Between a poll and AllowRebalance no
// partition comes or goes.
func (m *member) poll(ctx context.Context) {
	for ctx.Err() == nil {
		waiting, wake := context.WithCancel(ctx)
		m.mu.Lock()
		m.wake = wake
		if m.anyRestored() {
			wake()
		}
		m.mu.Unlock()
		fetches := m.client.PollRecords(waiting, 1000)
		wake()
		fetches.EachError(m.failedFetch)
		m.mu.Lock()
		fetches.EachPartition(m.deliver)
		m.fetch()
		m.mu.Unlock()
		m.client.AllowRebalance()
	}
}

// failedFetch is told what went wrong with fetches, but for what the client tries again itself.
func (m *member) failedFetch(topic string, partition int32, err error) {
	session := (*kgo.ErrGroupSession)(nil)
	switch {
	case errors.Is(err, context.Canceled): // the poll was to end
	case errors.As(err, &session): // the client joins anew
		m.log.Warn("the group does not know this member", "err", err)
	default:
		m.fail(fmt.Errorf("reading partition %d of %q: %w", partition, topic, err))
	}
}

func (m *member) anyRestored() bool {
	for _, s := range m.shares {
		if s.restored {
			return true
		}
	}
	return false
}

// queueLimit is how many records of a partition wait for its counter at most, but for those of
// one poll.
const queueLimit = 5000

// deliver hands the records of a partition to its counter. What was fetched for a counter that
// works on it no more is left aside: the next one has them fetched anew. So is what comes with an
// error, of which failedFetch is told.
func (m *member) deliver(fetched kgo.FetchTopicPartition) {
	s := m.shares[taskOf(fetched.Partition)]
	if s == nil || !s.reading || fetched.Err != nil {
		return
	}
	if n := s.queue.put(fetched.Records); n > queueLimit && !s.full {
		s.full = true
		m.client.PauseFetchPartitions(m.only(s))
	}
}

// fetch has the records of partitions fetched that were restored meanwhile, from their
// checkpoint's offset on.
func (m *member) fetch() {
	for _, s := range m.shares {
		if !s.restored {
			continue
		}
		m.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{m.topic: {s.partition: {Epoch: -1, Offset: s.from}}})
		m.client.ResumeFetchPartitions(m.only(s))
		s.restored, s.reading = false, true
	}
}

// drained is called by a counter that has little left.
func (m *member) drained(q *queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.shares {
		if s.queue == q && s.full {
			s.full = false
			m.client.ResumeFetchPartitions(m.only(s))
		}
	}
}

// opened is called by a counter that was restored, and waits for records from an offset on.
func (m *member) opened(task string, from int64) (*queue, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shares[task]
	if s == nil {
		return nil, fmt.Errorf("%s was given to another member while it was restored", task)
	}
	s.queue, s.from, s.restored = newQueue(), from, true
	m.wake()
	return s.queue, nil
}

// assigned is told of partitions that this member gains, before they are fetched. It returns at
// once: they are paused until they are restored, however long that takes.
func (m *member) assigned(_ context.Context, client *kgo.Client, gained map[string][]int32) {
	client.PauseFetchPartitions(gained)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, partition := range gained[m.topic] {
		ctx, end := context.WithCancelCause(m.workers.Grace()) // which is over last
		s := &share{task: taskOf(partition), partition: partition, end: end, ended: make(chan struct{})}
		s.before = m.last[s.task]
		m.shares[s.task], m.last[s.task] = s, s
		go m.work(ctx, s) //nolint:contextcheck // the callback's context is the client's
	}
}

// again is how long a task that has ended by itself is left alone.
const again = time.Second

// work works on a partition until it goes elsewhere.
func (m *member) work(ctx context.Context, s *share) {
	defer close(s.ended)
	if s.before != nil { // the partition is back before its last commit is over
		<-s.before.ended
		s.before = nil
	}
	for ctx.Err() == nil {
		err := m.workers.Start(ctx, s.task)
		if err == nil {
			<-m.workers.Done(s.task)
		}
		m.hold(s)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, backend.ErrInvalid): // it can never be started
			m.fail(err)
			return
		case err != nil:
			m.log.Warn("a task could not be started; it is tried again", "task", s.task, "err", err)
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
}

// hold has no more records of a partition fetched: nobody works on it.
func (m *member) hold(s *share) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shares[s.task] == s {
		m.client.PauseFetchPartitions(m.only(s))
	}
	s.queue, s.restored, s.reading, s.full = nil, false, false, false
}

// revoked is told of partitions that are to go elsewhere: the next member gets them when it has
// returned. So their last commits are made here.
func (m *member) revoked(_ context.Context, _ *kgo.Client, going map[string][]int32) {
	m.give(going, runner.ErrReleased, m.workers.Stop) //nolint:contextcheck // likewise: last commits have the time of grace
}

// lost is told of partitions that others may have already.
func (m *member) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	m.give(gone, runner.ErrAbandoned, m.workers.Lost) //nolint:contextcheck // likewise
}

// give ends the work on partitions, and waits until it has ended.
func (m *member) give(going map[string][]int32, why error, end func(context.Context, string) error) {
	ctx, cancel := context.WithTimeout(m.workers.Grace(), lastCommits)
	defer cancel()
	var ending sync.WaitGroup
	for _, partition := range going[m.topic] {
		m.mu.Lock()
		s := m.shares[taskOf(partition)]
		delete(m.shares, taskOf(partition))
		m.mu.Unlock()
		if s == nil {
			continue
		}
		ending.Go(func() {
			s.end(why) // end does not see a start that has not begun yet
			if err := end(ctx, s.task); err != nil {
				m.log.Warn("a partition goes elsewhere without a last commit; the next member goes on from the one before", "task", s.task, "err", err)
			}
			select {
			case <-s.ended:
			case <-ctx.Done():
			}
		})
	}
	ending.Wait()
}

func (m *member) only(s *share) map[string][]int32 {
	return map[string][]int32{m.topic: {s.partition}}
}

// begin returns where to begin to read a partition. The broker says what it has; where to begin
// in that, the checkpoint says, or the rules for where there is none.
func (m *member) begin(ctx context.Context, task string, restored *runner.Restored) (int64, error) {
	first, next, err := m.bounds(ctx, task)
	if err != nil {
		return 0, err
	}
	start, err := restored.Start(task)
	if err != nil {
		return 0, err
	}
	if start.At == runner.Checkpointed {
		offset, err := strconv.ParseInt(start.Offset, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("offset %q of %s is no number: %w", start.Offset, task, err)
		}
		if first <= offset && offset <= next {
			return offset, nil
		}
		if start, err = restored.OutOfRange(task); err != nil {
			return 0, err
		}
	}
	switch start.At {
	case runner.Oldest:
		return first, nil
	case runner.Newest:
		return next, nil
	}
	return 0, fmt.Errorf("%s cannot begin at %q: use an offset, the oldest or the newest event", task, start.At)
}

// bounds returns the first offset that a partition has, and the one that its next record gets.
func (m *member) bounds(ctx context.Context, task string) (first, next int64, err error) {
	partition, err := partitionOf(task)
	if err != nil {
		return 0, 0, err
	}
	admin := kadm.NewClient(m.client)
	for _, bound := range []struct {
		is   *int64
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
	}{{&first, admin.ListStartOffsets}, {&next, admin.ListEndOffsets}} {
		offsets, err := bound.list(ctx, m.topic)
		if err != nil {
			return 0, 0, err
		}
		at, ok := offsets.Lookup(m.topic, partition)
		switch {
		case !ok:
			return 0, 0, fmt.Errorf("topic %s has no partition %d", m.topic, partition)
		case at.Err != nil:
			return 0, 0, at.Err
		}
		*bound.is = at.Offset
	}
	return first, next, nil
}

// Each partition of the topic is a task of the job.
const taskPrefix = "clicks/"

func taskOf(partition int32) string { return taskPrefix + strconv.Itoa(int(partition)) }

func partitionOf(task string) (int32, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(task, taskPrefix), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no partition of the topic: %w", task, err)
	}
	return int32(n), nil
}

// A queue has the records of a partition that were fetched, and not counted yet.
type queue struct {
	mu      sync.Mutex
	records []*kgo.Record
	more    chan struct{} // has an element if records has one, and sometimes if not
}

func newQueue() *queue { return &queue{more: make(chan struct{}, 1)} }

// put adds records, and returns how many there are.
func (q *queue) put(records []*kgo.Record) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.records = append(q.records, records...)
	q.tell()
	return len(q.records)
}

// tell says that there are records, if there are. The caller holds q.mu.
func (q *queue) tell() {
	if len(q.records) == 0 {
		return
	}
	select {
	case q.more <- struct{}{}:
	default: // it is said already
	}
}

// take waits for records, and takes some of them. left is how many there are still.
func (q *queue) take(ctx context.Context, most int) (records []*kgo.Record, left int, err error) {
	select {
	case <-q.more:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(most, len(q.records))
	records, q.records = slices.Clone(q.records[:n]), q.records[n:]
	q.tell()
	return records, len(q.records), nil
}
