package checkpoint_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A verification with Data reads a fork's data that lies in its source.
func TestVerifyReadsForeignData(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 100<<10))
		key := w.objects(segments)[0].Key
		w.fork(source, "try", checkpoint.Ref{})
		fork, _ := w.named("try", checkpoint.Options{})
		before, err := fork.Verify(w.Context(), checkpoint.VerifyOptions{Data: true})
		if err != nil || before.DataRead < 100<<10 {
			t.Errorf("%d bytes were read, %v", before.DataRead, err)
		}
		// damage data only: flip one byte in the middle
		data := w.read(key)
		data[len(data)/4] ^= 1
		if _, err := w.bucket.Open().Put(w.Context(), key, data); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{source, "try"} {
			task, _ := w.named(name, checkpoint.Options{})
			r, err := task.Verify(w.Context(), checkpoint.VerifyOptions{Data: true})
			if err != nil || r.Err() == nil {
				t.Errorf("%s: %+v, %v: want damage", name, r, err)
			} else if r.Problems[0].Object != key {
				t.Errorf("%s: %s is damaged; want %s", name, r.Problems[0].Object, key)
			}
		}
		r, err := fork.TestRestore(w.Context(), checkpoint.VerifyOptions{})
		if err != nil || r.RestoreTest != nil {
			t.Errorf("recorded: %+v, %v", r.RestoreTest, err)
		}
	})
}

// Damage in a foreign content segment names the right object.
func TestVerifyNamesForeignContent(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		large := with(3, 100<<10)
		large.Labels = map[string]string{}
		for n := range 2000 {
			large.Labels[string(rune('a'+n%26))+time.Duration(n).String()] = "a label of some length"
		}
		c := commit(w, o, large)
		w.fork(source, "try", checkpoint.Ref{})
		at := w.manifest(c.Seq).Checkpoint.ContentAt
		if at == nil {
			t.Fatal("not spilled")
		}
		key := format.SegmentKey(dir, at.Segment)
		w.remove(key)
		fork, _ := w.named("try", checkpoint.Options{})
		r, err := fork.Verify(w.Context(), structure)
		if err != nil || len(r.Problems) != 1 || r.Problems[0].Object != key {
			t.Errorf("%+v, %v; want %s", r, err, key)
		}
	})
}

// Manifests that were young when a task was deleted are collected in the end.
func TestDeletedTaskIsCollectedInTheEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		for n := range 20 {
			commit(w, o, with(n, 40<<10))
		}
		task, _ := w.named(source, keepAll)
		mustDo(t, second(task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true})))
		for range 3 {
			time.Sleep(2 * checkpoint.FenceWindow)
			mustDo(t, w.collectNamed(source))
		}
		w.wantObjects(manifests, 1)
	})
}

// The record of a restore test goes with the task.
func TestDeleteLeavesOneObject(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, with(1, 40<<10))
		task, _ := w.named(source, keepAll)
		mustDo(t, second(task.TestRestore(w.Context(), checkpoint.VerifyOptions{})))
		time.Sleep(2 * time.Hour)
		mustDo(t, second(task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true})))
		mustDo(t, second(task.Save(w.Context(), with(2, 40<<10), checkpoint.SaveOptions{})))
		if r, err := task.LastRestoreTest(w.Context()); err != nil || r != nil {
			t.Errorf("the new life's last restore test: %+v, %v", r, err)
		}
	})
}

// A fork of a task that stood still survives a collection beside it.
func TestForkOfAnIdleTaskBesideACollection(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 100<<10))
		mustDo(t, o.Release(w.Context()))
		synctest.Wait()
		time.Sleep(2 * checkpoint.FenceWindow)
		collected := false
		task := w.hookedTask(checkpoint.Options{}, func(verb, key string) {
			if verb == "create" && strings.HasPrefix(key, "try/") && !collected {
				collected = true
				mustDo(w, w.collectNamed(source))
			}
		})
		if _, err := task.Fork(w.Context(), "try", checkpoint.ForkOptions{}); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// A rollback that was made, and followed by a claim, is not refused as if nothing was done.
func TestRollbackThatWasDoneIsNotDenied(t *testing.T) {
	for name, slow := range map[string]bool{"a get fails": false, "sleep": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(keepAll)
				commit(w, o, at(1)) // 2
				commit(w, o, at(2)) // 3
				mustDo(t, o.Release(w.Context()))
				store := faultstore.Wrap(w, hookedStore(w, slow))
				if !slow {
					store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Key: format.ManifestKey(dir, 6)})
				}
				job := newJob(w, store, keepAll)
				task, _ := job.Task(source)
				_, err := task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{})
				list := w.history()
				if err != nil && !errors.Is(err, checkpoint.ErrUnknown) {
					t.Errorf("%v: but it was done: %s", err, list)
				}
			})
		})
	}
}

// whenClaimed returns a hook that calls do once: when a claim is in the store, and is about
// to be confirmed by a List. A claim is created twice.
func whenClaimed(do func()) func(verb, key string) {
	var creates atomic.Int64
	var done atomic.Bool
	return func(verb, _ string) {
		if verb == "create" {
			creates.Add(1)
		}
		if verb == "list" && creates.Load() == 2 && done.CompareAndSwap(false, true) {
			do()
		}
	}
}

// followAndSleep lets others claim the task, commit, and go on two hours later.
func (w *world) followAndSleep() *checkpoint.Owner {
	next, _ := w.ownerWith(keepAll)
	commit(w, next, at(3))
	synctest.Wait()
	time.Sleep(2 * time.Hour)
	commit(w, next, at(4))
	synctest.Wait()
	return next
}

func hookedStore(w *world, slow bool) backend.Store {
	return hooked{w.bucket.Open(), whenClaimed(func() {
		if slow {
			w.followAndSleep()
			return
		}
		next, _ := w.ownerWith(keepAll)
		commit(w, next, at(3))
	})}
}

// The same for a deletion.
func TestDeleteThatWasDoneIsNotDenied(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, at(1)) // 2
		mustDo(t, o.Release(w.Context()))
		task := w.hookedTask(keepAll, whenClaimed(func() { w.followAndSleep() }))
		_, err := task.Delete(w.Context(), checkpoint.DeleteOptions{})
		if err != nil && !errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("%v: but it was done: %s", err, w.history())
		}
	})
}

// A failed Get makes a rollback be made again, which undoes what followed.
func TestRollbackThatWasFollowedIsNotMadeAgainAfterAFailedGet(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, at(1)) // 2
		commit(w, o, at(2)) // 3
		mustDo(t, o.Release(w.Context()))
		store := faultstore.Wrap(w, hooked{w.bucket.Open(), whenClaimed(func() {
			next, _ := w.ownerWith(keepAll)
			commit(w, next, at(3))
			mustDo(w, next.Release(w.Context()))
		})})
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Key: format.ManifestKey(dir, 6)})
		job := newJob(w, store, keepAll)
		task, _ := job.Task(source)
		_, _ = task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{})
		w.wantHistory("3 1 2")
	})
}

// A repair that rolls a fork back lets its source go.
func TestRepairLetsTheSourceGo(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		fork, _ := w.named("try", keepAll)
		full := with(2, 100<<10)
		full.State = full.State.Full()
		mustDo(t, second(fork.Save(w.Context(), full, checkpoint.SaveOptions{})))
		mustDo(t, second(fork.Rollback(w.Context(), checkpoint.Seq(1), checkpoint.RollbackOptions{})))
		w.remove(w.objects(dir + segments)[0].Key)
		r, err := fork.Verify(w.Context(), structure)
		if err != nil {
			t.Fatal(err)
		}
		mustDo(t, second(fork.Repair(w.Context(), r, checkpoint.RepairOptions{})), w.collectNamed("try"))
		mustDo(t, second(fork.Prune(w.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})))
		_ = w.collectNamed(source)
		if s, err := w.status("try"); err != nil || s.ForkedFrom != nil {
			t.Errorf("%+v, %v", s.ForkedFrom, err)
		}
		task, _ := w.named(source, checkpoint.Options{})
		if s, err := task.Status(w.Context()); err == nil && len(s.Forks) > 0 {
			t.Errorf("%+v", s.Forks)
		}
	})
}

// A fork of a checkpoint without segments needs nothing of its source.
func TestForkOfASmallState(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 2000))
		w.fork(source, "try", checkpoint.Ref{})
		mustDo(t, w.collectNamed(source))
		if s, err := w.status(source); err != nil || len(s.Forks) > 0 {
			t.Errorf("%+v, %v", s.Forks, err)
		}
	})
}

// A dry run of a deletion says what the deletion does.
func TestDeleteDryRun(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		fork, _ := w.named("try", lastOne)
		full := with(2, 100<<10)
		full.State = full.State.Full()
		mustDo(t, second(fork.Save(w.Context(), full, checkpoint.SaveOptions{})))
		task, _ := w.named(source, checkpoint.Options{})
		dry, errDry := task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true, DryRun: true})
		wet, errWet := task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true})
		if deleted := wet.Deleted; !deleted {
			t.Errorf("%+v; it does not say that the task was deleted", wet)
		}
		wet.Deleted = false
		if dry != wet || (errDry == nil) != (errWet == nil) {
			t.Errorf("%+v, %v; %+v, %v", dry, errDry, wet, errWet)
		}
	})
}

// A fork is verified although its source's newest manifest is damaged.
func TestVerifyForkOfADamagedSource(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		w.damage(format.ManifestKey(dir, w.newestSeq()))
		fork, _ := w.named("try", checkpoint.Options{})
		if _, err := fork.Verify(w.Context(), structure); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// putIn is put for any task: a manifest that a writer which slept has made late.
func (w *world) putIn(m *format.Manifest) {
	w.Helper()
	m.Version = format.Version
	data, err := json.Marshal(m)
	if err != nil {
		w.Fatal(err)
	}
	body := data[:len(data)-1]
	data = fmt.Appendf(body, ",\"sum\":\"%s\"}\n", format.Sum(body))
	d, _ := format.EscapeTask(m.Task)
	if _, err := w.bucket.Open().Create(w.Context(), format.ManifestKey(d, m.Seq), data); err != nil {
		w.Fatal(err)
	}
}

// A fork that was committed and continued, and whose number was taken late, is not
// denied, and its hold is not dropped.
func TestForkIsNotDeniedBecauseOfTwoLateManifests(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		var first time.Time
		there := &format.Manifest{Kind: format.KindClaim, Task: "try", Seq: 1, Epoch: 1, Writer: format.WriterID{1}, Token: format.Token{7}}
		save := func(n int) {
			task, _ := w.named("try", lastOne)
			s := with(1, 100<<10)
			s.Labels = map[string]string{"n": fmt.Sprint(n)}
			c, err := task.Save(w.Context(), s, checkpoint.SaveOptions{})
			if err != nil || c.NewBytes > 20<<10 {
				w.Fatal(c, err)
			}
		}
		creates, gets := 0, 0
		store := faultstore.Wrap(w, hooked{w.bucket.Open(), func(verb, key string) {
			switch {
			case verb == "create" && strings.HasPrefix(key, "try/"):
				if creates++; creates == 2 { // the first was applied, and its reply was lost
					first = time.Now()
					time.Sleep(checkpoint.FenceWindow + time.Minute)
					save(2) // number 2; number 1 is retired and deleted
					w.putIn(there)
				}
			case verb == "get" && key == format.ManifestKey("try", 2) && creates == 2:
				if gets++; gets == 1 {
					time.Sleep(checkpoint.FenceWindow + time.Minute)
					save(3) // number 2 is retired and deleted
					w.putIn(&format.Manifest{Kind: format.KindClaim, Task: "try", Seq: 2, Epoch: 2, Writer: format.WriterID{2},
						Token: format.Token{8}, Base: &format.Base{Token: there.Token, Time: first}})
				}
			}
		}}, faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", Key: "try/", On: 1})
		job := newJob(w, store, checkpoint.Options{})
		task, _ := job.Task(source)
		_, err := task.Fork(w.Context(), "try", checkpoint.ForkOptions{})
		if err != nil && !errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("%v: but it was made", err)
		}
		s, err := w.status("try")
		if err != nil || s.ForkedFrom == nil {
			t.Fatal(s, err)
		}
		commit(w, o, with(4, 100<<10))
		commit(w, o, with(5, 100<<10))
		synctest.Wait()
		mustDo(t, w.collectNamed(source))
		w.wantVerified("try", 1)
	})
}

// What is forked is what is held.
func TestForkIsOfWhatIsHeld(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10)) // 2
		n := 1
		next := func() {
			n++
			commit(w, o, with(n, 100<<10))
			synctest.Wait()
		}
		creates, gets, read := 0, 0, false
		store := faultstore.Wrap(w, hooked{w.bucket.Open(), func(verb, key string) {
			switch {
			case strings.HasPrefix(key, "try/"):
			case verb == "create":
				if creates++; creates == 2 { // the first made number 3, which holds checkpoint 2; its reply was lost
					late := w.manifest(3) // of an amender that has read number 2, and slept
					late.Held, late.Token = nil, format.Token{9}
					time.Sleep(checkpoint.FenceWindow + time.Minute)
					next() // 4; 3 is deleted
					w.put(late)
				}
			case verb == "get" && key == format.ManifestKey(dir, 4) && creates == 2:
				if gets++; gets != 2 { // the first is of neverMade
					return
				}
				read = true
				m := w.manifest(4)
				// of a save that has listed number 3 as the newest, read the late one, and slept
				late := m
				late.Held, late.Token, late.Epoch, late.Writer = nil, format.Token{10}, 2, format.WriterID{2}
				late.Base.Token = format.Token{9}
				time.Sleep(checkpoint.FenceWindow + time.Minute)
				next() // 5; 4 is deleted
				w.put(late)
			}
		}}, faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", Key: manifests, On: 1})
		job := newJob(w, store, checkpoint.Options{})
		task, _ := job.Task(source)
		_, err := task.Fork(w.Context(), "try", checkpoint.ForkOptions{})
		if err != nil || !read {
			t.Fatal(err, read, creates)
		}
		next()
		next()
		s, err := w.status(source)
		f, err2 := w.status("try")
		if err != nil || err2 != nil || len(s.Forks) != 1 || f.ForkedFrom == nil || s.Forks[0].Seq != f.ForkedFrom.Seq {
			t.Errorf("%+v, %+v, %v, %v", s.Forks, f.ForkedFrom, err, err2)
		}
		w.wantVerified("try", 1)
	})
}

// A fork that somebody has removed by hand does not keep its source for ever.
func TestForkIsRemovedByHand(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		fork, _ := w.named("try", checkpoint.Options{})
		mustDo(t, second(fork.Delete(w.Context(), checkpoint.DeleteOptions{})))
		w.fork(source, "try", checkpoint.Ref{}) // number 3
		for _, o := range w.objects("") {
			if strings.HasPrefix(o.Key, "try/") {
				w.remove(o.Key)
			}
		}
		time.Sleep(2 * checkpoint.FenceWindow)
		mustDo(t, w.collectNamed(source))
		if s, err := w.status(source); err != nil || len(s.Forks) != 1 {
			t.Errorf("%+v, %v; want it held: someone may bring the fork back", s.Forks, err)
		}
		lost, _ := w.named(source, checkpoint.Options{})
		mustDo(t, second(lost.Collect(w.Context(), checkpoint.CollectOptions{Lost: true})))
		if s, err := w.status(source); err != nil || len(s.Forks) > 0 {
			t.Errorf("%+v, %v", s.Forks, err)
		}
		_, _ = fork.Delete(w.Context(), checkpoint.DeleteOptions{})
		task, _ := w.named(source, checkpoint.Options{})
		_, err := task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true})
		if err != nil {
			t.Errorf("delete: %v", err)
		}
	})
}

// A collection that ends a hold, beside one who forks anew, does not fail.
func TestCollectionBesideANewFork(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		store := faultstore.New(w.bucket.Open(), faultstore.Fault{Kind: faultstore.CrashFirst, Verb: "create", Key: "try/", On: 1})
		dying, _ := checkpoint.New(store, checkpoint.Options{})
		dead, _ := dying.Task(source)
		_, _ = dead.Fork(w.Context(), "try", checkpoint.ForkOptions{})
		time.Sleep(2 * checkpoint.FenceWindow)
		created, forked := false, false
		task := w.hookedTask(checkpoint.Options{}, func(verb, key string) {
			if verb == "create" && strings.HasPrefix(key, "try/") {
				created = true
			} else if created && !forked && verb == "list" {
				forked = true
				w.fork(source, "try", checkpoint.Ref{})
			}
		})
		if _, err := task.Collect(w.Context(), checkpoint.CollectOptions{}); err != nil {
			t.Errorf("%v", err)
		}
		w.wantVerified("try", 1)
	})
}

// A deletion that was done and slept does not delete the next life.
func TestDeletionIsNotMadeAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, at(1)) // 2
		mustDo(t, o.Release(w.Context()))
		task := w.hookedTask(keepAll, whenClaimed(func() { mustDo(w, w.followAndSleep().Release(w.Context())) }))
		_, _ = task.Delete(w.Context(), checkpoint.DeleteOptions{})
		w.wantHistory("4 3")
	})
}

// The same as N for a save: the segments of one that was committed are not deleted.
func TestSaveIsNotDeniedBecauseOfTwoLateManifests(t *testing.T) {
	inWorld(t, func(w *world) {
		var first time.Time
		there := &format.Manifest{Kind: format.KindClaim, Task: source, Seq: 1, Epoch: 1, Writer: format.WriterID{1}, Token: format.Token{7}}
		snap := func(n int) checkpoint.Snapshot {
			s := with(1, 100<<10)
			s.Labels = map[string]string{"n": fmt.Sprint(n)}
			return s
		}
		save := func(n int) {
			task, _ := w.named(source, lastOne)
			c, err := task.Save(w.Context(), snap(n), checkpoint.SaveOptions{})
			if err != nil || c.NewBytes > 20<<10 {
				w.Fatal(c, err)
			}
		}
		creates, gets := 0, 0
		store := faultstore.Wrap(w, hooked{w.bucket.Open(), func(verb, key string) {
			switch {
			case verb == "create" && strings.Contains(key, manifests):
				if creates++; creates == 2 { // the first was applied, and its reply was lost
					first = time.Now()
					time.Sleep(checkpoint.FenceWindow + time.Minute)
					save(2)
					w.putIn(there)
				}
			case verb == "get" && key == format.ManifestKey(dir, 2) && creates == 2:
				if gets++; gets == 1 {
					time.Sleep(checkpoint.FenceWindow + time.Minute)
					save(3)
					w.putIn(&format.Manifest{Kind: format.KindClaim, Task: source, Seq: 2, Epoch: 2, Writer: format.WriterID{2},
						Token: format.Token{8}, Base: &format.Base{Token: there.Token, Time: first}})
				}
			}
		}}, faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", Key: manifests, On: 1})
		job := newJob(w, store, checkpoint.Options{})
		task, _ := job.Task(source)
		_, err := task.Save(w.Context(), snap(1), checkpoint.SaveOptions{})
		if err != nil && !errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("%v: but it was made", err)
		}
		w.wantVerified(source, 1)
	})
}

// A verification of a fork that reads a late manifest of its source finds no damage.
func TestVerifierReadsALateManifestOfTheSource(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))          // 2
		w.fork(source, "try", checkpoint.Ref{}) // 3
		slept := false
		job := newJob(w, hooked{w.bucket.Open(), func(verb, key string) {
			if verb == "get" && key == format.ManifestKey(dir, 3) && !slept {
				slept = true
				late := w.manifest(3) // of an amender that read manifest 2, and slept
				late.Held, late.Token = nil, format.Token{9}
				time.Sleep(checkpoint.FenceWindow + time.Minute)
				commit(w, o, with(3, 100<<10))
				synctest.Wait() // the cleaner deletes number 3
				w.put(late)
			}
		}}, checkpoint.Options{})
		task, _ := job.Task("try")
		r, err := task.Verify(w.Context(), structure)
		if err != nil || r.Err() != nil || !slept {
			t.Errorf("%+v, %v, %t", r, err, slept)
		}
	})
}

// A repair does not drop what is intact, only because it is not held.
func TestRepairOfAForkThatIsNotHeld(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		mustDo(t, o.Release(w.Context()))
		m := w.manifest(w.newestSeq())
		m.Seq, m.Kind, m.Base, m.Held = m.Seq+1, format.KindRelease, nil, nil
		w.put(m)
		fork, _ := w.named("try", keepAll)
		full := with(2, 100<<10)
		full.State = full.State.Full()
		mustDo(t, second(fork.Save(w.Context(), full, checkpoint.SaveOptions{})))
		w.wantState("try", "2 1") // all of it can be read
		r, err := fork.Verify(w.Context(), structure)
		if err != nil {
			t.Fatal(err)
		}
		fixed, err := fork.Repair(w.Context(), r, checkpoint.RepairOptions{})
		if err != nil || len(fixed.Dropped) > 0 {
			t.Errorf("dropped %v, %v", fixed.Dropped, err)
		}
	})
}

// A hold whose time is wrong does not keep a dead fork's data for years.
func TestHoldWithAWrongTime(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		store := faultstore.New(w.bucket.Open(), faultstore.Fault{Kind: faultstore.CrashFirst, Verb: "create", Key: "try/", On: 1})
		dying, _ := checkpoint.New(store, checkpoint.Options{})
		dead, _ := dying.Task(source)
		_, _ = dead.Fork(w.Context(), "try", checkpoint.ForkOptions{})
		m := w.manifest(w.newestSeq())
		m.Seq++
		m.Held = slices.Clone(m.Held)
		m.Held[0].Time = m.Held[0].Time.AddDate(70, 0, 0) // the store's clock was wrong
		m.Base = &format.Base{Token: w.manifest(m.Seq - 1).Token, Time: time.Now()}
		w.put(m)
		time.Sleep(24 * time.Hour)
		mustDo(t, w.collectNamed(source))
		if s, err := w.status(source); err != nil || len(s.Forks) > 0 {
			t.Errorf("%+v, %v", s.Forks, err)
		}
	})
}
