package checkpoint_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// most is what a commit may send, and what stands in a manifest is in it.
const mostSent = 64 << 10

// sent returns how many bytes do sends, by a job.
func sent(job *checkpoint.Job, do func()) int64 {
	before := job.Stats()
	do()
	after := job.Stats()
	return after.Put.Bytes - before.Put.Bytes + after.Create.Bytes - before.Create.Bytes
}

// fullList lets an owner commit until its list, which stands in its manifest, has no room
// for the current checkpoint as well. So its next commit, or whoever goes back to an earlier
// checkpoint, stores a list in pieces. It returns how many checkpoints there are; the first is
// number 2.
func (w *world) fullList(o *checkpoint.Owner) (checkpoints int) {
	w.Helper()
	for n := 1; ; n++ {
		s := at(n)
		list, err := format.EncodeRetained(w.manifest(w.newestSeq()).Retained)
		if err != nil {
			w.Fatal(err)
		}
		full := len(list) > format.MaxPart-150
		if full {
			s.Savepoint = strings.Repeat("x", 127)
		}
		commit(w, o, s)
		if full {
			synctest.Wait()
			w.wantObjects(segments, 0)
			return n
		}
	}
}

// With each checkpoint kept, a commit sends what is new, and no lists stay but the newest.
func TestListsTakeNoMoreThanTwiceOne(t *testing.T) {
	const commits = 4000 / raceShare
	inWorld(t, func(w *world) {
		task, job, _ := w.open(keepAll)
		o := claim(w, task)
		rnd := rand.New(rand.NewPCG(1, 2))
		var all int64
		for n := range commits {
			time.Sleep(time.Second + time.Duration(rnd.Int64N(1e9))) // as clocks of stores are
			s := sent(job, func() { commit(w, o, at(n)) })
			if all += s; s > mostSent {
				t.Fatalf("commit %d sent %d bytes", n, s)
			}
			synctest.Wait()
			if n%500 == 499 {
				w.wantShortLists()
			}
		}
		if all > commits*(16<<10) {
			t.Errorf("%d commits sent %d bytes", commits, all)
		}
		if n := len(w.objects(segments)); n > 4 { // two pieces, or three, and the index
			t.Errorf("there are %d segments", n)
		}
		list, err := task.List(w.Context())
		if err != nil || len(list) != commits || list[0].Offsets["in"] != fmt.Sprint(commits-1) || list[commits-1].Offsets["in"] != "0" {
			t.Fatalf("%d checkpoints, %v", len(list), err)
		}
		r, err := task.Verify(w.Context(), structure)
		if err != nil || r.Err() != nil || r.Garbage.Segments != 0 || r.InFlight.Segments != 0 || r.Live.Segments != len(w.objects(segments)) {
			t.Errorf("%+v, %v", r, err)
		}
		mustDo(t, o.Release(w.Context()))
		if got := w.collect(checkpoint.CollectOptions{}); got.Segments != 0 {
			t.Errorf("%+v was left", got)
		}
	})
}

// wantShortLists makes sure that all segments, which have nothing but lists, take less than
// twice what one list takes.
func (w *world) wantShortLists() {
	w.Helper()
	synctest.Wait() // until the owner has deleted the lists before
	s := takeInventory(w, w.bucket)
	list, err := listOf(s.newest, func(c *format.Chunk) ([]byte, error) { return s.decode(c, nil) })
	if err != nil {
		w.Fatal(err)
	}
	data, err := format.EncodeRetained(list)
	if err != nil {
		w.Fatal(err)
	}
	_, one := codec.New().Encode(nil, data)
	w.Logf("%d checkpoints are listed in %d bytes, of %d segments; one list takes %d", len(list), s.size(), len(s.segments), len(one))
	if s.size() > 2*int64(len(one)) {
		w.Error("which is more than twice as much")
	}
}

// million makes a task with a million checkpoints, of which it only has the newest manifest.
// There is room in that for one more.
func million(w *world) {
	w.Helper()
	const n = 1_000_000
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	list := make([]format.Retained, n)
	for i := range list {
		seq := uint64(n - i)
		list[i] = format.Retained{Seq: seq, Time: start.Add(time.Duration(seq)*time.Second + time.Duration(seq*7919%1000)*time.Millisecond)}
	}
	inline := 200
	for size := 0; size <= 12<<10-60; inline++ {
		var err error
		size, err = format.ListSize(list[:inline+1])
		mustDo(w, err)
	}
	inline--
	m := &format.Manifest{
		Kind: format.KindCommit, Task: "orders/7", Seq: n + 1, Epoch: 1, Writer: format.WriterID{1}, Retained: list[:inline],
		Checkpoint: &format.Checkpoint{Seq: n + 1, Epoch: 1, Content: new(format.Content)},
	}
	w.forgeList(m, 4000, list[inline:])
	w.put(m)
}

// noOld is a store that fails to read the manifests of a million's old checkpoints.
type noOld struct{ backend.Store }

func (s noOld) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if _, seq, ok := format.ParseManifestKey(key); ok && seq <= 1_000_000 {
		return 0, backend.ErrPermission
	}
	return s.Store.Get(ctx, key, offset, p)
}

func TestMillionRetained(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes a minute")
	}
	run(t, func(w *world) {
		million(w)
		opts := keepAll
		opts.Logger = slog.New(slog.DiscardHandler)
		job := newJob(w, noOld{w.bucket.Open()}, opts)
		task, err := job.Task("orders/7")
		mustDo(t, err)
		var o *checkpoint.Owner
		wantSent := func(what string, most int64, do func()) {
			start := time.Now()
			n := sent(job, do)
			t.Logf("%s sent %d bytes and took %v", what, n, time.Since(start))
			if n > most {
				t.Errorf("%s sent %d bytes", what, n)
			}
		}
		const little = 30 << 10 // two manifests: a claim is sent twice
		wantSent("a claim", little, func() { o = claim(w, task) })
		before := w.manifest(w.newestSeq())
		wantSent("a commit", little, func() { commit(w, o, at(1)) })
		wantSent("an amendment", little, func() {
			mustDo(t, second(task.AddSavepoint(w.Context(), "first", checkpoint.SavepointOptions{At: checkpoint.Seq(1)})))
		})
		mustDo(t, o.Check(w.Context())) // else it is sent twice
		wantSent("a commit that makes a piece", mostSent, func() { commit(w, o, at(2)) })
		m := w.manifest(w.newestSeq())
		if *m.RetainedAt == *before.RetainedAt || len(m.Retained) > 0 {
			t.Errorf("%d checkpoints are in the manifest", len(m.Retained))
		}
		mustDo(t, o.Close(w.Context()))
		s := takeInventory(w, w.bucket)
		list, err := listOf(m, func(c *format.Chunk) ([]byte, error) { return s.decode(c, nil) })
		if err != nil || len(list) != 1_000_002 || list[len(list)-1].Savepoint != "first" {
			t.Errorf("%d checkpoints, %v", len(list), err)
		}
		if n := len(s.segments); n != len(m.Pieces)+1 {
			t.Errorf("%d segments for %d pieces", n, len(m.Pieces))
		}
	})
}

// An owner whose commit was to make a piece, and was amended before, makes another.
func TestCommitThatMakesAPieceIsAmended(t *testing.T) {
	inWorld(t, func(w *world) {
		task, err := newJob(w, putOnce{w.bucket.Open(), t, new(sync.Mutex), make(map[string]bool)}, keepAll).Task("orders/7")
		mustDo(t, err)
		o := claim(w, task)
		n := w.fullList(o)
		mustDo(t, addSavepoint(w, "two", checkpoint.Seq(2)))
		commit(w, o, at(n+1))
		if m := w.manifest(w.newestSeq()); m.RetainedAt == nil || len(m.Retained) > 0 {
			t.Error("no piece was made")
		}
		synctest.Wait()
		w.wantObjects(segments, 2)
		commit(w, o, with(n+2, 20<<10))
		synctest.Wait()
		w.wantObjects(segments, 3)
		w.wantReadable()
		if c, err := task.Get(w.Context(), checkpoint.Savepoint("two")); err != nil || c.Seq != 2 {
			t.Errorf("%+v, %v", c, err)
		}
		mustDo(t, o.Release(w.Context()))
		if got := w.collect(checkpoint.CollectOptions{}); got.Segments != 0 {
			t.Errorf("%+v was left behind", got)
		}
	})
}

// noisy is the history of an owner with n savepoints whose names cannot be compressed.
func (w *world) noisy(o *checkpoint.Owner, n int) {
	w.Helper()
	for i := range n {
		s := at(i)
		s.Savepoint = fmt.Sprintf("%x", noise(60)) + fmt.Sprint("-", i)
		commit(w, o, s)
	}
}

// Pieces with many edits are written anew, so that others can amend the task again; and none
// becomes too large.
func TestPiecesWithManyEdits(t *testing.T) {
	inWorld(t, func(w *world) {
		task, job, _ := w.open(keepAll)
		o := claim(w, task)
		w.noisy(o, 900)
		wantPieces := func(checkpoints int) *format.Manifest {
			synctest.Wait() // until the owner has deleted the lists before
			m := w.manifest(w.newestSeq())
			s := takeInventory(w, w.bucket)
			list, err := listOf(m, func(c *format.Chunk) ([]byte, error) { return s.decode(c, nil) })
			if err != nil || len(list) != checkpoints-1 || len(m.Pieces) < 2 {
				t.Fatalf("%d checkpoints, in %d pieces, %v; want %d, beside the current one", len(list), len(m.Pieces), err, checkpoints-1)
			}
			for _, p := range m.Pieces {
				if p.StoredSize() > 32<<10 {
					t.Errorf("a piece of %d bytes", p.StoredSize())
				}
			}
			return m
		}
		wantPieces(900)
		for n := range uint64(35) {
			mustDo(t, second(task.Annotate(w.Context(), checkpoint.Seq(2+n*7), checkpoint.Note{Text: fmt.Sprintf("%x", noise(100))})))
		}
		if m := wantPieces(900); len(m.Edits.Changed) != 35 {
			t.Errorf("%d edits", len(m.Edits.Changed))
		}
		mustDo(t, o.Check(w.Context()))
		for n := range 10 {
			if n := sent(job, func() { commit(w, o, at(n)) }); n > mostSent {
				t.Errorf("a commit sends %d bytes", n)
			}
		}
		if m := wantPieces(910); len(m.Edits.Changed) > 10 {
			t.Errorf("%d edits are left", len(m.Edits.Changed))
		}
		w.wantListsOnly()
	})
}

// wantListsOnly makes sure that the segments are those of the newest manifest's list, no more
// and no less.
func (w *world) wantListsOnly() {
	w.Helper()
	synctest.Wait() // until the owner has deleted the lists before
	s := takeInventory(w, w.bucket)
	if _, err := listOf(s.newest, func(c *format.Chunk) ([]byte, error) { return s.decode(c, nil) }); err != nil {
		w.Fatal(err)
	}
	if n := len(s.newest.ListSegments()); n != len(s.segments) {
		w.Errorf("there are %d segments; the list lies in %d", len(s.segments), n)
	}
}

// Pieces of which little is left are written anew, and take no more than twice what is left.
func TestPiecesOfWhichLittleIsLeft(t *testing.T) {
	inWorld(t, func(w *world) {
		w.forge(12_000)
		task, _, _ := w.open(keepAll)
		if _, err := task.Prune(w.Context(), checkpoint.Retention{Last: 500, Hourly: checkpoint.KeepAll}, checkpoint.PruneOptions{}); err != nil {
			t.Fatal(err)
		}
		o := claim(w, task)
		for n := range 5 {
			commit(w, o, at(n))
			synctest.Wait()
		}
		w.wantListsOnly()
		w.wantShortLists()
		if m := w.manifest(w.newestSeq()); !m.Edits.IsZero() {
			t.Errorf("%+v are left", m.Edits)
		}
	})
}

// Who prunes deletes the list that was, although the task's owner has stored it.
func TestPruneDeletesTheListThatWas(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		n := w.fullList(o)
		commit(w, o, at(n+1))
		synctest.Wait()
		w.wantObjects(segments, 2)
		task, _, _ := w.open(keepAll)
		mustDo(t, second(task.Prune(w.Context(), checkpoint.Retention{Last: 300}, checkpoint.PruneOptions{})))
		w.wantObjects(segments, 0)
		commit(w, o, at(n+2))
		synctest.Wait()
		w.wantObjects(segments, 0)
		w.wantReadable()
	})
}

// A piece that is missing is damage, and nobody deletes anything by what is known.
func TestPieceIsMissing(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		w.noisy(o, 900)
		mustDo(t, o.Release(w.Context()))
		synctest.Wait()
		s := takeInventory(w, w.bucket)
		_, err := listOf(s.newest, func(c *format.Chunk) ([]byte, error) { return s.decode(c, nil) })
		mustDo(t, err)
		key := format.SegmentKey(dir, s.newest.Pieces[1].Segment)
		for name, damage := range map[string]func(){
			string(checkpoint.Missing): func() { w.remove(key) },
			string(checkpoint.Damaged): func() { w.write(key, noise(30<<10)) },
		} {
			damage()
			r, _ := w.verify(structure)
			w.wantProblem(r, "a piece", key, checkpoint.ProblemKind(name), []uint64{})
			if r.Intact < 2 || r.Intact > 900 || r.Garbage != (checkpoint.CollectResult{}) {
				t.Errorf("%s: %+v", name, r)
			}
			task, _, _ := w.process()
			before := w.objects("")
			if _, err := task.Collect(w.Context(), checkpoint.CollectOptions{}); !errors.Is(err, checkpoint.ErrCorrupt) {
				t.Errorf("%s: collect: %v", name, err)
			}
			if _, err := task.Claim(w.Context(), checkpoint.ClaimOptions{}); !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: claim: %v", name, err)
			}
			for _, o := range before {
				if !w.exists(o.Key) {
					t.Errorf("%s: %s was deleted", name, o.Key)
				}
			}
			w.remove(format.ManifestKey(dir, w.newestSeq())) // the claim
		}
	})
}

// A reader that loses the race to the deletion of a piece reads the newest manifest again.
func TestPieceIsDeletedWhileItIsRead(t *testing.T) {
	for name, read := range map[string]func(w *world, task *checkpoint.Task) error{
		"by a reader": func(w *world, task *checkpoint.Task) error {
			list, err := task.List(w.Context())
			if len(list) != 300 {
				w.Errorf("%d checkpoints", len(list))
			}
			return err
		},
		"by an amender": func(w *world, task *checkpoint.Task) error {
			_, err := task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(keepAll)
				n := w.fullList(o)
				commit(w, o, at(n+1))
				synctest.Wait()
				var gets atomic.Int64 // checkpoints are read side by side
				task := w.hookedTask(keepAll, func(verb, _ string) {
					if verb != "get" {
						return
					}
					if gets.Add(1) == 2 { // of the index, after that of the manifest
						mustDo(t, second(w.mustTask().Prune(w.Context(), checkpoint.Retention{Last: 300}, checkpoint.PruneOptions{})))
					}
				})
				if err := read(w, task); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func (w *world) mustTask() *checkpoint.Task {
	w.Helper()
	task, _, _ := w.process()
	return task
}

// Lists that nobody needs any more, but that were not deleted, are garbage when their writer
// can make no more manifests, although the manifests that named them are retained.
func TestOutdatedListsAreCollected(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		n := w.fullList(o)
		commit(w, o, at(n+1))
		synctest.Wait()
		was := takeInventory(w, w.bucket)
		w.noisy(o, 70) // so that there is another piece
		w.wantListsOnly()
		left := 0
		for id, data := range was.segments {
			if key := format.SegmentKey(dir, id); !w.exists(key) {
				w.write(key, data)
				left++
			}
		}
		if left == 0 {
			t.Fatal("all of the list is still needed")
		}
		if r, _ := w.verify(structure); r.InFlight.Segments != left || r.Garbage.Segments != 0 || r.Lost.Segments != 0 {
			t.Errorf("while the owner may be about to name it: %+v", r)
		}
		w.ownerWith(keepAll)
		if r, _ := w.verify(structure); r.Garbage.Segments != left || r.Lost.Segments != 0 {
			t.Errorf("after a claim: %+v; want %d to be garbage", r, left)
		}
		if got := w.collect(checkpoint.CollectOptions{}); got.Segments != left {
			t.Errorf("%+v was collected; want %d segments", got, left)
		}
		w.wantListsOnly()
	})
}

// A piece that was written by other rules becomes several.
func TestPieceThatIsTooLarge(t *testing.T) {
	inWorld(t, func(w *world) {
		const n = 8000
		rnd := rand.New(rand.NewPCG(1, 2))
		list := make([]format.Retained, n)
		for i := range list {
			list[i] = format.Retained{Seq: uint64(n - i), Time: time.Unix(int64(n-i), rnd.Int64N(1e9)).UTC()}
		}
		m := &format.Manifest{
			Kind: format.KindCommit, Task: "orders/7", Seq: n + 1, Epoch: 1, Writer: format.WriterID{1},
			Checkpoint: &format.Checkpoint{Seq: n + 1, Epoch: 1, Content: new(format.Content)},
		}
		w.forgeList(m, 4000, list)
		w.put(m)
		for i := range uint64(15) {
			mustDo(t, addSavepoint(w, fmt.Sprintf("%x-%d", noise(55), i), checkpoint.Seq(n-i*3)))
		}
		task, _, _ := w.open(keepAll)
		commit(w, claim(w, task), at(1))
		synctest.Wait()
		s := takeInventory(w, w.bucket)
		got, err := listOf(s.newest, func(c *format.Chunk) ([]byte, error) { return s.decode(c, nil) })
		if err != nil || len(got) != n+1 || len(s.newest.Pieces) != 3 || !s.newest.Edits.IsZero() {
			t.Fatalf("%d checkpoints in %d pieces, with %d edits, %v", len(got), len(s.newest.Pieces), len(s.newest.Edits.Changed), err)
		}
		for i, p := range s.newest.Pieces[:2] {
			if p.StoredSize() > 32<<10 {
				t.Errorf("piece %d has %d bytes", i, p.StoredSize())
			}
		}
	})
}

// A policy that drops every second checkpoint leaves room for amendments.
func TestPolicyThatDropsEverySecond(t *testing.T) {
	inWorld(t, func(w *world) {
		const n = 12_000
		list := make([]format.Retained, n)
		for i := range list {
			list[i] = format.Retained{Seq: uint64(n - i), Time: time.Unix(int64(n-i), 0).UTC()}
			if i%2 == 0 {
				list[i].Savepoint = fmt.Sprint("s", i)
			}
		}
		m := &format.Manifest{
			Kind: format.KindCommit, Task: "orders/7", Seq: n + 1, Epoch: 1, Writer: format.WriterID{1},
			Checkpoint: &format.Checkpoint{Seq: n + 1, Epoch: 1, Content: new(format.Content)},
		}
		w.forgeList(m, 4000, list)
		w.put(m)
		task, _, _ := w.open(checkpoint.Options{Retention: checkpoint.Retention{Last: 2}})
		commit(w, claim(w, task), at(1))
		synctest.Wait()
		s := takeInventory(w, w.bucket)
		if got := s.retained(w); len(got) != n/2+2 {
			t.Errorf("%d checkpoints", len(got))
		}
		if data, err := json.Marshal(s.newest.Edits); err != nil || len(data) > 10<<10 { // counted as 15 KiB, because positions may have more digits
			t.Errorf("%d bytes of edits, %v", len(data), err)
		}
	})
}

// Where the oldest checkpoints go, so do the pieces that had them.
func TestPiecesThatAreDropped(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(checkpoint.Options{Retention: checkpoint.Retention{Last: 500}})
		for n := range 2000 {
			commit(w, o, at(n))
			if n%100 == 99 {
				w.wantListsOnly()
			}
		}
		if s := takeInventory(w, w.bucket); len(s.retained(w)) != 500 || s.retained(w)[499] != 1502 || len(s.newest.Pieces) > 3 {
			t.Errorf("%d checkpoints in %d pieces", len(s.retained(w)), len(s.newest.Pieces))
		}
	})
}

// A policy may drop all of a piece at once.
func TestPieceIsDroppedAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.forge(12_000)
		o, _ := w.ownerWith(checkpoint.Options{Retention: checkpoint.Retention{Last: 7900}})
		commit(w, o, at(1))
		w.wantListsOnly()
		if s := takeInventory(w, w.bucket); len(s.retained(w)) != 7900 || len(s.newest.Pieces) != 2 {
			t.Errorf("%d checkpoints in %d pieces", len(s.retained(w)), len(s.newest.Pieces))
		}
	})
}

// A steps makes changes of a task by chance, and knows what the list is to be.
type steps struct {
	*world
	*rapid.T
	owner *checkpoint.Owner
	list  []format.Retained // number, name and note of each, the current one first
	names int
	most  int // pieces at once
}

// TestListsOfManySteps commits, goes back, amends, prunes and claims, and compares the list
// with a plain one.
func TestListsOfManySteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) { run(t, listOfManySteps) })
	})
}

func listOfManySteps(w *world) {
	s := &steps{world: w, T: w.tester.(*rapid.T)}
	s.list = w.forgeNamed(900, rapid.IntRange(200, 450).Draw(s.T, "piece"), func(seq uint64) string {
		return fmt.Sprintf("%x-%d", noise(55), seq)
	})
	for i := range s.list {
		s.list[i].Time = time.Time{}
	}
	s.claim()
	s.Repeat(map[string]func(*rapid.T){
		"commit":  func(*rapid.T) { s.commit() },
		"write":   func(*rapid.T) { s.commit() }, // twice as often as the rest
		"go back": func(*rapid.T) { s.goBack() },
		"amend":   func(*rapid.T) { s.amend() },
		"prune":   func(*rapid.T) { s.prune() },
		"claim":   func(*rapid.T) { s.claim() },
		"":        func(*rapid.T) { s.check() },
	})
	s.commit() // which collects
	s.check()
	w.wantListsOnly()
	s.close()
	s.Logf("%d checkpoints at the end, %d pieces at most", len(s.list), s.most)
}

// name returns a name that cannot be compressed, and that no other checkpoint has.
func (s *steps) name() string {
	s.names++
	return fmt.Sprintf("%x+%d", noise(rapid.IntRange(1, 55).Draw(s.T, "name")), s.names)
}

func (s *steps) commit() {
	named := rapid.Bool().Draw(s.T, "named")
	for range rapid.IntRange(1, 80).Draw(s.T, "commits") {
		snap := at(len(s.list))
		if named {
			snap.Savepoint = s.name()
		}
		c := commit(s.world, s.owner, snap)
		s.list = append([]format.Retained{{Seq: c.Seq, Savepoint: snap.Savepoint}}, s.list...)
	}
	synctest.Wait()
}

func (s *steps) any() int { return rapid.IntRange(0, len(s.list)-1).Draw(s.T, "which") }

func (s *steps) goBack() {
	i := s.any()
	s.close()
	task, _, _ := s.open(keepAll)
	o, err := task.Claim(s.world.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(s.list[i].Seq)})
	if err != nil {
		s.Fatal(err)
	}
	s.owner = o
	s.list = slices.Concat(s.list[i:i+1], s.list[:i], s.list[i+1:])
}

func (s *steps) claim() {
	s.close()
	task, _, _ := s.open(keepAll)
	s.owner = claim(s.world, task)
}

func (s *steps) close() {
	if s.owner != nil {
		mustDo(s.T, s.owner.Close(s.world.Context()))
	}
}

func (s *steps) amend() {
	task := s.mustTask()
	for range rapid.IntRange(1, 8).Draw(s.T, "amendments") {
		r := &s.list[s.any()]
		at := checkpoint.Seq(r.Seq)
		switch {
		case rapid.Bool().Draw(s.T, "note"):
			r.Note.Text = s.name()
			mustDo(s.T, second(task.Annotate(s.world.Context(), at, checkpoint.Note{Text: r.Note.Text})))
		case r.Savepoint == "":
			r.Savepoint = s.name()
			mustDo(s.T, second(task.AddSavepoint(s.world.Context(), r.Savepoint, checkpoint.SavepointOptions{At: at})))
		default:
			mustDo(s.T, second(task.RemoveSavepoint(s.world.Context(), r.Savepoint)))
			r.Savepoint = ""
		}
	}
}

func (s *steps) prune() {
	last := rapid.IntRange(len(s.list)/2, len(s.list)+1).Draw(s.T, "last")
	last = max(last, 1)
	mustDo(s.T, second(s.mustTask().Prune(s.world.Context(), checkpoint.Retention{Last: last}, checkpoint.PruneOptions{})))
	var kept []format.Retained
	for i, r := range s.list {
		if i < last || r.Savepoint != "" {
			kept = append(kept, r)
		}
	}
	s.list = kept
}

// check compares the newest list with the plain one.
func (s *steps) check() {
	in := takeInventory(s.T, s.bucket)
	list, err := listOf(in.newest, func(c *format.Chunk) ([]byte, error) { return in.decode(c, nil) })
	if err != nil {
		s.Fatal(err)
	}
	all := append([]format.Retained{in.newest.Checkpoint.Retained()}, list...)
	for i := range all {
		all[i].Time = time.Time{}
	}
	if !slices.Equal(all, s.list) {
		s.Fatalf("the list is\n%v\nwant\n%v", all, s.list)
	}
	s.most = max(s.most, len(in.newest.Pieces))
	for _, p := range in.newest.Pieces {
		if p.StoredSize() > 32<<10 {
			s.Errorf("a piece of %d bytes", p.StoredSize())
		}
	}
}
