package checkpoint_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"

	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

var (
	historyN    = flag.Int("history.n", 500, "number of commits of TestLongHistory")
	historySeed = flag.Uint64("history.seed", 1, "seed of TestLongHistory")
)

// A habit is a job's state in memory, and what the job does to it between
// checkpoints: it keeps a log, a database of tables that are written once, and a
// database of pages.
type habit struct {
	rnd   *rand.Rand
	files fstest.MapFS
	inode uint64
	table int
}

func newHabit(seed uint64) *habit {
	return &habit{rnd: rand.New(rand.NewPCG(seed, 2)), files: make(fstest.MapFS)}
}

// write sets the content of a file, which may be new.
func (h *habit) write(name string, data []byte) {
	h.inode++
	changed := time.Now().Add(-time.Hour).Add(time.Duration(h.inode)) // long ago, and different for each write
	h.files[name] = &fstest.MapFile{
		Data: data, Mode: 0o644, ModTime: changed,
		Sys: &syscall.Stat_t{Ino: h.inode, Ctim: syscall.NsecToTimespec(changed.UnixNano())},
	}
}

func (h *habit) data(n int) []byte { return bytesOf(h.rnd.Uint64(), n) }

func (h *habit) content(name string) []byte {
	if f := h.files[name]; f != nil {
		return f.Data
	}
	return nil
}

// goOn does what the job does between two checkpoints.
func (h *habit) goOn() {
	switch h.rnd.IntN(40) {
	case 0:
		return // nothing
	case 1:
		clear(h.files) // it begins again, with other data
		h.write("pages", h.data(h.rnd.IntN(400<<10)))
	case 2:
		h.write("pages", h.data(len(h.content("pages"))))
	}
	for range h.rnd.IntN(4) {
		h.writePage()
	}
	if h.rnd.IntN(2) == 0 {
		h.log()
	}
	if h.rnd.IntN(3) == 0 {
		h.flush()
	}
	h.write("CURRENT", fmt.Appendf(nil, "table %d", h.table))
}

// touch changes some of hundreds of tiny files. Their list is larger than the files.
func (h *habit) touch() {
	for range h.rnd.IntN(h.rnd.IntN(200) + 1) {
		name := fmt.Sprint("tiny/", h.rnd.IntN(400))
		if h.rnd.IntN(3) == 0 {
			delete(h.files, name)
		} else {
			h.write(name, h.data(h.rnd.IntN(100)))
		}
	}
	if h.rnd.IntN(60) == 0 {
		clear(h.files)
	}
	h.write("CURRENT", h.data(100))
}

func (h *habit) writePage() {
	pages := bytes.Clone(h.content("pages"))
	at := h.rnd.IntN(min(len(pages)+4<<10, 500<<10)) &^ (4<<10 - 1)
	if need := at + 4<<10; len(pages) < need {
		pages = append(pages, make([]byte, need-len(pages))...)
	}
	copy(pages[at:], h.data(4<<10))
	h.write("pages", pages)
}

func (h *habit) log() {
	log := append(bytes.Clone(h.content("log")), h.data(h.rnd.IntN(8<<10))...)
	if len(log) > 100<<10 {
		h.files["log.old"] = h.files["log"]
		log = log[:0]
	}
	h.write("log", log)
}

// flush adds a table. If there are many, it merges them into one.
func (h *habit) flush() {
	h.table++
	data := h.data(1 + h.rnd.IntN(40<<10))
	var tables []string
	for name := range h.files {
		if strings.HasPrefix(name, "tables/") {
			tables = append(tables, name)
		}
	}
	if len(tables) >= 8 {
		slices.Sort(tables)
		for _, name := range tables {
			data = append(data, h.content(name)...)
			delete(h.files, name)
		}
		data = data[:min(len(data), 300<<10)]
	}
	h.write(fmt.Sprintf("tables/%06d", h.table), data)
}

// next does what the job does until its next checkpoint, and returns the state that
// must be given back.
func (h *habit) next(what string) (fstest.MapFS, func() checkpoint.Snapshot) {
	if what == "tiny files" {
		h.touch()
	} else {
		h.goOn()
	}
	if what == "stream" {
		all := h.joined()
		return fstest.MapFS{"s": {Data: all, Mode: 0o644}}, func() checkpoint.Snapshot {
			return checkpoint.Snapshot{State: checkpoint.Stream("s", bytes.NewReader(all))}
		}
	}
	return h.files, func() checkpoint.Snapshot { return checkpoint.Snapshot{State: checkpoint.FS(h.files)} }
}

// joined returns the state as one stream.
func (h *habit) joined() (all []byte) {
	for _, name := range slices.Sorted(maps.Keys(h.files)) {
		all = append(all, h.files[name].Data...)
	}
	return all
}

// figures are measurements of a history.
type figures struct {
	stored   int64 // bytes in segments
	live     int64 // bytes of these that retained checkpoints need
	newest   int64 // bytes that the newest one needs
	segments int   // the number that the newest checkpoint needs
	manifest int   // bytes
}

// space is the number of stored bytes for each byte that is needed.
func (f *figures) space() float64 { return float64(f.stored) / float64(max(f.live, 1)) }

// slack is a piece of the list of files, in bytes: before it is made, it is unknown
// whether it will be equal to the piece in the base.
const slack = 16 << 10

// However long a history is, it takes at most twice the space that the retained
// checkpoints need, the newest checkpoint needs few segments, and a manifest is
// small.
func TestLongHistory(t *testing.T) {
	for _, c := range []struct {
		what       string
		size, last int
		n          int // the number of commits
	}{
		{"files", 64 << 10, 1, *historyN}, {"files", 8 << 20, 10, *historyN},
		{"stream", 256 << 10, 1, *historyN / 2}, {"tiny files", 1 << 20, 1, *historyN / 2},
	} {
		t.Run(fmt.Sprintf("%s in segments of %d KiB, last %d", c.what, c.size>>10, c.last), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.longHistory(c.n/raceShare, checkpoint.Options{Memory: int64(16 * c.size), Retention: checkpoint.Retention{Last: c.last}}, c.what)
			})
		})
	}
}

func (w *world) longHistory(commits int, opts checkpoint.Options, what string) {
	h := newHabit(*historySeed)
	o, _ := w.ownerWith(opts)
	var worst, sum figures
	var sent, measured int64
	worstSpace := 0.0
	for n := 1; n <= commits; n++ {
		state, snapshot := h.next(what)
		made := commit(w, o, snapshot())
		sent += made.NewBytes
		time.Sleep(10 * time.Second)
		if n%10 == 0 || n < 50 {
			if what == "stream" { // what the base needed decides what is repacked
				made = commit(w, o, snapshot())
			}
			synctest.Wait()
			f := w.measure(made)
			w.wantBounded(n, opts, f)
			measured++
			sum.stored += f.stored
			sum.live += f.live
			if f.stored > slack {
				worstSpace = max(worstSpace, f.space())
			}
			worst.segments = max(worst.segments, f.segments)
			worst.manifest = max(worst.manifest, f.manifest)
		}
		if n%100 == 0 {
			w.wantRestored(made, state)
			if n%300 == 0 { // another owner takes over
				o, _ = w.ownerWith(opts)
			}
		}
	}
	if failures := o.CleanupFailures(); failures > 0 {
		w.Errorf("%d clean-ups failed", failures)
	}
	w.Logf("%d commits: at most %.2f times the live bytes (%.2f on average), %d segments, manifests of %d bytes; %d kB sent, %d kB live on average",
		commits, worstSpace, sum.space(), worst.segments, worst.manifest, sent/1000, sum.live/measured/1000)
}

func (w *world) measure(made *checkpoint.Checkpoint) (f figures) {
	w.Helper()
	s := takeInventory(w, w.bucket)
	live := make(map[spot]int64)
	for i, seq := range s.retained(w) {
		a := s.account(w, seq)
		a.live(live)
		if i == 0 {
			f.segments, f.manifest = len(a.content.Segments), len(s.manifests[seq])
			for _, n := range live {
				f.newest += n
			}
			if seq != made.Seq {
				w.Fatalf("the newest is %d, want %d", seq, made.Seq)
			}
		}
	}
	for id, n := range bySegment(live) {
		if s.segments[id] == nil {
			w.Fatalf("segment %s is missing", id)
		}
		f.live += n
	}
	f.stored = s.size()
	return f
}

func (w *world) wantBounded(n int, opts checkpoint.Options, f figures) {
	w.Helper()
	if f.stored > 2*f.live+slack {
		w.Errorf("commit %d: %d bytes are stored, and %d are needed", n, f.stored, f.live)
	}
	if most := 4*int(f.newest/(opts.Memory/16)) + 5*16; f.segments > most {
		w.Errorf("commit %d: %d segments for %d bytes", n, f.segments, f.newest)
	}
	if f.manifest > format.MaxManifest {
		w.Errorf("commit %d: a manifest of %d bytes", n, f.manifest)
	}
}

// wantRestored restores the newest checkpoint in a process without cached state.
func (w *world) wantRestored(made *checkpoint.Checkpoint, want fstest.MapFS) {
	w.Helper()
	task, _, _ := w.process()
	c, err := task.Latest(w.Context())
	if err != nil || c.Seq != made.Seq || c.Files != len(want) {
		w.Fatalf("the newest is %+v, %v; want %d", c, err, made.Seq)
	}
	target := filepath.Join(tempDir(w), "state")
	if err := c.Restore(w.Context(), target, checkpoint.RestoreOptions{}); err != nil {
		w.Fatal(err)
	}
	for name, f := range want {
		if got, err := os.ReadFile(filepath.Join(target, name)); err != nil || !bytes.Equal(got, f.Data) {
			w.Fatalf("%s: %d bytes, %v; or they differ", name, len(got), err)
		}
	}
}
