package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// The data of a mostly dead segment is repacked even if it can be read only once, or
// only from the beginning: without a request for it, and also if the segment is
// damaged.
func TestRepackOfDataThatCannotBeReadTwice(t *testing.T) {
	old := noise(1 << 20)
	parts := func(n int) []byte { // the same n KiB of every 128
		var all []byte
		for at := 0; at < len(old); at += 128 << 10 {
			all = append(all, old[at:at+n<<10]...)
		}
		return all
	}
	for name, source := range map[string]func(w *world, data []byte) checkpoint.Source{
		"a stream": func(_ *world, data []byte) checkpoint.Source { return checkpoint.Stream("d/f", bytes.NewReader(data)) },
		"a file system without ReadAt": func(w *world, data []byte) checkpoint.Source {
			l := newLive(w)
			l.write("d/f", data)
			return checkpoint.FS(&agedFS{FS: os.DirFS(l.dir), forwards: true})
		},
		"a file system without ReadAt and inodes": func(w *world, data []byte) checkpoint.Source {
			l := newLive(w)
			l.write("d/f", data)
			return checkpoint.FS(&agedFS{FS: os.DirFS(l.dir), forwards: true, nameless: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				opts := checkpoint.Options{Memory: 4 << 20, Retention: checkpoint.Retention{Last: 1}}
				task, job, _ := w.open(opts)
				o := claim(w, task)
				commit(w, o, checkpoint.Snapshot{State: source(w, old)})
				commit(w, o, checkpoint.Snapshot{State: source(w, parts(50))}) // less than half of each segment
				synctest.Wait()
				for _, s := range w.objects(segments) {
					if s.Size == 256<<10 || s.Size > 200<<10 {
						w.damage(s.Key)
					}
				}
				before := job.Stats()
				var made *checkpoint.Checkpoint
				for range 2 {
					made = commit(w, o, checkpoint.Snapshot{State: source(w, parts(48))})
				}
				if n := job.Stats().Get.Calls - before.Get.Calls; n > 0 {
					t.Errorf("%d requests for data", n)
				}
				synctest.Wait()
				w.wantFile(made, "d/f", parts(48))
				w.wantWorthKeeping(made.Seq)
				if size := takeInventory(w, w.bucket).size(); size > 2*made.Bytes {
					t.Errorf("%d bytes in segments for %d of state", size, made.Bytes)
				}
			})
		})
	}
}

func (w *world) wantFile(c *checkpoint.Checkpoint, name string, want []byte) {
	w.Helper()
	state, err := c.FS(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	if got, err := fs.ReadFile(state, name); err != nil || !bytes.Equal(got, want) {
		w.Errorf("%s: %d bytes, %v, or they differ", name, len(got), err)
	}
}

// wantWorthKeeping checks that a checkpoint needs at least half of every segment that
// it names.
func (w *world) wantWorthKeeping(seq uint64) {
	w.Helper()
	a := takeInventory(w, w.bucket).account(w, seq)
	needed := make(map[spot]int64)
	a.live(needed)
	sums := bySegment(needed)
	for _, s := range a.content.Segments {
		if 2*sums[s.ID] < s.Size {
			w.Errorf("checkpoint %d needs %d bytes of %d in segment %s", seq, sums[s.ID], s.Size, s.ID)
		}
	}
}

// If a file is truncated or written to after it was read and before it is repacked,
// the save fails, with an error of one line.
func TestFileThatChangesBeforeItIsRepacked(t *testing.T) {
	written := "it was written to; save from a copy or a snapshot that nobody writes to"
	for name, c := range map[string]struct {
		change func(l *live)
		text   string
	}{
		"cut short": {func(l *live) { l.must(os.Truncate(l.path("f"), 100)) }, written},
		"emptied":   {func(l *live) { l.must(os.Truncate(l.path("f"), 0)) }, written},
		"written":   {func(l *live) { l.writeAt("f", 200<<10, []byte("x")) }, written},
		"removed":   {func(l *live) { l.must(os.Remove(l.path("f"))) }, "it was removed; save from a copy or a snapshot that nobody writes to"},
	} {
		for _, forwards := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", forwards ", forwards), func(t *testing.T) {
				l := newLive(t)
				l.opened.FS = &agedFS{FS: os.DirFS(l.dir), forwards: forwards}
				l.write("f", noise(250<<10))
				l.write("g", noise(550<<10)) // in the same segment
				task := openTask(t, mem.NewBucket(time.Now), checkpoint.Options{})
				o := claim(t, task)
				base := commit(t, o, l.snapshot())
				l.saved()
				l.write("g", []byte("little"))
				state := hookedFS{&l.opened, func(name string) {
					if name == "f" { // it is opened only to be repacked
						c.change(l)
					}
				}}
				_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(state)})
				if err == nil || err.Error() != "f: changed while it was saved: "+c.text || !errors.Is(err, checkpoint.ErrChanged) {
					t.Errorf("err = %v", err)
				}
				if got, err := task.Latest(t.Context()); err != nil || got.Seq != base.Seq {
					t.Errorf("afterwards the newest is %+v, %v", got, err)
				}
				l.write("f", noise(250<<10))
				l.wantBack(commit(t, o, l.snapshot()))
			})
		}
	}
}

// A file that was declared immutable, and has other content all the same, is not stored as
// a mixture of both when it is repacked. Its times prove nothing, because they are not
// looked at.
func TestImmutableFileIsRepacked(t *testing.T) {
	const size = 250 << 10
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"as it was": {nil, ""},
		"not as it was": {noise(size + 1)[1:], "f.sst: changed while it was saved: it was declared immutable, " +
			"and is not what it was; have it reread"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLive(t)
			state := func() checkpoint.Snapshot { return checkpoint.Snapshot{State: l.source().Immutable("*.sst")} }
			l.write("f.sst", noise(size))
			l.write("g", noise(550<<10)) // in the same segment
			o := claim(t, openTask(t, mem.NewBucket(time.Now), checkpoint.Options{}))
			commit(t, o, state())
			l.saved()
			l.write("g", []byte("little"))
			if c.content != nil {
				l.write("f.sst", c.content)
			}
			made, err := o.Commit(t.Context(), state())
			switch {
			case c.want == "" && err != nil, c.want != "" && (!errors.Is(err, checkpoint.ErrChanged) || err.Error() != c.want):
				t.Errorf("err = %v, want %q", err, c.want)
			case err == nil:
				l.wantBack(made)
			}
		})
	}
}

// A hookedFS calls before with the name of each file that is opened.
type hookedFS struct {
	*openedFS
	before func(name string)
}

func (h hookedFS) Open(name string) (fs.File, error) {
	h.before(name)
	return h.openedFS.Open(name)
}
