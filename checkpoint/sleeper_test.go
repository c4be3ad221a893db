package checkpoint_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A sleepers is a task whose history goes on while one process sleeps: for so long
// that manifests are deleted, and other processes that slept as well make late
// manifests under numbers that are free again.
type sleepers struct {
	*world
	audit *audit
	nap
	owner  *checkpoint.Owner
	passed int
	states atomic.Int64

	passing chan struct{} // a lock that can be waited for in the bubble

	mu    sync.Mutex
	calls int // requests of the process under test; negative while they are not counted
}

// A nap says when a process sleeps, and what happens meanwhile.
type nap struct {
	requests [2]int      // it sleeps before these requests
	commits  [2]int      // the number of commits during each sleep
	late     format.Kind // the late manifests that others send at the end of the first sleep
	keep     int         // the number of checkpoints that are kept
	change   bool        // states differ
	back     bool        // a new owner rolls back
	started  bool        // the owner has committed before
}

func newSleepers(w *world, n nap) *sleepers {
	s := &sleepers{world: w, nap: n, audit: newAudit(w.bucket, time.Now), calls: -1, passing: make(chan struct{}, 1)}
	s.audit.last = n.keep
	return s
}

// task opens the task. before is called with each request.
func (s *sleepers) task(before func()) *checkpoint.Task {
	store := hooked{s.audit.open(), func(string, string) { before() }}
	opts := checkpoint.Options{Retention: checkpoint.Retention{Last: s.keep}, Logger: s.audit.logger()}
	task, err := newJob(s, store, opts).Task("orders/7")
	if err != nil {
		s.Fatal(err)
	}
	return task
}

func awake() {}

// state returns a snapshot: the same state for equal data, unless states must differ.
func (s *sleepers) state(data string) (checkpoint.Snapshot, string) {
	if s.change {
		data = fmt.Sprint(s.states.Add(1))
	}
	var seed [32]byte
	copy(seed[:], data)
	random := make([]byte, 20<<10) // too large for a manifest
	_, _ = rand.NewChaCha8(seed).Read(random)
	return s.audit.snapshot(fstest.MapFS{"s": {Data: random, Mode: 0o644}})
}

func (s *sleepers) save(task *checkpoint.Task, data string) error {
	snapshot, offset := s.state(data)
	c, err := task.Save(s.Context(), snapshot, checkpoint.SaveOptions{Fence: true})
	s.audit.tell(offset, c, err)
	return err
}

func (s *sleepers) commit(o *checkpoint.Owner, data string) error {
	snapshot, offset := s.state(data)
	c, err := o.Commit(s.Context(), snapshot)
	s.audit.tell(offset, c, err)
	return err
}

// request is called before each request of the process under test.
func (s *sleepers) request() {
	s.mu.Lock()
	if s.calls >= 0 {
		s.calls++
	}
	sleeps := slices.Contains(s.requests[:], s.calls)
	s.mu.Unlock()
	if sleeps {
		s.pass()
	}
}

// pass lets time pass, with everything that happens meanwhile.
func (s *sleepers) pass() {
	s.passing <- struct{}{}
	defer func() { <-s.passing }()
	commits := s.commits[min(s.passed, 1)]
	if s.passed++; s.newest().Epoch != s.owner.Epoch() {
		s.goOn()
	}
	for range commits {
		time.Sleep(2 * checkpoint.FenceWindow)
		if err := s.commit(s.owner, "same"); errors.Is(err, checkpoint.ErrFenced) {
			s.goOn()
		} else if err != nil {
			s.Error(err)
		}
		time.Sleep(time.Minute) // for the clean-up
	}
	if _, err := s.task(awake).Collect(s.Context(), checkpoint.CollectOptions{}); err != nil {
		s.Error(err)
	}
	if s.passed == 1 {
		s.makeLate()
	}
}

// goOn lets another owner go on, after a save.
func (s *sleepers) goOn() {
	task := s.task(awake)
	if !s.back {
		err := s.save(task, "same")
		if err == nil || errors.Is(err, checkpoint.ErrConflict) {
			s.owner, err = task.Claim(s.Context(), checkpoint.ClaimOptions{})
		}
		if err != nil {
			s.Error(err)
		}
		return
	}
	list, err := task.List(s.Context())
	if err == nil {
		s.owner, err = task.Claim(s.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(list[len(list)-1].Seq)})
	}
	if err != nil {
		s.Error(err)
	}
}

// newest returns the newest manifest.
func (s *sleepers) newest() *auditManifest {
	s.audit.mu.Lock()
	defer s.audit.mu.Unlock()
	return s.audit.newest
}

// makeLate makes a late manifest under every number that is free again, by a writer
// that had read the manifest before it when that was the newest.
func (s *sleepers) makeLate() {
	s.audit.mu.Lock()
	committed := maps.Clone(s.audit.committed)
	s.audit.mu.Unlock()
	for seq := uint64(2); seq < s.newest().Seq; seq++ {
		base := committed[seq-1]
		if base == nil || base.Checkpoint == nil || s.exists(format.ManifestKey(dir, seq)) {
			continue
		}
		m := *base.Manifest
		c := *m.Checkpoint
		m.Kind, m.Seq, m.Epoch, m.Writer, m.Checkpoint = s.late, seq, m.Epoch+1, format.WriterID{0xee, byte(seq)}, &c
		if c.Seq == base.Seq {
			c.Time = base.made
		}
		if m.Kind == format.KindCommit {
			m.Retained = append([]format.Retained{c.Retained()}, m.Retained...)
			c.Seq, c.Epoch, c.Content, c.ContentAt = seq, m.Epoch, &format.Content{Offsets: at(0).Offsets}, nil
		}
		data, err := m.Encode()
		if err == nil {
			_, err = s.audit.open().Create(s.Context(), format.ManifestKey(dir, seq), data)
		}
		if err != nil {
			s.Error(err)
		}
	}
}

// end checks that everything is in order.
func (s *sleepers) end() {
	s.goOn()
	if err := s.commit(s.owner, "same"); err != nil {
		s.Error(err)
	}
	if err := s.owner.Close(context.Background()); err != nil {
		s.Error(err)
	}
	list, err := s.task(awake).List(s.Context())
	if err != nil || len(list) == 0 {
		s.Errorf("%d checkpoints, %v", len(list), err)
	}
	for _, c := range list {
		if err := s.audit.wantWhole(s.Context(), c); err != nil {
			s.Error(err)
		}
	}
	s.audit.end()
	if bad := s.audit.report(); bad != "" {
		s.Error(bad)
	}
}

// naps is how many naps each kind of work is tried with.
var naps = flag.Int("naps", 100, "how many naps each kind of work is tried with")

// A process that sleeps for hours before any two requests does no harm. It may return
// an error because it was overtaken; only if it reports a success, that must be true.
func TestSleepBeforeTwoRequests(t *testing.T) {
	for name, work := range map[string]func(*sleepers, *checkpoint.Task) error{
		"collect": func(s *sleepers, task *checkpoint.Task) error {
			return second(task.Collect(s.Context(), checkpoint.CollectOptions{}))
		},
		"go back": func(s *sleepers, task *checkpoint.Task) error {
			return second(task.Rollback(s.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{Fence: true}))
		},
		"save": func(s *sleepers, task *checkpoint.Task) error { return s.save(task, "other") },
		"own": func(s *sleepers, task *checkpoint.Task) error {
			o, err := task.Claim(s.Context(), checkpoint.ClaimOptions{})
			if err != nil {
				return err
			}
			for n := range 3 {
				err = errors.Join(err, s.commit(o, fmt.Sprint("other ", n)))
			}
			return errors.Join(err, o.Close(context.Background()))
		},
		"prune": func(s *sleepers, task *checkpoint.Task) error {
			return second(task.Prune(s.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{}))
		},
		"amend": func(s *sleepers, task *checkpoint.Task) error {
			_, err := task.AddSavepoint(s.Context(), "x", checkpoint.SavepointOptions{})
			if err == nil && !slices.ContainsFunc(s.newest().all, func(r format.Retained) bool { return r.Savepoint == "x" }) {
				s.Error("the savepoint was acknowledged, but does not exist")
			}
			return err
		},
		"own, amended": func(s *sleepers, task *checkpoint.Task) error {
			o, err := task.Claim(s.Context(), checkpoint.ClaimOptions{})
			if err != nil {
				return err
			}
			for n := range 3 {
				err = errors.Join(err, s.commit(o, fmt.Sprint("other ", n)))
				_, _ = s.task(awake).AddSavepoint(s.Context(), fmt.Sprint("x", n), checkpoint.SavepointOptions{})
				if n == 1 {
					_, _ = s.task(awake).Prune(s.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})
				}
			}
			return errors.Join(err, o.Close(context.Background()))
		},
		"repair": func(s *sleepers, task *checkpoint.Task) error {
			r, err := task.Verify(s.Context(), checkpoint.VerifyOptions{Data: true})
			if err != nil {
				return err
			}
			if err := r.Err(); err != nil {
				s.Error(err)
			}
			return second(task.Repair(s.Context(), r, checkpoint.RepairOptions{Fence: true}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			draw := rand.New(rand.NewPCG(1, 1))
			coin := func() bool { return draw.IntN(2) == 0 }
			requests := 1
			for range *naps {
				n := nap{back: coin(), started: coin(), change: coin(), late: format.KindClaim, keep: 2}
				if coin() {
					n.keep = checkpoint.KeepAll
				}
				if coin() {
					n.late = format.KindCommit
				}
				n.requests[0] = 1 + draw.IntN(requests)
				n.requests[1] = n.requests[0] + 1 + draw.IntN(8)
				n.commits = [2]int{1 + draw.IntN(3), 1 + draw.IntN(3)}
				synctest.Test(t, func(t *testing.T) {
					run(t, func(w *world) {
						s := newSleepers(w, n)
						s.begin()
						s.calls = 0
						_ = work(s, s.task(s.request))
						requests = max(requests, s.calls)
						s.calls = -1
						s.end()
					})
				})
				if t.Failed() {
					t.Fatalf("%+v", n)
				}
			}
		})
	}
}

// begin makes a short history, by saves and by an owner.
func (s *sleepers) begin() {
	task := s.task(awake)
	first, offset := s.state("first")
	first.Savepoint = "first"
	c, err := task.Save(s.Context(), first, checkpoint.SaveOptions{})
	s.audit.tell(offset, c, err)
	for range 4 {
		err = errors.Join(err, s.save(task, "same"))
	}
	if err == nil {
		s.owner, err = task.Claim(s.Context(), checkpoint.ClaimOptions{})
	}
	if err == nil && s.started {
		err = s.commit(s.owner, "same")
	}
	if err != nil {
		s.Fatal(err)
	}
	time.Sleep(time.Minute) // for the clean-up
}
