package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// names returns the numbers of all checkpoints, each with its name.
func (w *world) names() string {
	w.Helper()
	task, _, _ := w.process()
	list, err := task.List(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	var names []string
	for _, c := range list {
		names = append(names, fmt.Sprint(c.Seq, c.Savepoint))
	}
	return strings.Join(names, " ")
}

func (w *world) wantNames(want string) {
	w.Helper()
	if got := w.names(); got != want {
		w.Errorf("the checkpoints are %q, want %q", got, want)
	}
}

func mustDo(t tester, errs ...error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("call %d: %v", i+1, err)
		}
	}
}

func addSavepoint(w *world, name string, at checkpoint.Ref) error {
	w.Helper()
	task, _, _ := w.process()
	return second(task.AddSavepoint(w.Context(), name, checkpoint.SavepointOptions{At: at}))
}

// Names are added, changed and removed while an owner commits, which keeps the
// checkpoints that have names.
func TestSavepointsBesideAnOwner(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne) // 1
		commit(w, o, with(1, 20<<10))
		mustDo(t, addSavepoint(w, "two", checkpoint.Ref{})) // 3
		commit(w, o, with(2, 20<<10))
		commit(w, o, with(3, 20<<10))
		w.wantNames("5 2two")
		task, _, _ := w.process()
		mustDo(t,
			addSavepoint(w, "five", checkpoint.Seq(5)),               // 6
			second(task.RenameSavepoint(w.Context(), "two", "zwei")), // 7
		)
		commit(w, o, with(4, 20<<10))
		w.wantNames("8 5five 2zwei")
		synctest.Wait()
		w.wantObjects(segments, 3)
		mustDo(t, second(task.RemoveSavepoint(w.Context(), "zwei")))
		w.wantNames("8 5five 2")
		commit(w, o, with(5, 20<<10))
		w.wantNames("10 5five")
		mustDo(t, o.Release(w.Context()))
		synctest.Wait()
		w.wantNothingNeedless()
		w.wantReadable()
	})
}

func TestSavepointIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		task := w.saved(3)
		ctx := w.Context()
		mustDo(t, addSavepoint(w, "one", checkpoint.Seq(1)), addSavepoint(w, "one", checkpoint.Seq(1)))
		none, _, _ := w.process()
		for name, c := range map[string]struct{ got, want error }{
			"a name that another has": {addSavepoint(w, "one", checkpoint.Seq(2)), checkpoint.ErrConflict},
			"a second name":           {addSavepoint(w, "uno", checkpoint.Seq(1)), checkpoint.ErrConflict},
			"of no checkpoint":        {addSavepoint(w, "four", checkpoint.Seq(4)), checkpoint.ErrNoCheckpoint},
			"a number":                {addSavepoint(w, "4", checkpoint.Seq(2)), backend.ErrInvalid},
			"no name":                 {addSavepoint(w, "", checkpoint.Seq(2)), backend.ErrInvalid},
			"a time that is over":     {second(task.AddSavepoint(ctx, "x", checkpoint.SavepointOptions{ExpiresAfter: -1})), backend.ErrInvalid},
			"another name of none":    {second(task.RenameSavepoint(ctx, "two", "x")), checkpoint.ErrNoCheckpoint},
			"the name that it has":    {second(task.RenameSavepoint(ctx, "one", "one")), nil},
			"to no name":              {second(task.RenameSavepoint(ctx, "one", "")), backend.ErrInvalid},
			"removal of none":         {second(task.RemoveSavepoint(ctx, "two")), checkpoint.ErrNoCheckpoint},
			"a long note":             {second(none.Annotate(ctx, checkpoint.Ref{}, checkpoint.Note{Author: "a", Text: strings.Repeat("x", 512)})), backend.ErrInvalid},
			"a note of control":       {second(none.Annotate(ctx, checkpoint.Ref{}, checkpoint.Note{Text: "\x1b[2J"})), backend.ErrInvalid},
			"a note on no checkpoint": {second(none.Annotate(ctx, checkpoint.Seq(9), checkpoint.Note{Text: "x"})), checkpoint.ErrNoCheckpoint},
		} {
			if !errors.Is(c.got, c.want) || c.want == nil && c.got != nil || errors.Is(c.got, checkpoint.ErrUnknown) {
				t.Errorf("%s: %v, want %v", name, c.got, c.want)
			}
		}
		w.wantNames("3 2 1one")
		if seq := w.newestSeq(); seq != 4 {
			t.Errorf("the newest manifest is %d: what was refused, or changes nothing, made one", seq)
		}
	})
	inWorld(t, func(w *world) {
		task, _, _ := w.process()
		if err := second(task.RemoveSavepoint(w.Context(), "x")); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("of no task: %v", err)
		}
		w.wantObjects("", 0)
	})
}

func TestAmendmentCosts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.saved(1)
		task, _, store := w.process()
		mustDo(t, second(task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{})))
		if n := store.Calls(); n != 4 { // List, Get, Create, List
			t.Errorf("%d requests, want 4", n)
		}
	})
}

// The time until a savepoint expires counts from now, not from its commit.
func TestSavepointExpiresFromNow(t *testing.T) {
	inWorld(t, func(w *world) {
		task := w.saved(1)
		time.Sleep(48 * time.Hour)
		now := time.Now()
		mustDo(t, second(task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{ExpiresAfter: time.Hour})))
		c, err := task.Latest(w.Context())
		if err != nil || c.SavepointExpires.Before(now.Add(time.Hour)) || c.SavepointExpires.After(now.Add(time.Hour+time.Minute)) {
			t.Errorf("it expires at %v, %v", c.SavepointExpires, err)
		}
		mustDo(t, second(task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{})))
		if c, err = task.Latest(w.Context()); err != nil || c.SavepointExpires.Before(now.Add(time.Hour)) {
			t.Errorf("it expires at %v, %v; want no change", c.SavepointExpires, err)
		}
	})
}

func TestNotes(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, at(1)) // 2
		commit(w, o, at(2)) // 3
		task, _, _ := w.process()
		one, two := checkpoint.Note{Author: "ops", Text: "wrong\ncounts"}, checkpoint.Note{Text: "right"}
		mustDo(t, second(task.Annotate(w.Context(), checkpoint.Seq(2), one)), second(task.Annotate(w.Context(), checkpoint.Ref{}, two)))
		commit(w, o, at(3))
		for seq, want := range map[uint64]checkpoint.Note{2: one, 3: two, 6: {}} {
			if c, err := task.Get(w.Context(), checkpoint.Seq(seq)); err != nil || c.Note != want {
				t.Errorf("checkpoint %d: %+v, %v; want %+v", seq, c.Note, err, want)
			}
		}
		mustDo(t, second(task.Annotate(w.Context(), checkpoint.Seq(2), checkpoint.Note{})))
		if c, err := task.Get(w.Context(), checkpoint.Seq(2)); err != nil || c.Note != (checkpoint.Note{}) {
			t.Errorf("%+v, %v; want no note", c.Note, err)
		}
	})
}

// A rollback takes the name of the checkpoint from the list.
func TestRollbackToARenamedSavepoint(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.open(keepAll)
		s := at(1)
		s.Savepoint = "old"
		if _, err := task.Save(w.Context(), s, checkpoint.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := task.Save(w.Context(), at(2), checkpoint.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		mustDo(t, second(task.RenameSavepoint(w.Context(), "old", "new")))
		if _, err := task.Rollback(w.Context(), checkpoint.Savepoint("new"), checkpoint.RollbackOptions{}); err != nil {
			t.Fatal(err)
		}
		w.wantNames("1new 2")
	})
}

// A list in a segment is not written again: the amendment says what has changed.
func TestAmendmentsOfALongList(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		for n := range 700 {
			commit(w, o, at(n+1)) // 2 to 701
		}
		task, _, _ := w.process()
		mustDo(t,
			addSavepoint(w, "two", checkpoint.Seq(2)),
			addSavepoint(w, "newest", checkpoint.Ref{}),
			addSavepoint(w, "nine", checkpoint.Seq(9)),
			second(task.RemoveSavepoint(w.Context(), "nine")),
		)
		if m := w.manifest(w.newestSeq()); m.RetainedAt == nil || len(m.Edits.Changed) != 2 {
			t.Errorf("%+v; want edits of a list in a segment", m.Edits)
		}
		if _, err := task.Prune(w.Context(), checkpoint.Retention{Last: 650}, checkpoint.PruneOptions{}); err != nil {
			t.Fatal(err)
		}
		if m := w.manifest(w.newestSeq()); m.RetainedAt == nil || len(m.Edits.Removed) != 1 {
			t.Errorf("%+v; want a range that is removed", m.Edits)
		}
		list, err := task.List(w.Context())
		if err != nil || len(list) != 651 || list[0].Savepoint != "newest" || list[650].Savepoint != "two" || list[649].Seq != 52 {
			t.Fatalf("%d checkpoints, %v", len(list), err)
		}
		heir, _ := w.ownerWith(keepAll) // its claim repeats the list and its edits
		if list, err = task.List(w.Context()); err != nil || len(list) != 651 {
			t.Fatalf("after a claim: %d checkpoints, %v", len(list), err)
		}
		commit(w, heir, at(1))
		if list, err = task.List(w.Context()); err != nil || len(list) != 652 || list[1].Savepoint != "newest" || list[651].Savepoint != "two" {
			t.Fatalf("after a commit: %d checkpoints, %v", len(list), err)
		}
		if m := w.manifest(w.newestSeq()); m.RetainedAt == nil || len(m.Edits.Removed) != 1 || len(m.Edits.Changed) != 1 {
			t.Errorf("%+v; want the pieces as they were, and the edits", m.Edits)
		}
		w.wantSmallManifests()
	})
}

// A putOnce fails the test if a segment is written twice.
type putOnce struct {
	backend.Store
	t    *testing.T
	mu   *sync.Mutex
	sent map[string]bool
}

func (s putOnce) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent[key] {
		s.t.Errorf("%s is written twice", key)
	}
	s.sent[key] = true
	return s.Store.Put(ctx, key, data)
}

// An owner whose list is in a segment must store another one.
func TestCommitOfALongListIsAmended(t *testing.T) {
	inWorld(t, func(w *world) {
		task, err := newJob(w, putOnce{w.bucket.Open(), t, new(sync.Mutex), make(map[string]bool)}, keepAll).Task("orders/7")
		if err != nil {
			t.Fatal(err)
		}
		o := claim(w, task)
		for n := range 600 {
			commit(w, o, at(n+1))
		}
		mustDo(t, addSavepoint(w, "two", checkpoint.Seq(2)))
		commit(w, o, at(601))
		commit(w, o, with(602, 20<<10))
		w.wantReadable()
		if c, err := task.Get(w.Context(), checkpoint.Savepoint("two")); err != nil || c.Seq != 2 {
			t.Errorf("%+v, %v", c, err)
		}
		mustDo(t, o.Release(w.Context()))
		synctest.Wait()
		before := len(w.objects(segments))
		if got := w.collect(checkpoint.CollectOptions{}); got.Segments != 0 {
			t.Errorf("%d segments of %d were left behind", got.Segments, before)
		}
	})
}

// A commit in doubt was not made if others have amended its base. The owner goes on.
func TestAmendedCommitInDoubt(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.ownerWith(lastOne)
		commit(w, o, with(1, 20<<10)) // 2
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrThrottled})
		if _, err := o.Commit(w.Context(), with(2, 20<<10)); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Fatalf("%v, want ErrUnknown", err)
		}
		store.Disarm()
		mustDo(t, addSavepoint(w, "one", checkpoint.Ref{})) // 3
		if c, err := o.Checkpoint(w.Context()); err != nil || c.Seq != 2 {
			t.Errorf("the owner goes on from %+v, %v", c, err)
		}
		mustDo(t, o.Check(w.Context()))
		if c, err := o.Checkpoint(w.Context()); err != nil || c.Seq != 2 || c.Savepoint != "one" {
			t.Errorf("after it was settled the owner goes on from %+v, %v", c, err)
		}
		commit(w, o, with(3, 20<<10)) // 4
		w.wantNames("4 2one")
		w.wantHistory("3 1")
		synctest.Wait()
		w.wantNothingNeedless()
		w.wantReadable()
	})
}

// The name of a new savepoint is checked again if the task was amended.
func TestNameIsTakenMeanwhile(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 20<<10))
		mustDo(t, addSavepoint(w, "mine", checkpoint.Ref{}))
		s := with(2, 20<<10)
		s.Savepoint = "mine"
		if _, err := o.Commit(w.Context(), s); !errors.Is(err, checkpoint.ErrConflict) || errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("%v, want ErrConflict", err)
		}
		synctest.Wait()
		w.wantNothingNeedless()
		commit(w, o, with(3, 20<<10))
		w.wantHistory("3 1")
	})
}

func TestReleaseIsAmended(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, at(1))
		mustDo(t, addSavepoint(w, "x", checkpoint.Ref{}), o.Release(w.Context()))
		w.wantNames("2x")
		task, _, _ := w.process()
		mustDo(t, second(task.RenameSavepoint(w.Context(), "x", "y"))) // there is no owner
		if s, err := task.Status(w.Context()); err != nil || s.Claimed || s.Manifest != 5 || s.Latest.Savepoint != "y" {
			t.Errorf("status %+v, %v", s, err)
		}
	})
}

// A release is in doubt. It was made, amended, and deleted, and then a late amendment
// took its number. The owner finds that it was made.
func TestReleaseInDoubtIsAmendedAndDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.ownerWith(keepAll)
		commit(w, o, at(1)) // 2
		late := *w.manifest(2)
		store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1}, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrThrottled})
		if err := o.Release(w.Context()); !errors.Is(err, checkpoint.ErrUnknown) { // 3
			t.Fatalf("%v, want ErrUnknown", err)
		}
		store.Disarm()
		time.Sleep(2 * checkpoint.FenceWindow)
		mustDo(t, addSavepoint(w, "x", checkpoint.Ref{})) // 4
		w.collect(checkpoint.CollectOptions{})
		base := late
		late.Kind, late.Seq, late.Token = format.KindAmend, 3, format.Token{1}
		late.Base = &format.Base{Token: base.Token, Time: time.Now()}
		late.Checkpoint.Time = time.Now()
		w.put(&late)
		mustDo(t, o.Release(w.Context()))
		if seq := w.newestSeq(); seq != 4 {
			t.Errorf("it was released once more, by manifest %d", seq)
		}
		if s, err := o.Commit(w.Context(), at(2)); err == nil {
			t.Errorf("it committed %+v after it released", s)
		}
	})
}

// A claim that is amended before it was confirmed remains valid.
func TestClaimIsAmended(t *testing.T) {
	inWorld(t, func(w *world) {
		w.saved(2)
		creates, amended := 0, false
		task := w.hookedTask(keepAll, func(verb, _ string) {
			if verb == "create" {
				creates++
			}
			if verb == "list" && creates == 2 && !amended {
				amended = true
				mustDo(w, addSavepoint(w, "x", checkpoint.Ref{}))
			}
		})
		o := claim(w, task)
		if c, err := o.Checkpoint(w.Context()); err != nil || c.Savepoint != "x" || !amended || o.Epoch() != 3 {
			t.Errorf("it goes on from %+v, %v", c, err)
		}
		commit(w, o, at(3))
		w.wantNames("5 2x 1")
	})
}

// Whichever call fails, and however: the result of an amendment is true, and a second
// attempt completes it.
func TestAmendmentFailsAnywhere(t *testing.T) {
	for _, kind := range []faultstore.Kind{
		faultstore.FailBefore, faultstore.LoseReply, faultstore.Zombie, faultstore.CrashFirst, faultstore.CrashAfter,
	} {
		t.Run(string(kind), func(t *testing.T) {
			for k := 1; k <= 4; k++ {
				inWorld(t, func(w *world) {
					o, _ := w.ownerWith(lastOne)
					commit(w, o, with(1, 20<<10))
					task, _, store := w.process(faultstore.Fault{Kind: kind, On: k})
					err := second(task.AddSavepoint(context.WithoutCancel(w.Context()), "x", checkpoint.SavepointOptions{}))
					store.Disarm()
					store.Heal()
					store.Land()
					switch got := w.names(); {
					case got == "2x" && err != nil && !errors.Is(err, checkpoint.ErrUnknown) && !errors.Is(err, faultstore.ErrCrashed):
						t.Errorf("call %d: it is a savepoint, but the error is %v", k, err)
					case got == "2" && err == nil:
						t.Errorf("call %d: it is not a savepoint, but there is no error", k)
					}
					mustDo(t, addSavepoint(w, "x", checkpoint.Ref{}))
					commit(w, o, with(2, 20<<10))
					if got := w.history(); got != "2 1" {
						t.Errorf("call %d: the history is %q", k, got)
					}
					synctest.Wait()
					w.wantNothingNeedless()
				})
			}
		})
	}
}

// The owner deletes manifests of amendments as it deletes those of claims.
func TestOwnerDeletesAmendments(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne) // 1
		commit(w, o, at(1))
		mustDo(t, addSavepoint(w, "x", checkpoint.Ref{})) // 3
		task, _, _ := w.process()
		mustDo(t, second(task.RenameSavepoint(w.Context(), "x", "y")), second(task.RemoveSavepoint(w.Context(), "y")))
		commit(w, o, at(2)) // 6
		for n := range 4 {
			time.Sleep(checkpoint.FenceWindow / 3)
			commit(w, o, at(n+3))
		}
		synctest.Wait()
		var left []uint64
		for _, m := range w.objects(manifests) {
			if _, seq, _ := format.ParseManifestKey(m.Key); seq <= 6 {
				left = append(left, seq)
			}
		}
		if len(left) != 0 {
			t.Errorf("the manifests %v still exist", left)
		}
	})
}

// An amendment reads a late manifest instead of the newest one, and must not refuse
// because of it; or it creates a late manifest, and must not take it for committed.
func TestAmenderThatSleeps(t *testing.T) {
	for _, before := range []string{"get", "create"} {
		inWorld(t, func(w *world) {
			o, _ := w.ownerWith(lastOne)
			commit(w, o, at(1)) // 2
			late := *w.manifest(2)
			mustDo(t, addSavepoint(w, "x", checkpoint.Ref{})) // 3
			slept := false
			task := w.hookedTask(keepAll, func(verb, _ string) {
				if verb != before || slept {
					return
				}
				slept = true
				time.Sleep(2 * checkpoint.FenceWindow)
				commit(w, o, at(2)) // 4
				time.Sleep(checkpoint.FenceWindow + time.Minute)
				commit(w, o, at(3)) // 5
				time.Sleep(checkpoint.FenceWindow + time.Minute)
				commit(w, o, at(4)) // 6
				synctest.Wait()
				late.Kind, late.Seq, late.Token = format.KindAmend, 3, format.Token{1}
				late.Base = &format.Base{Time: time.Now()}
				late.Checkpoint.Time = time.Now()
				w.put(&late)
			})
			mustDo(t, second(task.RenameSavepoint(w.Context(), "x", "y")))
			w.wantNames("6 2y")
		})
	}
}

// An owner finds that others have amended the task, and sleeps before it reads the
// amendment. What it reads then is a late amendment under that number. Only another
// listing shows that it is fenced.
func TestOwnerReadsALateAmendment(t *testing.T) {
	inWorld(t, func(w *world) {
		gets := -1
		task := w.hookedTask(lastOne, func(verb, _ string) {
			if verb != "get" || gets < 0 {
				return
			}
			if gets++; gets != 2 { // by the first it learns that its number is another's
				return
			}
			late := *w.manifest(3)
			heir, _ := w.ownerWith(lastOne) // 4
			for n := range 5 {
				time.Sleep(checkpoint.FenceWindow + time.Minute)
				commit(w, heir, at(n+2)) // 5 to 9
			}
			synctest.Wait()
			if w.exists(format.ManifestKey(dir, 3)) {
				w.collect(checkpoint.CollectOptions{})
			}
			if w.exists(format.ManifestKey(dir, 3)) || w.exists(format.ManifestKey(dir, 4)) {
				t.Fatal("the manifests still exist")
			}
			late.Token = format.Token{1}
			w.put(&late)
		})
		o := claim(w, task)
		commit(w, o, at(1)) // 2
		synctest.Wait()
		mustDo(t, addSavepoint(w, "x", checkpoint.Ref{})) // 3
		gets = 0
		if _, err := o.Commit(w.Context(), at(9)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("%v, want ErrFenced", err)
		}
		w.wantHistory("6 1")
	})
}

// A manifest that someone has replaced is detected by the one after it.
func TestVerifyChecksTheChain(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		for n := range 3 {
			commit(w, o, at(n)) // 2 to 4
		}
		w.wantClean(3)
		other := *w.manifest(3)
		other.Token = format.Token{1}
		w.remove(format.ManifestKey(dir, 3))
		w.put(&other)
		r, _ := w.verify(allData)
		w.wantProblem(r, "a manifest that was replaced", format.ManifestKey(dir, 3), checkpoint.Damaged, []uint64{3})
	})
}
