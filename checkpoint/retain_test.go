package checkpoint_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

func TestRetention(t *testing.T) {
	for _, c := range []struct {
		name    string
		last    int
		commits string // a number followed by s makes a savepoint
		want    string
	}{
		{"default", 0, "1 2 3 4 5 6 7 8 9 10 11 12", "12 11 10 9 8 7 6 5 4 3"},
		{"all", checkpoint.KeepAll, "1 2 3 4 5 6 7 8 9 10 11 12", "12 11 10 9 8 7 6 5 4 3 2 1"},
		{"last", 1, "1 2 3", "3"},
		{"last two", 2, "1 2 3", "3 2"},
		{"fewer than there may be", 5, "1 2 3", "3 2 1"},
		{"savepoints are kept", 2, "1s 2 3s 4 5 6", "6 5 3 1"},
		{"savepoints count among the last", 2, "1 2 3s 4", "4 3"},
		{"savepoint newest", 1, "1 2 3s", "3"},
		{"only savepoints", 1, "1s 2s 3s", "3 2 1"},
	} {
		opts := checkpoint.Options{Retention: checkpoint.Retention{Last: c.last}}
		save := func(w *world, commit func(checkpoint.Snapshot)) {
			for n, word := range strings.Fields(c.commits) {
				s := with(n+1, 20<<10)
				if strings.HasSuffix(word, "s") {
					s.Savepoint = "at " + word
				}
				commit(s)
			}
			synctest.Wait()
			w.wantHistory(c.want)
			w.wantObjects(segments, len(strings.Fields(c.want)))
		}
		t.Run(c.name+", an owner", func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(opts)
				save(w, func(s checkpoint.Snapshot) { commit(w, o, s) })
			})
		})
		t.Run(c.name+", one-off saves", func(t *testing.T) {
			inWorld(t, func(w *world) {
				save(w, func(s checkpoint.Snapshot) {
					task, _, _ := w.open(opts)
					if _, err := task.Save(w.Context(), s, checkpoint.SaveOptions{}); err != nil {
						w.Fatal(err)
					}
				})
			})
		})
		t.Run(c.name+", a new owner each", func(t *testing.T) {
			inWorld(t, func(w *world) {
				save(w, func(s checkpoint.Snapshot) {
					o, _ := w.ownerWith(opts)
					commit(w, o, s)
				})
			})
		})
	}
}

func TestGet(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.process()
		want := func(at, offset, text string, kind error) {
			t.Helper()
			c, err := task.Get(w.Context(), ref(at))
			switch {
			case kind == nil && (err != nil || c.Offsets["in"] != offset):
				t.Errorf("Get(%q) = %+v, %v; want the checkpoint of offset %s", at, c, err, offset)
			case kind != nil && (!errors.Is(err, kind) || !strings.Contains(err.Error(), text)):
				t.Errorf("Get(%q): %v; want %v: %s", at, err, kind, text)
			}
		}
		want("1", "", "checkpoint 1 was never committed", checkpoint.ErrNoCheckpoint)
		want("x", "", `no savepoint "x"`, checkpoint.ErrNoCheckpoint)

		o, _ := w.ownerWith(checkpoint.Options{Retention: checkpoint.Retention{Last: 2}}) // number 1 is its claim
		for n := range 6 {                                                                // 2 to 7
			s := at(n)
			if n == 1 {
				s.Savepoint = "before 2.0"
			}
			commit(w, o, s)
		}
		want("7", "5", "", nil)
		want("007", "5", "", nil)
		want("6", "4", "", nil)
		want("3", "1", "", nil)
		want("before 2.0", "1", "", nil)
		want("before", "", `no savepoint "before"`, checkpoint.ErrNoCheckpoint)
		for _, gone := range []string{"1", "2", "4", "5"} {
			want(gone, "", "number "+gone+" is not, or no longer, a retained checkpoint", checkpoint.ErrNoCheckpoint)
		}
		for _, never := range []string{"0", "8", "18446744073709551615"} {
			want(never, "", "checkpoint "+never+" was never committed", checkpoint.ErrNoCheckpoint)
		}
		for _, name := range []string{"-7", "+7", "7 ", "0x7", "7e0"} {
			want(name, "", fmt.Sprintf("no savepoint %q", name), checkpoint.ErrNoCheckpoint)
		}
	})
}

func TestSavepointNames(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.owner()
		named := func(name string) error {
			s := with(1, 20<<10)
			s.Savepoint = name
			_, err := o.Commit(w.Context(), s)
			return err
		}
		for _, name := range []string{"a", "v1", "1.0", "vor dem Umbau: Größe", strings.Repeat("x", 128)} {
			if err := named(name); err != nil {
				t.Errorf("savepoint %q: %v", name, err)
			}
		}
		synctest.Wait() // for the clean-up
		calls := store.Calls()
		for _, name := range []string{"1", "0", "00012345678901234567890", "a\nb", "\xff", "  ", "latest", strings.Repeat("x", 129)} {
			if err := named(name); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("savepoint %.20q: %v, want ErrInvalid", name, err)
			}
		}
		if n := store.Calls() - calls; n != 0 {
			t.Errorf("what is refused took %d requests", n)
		}
		err := named("v1")
		if !errors.Is(err, checkpoint.ErrConflict) || !strings.Contains(err.Error(), `savepoint "v1" exists already, as checkpoint 3`) {
			t.Errorf("second savepoint v1: %v, want ErrConflict", err)
		}
		if n := store.Calls() - calls; n != 1 {
			t.Errorf("a name that is not free took %d requests; want one, which tells whether it is by now", n)
		}
		// Names belong to the task, not to the owner.
		o, _ = w.owner()
		if err := named("v1"); !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("savepoint v1 by a new owner: %v, want ErrConflict", err)
		}
		s := at(1)
		s.Savepoint = "v1"
		task, _, _ := w.process()
		if _, err := task.Save(w.Context(), s, checkpoint.SaveOptions{}); !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("savepoint v1 by a save: %v, want ErrConflict", err)
		}
	})
}

// forge writes the history of n commits by an owner that keeps them all. It writes
// what the owner would write, but faster.
func (w *world) forge(n int) { w.forgeNamed(n, 4000, func(uint64) string { return "" }) }

// forgeNamed is forge with savepoints, and with pieces of so many checkpoints. It returns the
// list, the current checkpoint first.
func (w *world) forgeNamed(n, piece int, name func(seq uint64) string) []format.Retained {
	w.Helper()
	var list []format.Retained
	for seq := uint64(1); ; seq++ {
		m := &format.Manifest{Kind: format.KindCommit, Task: "orders/7", Seq: seq, Epoch: 1, Writer: format.WriterID{1}}
		m.Checkpoint = &format.Checkpoint{
			Seq: seq, Epoch: 1, Savepoint: name(seq), Content: &format.Content{Offsets: map[string]string{"in": fmt.Sprint(seq)}},
		}
		if seq == uint64(n) {
			slices.Reverse(list)
			w.forgeList(m, piece, list)
		}
		r := m.Checkpoint.Retained()
		r.Time = w.put(m)
		if seq == uint64(n) {
			return append([]format.Retained{r}, list...)
		}
		list = append(list, r)
		time.Sleep(time.Second)
	}
}

// forgeList stores a list, in pieces of so many checkpoints, as m's.
func (w *world) forgeList(m *format.Manifest, most int, list []format.Retained) {
	w.Helper()
	n, encoder := uint32(0), codec.New() // in the bubble that it is used in
	put := func(data []byte, err error) format.Chunk {
		w.Helper()
		at := format.Chunk{Segment: format.SegmentID{Epoch: m.Epoch, Writer: m.Writer, N: n}, Size: int64(len(data)), Hash: format.Sum(data)}
		e, stored := encoder.Encode(nil, data)
		if at.Encoding = e; e != format.Raw {
			at.Stored, data = int64(len(stored)), stored
		}
		if err == nil {
			_, err = w.bucket.Open().Put(w.Context(), format.SegmentKey(dir, at.Segment), data)
		}
		if err != nil {
			w.Fatal(err)
		}
		n++
		return at
	}
	for piece := range slices.Chunk(list, most) {
		m.Pieces = append(m.Pieces, format.Piece{N: len(piece), Chunk: put(format.EncodeRetained(piece))})
	}
	at := put(format.EncodeIndex(m.Pieces))
	m.RetainedAt = &at
}

func TestLongRetainedList(t *testing.T) {
	inWorld(t, func(w *world) {
		const n = 2000
		w.forge(n)
		keepAll := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll}}
		owned, job, _ := w.open(keepAll)
		o := claim(w, owned) // n+1 repeats where the list is
		task, _, _ := w.process()
		if c, err := task.Get(w.Context(), checkpoint.Seq(1)); err != nil || c.Offsets["in"] != "1" {
			t.Errorf("under the claim, At 1: %+v, %v", c, err)
		}
		before := job.Stats()
		commit(w, o, at(n+2)) // after it, the owner collects, with other requests
		after := job.Stats()
		if puts, creates := after.Put.Calls-before.Put.Calls, after.Create.Calls-before.Create.Calls; puts != 0 || creates != 1 {
			t.Errorf("a commit with a long list took %d puts and %d creates; want one request, because there is room for it in the manifest", puts, creates)
		}
		if err := o.Release(w.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := task.List(w.Context())
		if err != nil || len(list) != n+1 {
			t.Fatalf("there are %d checkpoints, %v; want %d", len(list), err, n+1)
		}
		if list[0].Seq != n+2 || list[1].Seq != n || list[n].Seq != 1 || list[n].Time.IsZero() {
			t.Errorf("the list goes from %d and %d to %d", list[0].Seq, list[1].Seq, list[n].Seq)
		}
		if c, err := task.Get(w.Context(), checkpoint.Seq(17)); err != nil || c.Offsets["in"] != "17" {
			t.Errorf("At 17: %+v, %v", c, err)
		}
		// From here on the list is short, and the segments with the long ones are
		// deleted.
		o, _ = w.ownerWith(checkpoint.Options{Retention: checkpoint.Retention{Last: 3}})
		commit(w, o, at(1))
		commit(w, o, at(2))
		commit(w, o, at(3))
		synctest.Wait()
		w.wantHistory("3 2 1")
		w.wantObjects(segments, 0)
		w.wantSmallManifests()
	})
}

func (w *world) wantSmallManifests() {
	w.Helper()
	for _, o := range w.objects(manifests) {
		if o.Size > 64<<10 {
			w.Errorf("%s has %d bytes", o.Key, o.Size)
		}
	}
}

// Offsets may be larger than a segment usually is: the description of a state is one
// piece, however small the segments are.
func TestThousandsOfOffsets(t *testing.T) {
	for _, c := range []struct {
		name            string
		state, requests int
	}{
		{"no state", 0, 2},
		{"a state that would fit inline", 1000, 2},
		{"a state of two segments", 100 << 10, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, store := w.ownerWith(checkpoint.Options{Memory: 1 << 20})
				s := with(0, c.state)
				for n := range 5000 {
					s.Offsets[fmt.Sprintf("orders/%d", n)] = fmt.Sprint(n * n)
				}
				commit(w, o, at(0)) // after its first commit, an owner collects
				synctest.Wait()
				before := store.Calls()
				made := commit(w, o, s)
				if calls := store.Calls() - before; calls != c.requests {
					t.Errorf("the commit took %d requests, want %d", calls, c.requests)
				}
				w.wantSmallManifests()
				var stored int64
				for _, o := range w.objects(segments) {
					stored += o.Size
				}
				if made.NewBytes != stored {
					t.Errorf("NewBytes is %d, and %d are stored", made.NewBytes, stored)
				}
				task, _, reads := w.process()
				got, err := task.Latest(w.Context())
				if err != nil || len(got.Offsets) != 5001 || got.Offsets["orders/4999"] != "24990001" {
					t.Errorf("%d offsets, %v", len(got.Offsets), err)
				}
				if calls := reads.Calls(); calls != 3 {
					t.Errorf("Newest took %d requests, want 3", calls)
				}
				w.owner() // of another epoch: what is not named is garbage now
				if r, _ := w.verify(structure); r.Garbage.Segments != 0 {
					t.Errorf("%+v are said to be garbage", r.Garbage)
				}
				w.collect(checkpoint.CollectOptions{})
				if got, err = task.Latest(w.Context()); err != nil || len(got.Offsets) != 5001 {
					t.Errorf("after a collection: %d offsets, %v", len(got.Offsets), err)
				}
			})
		})
	}
}
