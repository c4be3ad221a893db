package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

var (
	structure = checkpoint.VerifyOptions{}
	allData   = checkpoint.VerifyOptions{Data: true}
)

// verify verifies in a process of its own, and returns the number of requests.
func (w *world) verify(opts checkpoint.VerifyOptions, faults ...faultstore.Fault) (r *checkpoint.VerifyReport, calls int) {
	w.Helper()
	task, _, store := w.process(faults...)
	r, err := task.Verify(w.Context(), opts)
	if err != nil {
		w.Fatal(err)
	}
	if intact, damaged := r.Intact, len(r.Damaged); intact+damaged != r.Checkpoints {
		w.Errorf("%d intact and %d damaged of %d", intact, damaged, r.Checkpoints)
	}
	if err := r.Err(); (err == nil) != (len(r.Problems) == 0) || err != nil && !errors.Is(err, checkpoint.ErrCorrupt) {
		w.Errorf("%v of %+v", err, r.Problems)
	}
	return r, store.Calls()
}

// library commits checkpoints that share segments, tables and lists of files, some
// with parts that do not fit into the manifest. Their numbers begin at 2.
func (w *world) library() *checkpoint.Owner {
	w.Helper()
	o, _ := w.ownerWith(checkpoint.Options{Memory: 1 << 20})
	many := map[string]string{}
	for n := range 2000 {
		many[fmt.Sprint("orders/", n)] = fmt.Sprint(n * n)
	}
	one, two := noise(300<<10), noise(70<<10)
	rot := bytes.Clone(one)
	copy(rot[150<<10:], noise(40<<10))
	for _, s := range []checkpoint.Snapshot{
		{State: checkpoint.FS(fstest.MapFS{"one": {Data: one}, "small": {Data: []byte("s")}})},
		{State: checkpoint.FS(fstest.MapFS{"one": {Data: one}, "two": {Data: two}})},
		{Offsets: many, State: checkpoint.FS(fstest.MapFS{"one": {Data: rot}, "two": {Data: two}})},
		{State: checkpoint.FS(fstest.MapFS{"one": {Data: rot}, "in": {Data: []byte("inline")}})},
		at(9),
	} {
		commit(w, o, s)
	}
	synctest.Wait()
	return o
}

// unreadable returns the numbers of the checkpoints that cannot be read completely,
// the highest first.
func (w *world) unreadable() []uint64 {
	w.Helper()
	task, _, _ := w.process()
	damaged := []uint64{}
	for seq := uint64(6); seq >= 2; seq-- {
		if err := readAll(w.Context(), task, seq); errors.Is(err, checkpoint.ErrCorrupt) {
			damaged = append(damaged, seq)
		} else if err != nil {
			w.Fatal(err)
		}
	}
	return damaged
}

func readAll(ctx context.Context, task *checkpoint.Task, seq uint64) error {
	c, err := task.Get(ctx, checkpoint.Seq(seq))
	if err != nil {
		return err
	}
	fsys, err := c.FS(ctx)
	if err != nil {
		return err
	}
	return fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			_, err = fs.ReadFile(fsys, path)
		}
		return err
	})
}

func (w *world) read(key string) []byte {
	w.Helper()
	p := make([]byte, 1<<20)
	n, err := w.bucket.Open().Get(w.Context(), key, 0, p)
	if err != nil {
		w.Fatal(err)
	}
	return p[:n]
}

func (w *world) write(key string, data []byte) {
	w.Helper()
	if _, err := w.bucket.Open().Put(w.Context(), key, data); err != nil {
		w.Fatal(err)
	}
}

// damage flips a bit in each chunk of a segment.
func (w *world) damage(key string) {
	w.Helper()
	data := make([]byte, 64<<20)
	n, err := w.bucket.Open().Get(w.Context(), key, 0, data)
	if err != nil {
		w.Fatal(err)
	}
	data = data[:n]
	for i := 0; i < n; i += 512 {
		data[i] ^= 1
	}
	if _, err := w.bucket.Open().Put(w.Context(), key, data); err != nil {
		w.Fatal(err)
	}
}

func (w *world) remove(key string) {
	w.Helper()
	if err := w.bucket.Open().Delete(w.Context(), key); err != nil {
		w.Fatal(err)
	}
}

// wantProblem fails unless the report names this one object and these damaged
// checkpoints.
func (w *world) wantProblem(r *checkpoint.VerifyReport, what, key string, kind checkpoint.ProblemKind, affects []uint64) {
	w.Helper()
	if len(r.Problems) != 1 || r.Problems[0].Object != key || r.Problems[0].Kind != kind || r.Problems[0].Error == "" {
		w.Fatalf("%s: %+v; want %s to be %s", what, r.Problems, key, kind)
	}
	if !slices.Equal(r.Problems[0].Affects, affects) || !slices.Equal(r.Damaged, affects) {
		w.Fatalf("%s: it affects %v and %v, want %v", what, r.Problems[0].Affects, r.Damaged, affects)
	}
}

func TestVerifyIntactTasks(t *testing.T) {
	for name, snapshots := range kept() {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll}})
				for _, s := range snapshots {
					commit(w, o, s)
				}
				synctest.Wait()
				for _, opts := range []checkpoint.VerifyOptions{structure, allData} {
					r, _ := w.verify(opts)
					if r.Intact != len(snapshots) || len(r.Problems) > 0 || r.Garbage.Segments+r.InFlight.Segments+r.Unclear.Segments+len(r.OtherObjects) > 0 {
						t.Errorf("%+v, want %d intact and nothing else", r, len(snapshots))
					}
					if n := len(w.objects(segments)); r.Live.Segments != n {
						t.Errorf("%d of %d segments are live", r.Live.Segments, n)
					}
				}
			})
		})
	}
}

// If an object is damaged, the report names exactly the checkpoints that cannot be
// read.
func TestVerifyDamagedData(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		for _, o := range w.objects("")[1:] { // another test covers the newest manifest
			if o.Key == format.ManifestKey(dir, 1) {
				continue // a claim, which no checkpoint needs
			}
			data := w.read(o.Key)
			for _, at := range []int{0, len(data) - 1, rand.IntN(len(data)), rand.IntN(len(data)), rand.IntN(len(data)), rand.IntN(len(data))} {
				data[at] ^= 1
				w.write(o.Key, data)
				what := fmt.Sprintf("%s with byte %d of %d flipped", o.Key, at, len(data))
				want := w.unreadable()
				r, _ := w.verify(allData)
				if len(want) == 0 && len(r.Problems) == 0 {
					t.Log(what, "is dead space")
				} else {
					w.wantProblem(r, what, o.Key, checkpoint.Damaged, want)
				}
				if r, _ := w.verify(structure); len(r.Problems) > 0 {
					w.wantProblem(r, what, o.Key, checkpoint.Damaged, want)
				}
				data[at] ^= 1
			}
			w.write(o.Key, data)
		}
		if r, _ := w.verify(allData); r.Intact != 5 {
			t.Errorf("with everything back in its place: %+v", r)
		}
	})
}

// An object that arrives damaged only once is intact in the store.
func TestVerifyReadsWhatIsWrongTwice(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		for k, fired := 1, true; fired; k++ {
			task, _, store := w.process(faultstore.Fault{Kind: faultstore.Corrupt, Verb: "get", On: k, Seed: uint64(k)})
			r, err := task.Verify(w.Context(), allData)
			if err != nil || len(r.Problems) > 0 {
				t.Errorf("read %d was damaged: %+v, %v", k, r, err)
			}
			if fired = len(store.Unfired()) == 0; !fired {
				store.Disarm()
			}
		}
	})
}

func TestVerifyMissing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		for _, o := range w.objects("")[1:] {
			if o.Key == format.ManifestKey(dir, 1) {
				continue
			}
			data := w.read(o.Key)
			w.remove(o.Key)
			want := w.unreadable()
			for _, opts := range []checkpoint.VerifyOptions{structure, allData} {
				r, _ := w.verify(opts)
				w.wantProblem(r, o.Key+" removed", o.Key, checkpoint.Missing, want)
			}
			w.write(o.Key, data)
		}
	})
}

func TestVerifyTruncated(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		content := format.SegmentKey(dir, w.manifest(4).Checkpoint.ContentAt.Segment)
		for _, o := range w.objects(segments) {
			data := w.read(o.Key)
			for _, size := range []int{0, len(data) / 2, len(data) - 1, len(data) + 1} {
				if o.Key == content && size > len(data) {
					continue // the checkpoints that name it do not say how large it is
				}
				w.write(o.Key, slices.Concat(data, []byte("x"))[:size])
				r, _ := w.verify(structure)
				// Every checkpoint that names the segment is damaged, even if it
				// needs nothing of the missing part.
				for _, seq := range w.unreadable() {
					if !slices.Contains(r.Damaged, seq) {
						t.Errorf("%s of %d bytes cut to %d: it affects %v, and %d", o.Key, len(data), size, r.Damaged, seq)
					}
				}
				if len(r.Problems) != 1 || r.Problems[0].Object != o.Key || r.Problems[0].Kind != checkpoint.Damaged {
					t.Errorf("%s cut to %d: %+v", o.Key, size, r.Problems)
				}
			}
			w.write(o.Key, data)
		}
	})
}

// Lists of files, tables and parts of manifests are read even without Data.
func TestVerifyDamagedStructure(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		for seq := uint64(2); seq <= 5; seq++ {
			m := w.manifest(seq)
			var chunks []format.Chunk
			if c := m.Checkpoint.Content; c != nil {
				chunks = append(chunks, c.TreeAt...)
				leaves, err := format.DecodeLeaves(c.Tree, m.Checkpoint.Files, m.Checkpoint.Bytes)
				if err != nil && len(c.Tree) > 0 {
					t.Fatal(err)
				}
				for _, l := range leaves {
					chunks = append(chunks, l.Chunks...)
				}
			} else {
				chunks = append(chunks, *m.Checkpoint.ContentAt)
			}
			found := 0
			for _, c := range chunks {
				if c.Segment == (format.SegmentID{}) {
					continue
				}
				found++
				key := format.SegmentKey(dir, c.Segment)
				data := w.read(key)
				data[c.Offset] ^= 1
				w.write(key, data)
				r, _ := w.verify(structure)
				w.wantProblem(r, key, key, checkpoint.Damaged, w.unreadable())
				if !slices.Contains(r.Damaged, seq) {
					t.Errorf("it does not damaged %d", seq)
				}
				data[c.Offset] ^= 1
				w.write(key, data)
			}
			if seq == 4 && found == 0 {
				t.Error("the content of number 4 has not spilled")
			}
		}
	})
}

func TestVerifyBehindADamagedNewestManifest(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		key := format.ManifestKey(dir, 6)
		w.write(key, []byte("rubbish"))
		w.segment(1, 0xee, 0) // number 6 may name it
		r, _ := w.verify(allData)
		w.wantProblem(r, "the newest manifest", key, checkpoint.Damaged, []uint64{6})
		if r.Manifest != 5 || r.Intact != 4 || r.Garbage.Segments > 0 || r.Unclear.Segments != 1 {
			t.Errorf("%+v, want 4 intact and no garbage", r)
		}
	})
}

// A claim repeats the checkpoint of another manifest. That checkpoint can be read,
// but not for long.
func TestVerifyBehindAClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		w.owner()
		if r, _ := w.verify(allData); r.Intact != 5 {
			t.Errorf("%+v", r)
		}
		key := format.ManifestKey(dir, 6)
		w.remove(key)
		r, _ := w.verify(allData)
		w.wantProblem(r, "a manifest that the claim repeats", key, checkpoint.Missing, []uint64{6})
	})
}

func TestVerifyDamagedRetainedList(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(checkpoint.Options{Memory: 1 << 20})
		for n := range 150 {
			commit(w, o, checkpoint.Snapshot{Savepoint: fmt.Sprintf("%0127d.", n)})
		}
		synctest.Wait()
		at := w.manifest(151).RetainedAt
		if at == nil {
			t.Fatal("the list has not spilled")
		}
		key := format.SegmentKey(dir, at.Segment)
		w.remove(key)
		r, _ := w.verify(structure)
		w.wantProblem(r, "the list", key, checkpoint.Missing, []uint64{})
		if known := len(w.manifest(151).Retained) + 1; r.Intact != known || r.Garbage != (checkpoint.CollectResult{}) {
			t.Errorf("%+v", r)
		}
	})
}

func TestVerifyOrphans(t *testing.T) {
	inWorld(t, func(w *world) {
		first, _ := w.owner()
		commit(w, first, with(1, 100<<10))
		o, _ := w.owner()
		c := commit(w, o, with(2, 100<<10))
		synctest.Wait()
		w.segment(1, 0xee, 0)
		w.segment(2, 0xee, 1)
		w.segment(3, 0xee, 0)
		w.write(format.SegmentKey(dir, format.SegmentID{Epoch: 2, Writer: w.manifest(c.Seq).Writer, N: 99}), []byte("x"))
		foreign := []string{dir + "/manifests/notes", dir + "/notes", dir + "/segments/notes"}
		for _, key := range foreign {
			w.write(key, []byte("n"))
		}
		time.Sleep(2 * checkpoint.FenceWindow)
		commit(w, o, at(3))
		synctest.Wait()
		w.segment(1, 0xee, 0) // the owner has collected it
		w.segment(2, 0xee, 1)
		time.Sleep(2 * checkpoint.FenceWindow)
		commit(w, o, at(4))
		r, _ := w.verify(allData)
		if want := w.collect(checkpoint.CollectOptions{DryRun: true}); r.Garbage != want || r.Garbage.Segments != 2 || r.Garbage.Manifests == 0 {
			t.Errorf("garbage %+v; a collector finds %+v", r.Garbage, want)
		}
		if want := (checkpoint.CollectResult{Segments: 2, Bytes: 101}); r.InFlight != want {
			t.Errorf("in flight %+v, want %+v", r.InFlight, want)
		}
		if !slices.Equal(r.OtherObjects, foreign) || len(r.Problems) > 0 || r.Intact != 4 {
			t.Errorf("%+v", r)
		}

		// A young manifest is not garbage, even if no checkpoint needs it.
		heir, _ := w.owner()
		time.Sleep(time.Minute)
		commit(w, heir, at(5))
		synctest.Wait()
		after, _ := w.verify(structure)
		if want := w.collect(checkpoint.CollectOptions{DryRun: true}); after.Garbage != want || want.Manifests > 0 {
			t.Errorf("garbage %+v; a collector finds %+v", after.Garbage, want)
		}
	})
}

// A checkpoint that cannot be read may need what looks like garbage.
func TestVerifyUnclear(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		c := commit(w, o, with(1, 100<<10))
		commit(w, o, at(2))
		synctest.Wait()
		w.segment(1, 0xee, 0)
		w.segment(1, 0xee, 1)
		w.write(format.ManifestKey(dir, c.Seq), []byte("rubbish"))
		r, _ := w.verify(structure)
		if r.Garbage.Segments != 0 || r.Unclear.Segments != 2 {
			t.Errorf("beside a damaged manifest: garbage %+v, unclear %+v", r.Garbage, r.Unclear)
		}
	})
}

func TestVerifyNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.process()
		if _, err := task.Verify(w.Context(), structure); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("a task that does not exist: %v", err)
		}
		w.owner()
		if r, _ := w.verify(allData); r.Checkpoints != 0 || len(r.Problems) > 0 {
			t.Errorf("a task without checkpoints: %+v", r)
		}
	})
}

// counted counts what is read.
type counted struct {
	backend.Store
	gets, bytes atomic.Int64
}

func (c *counted) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	n, err := c.Store.Get(ctx, key, offset, p)
	c.gets.Add(1)
	c.bytes.Add(int64(n))
	return n, err
}

// Segments are not checked by one request each, and data is read once.
func TestVerifyCost(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(checkpoint.Options{Memory: 1 << 20})
		data := noise(3 << 20)
		for n := range 8 {
			copy(data[n<<18:], noise(1000))
			commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(fstest.MapFS{"data": {Data: bytes.Clone(data)}})})
		}
		synctest.Wait()
		store := &counted{Store: w.bucket.Open()}
		task, err := newJob(t, store, checkpoint.Options{}).Task("orders/7")
		if err != nil {
			t.Fatal(err)
		}
		r, err := task.Verify(w.Context(), structure)
		if err != nil || r.Intact != 8 {
			t.Fatalf("%+v, %v", r, err)
		}
		// A manifest, a list of files and one or two tables for each checkpoint.
		if n := len(w.objects(segments)); store.gets.Load() > 5*8 || n < 50 {
			t.Errorf("%d requests for 8 checkpoints in %d segments", store.gets.Load(), n)
		}
		structural := store.bytes.Swap(0)
		if r, err = task.Verify(w.Context(), allData); err != nil || r.Intact != 8 {
			t.Fatalf("%+v, %v", r, err)
		}
		if n := store.bytes.Load() - structural; n > r.Live.Bytes+r.Live.Bytes/10 || r.DataRead > r.Live.Bytes || r.DataRead < 3<<20 {
			t.Errorf("read %d bytes of data, %d of them right, of %d that there are", n, r.DataRead, r.Live.Bytes)
		}
	})
}

// A verifier may sleep before any request while owners go on. It must not report
// damage.
func TestVerifierThatSleeps(t *testing.T) {
	for sleepAt := range 30 {
		slept := false
		inWorld(t, func(w *world) {
			opts := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: 2}}
			o, _ := w.ownerWith(opts)
			many := with(0, 100<<10)
			for n := range 1000 {
				many.Offsets[fmt.Sprint("orders/", n)] = strings.Repeat("7", 20)
			}
			commit(w, o, many)
			for n := range 3 {
				commit(w, o, with(n, 100<<10))
			}
			synctest.Wait()
			calls := 0
			job := newJob(t, hookedReads{w.bucket.Open(), func() {
				if calls++; calls != sleepAt+1 {
					return
				}
				slept = true
				for n := range 3 {
					commit(w, o, with(10+n, 100<<10))
				}
				heir, _ := w.ownerWith(opts)
				for n := range 3 {
					time.Sleep(time.Hour)
					commit(w, heir, with(20+n, 100<<10))
				}
				synctest.Wait()
			}}, checkpoint.Options{Requests: 1})
			task, err := job.Task("orders/7")
			if err != nil {
				t.Fatal(err)
			}
			r, err := task.Verify(w.Context(), allData)
			if err != nil || len(r.Problems) > 0 || r.Intact == 0 {
				t.Errorf("sleeping before request %d: %+v, %v", sleepAt+1, r, err)
			}
		})
		if !slept {
			if sleepAt < 8 {
				t.Errorf("a verification took %d requests", sleepAt)
			}
			return
		}
	}
	t.Error("there are more requests than were tried")
}

// While a job goes on, the checkpoints that it retires are not damaged, and the
// others are verified.
func TestVerifyIsOvertakenEachTime(t *testing.T) {
	for _, opts := range []checkpoint.VerifyOptions{structure, allData} {
		for _, prefix := range []string{dir + "/", dir + segments} { // the listing, and reading
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: 4}})
				n := 0
				next := func() {
					n++
					data := make([]byte, 30<<10) // too little for a table
					_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(data)
					state := fstest.MapFS{"data": {Data: data}}
					commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(state)})
					state["small"] = &fstest.MapFile{Data: []byte("s")} // so that the list of files is inline
					commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(state)})
					synctest.Wait()
				}
				next()
				next()
				verifications, overtaken := 0, 0
				store := hookedKeys{w.bucket.Open(), func(key string) {
					switch {
					case key == format.ManifestPrefix(dir) && overtaken == verifications:
						verifications++
					case strings.HasPrefix(key, prefix) && !strings.HasPrefix(key, dir+manifests) && overtaken < verifications:
						overtaken++
						next()
					}
				}}
				task, err := newJob(t, store, checkpoint.Options{}).Task("orders/7")
				if err != nil {
					t.Fatal(err)
				}
				r, err := task.Verify(w.Context(), opts)
				if err != nil || len(r.Problems) > 0 || r.Intact == 0 || overtaken == 0 {
					t.Errorf("overtaken %d times at %s: %+v, %v", overtaken, prefix, r, err)
				}
				if r != nil && r.Intact > 3 && prefix == dir+"/" {
					t.Errorf("%d are intact, of which two were retired", r.Intact)
				}
			})
		}
	}
}

// hookedKeys calls before with the key or prefix of each read.
type hookedKeys struct {
	backend.Store
	before func(key string)
}

func (s hookedKeys) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	s.before(key)
	return s.Store.Get(ctx, key, offset, p)
}

func (s hookedKeys) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	s.before(prefix)
	return s.Store.List(ctx, prefix, after)
}

// hookedReads calls before before each read.
type hookedReads struct {
	backend.Store
	before func()
}

func (s hookedReads) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	s.before()
	return s.Store.Get(ctx, key, offset, p)
}

func (s hookedReads) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	s.before()
	return s.Store.List(ctx, prefix, after)
}

// A store that fails is not damage.
func TestVerifyBesideFaults(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		want, calls := w.verify(allData)
		for k := range calls {
			fault := faultstore.Fault{Kind: faultstore.FailBefore, On: k + 1}
			if got, _ := w.verify(allData, fault); got.Intact != want.Intact || len(got.Problems) > 0 || got.DataRead != want.DataRead {
				t.Errorf("request %d fails once: %+v", k+1, got)
			}
			fault.Err = backend.ErrPermission
			task, _, _ := w.process(fault)
			if r, err := task.Verify(w.Context(), allData); !errors.Is(err, backend.ErrPermission) || errors.Is(err, checkpoint.ErrCorrupt) {
				t.Errorf("request %d is refused: %+v, %v", k+1, r, err)
			}
		}
	})
}

// What was found out about a chunk holds only for exactly that chunk. If a checkpoint
// says something else about the same bytes, they are read again.
func TestVerifyDistinguishesChunks(t *testing.T) {
	inWorld(t, func(w *world) {
		data := bytes.Repeat([]byte("compress me "), 1000)
		right := codecChunk(data)
		for what, other := range map[string]format.Chunk{
			"a hash that begins alike": func(c format.Chunk) format.Chunk { c.Hash[31] ^= 1; return c }(right.Chunk),
			"another encoding":         {Segment: right.Segment, Size: right.Stored, Hash: right.Hash},
			"another size":             func(c format.Chunk) format.Chunk { c.Size--; return c }(right.Chunk),
		} {
			w.bucket = mem.NewBucket(time.Now)
			w.write(format.SegmentKey(dir, right.Segment), right.stored)
			var retained []format.Retained
			for i, c := range []format.Chunk{other, right.Chunk} { // the newest is read first
				var enc format.TreeEncoder
				if err := enc.Add(&format.Entry{Path: "f", Size: c.Size, Chunks: []format.Chunk{c}}); err != nil {
					t.Fatal(err)
				}
				content := &format.Content{
					Segments: []format.Segment{{ID: right.Segment, Size: int64(len(right.stored))}},
					Inline:   enc.Bytes(),
					Tree: oneLeaf(t, format.Leaf{
						First: "f", Files: 1, Bytes: c.Size, Uses: []format.Use{{Segment: c.Segment, Bytes: c.StoredSize()}},
						Chunks: []format.Chunk{{Size: int64(len(enc.Bytes())), Hash: format.Sum(enc.Bytes())}},
					}),
				}
				seq := uint64(i + 1)
				at := w.put(&format.Manifest{
					Kind: format.KindCommit, Task: "orders/7", Seq: seq, Epoch: 1, Retained: retained,
					Checkpoint: &format.Checkpoint{Seq: seq, Epoch: 1, Files: 1, Bytes: c.Size, Content: content},
				})
				retained = []format.Retained{{Seq: seq, Time: at}}
			}
			if r, _ := w.verify(allData); r.Intact != 1 || !slices.Equal(r.Damaged, []uint64{1}) {
				t.Errorf("%s: %+v; want number 1 to be damaged", what, r)
			}
		}
	})
}

type storedChunk struct {
	format.Chunk
	stored []byte
}

// codecChunk returns data as a compressed chunk in a segment of its own.
func codecChunk(data []byte) storedChunk {
	e, stored := codec.New().Encode(nil, data)
	return storedChunk{format.Chunk{
		Segment: format.SegmentID{Epoch: 1}, Size: int64(len(data)), Stored: int64(len(stored)), Encoding: e, Hash: format.Sum(data),
	}, stored}
}
