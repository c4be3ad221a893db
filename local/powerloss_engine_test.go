package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/powerloss"
)

// A clock is the store's clock, set by the test: it decides what is old enough to be
// deleted.
type clock struct {
	mu   sync.Mutex
	now  time.Time
	made map[string]time.Time // by key
}

func newClock() *clock {
	return &clock{now: time.Now(), made: make(map[string]time.Time)}
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// after returns a clock that starts d after the present time of c.
func (c *clock) after(d time.Duration) *clock {
	return &clock{now: c.now.Add(d), made: maps.Clone(c.made)}
}

// of returns the object with the time at which it was made, which is now if it is
// unknown.
func (c *clock) of(o backend.Object) backend.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.made[o.Key]; !ok {
		c.now = c.now.Add(time.Millisecond)
		c.made[o.Key] = c.now
	}
	o.ModTime = c.made[o.Key]
	return o
}

// A clocked store gives objects the times of a clock.
type clocked struct {
	backend.Store
	clock *clock
}

func (s clocked) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.Store.Create(ctx, key, data)
	if err != nil {
		return o, err
	}
	return s.clock.of(o), nil
}

func (s clocked) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.Store.Put(ctx, key, data)
	if err != nil {
		return o, err
	}
	return s.clock.of(o), nil
}

func (s clocked) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		for o, err := range s.Store.List(ctx, prefix, after) {
			if err == nil {
				o = s.clock.of(o)
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// progress says how far a job has come: told is the last checkpoint that was
// acknowledged, begun the last one that was begun.
type progress struct{ told, begun int }

// A job runs the engine on stores whose steps are recorded.
type job struct {
	*tape[progress]
	clock *clock
	at    progress
}

func newJob(t testing.TB) *job {
	j := &job{tape: newTape(t, &progress{}), clock: newClock()}
	j.remains.Trim = func(t powerloss.Tree) powerloss.Tree { return t.Without("store/" + tempDir) }
	return j
}

const engineTask = "orders/7"

func engine(t testing.TB, s *Store, c *clock) *checkpoint.Task {
	t.Helper()
	job, err := checkpoint.New(clocked{s, c}, checkpoint.Options{
		Memory: 1 << 20, Retention: checkpoint.Retention{Last: 2},
		Backoff: backend.Backoff{Attempts: 1}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	task, err := job.Task(engineTask)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// snapshot returns the n-th snapshot. Some need more than one segment, some fit into
// the manifest. Data that two successive ones share is stored once.
func snapshot(n int) checkpoint.Snapshot {
	return checkpoint.Snapshot{
		Offsets: map[string]string{"in": strconv.Itoa(n)},
		State:   checkpoint.FS(stateOf(n)),
	}
}

func stateOf(n int) fstest.MapFS {
	state := fstest.MapFS{"n": {Data: []byte(strconv.Itoa(n)), Mode: 0o644}}
	if n%3 != 0 {
		state["grows"] = &fstest.MapFile{Data: noise(1, 20<<10+n*1000), Mode: 0o644}
		state["changes"] = &fstest.MapFile{Data: noise(uint64(n), 50<<10), Mode: 0o644}
	}
	return state
}

func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(data) // never fails
	return data
}

func (j *job) process(broken func(stepFunc) stepFunc) (*checkpoint.Task, *Store) {
	s := j.open(broken)
	return engine(j.t, s, j.clock), s
}

// save saves the next checkpoint. Once it has begun, it may be found; once it is
// acknowledged, it or a later one must be found.
func (j *job) save(do func(context.Context, checkpoint.Snapshot) (*checkpoint.Checkpoint, error)) {
	j.t.Helper()
	n := j.at.begun + 1
	j.tell(progress{told: j.at.told, begun: n})
	if _, err := do(context.Background(), snapshot(n)); err != nil {
		j.t.Fatal(err)
	}
	j.tell(progress{told: n, begun: n})
}

func (j *job) tell(at progress) {
	j.at = at
	j.promise(&at)
}

func (j *job) claim(task *checkpoint.Task) *checkpoint.Owner {
	j.t.Helper()
	o, err := task.Claim(context.Background(), checkpoint.ClaimOptions{})
	if err != nil {
		j.t.Fatal(err)
	}
	return o
}

func (j *job) end(s *Store, owners ...*checkpoint.Owner) {
	j.t.Helper()
	var errs []error
	for _, o := range owners {
		errs = append(errs, o.Close(context.Background()))
	}
	if err := errors.Join(append(errs, s.Close())...); err != nil {
		j.t.Error(err)
	}
}

// run is the life of a job: owners follow one another, a one-off save comes in
// between, objects become older than the fence window, a pruning removes checkpoints,
// and a collector runs when a commit is half done. broken and brokenCollector change
// the step functions of the job's own processes, and of the collector.
func (j *job) run(broken, brokenCollector func(stepFunc) stepFunc) {
	task, one := j.process(broken)
	first := j.claim(task)
	for range 5 {
		j.save(first.Commit)
	}
	task, two := j.process(broken)
	second := j.claim(task)
	j.save(second.Commit)
	if _, err := first.Commit(context.Background(), snapshot(100)); !errors.Is(err, checkpoint.ErrFenced) {
		j.t.Errorf("the first owner commits: %v", err)
	}
	j.end(one, first)
	j.clock.advance(2 * checkpoint.FenceWindow)
	j.save(second.Commit)
	j.save(second.Commit)
	j.end(two, second)

	task, three := j.process(broken)
	j.save(func(ctx context.Context, s checkpoint.Snapshot) (*checkpoint.Checkpoint, error) {
		return task.Save(ctx, s, checkpoint.SaveOptions{Fence: true})
	})
	if _, err := task.Prune(context.Background(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{}); err != nil {
		j.t.Error(err)
	}
	j.end(three)

	task, four := j.process(broken)
	third := j.claim(task)
	j.save(third.Commit)
	other, five := j.process(brokenCollector)
	for range 3 {
		j.clock.advance(2 * checkpoint.FenceWindow)
		j.atStep(four, "syncdir", manifests, func() { j.collect(other) })
		j.save(third.Commit)
	}
	if err := third.Release(context.Background()); err != nil {
		j.t.Error(err)
	}
	j.collect(other)
	j.end(four, third)
	j.end(five)
}

const manifests = "orders_2f7/manifests"

func (j *job) collect(task *checkpoint.Task) {
	if _, err := task.Collect(context.Background(), checkpoint.CollectOptions{}); err != nil {
		j.t.Error(err)
	}
}

// look compares a state that can be left with what was promised.
func (j *job) look(base string) (func(*progress) string, error) {
	n, err := j.newest(j.t, base)
	return func(p *progress) string { return behind(n, p) }, err
}

// newest returns the number of the newest checkpoint. It reads all of it, and checks
// that the task can go on, that nothing is damaged, and that no garbage is left.
func (j *job) newest(t testing.TB, base string) (int, error) {
	s, err := New(filepath.Join(base, "store"))
	if err != nil {
		return 0, err
	}
	defer mustClose(t, s)
	s.step = unsynced
	task, ctx := engine(t, s, j.clock.after(time.Minute)), context.Background()
	n, err := newestState(ctx, task)
	if err != nil {
		return 0, err
	}
	if err := verified(ctx, task); err != nil {
		return 0, err
	}
	o, err := task.Claim(ctx, checkpoint.ClaimOptions{})
	if err != nil {
		return 0, err
	}
	if _, err := o.Commit(ctx, snapshot(1000)); err != nil {
		return 0, errors.Join(err, o.Close(context.Background()))
	}
	if err := errors.Join(o.Release(ctx), o.Close(context.Background())); err != nil {
		return 0, err
	}
	if now, err := newestState(ctx, task); err != nil || now != 1000 {
		return 0, fmt.Errorf("after the next commit: %d, %w", now, err)
	}
	return n, nil
}

// newestState returns the number of the newest state, or 0 if there is none. It reads
// all of it.
func newestState(ctx context.Context, task *checkpoint.Task) (int, error) {
	c, err := task.Latest(ctx)
	if errors.Is(err, checkpoint.ErrNoCheckpoint) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(c.Offsets["in"])
	if err != nil {
		return 0, err
	}
	got, err := c.FS(ctx)
	if err != nil {
		return 0, err
	}
	want := stateOf(n)
	if c.Files != len(want) {
		return 0, fmt.Errorf("state %d has %d files", n, c.Files)
	}
	for name, f := range want {
		if data, err := fs.ReadFile(got, name); err != nil || !bytes.Equal(data, f.Data) {
			return 0, fmt.Errorf("state %d: %s: %w, or another one", n, name, err)
		}
	}
	return n, nil
}

// verified returns an error if anything of any checkpoint is damaged.
func verified(ctx context.Context, task *checkpoint.Task) error {
	report, err := task.Verify(ctx, checkpoint.VerifyOptions{Data: true})
	if errors.Is(err, checkpoint.ErrNoCheckpoint) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(report.OtherObjects) > 0 {
		return fmt.Errorf("there is %q", report.OtherObjects)
	}
	return report.Err()
}

func behind(n int, p *progress) string {
	if n < p.told || n > p.begun {
		return fmt.Sprintf("the newest is %d; %d was told, %d begun", n, p.told, p.begun)
	}
	return ""
}

// TestPowerLossOfAJob simulates a loss of power after every step of the real engine.
// The job must be able to go on from every state that can be left.
//
// Deletions are not fsynced, so any combination of deleted objects may come back.
// That does no harm:
//
//   - A manifest that comes back has a lower number than the newest manifest, which was
//     durable before the deletion. No retained list contains it: a retained list was
//     durable too, and only ever loses members. Readers begin at the newest manifest and
//     read what it retains. A collector finds the same garbage as before: its time, the
//     change time of its inode, is not earlier than it was.
//   - The number of a deleted manifest is free only after the fence window. If a writer
//     that was suspended uses that number and the manifest has come back, its Create
//     fails and it is fenced; if the number is free, the rule of the fence window fences
//     it. If its Create had succeeded, the fsync of the directory had made the deletion
//     durable as well.
//   - A segment that comes back has a name that is never used again, and no manifest
//     names it. It is garbage by its epoch and writer, or becomes so with the next claim
//     if it belonged to the present owner, which has died.
func TestPowerLossOfAJob(t *testing.T) {
	j := newJob(t)
	j.run(passOn, passOn)
	if err := j.check(j.look); err != nil {
		t.Error(err)
	}
	t.Logf("%d moments, %d states", j.remains.Moments, j.remains.States)
}

func TestPowerLossOfAJobFindsMistakes(t *testing.T) {
	run := func(name string, broken, brokenCollector func(stepFunc) stepFunc) {
		t.Run(name, func(t *testing.T) {
			j := newJob(t)
			j.run(broken, brokenCollector)
			if what := j.check(j.look); what == nil || errors.Is(what, powerloss.ErrTooMany) {
				t.Errorf("no promise is broken in %d states; %v", j.remains.States, what)
			} else {
				t.Log(what)
			}
		})
	}
	run("file not fsynced", forget("sync", ""), passOn)
	run("manifests' directory not fsynced", forget("syncdir", manifests), passOn)
	run("segments' directory not fsynced", forget("syncdir", "orders_2f7/segments"), passOn)
	run("new directory not fsynced", forget("syncdir", "orders_2f7"), passOn)
	run("what was found not fsynced by who deletes", passOn, forget("syncdir", manifests))
}
