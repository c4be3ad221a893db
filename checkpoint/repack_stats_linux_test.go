package checkpoint_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Data is repacked in each way exactly when it should be.
func TestWhatIsRepacked(t *testing.T) {
	inWorld(t, func(w *world) {
		opts := checkpoint.Options{Memory: 4 << 20, Retention: checkpoint.Retention{Last: 1}}
		l := newLive(w)
		o, _ := w.ownerWith(opts)
		var last *account
		step := func(what string, want repackStats) {
			t.Helper()
			made := commit(w, o, l.snapshot())
			synctest.Wait()
			now := takeInventory(w, w.bucket).account(w, made.Seq)
			var did repackStats
			if last != nil {
				did.note(last, now)
			}
			did.Tabled = 0
			if last = now; did != want {
				t.Errorf("%s: %+v, want %+v", what, did, want)
			}
			w.wantWorthKeeping(made.Seq)
			l.wantBack(made)
			l.saved()
		}

		l.write("a", noise(1000))
		step("a little", repackStats{})
		l.write("b", noise(1001))
		step("a little more", repackStats{Kept: 1})
		l.write("c", noise(15<<10))
		step("more than fits", repackStats{Freed: 2})
		l.write("d", noise(1003))
		step("a little again", repackStats{Shared: 3})
		l.write("c", noise(1004))
		step("most of a segment dies", repackStats{Kept: 1, Inlined: 2})
	})
}

// Many small segments are repacked into one.
func TestSmallSegmentsBecomeOne(t *testing.T) {
	inWorld(t, func(w *world) {
		opts := checkpoint.Options{Memory: 4 << 20, Retention: checkpoint.Retention{Last: 1}}
		l := newLive(w)
		o, _ := w.ownerWith(opts)
		var last *account
		var did repackStats
		most, moved := 0, 0
		for i := range 100 {
			l.write(fmt.Sprint("f", i), noise(18<<10+i)) // too much for inline data
			made := commit(w, o, l.snapshot())
			l.wantOpenedBesides(fmt.Sprint("f", i), &moved)
			synctest.Wait()
			now := takeInventory(w, w.bucket).account(w, made.Seq)
			if last != nil {
				did.note(last, now)
			}
			last = now
			most = max(most, len(now.content.Segments))
			w.wantWorthKeeping(made.Seq)
		}
		// 100 times 18 KiB are 7 full segments.
		if most > 7+2*16 || did.Crowded < 60 || did.Sparse > 0 || moved > 3*100 {
			t.Errorf("%d segments at most, and %+v, %d files opened to be moved", most, did, moved)
		}
		t.Logf("%d segments at most, %+v, %d files opened to be moved", most, did, moved)
	})
}

// wantOpenedBesides checks that a file was opened, and counts the others.
func (l *live) wantOpenedBesides(name string, others *int) {
	l.Helper()
	found := false
	for _, opened := range l.opened.take() {
		if opened == name {
			found = true
		} else {
			*others++
		}
	}
	if !found {
		l.Errorf("%s was not opened", name)
	}
}

// For a state of many tiny files, their list is the largest part. When it changes,
// the rest of its old segment is not worth keeping.
func TestListOfTinyFiles(t *testing.T) {
	inWorld(t, func(w *world) {
		h := newHabit(1)
		o, _ := w.ownerWith(checkpoint.Options{Retention: checkpoint.Retention{Last: 1}})
		for n := range 2000 {
			h.write(fmt.Sprintf("%05d", n), h.data(10))
		}
		for range 4 {
			made := commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(h.files)})
			synctest.Wait()
			w.wantWorthKeeping(made.Seq)
			f := w.measure(made)
			if f.stored > 2*f.live {
				t.Errorf("%d bytes are stored, and %d are needed", f.stored, f.live)
			}
			for name, file := range h.files {
				h.write(name, file.Data) // with other times
			}
		}
	})
}
