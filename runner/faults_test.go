package runner

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// The runner's state machine under faults: whatever fails and when, what was
// acknowledged is in the newest checkpoint, offsets and state belong together,
// every cut is done with once, and a task that can go on does.

// A witness follows one task through its owners.
type witness struct {
	*world
	store *faultstore.Store
	job   *checkpoint.Job

	mu    sync.Mutex
	acked int // the largest number that anyone was told is committed
	hosts []*host
}

func (w *witness) acknowledge(c *checkpoint.Checkpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	_, _ = fmt.Sscan(c.Offsets["in"], &n)
	w.acked = max(w.acked, n)
}

// life owns the task once, works for some time, and releases it. It returns the
// error of Own or of Release.
func (w *witness) life(opts Options) error {
	r := w.runner(w.job, opts)
	task, h, err := w.tryOwn(r, "a", func(s *Spec) {
		s.Hooks.After = func(_ context.Context, c *checkpoint.Checkpoint) error {
			w.acknowledge(c)
			return nil
		}
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	if h.n < w.acked {
		w.t.Errorf("it goes on from %d, and %d was acknowledged", h.n, w.acked)
	}
	w.hosts = append(w.hosts, h)
	w.mu.Unlock()
	for i := range 12 {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
		if err := h.add(ctx, task); err != nil {
			if task.Context().Err() == nil {
				w.t.Errorf("step %d was held back for half an hour: %v", i, err)
			}
			cancel()
			break
		}
		if i == 6 {
			if c, err := task.Commit(ctx); err == nil {
				w.acknowledge(c)
			}
		}
		cancel()
		time.Sleep(time.Second)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	err = task.Release(ctx)
	<-task.Done()
	if _, n := w.latest("a"); err == nil && n != h.n {
		w.t.Errorf("%d is committed of %d, and the release has no error", n, h.n)
	}
	return err
}

// recover goes on with a store that works, and checks what is there.
func (w *witness) recover() {
	w.job = w.world.job()
	if err := w.life(Options{Interval: 5 * time.Second, Logger: silent}); err != nil {
		w.t.Errorf("recovery: %v", err)
	}
	for i, h := range w.hosts {
		h.mu.Lock()
		if h.inUse != 0 || !h.closed {
			w.t.Errorf("owner %d has %d cuts in use, closed: %v", i, h.inUse, h.closed)
		}
		h.mu.Unlock()
	}
}

func newWitness(w *world) *witness {
	v := &witness{world: w}
	v.job = w.job(faulty(&v.store))
	return v
}

// troubles are the kinds of fault, with what makes sense for each: a store that
// stores other bytes than it was given breaks its promise.
var troubles = []faultstore.Fault{
	{Kind: faultstore.FailBefore},
	{Kind: faultstore.FailBefore, Err: backend.ErrPermission},
	{Kind: faultstore.FailBefore, Err: backend.ErrNoSpace},
	{Kind: faultstore.FailBefore, Err: backend.ErrThrottled},
	{Kind: faultstore.LoseReply},
	{Kind: faultstore.LoseReply, Err: context.DeadlineExceeded},
	{Kind: faultstore.Zombie},
	{Kind: faultstore.Delay, For: 2 * time.Minute},
	{Kind: faultstore.Truncate, Verb: "get"},
	{Kind: faultstore.Truncate, Verb: "list"},
	{Kind: faultstore.Corrupt, Verb: "get"},
	{Kind: faultstore.CrashFirst},
	{Kind: faultstore.CrashAfter},
	{Kind: faultstore.CrashZombie},
}

// Every kind of fault at every call of two lives of a task, and then a recovery.
func TestEveryFaultAtEveryCall(t *testing.T) {
	underEveryFault(t, underFault)
}

// underEveryFault plays with each kind of fault at the first call, then at the second, up to
// the last. play reports whether the fault struck.
func underEveryFault(t *testing.T, play func(t *testing.T, w *world, fault faultstore.Fault) bool) {
	for _, fault := range troubles {
		name := string(fault.Kind) + " " + fault.Verb
		if fault.Err != nil {
			name += " " + fault.Err.Error()
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time is the disk's
			for fault.On = 1; ; fault.On++ {
				struck := false
				inWorld(t, func(t *testing.T, w *world) { struck = play(t, w, fault) })
				if !struck {
					break
				}
				if t.Failed() {
					t.Fatalf("at call %d", fault.On)
				}
			}
			t.Logf("%d calls", fault.On-1)
			if fault.On < 3 {
				t.Error("it struck hardly any call")
			}
		})
	}
}

// underFault reports whether the fault struck.
func underFault(t *testing.T, w *world, fault faultstore.Fault) bool {
	v := newWitness(w)
	v.store.Arm(fault)
	opts := Options{Interval: 5 * time.Second, CommitTimeout: time.Minute, Logger: silent}
	first := v.life(opts)
	second := v.life(opts)
	if len(v.store.Unfired()) > 0 {
		v.store.Disarm()
		if first != nil || second != nil {
			t.Errorf("without a fault: %v, %v", first, second)
		}
		return false
	}
	if first != nil && second != nil && !v.store.Crashed() {
		t.Errorf("one fault has failed two lives: %v; %v", first, second)
	}
	v.recover()
	if v.store.Land() > 0 { // what was late comes when others have long gone on
		v.recover()
	}
	return true
}

var faultSeeds = flag.Int("faults.n", 40, "how many random programs of faults TestRandomFaults runs")

// Many faults at once, drawn by a seed, with a second owner that may come.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(*faultSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				v := newWitness(w)
				chance := rand.New(rand.NewPCG(seed, 0))
				for i := range 3 {
					fault := troubles[chance.IntN(len(troubles)-3)] // no crash: nothing would come after it
					fault.OneIn, fault.Seed = 2+chance.IntN(20), seed*10+uint64(i)
					v.store.Arm(fault)
				}
				opts := Options{
					Interval: time.Duration(1+chance.IntN(10)) * time.Second, CommitTimeout: time.Minute,
					MaxDelay: time.Duration(5+chance.IntN(60)) * time.Second, MinPause: time.Duration(chance.IntN(3)) * time.Second,
					MaxFailures: chance.IntN(10), Logger: silent,
				}
				var rivals sync.WaitGroup
				for range 3 {
					if chance.IntN(2) == 0 {
						after := time.Duration(chance.IntN(60)) * time.Second
						rivals.Go(func() {
							time.Sleep(after)
							v.rival()
						})
					}
					_ = v.life(opts)
				}
				v.store.Disarm()
				rivals.Wait()
				v.recover()
				if v.store.Land() > 0 {
					v.recover()
				}
			})
		})
	}
}

// rival claims the task, and does nothing with it. It meets faults too.
func (w *witness) rival() {
	if owner, err := claim(context.Background(), w.job, "a", nil); err == nil {
		_ = owner.Close(context.Background())
	}
}
