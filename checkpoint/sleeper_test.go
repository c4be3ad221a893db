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

// A sleepers is a task whose history goes on while someone sleeps: for so long
// that manifests are deleted, and others, who slept as well, make theirs under
// numbers that are free again.
type sleepers struct {
	*world
	audit *audit
	nap
	owner  *checkpoint.Owner
	passed int
	states atomic.Int64

	passing chan struct{} // a lock, which one can sleep with

	mu    sync.Mutex
	calls int // of the one that is looked at; negative while it is not
}

// A nap says when someone sleeps, and what happens meanwhile.
type nap struct {
	requests [2]int      // before which it sleeps
	commits  [2]int      // how many are made
	late     format.Kind // what others who slept send in the end of the first
	keep     int         // checkpoints
	change   bool        // states are not all the same
	back     bool        // a new owner goes back
	started  bool        // the owner has committed before
}

func newSleepers(w *world, n nap) *sleepers {
	s := &sleepers{world: w, nap: n, audit: newAudit(w.bucket, time.Now), calls: -1, passing: make(chan struct{}, 1)}
	s.audit.last = n.keep
	return s
}

// task opens the task; before is called with each request.
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

// state returns the snapshot of a state: the same for all data that are equal,
// unless states are to change.
func (s *sleepers) state(data string) (checkpoint.Snapshot, string) {
	if s.change {
		data = fmt.Sprint(s.states.Add(1))
	}
	var seed [32]byte
	copy(seed[:], data)
	random := make([]byte, 20<<10) // too much for a manifest
	_, _ = rand.NewChaCha8(seed).Read(random)
	return s.audit.snapshot(fstest.MapFS{"s": {Data: random, Mode: 0o644}})
}

func (s *sleepers) save(task *checkpoint.Task, data string) error {
	snapshot, offset := s.state(data)
	c, err := task.Save(s.Context(), snapshot)
	s.audit.tell(offset, c, err)
	return err
}

func (s *sleepers) commit(o *checkpoint.Owner, data string) error {
	snapshot, offset := s.state(data)
	c, err := o.Commit(s.Context(), snapshot)
	s.audit.tell(offset, c, err)
	return err
}

// request is the hook of the one that is looked at.
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

// pass lets time go by.
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

// goOn makes another owner go on, after a save.
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

// newest returns the last step.
func (s *sleepers) newest() *auditStep {
	s.audit.mu.Lock()
	defer s.audit.mu.Unlock()
	return s.audit.newest
}

// makeLate makes a manifest of every number that is free again, by one who had
// read the step before that when it was the newest.
func (s *sleepers) makeLate() {
	s.audit.mu.Lock()
	steps := maps.Clone(s.audit.steps)
	s.audit.mu.Unlock()
	for seq := uint64(2); seq < s.newest().Seq; seq++ {
		base := steps[seq-1]
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

// end makes sure that all is well.
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

// naps is how many are drawn for each kind of work.
var naps = flag.Int("naps", 100, "how many naps each kind of work is tried with")

// Whoever sleeps for hours before any two requests does no harm. What it answers
// is another matter, unless it says that it has committed: it was overtaken.
func TestSleepBeforeTwoRequests(t *testing.T) {
	for name, work := range map[string]func(*sleepers, *checkpoint.Task) error{
		"collect": func(s *sleepers, task *checkpoint.Task) error {
			return second(task.Collect(s.Context(), checkpoint.CollectOptions{}))
		},
		"go back": func(s *sleepers, task *checkpoint.Task) error {
			return second(task.Rollback(s.Context(), checkpoint.Seq(2)))
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
	c, err := task.Save(s.Context(), first)
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
