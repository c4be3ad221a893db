package checkpoint_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

var (
	chaosFrom = flag.Int("chaos.from", 0, "first seed of TestChaos")
	chaosN    = flag.Int("chaos.n", 100, "number of seeds of TestChaos")
)

// audit watches what is applied to the bucket.
type audit struct {
	mu     sync.Mutex
	store  backend.Store
	newest uint64
	steps  map[uint64]*format.Manifest // the chain
	stale  int
	bad    []string
	log    []string
}

func (a *audit) created(key string, data []byte) {
	_, seq, ok := format.ParseManifestKey(key)
	if !ok {
		return
	}
	m, err := format.DecodeManifest(data, "orders/7", seq)
	if err != nil {
		a.bad = append(a.bad, err.Error())
		return
	}
	a.log = append(a.log, fmt.Sprintf("%v create %d %s epoch %d writer %s", time.Now().Format("15:04:05"), seq, m.Kind, m.Epoch, m.Writer))
	if seq <= a.newest {
		a.stale++
		a.log = append(a.log, "  (stale)")
		return
	}
	if seq != a.newest+1 {
		a.bad = append(a.bad, fmt.Sprintf("skipped from %d to %d", a.newest, seq))
	}
	a.newest, a.steps[seq] = seq, m
}

func segs(m *format.Manifest) map[string]bool {
	keys := map[string]bool{}
	if m.Checkpoint == nil {
		return keys
	}
	if m.Checkpoint.Content != nil {
		for _, s := range m.Checkpoint.Content.Segments {
			keys[format.SegmentKey(dir, s.ID)] = true
		}
	}
	for _, at := range m.Spilled() {
		keys[format.SegmentKey(dir, at.Segment)] = true
	}
	return keys
}

func (a *audit) deleted(key string) {
	m := a.steps[a.newest]
	if m == nil {
		return
	}
	needed := segs(m)
	manifests := map[string]bool{format.ManifestKey(dir, a.newest): true}
	all := []uint64{}
	if m.Checkpoint != nil {
		all = append(all, m.Checkpoint.Seq)
	}
	for _, r := range m.Retained {
		all = append(all, r.Seq)
	}
	for _, seq := range all {
		manifests[format.ManifestKey(dir, seq)] = true
		for k := range segs(a.steps[seq]) {
			needed[k] = true
		}
	}
	if needed[key] || manifests[key] {
		a.bad = append(a.bad, "deleted a live object: "+key)
	}
}

// chaotic is one process's way to the bucket.
type chaotic struct {
	backend.Store
	a   *audit
	mu  *sync.Mutex
	rnd *rand.Rand
}

var errNet = errors.New("network")

func (s chaotic) draw(n int) int { s.mu.Lock(); defer s.mu.Unlock(); return s.rnd.IntN(n) }

var pauses = []time.Duration{0, 0, 0, 0, 0, 0, 0, 0, time.Second, time.Minute, 20 * time.Minute, 40 * time.Minute, 70 * time.Minute, 3 * time.Hour}

func (s chaotic) pause(ctx context.Context) {
	if d := pauses[s.draw(len(pauses))]; d > 0 {
		time.Sleep(d)
	}
}

func (s chaotic) do(ctx context.Context, apply func() error) error {
	s.pause(ctx)
	switch s.draw(12) {
	case 0:
		return errNet
	case 1:
		_ = apply()
		s.pause(ctx)
		return errNet
	case 2:
		d := pauses[s.draw(len(pauses))]
		go func() { time.Sleep(d); _ = apply() }()
		s.pause(ctx)
		return errNet
	}
	err := apply()
	s.pause(ctx)
	return err
}

func (s chaotic) Create(ctx context.Context, key string, data []byte) (o backend.Object, err error) {
	data = append([]byte(nil), data...)
	var ob backend.Object
	var mu sync.Mutex
	err = s.do(ctx, func() error {
		s.a.mu.Lock()
		defer s.a.mu.Unlock()
		r, err := s.Store.Create(context.WithoutCancel(ctx), key, data)
		if err == nil {
			s.a.created(key, data)
		}
		mu.Lock()
		ob = r
		mu.Unlock()
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	return ob, err
}

func (s chaotic) Put(ctx context.Context, key string, data []byte) (o backend.Object, err error) {
	data = append([]byte(nil), data...)
	err = s.do(ctx, func() error {
		_, err := s.Store.Put(context.WithoutCancel(ctx), key, data)
		return err
	})
	return backend.Object{Key: key}, err
}

func (s chaotic) Get(ctx context.Context, key string, off int64, p []byte) (n int, err error) {
	s.pause(ctx)
	if s.draw(12) == 0 {
		return 0, errNet
	}
	n, err = s.Store.Get(context.WithoutCancel(ctx), key, off, p)
	s.pause(ctx)
	return n, err
}

func (s chaotic) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		s.pause(ctx)
		if s.draw(12) == 0 {
			yield(backend.Object{}, errNet)
			return
		}
		for o, err := range s.Store.List(context.WithoutCancel(ctx), prefix, after) {
			s.pause(ctx)
			if !yield(o, err) {
				return
			}
		}
	}
}

func (s chaotic) Delete(ctx context.Context, keys ...string) error {
	return s.do(ctx, func() error {
		s.a.mu.Lock()
		defer s.a.mu.Unlock()
		for _, key := range keys {
			s.a.deleted(key)
			if err := s.Store.Delete(context.WithoutCancel(ctx), key); err != nil {
				return err
			}
		}
		return nil
	})
}

type outcome struct {
	offset string
	err    error
	seq    uint64
}

// TestChaos lets three processes claim, commit, save, release and read one task,
// over a store that loses replies, applies requests late and makes processes
// sleep for up to three hours at each request. An audit of what is applied
// checks that the history is one chain, that nothing live is deleted, and that
// what was acknowledged was made. A failing seed is run again by
// -chaos.from SEED -chaos.n 1.
func TestChaos(t *testing.T) {
	for seed := *chaosFrom; seed < *chaosFrom+*chaosN; seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, uint64(seed)) })
		})
		if !ok {
			break
		}
	}
}

func chaos(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	bucket := mem.NewBucket(time.Now)
	a := &audit{store: bucket.Open(), steps: map[uint64]*format.Manifest{}}
	var mu sync.Mutex
	var outcomes []outcome
	n := 0
	snap := func() (checkpoint.Snapshot, string) {
		mu.Lock()
		defer mu.Unlock()
		n++
		return with(n, []int{0, 20 << 10, 20 << 10}[n%3]), fmt.Sprint(n)
	}
	var wg sync.WaitGroup
	for p := range 3 {
		r := rand.New(rand.NewPCG(seed, uint64(p)+2))
		opts := checkpoint.Options{
			Retention: checkpoint.Retention{Last: 1 + rnd.IntN(3)}, Logger: slog.New(slog.DiscardHandler),
			Backoff: backend.Backoff{Attempts: 1 + rnd.IntN(4)},
		}
		wg.Go(func() {
			var rmu sync.Mutex
			for life := 0; life < 3; life++ {
				store := chaotic{Store: bucket.Open(), a: a, mu: &rmu, rnd: r}
				job := checkpoint.New(store, opts)
				task, _ := job.Task("orders/7")
				if store.draw(3) == 0 {
					s, off := snap()
					c, err := task.Save(context.Background(), s)
					mu.Lock()
					out := outcome{offset: off, err: err}
					if err == nil {
						out.seq = c.Seq
					}
					outcomes = append(outcomes, out)
					mu.Unlock()
					continue
				}
				o, err := task.Claim(context.Background())
				if err != nil {
					continue
				}
				for range 4 {
					s, off := snap()
					c, err := o.Commit(context.Background(), s)
					mu.Lock()
					out := outcome{offset: off, err: err}
					if err == nil {
						out.seq = c.Seq
					}
					outcomes = append(outcomes, out)
					mu.Unlock()
					if errors.Is(err, checkpoint.ErrFenced) {
						break
					}
				}
				_ = o.Close()
			}
		})
	}
	wg.Wait()
	time.Sleep(100 * time.Hour)
	synctest.Wait()
	at := map[string]uint64{}
	for seq, m := range a.steps {
		if m.Kind == format.KindCommit && m.Checkpoint.Content != nil {
			at[m.Checkpoint.Content.Offsets["in"]] = seq
		}
	}
	for _, o := range outcomes {
		seq, is := at[o.offset]
		switch {
		case o.err == nil && (!is || seq != o.seq):
			a.bad = append(a.bad, fmt.Sprintf("commit of %s acknowledged as %d; in the history as %d", o.offset, o.seq, seq))
		case o.err != nil && !errors.Is(o.err, checkpoint.ErrUnknown) && is:
			a.bad = append(a.bad, fmt.Sprintf("commit of %s failed with %v; in the history as %d", o.offset, o.err, seq))
		}
	}
	// what is retained is whole
	task, _ := checkpoint.New(bucket.Open(), checkpoint.Options{}).Task("orders/7")
	list, err := task.Checkpoints(context.Background())
	if err != nil && !errors.Is(err, checkpoint.ErrNoCheckpoint) {
		a.bad = append(a.bad, err.Error())
	}
	for _, c := range list {
		if c.Bytes == 0 {
			continue
		}
		fsys, err := c.FS(context.Background())
		if err == nil {
			_, err = fsys.Stat("s")
		}
		if err == nil {
			f, _ := fsys.Open("s")
			_, err = f.Read(make([]byte, 10))
		}
		if err != nil {
			a.bad = append(a.bad, fmt.Sprintf("checkpoint %d: %v", c.Seq, err))
		}
	}
	if len(a.bad) > 0 {
		t.Errorf("seed %d: %s\n%s", seed, strings.Join(a.bad, "\n"), strings.Join(a.log, "\n"))
	}
	if seed%100 == 0 {
		acked := 0
		for _, o := range outcomes {
			if o.err == nil {
				acked++
			}
		}
		t.Logf("seed %d: %d outcomes, %d acknowledged, %d steps, %d stale", seed, len(outcomes), acked, len(a.steps), a.stale)
	}
}
