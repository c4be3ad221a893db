package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// Whatever is done to a state, and however its checkpoints are made, by whom and from
// what kind of source, with faults and restarts: each checkpoint gives back exactly
// the state of which it was made, as a file system and as a directory.
func TestIncrementalCheckpointsGiveBackTheirState(t *testing.T) {
	var did repackStats
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			run(t, func(w *world) { newCourse(w, t, &did).run() })
		})
	})
	t.Logf("%+v", did)
	if n, err := strconv.Atoi(flag.Lookup("rapid.checks").Value.String()); err != nil || n >= 100 && !t.Failed() {
		did.wantAll(t) // TestWhatIsRepacked does each of these things in any case
	}
}

// repackStats counts what checkpoints did with the data of earlier ones. If one of
// these never happened, the test has not tested it.
type repackStats struct {
	Shared  int // referred to where it was stored
	Sparse  int // repacked, because less than half of its segment was needed
	Crowded int // repacked, because its segment was small
	Freed   int // moved from inline data into a segment
	Inlined int // moved from a segment into inline data
	Kept    int // copied from inline data to inline data
	Tabled  int // files whose table was referred to
}

func (d *repackStats) wantAll(t *testing.T) {
	t.Helper()
	if d.Shared == 0 || d.Sparse == 0 || d.Crowded == 0 || d.Freed == 0 || d.Inlined == 0 || d.Kept == 0 || d.Tabled == 0 {
		t.Errorf("something was never done: %+v", *d)
	}
}

// note compares what a checkpoint needs with what its base needs.
func (d *repackStats) note(was, is *account) {
	before := make(map[format.Hash]format.Chunk)
	live := make(map[spot]int64) // what the checkpoint needs where the base had it
	for _, c := range was.data {
		before[c.Hash] = c
	}
	for _, c := range is.data {
		if b, ok := before[c.Hash]; ok {
			live[spot{b.Segment, b.Offset}] = b.StoredSize()
		}
	}
	needed, sizes := bySegment(live), make(map[format.SegmentID]int64)
	for _, seg := range was.content.Segments {
		sizes[seg.ID] = seg.Size
	}
	var inline format.SegmentID
	for _, c := range is.data {
		b, known := before[c.Hash]
		switch {
		case !known:
		case c.Segment == inline && b.Segment == inline:
			d.Kept++
		case c.Segment == b.Segment:
			d.Shared++
		case b.Segment == inline:
			d.Freed++
		case c.Segment == inline:
			d.Inlined++
		case 2*needed[b.Segment] < sizes[b.Segment]:
			d.Sparse++
		default:
			d.Crowded++
		}
	}
	tables := make(map[format.Hash]bool)
	for _, c := range was.meta {
		tables[c.Hash] = c.Segment != inline
	}
	for _, c := range is.meta {
		if c.Segment != inline && tables[c.Hash] {
			d.Tabled++
		}
	}
}

// A course is the life of a task.
type course struct {
	*world
	t    *rapid.T
	did  *repackStats
	opts checkpoint.Options

	dir   string // the live state
	edit  *editor
	old   string // an old copy of it
	small bool   // it has many small files

	owner *checkpoint.Owner
	store *faultstore.Store

	base   uint64            // the number of the newest checkpoint
	now    *account          // the account of base
	before *account          // the account of the checkpoint before, if there was one
	states map[uint64]string // the state that each checkpoint must give back
	lost   string            // the state of a commit that is in doubt
}

func newCourse(w *world, t *rapid.T, did *repackStats) *course {
	return &course{
		world: w, t: t, did: did, dir: tempDir(t), old: filepath.Join(tempDir(t), "old"), states: make(map[uint64]string),
		opts: checkpoint.Options{
			Memory:    rapid.SampledFrom([]int64{1 << 20, 4 << 20}).Draw(t, "memory"),
			Retention: checkpoint.Retention{Last: rapid.IntRange(1, 3).Draw(t, "last")},
		},
	}
}

func (c *course) run() {
	c.edit = newEditor(c.t, c.dir)
	c.begin()
	c.owner, c.store = c.ownerWith(c.opts)
	actions := c.edit.changes()
	for name, action := range map[string]func(){
		"commit": c.commit, "commit again": c.commit, "many commits": c.manyCommits, "many files": c.manyFiles, "save": c.save,
		"restart": c.restart, "small files": c.smallFiles, "fail": c.fail, "forget": c.forget, "lose a reply": c.loseReply,
		"restore": c.restore, "resume": c.resume, "go back": c.rollBack,
	} {
		actions[name] = func(*rapid.T) { action() }
	}
	c.t.Repeat(actions)
	c.commit()
	c.check()
}

// begin fills the live state.
func (c *course) begin() {
	for i, size := range rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 3 << 10, 40 << 10, 300 << 10}), 0, 12).Draw(c.t, "files") {
		name := []string{"a", "b", "d/a", "d/b", "e/f/a", "d-a"}[i%6]
		err := c.edit.root.MkdirAll(path.Dir(name), 0o755)
		if err == nil {
			err = c.edit.root.WriteFile(fmt.Sprint(name, i), bytesOf(uint64(i), size), 0o644)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	if c.small = rapid.SampledFrom([]int{0, 0, 1}).Draw(c.t, "small files") == 1; c.small {
		err := c.edit.root.MkdirAll("m", 0o755)
		for i := range manySmall {
			err = errors.Join(err, c.edit.root.WriteFile(fmt.Sprintf("m/%03d", i), fmt.Append(nil, i), 0o644))
		}
		if err != nil {
			c.t.Fatal(err)
		}
		settle(c.t, c.dir)
	}
}

// smallFiles writes and removes some of many small files, which take several leaves: a few of
// them, or many in a row.
func (c *course) smallFiles() {
	if !c.small {
		c.t.Skip("there are none in this course")
	}
	for range rapid.IntRange(1, 4).Draw(c.t, "edits") {
		n, many := rapid.IntRange(0, manySmall-1).Draw(c.t, "first"), rapid.SampledFrom([]int{1, 1, 150}).Draw(c.t, "many")
		remove := rapid.Bool().Draw(c.t, "remove")
		for i := n; i < min(n+many, manySmall); i++ {
			name := fmt.Sprintf("m/%03d", i)
			if remove {
				_ = c.edit.root.Remove(name) // which may be gone
			} else if err := c.edit.root.WriteFile(name, fmt.Append(nil, i, rapid.Uint8().Draw(c.t, "content")), 0o644); err != nil {
				c.t.Skip(err)
			}
		}
	}
	if err := c.edit.root.WriteFile("m/last", nil, 0o644); err != nil {
		c.t.Skip(err)
	}
	settle(c.t, filepath.Join(c.dir, "m/last")) // so that what is written next has another time
}

// manySmall small files take some three leaves, more of them than there is memory for if there
// is little.
const manySmall = 400

// source chooses how the live state is read, and returns it with its digest.
func (c *course) source() (checkpoint.Source, string) {
	aged := func(a *agedFS) checkpoint.Source {
		a.FS = c.edit.root.FS()
		return checkpoint.FS(a)
	}
	tree := digest(c.t, c.edit.root.FS())
	switch rapid.SampledFrom([]string{"old", "old", "old", "young", "forwards", "nameless", "bare", "reread", "stream"}).Draw(c.t, "source") {
	case "young":
		return checkpoint.Dir(c.dir), tree
	case "forwards":
		return aged(&agedFS{forwards: true}), tree
	case "nameless":
		return aged(&agedFS{nameless: true}), tree
	case "bare":
		return aged(&agedFS{forwards: true, nameless: true}), tree
	case "reread":
		return aged(&agedFS{}).Reread(), tree
	case "stream":
		var all []byte
		_ = fs.WalkDir(c.edit.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
			if d.Type().IsRegular() {
				data, _ := fs.ReadFile(c.edit.root.FS(), p)
				all = append(all, data...)
			}
			return nil
		})
		return checkpoint.Stream("s", bytes.NewReader(all)), streamed(all)
	}
	return aged(&agedFS{}), tree
}

// streamed is the digest of a state that is one stream.
func streamed(data []byte) string { return fmt.Sprintf("stream %d %s", len(data), format.Sum(data)) }

// digestOf is the digest of a state that was given back.
func (c *course) digestOf(got fs.FS, want string) string {
	var size int
	if n, _ := fmt.Sscanf(want, "stream %d", &size); n == 0 {
		return digest(c.t, got)
	}
	list, err := fs.ReadDir(got, ".")
	if err != nil || len(list) != 1 {
		c.t.Fatalf("%v, %v; want one file", list, err)
	}
	data, err := fs.ReadFile(got, "s")
	if err != nil {
		c.t.Fatal(err)
	}
	return streamed(data)
}

func (c *course) snapshot() (checkpoint.Snapshot, string) {
	source, want := c.source()
	return checkpoint.Snapshot{State: source}, want
}

func (c *course) commit() {
	s, want := c.snapshot()
	made, err := c.owner.Commit(c.t.Context(), s)
	if err != nil {
		c.t.Fatalf("commit: %v", err)
	}
	c.made(made, want)
}

// made records a checkpoint, and checks it.
func (c *course) made(made *checkpoint.Checkpoint, want string) {
	c.states[made.Seq] = want
	state, err := made.FS(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	if got := c.digestOf(state, want); got != want {
		c.t.Fatalf("checkpoint %d is\n%s\nwant\n%s", made.Seq, got, want)
	}
	c.goOnFrom(made.Seq)
	if c.before != nil {
		c.did.note(c.before, c.now)
	}
	settle(c.t, c.dir) // so that everything changed from now on has another time
}

// goOnFrom records that a checkpoint is the newest.
func (c *course) goOnFrom(seq uint64) {
	synctest.Wait() // until garbage has been deleted
	c.before, c.base = c.now, seq
	c.now = takeInventory(c.t, c.bucket).account(c.t, seq)
}

// manyCommits makes commits that change little each.
func (c *course) manyCommits() {
	for range rapid.IntRange(2, 25).Draw(c.t, "commits") {
		if err := c.edit.writePage(); err != nil {
			c.t.Skip(err)
		}
		c.commit()
	}
}

// manyFiles makes commits that add one file each.
func (c *course) manyFiles() {
	size := rapid.SampledFrom([]int{1 << 10, 20 << 10}).Draw(c.t, "size")
	for i := range rapid.IntRange(12, 24).Draw(c.t, "commits") {
		seed := rapid.Uint64().Draw(c.t, "seed")
		if err := c.edit.root.WriteFile(fmt.Sprint("n", i), bytesOf(seed, size+i), 0o644); err != nil {
			c.t.Skip(err)
		}
		c.commit()
	}
}

func (c *course) save() {
	task, _, _ := c.open(c.opts)
	s, want := c.snapshot()
	made, err := task.Save(c.t.Context(), s, checkpoint.SaveOptions{Fence: true})
	if err != nil {
		c.t.Fatalf("save: %v", err)
	}
	c.made(made, want)
	c.owner, c.store = c.ownerWith(c.opts) // this fences the old one
}

// restart continues in a process that has nothing cached.
func (c *course) restart() {
	c.settle()
	c.owner, c.store = c.ownerWith(c.opts)
}

// settle ends the faults. Some may not have happened: a commit may have sent fewer
// requests.
func (c *course) settle() {
	synctest.Wait()
	c.store.Disarm()
}

// fail makes a commit fail permanently, or a save by another process.
func (c *course) fail() {
	s, want := c.snapshot()
	fault := faultstore.Fault{
		Kind: faultstore.FailBefore, Verb: rapid.SampledFrom([]string{"put", "create"}).Draw(c.t, "verb"),
		On: rapid.IntRange(1, 3).Draw(c.t, "on"), Err: backend.ErrPermission,
	}
	if fault.Verb == "create" {
		fault.On = 1
	}
	c.store.Arm(fault)
	made, err := c.owner.Commit(c.t.Context(), s)
	unfired := len(c.store.Unfired()) > 0
	c.settle()
	if unfired != (err == nil) || err != nil && !errors.Is(err, backend.ErrPermission) {
		c.t.Fatalf("commit: %v; the fault was met: %v", err, !unfired)
	}
	if err == nil { // it had fewer segments
		c.made(made, want)
	}
}

// forget makes a commit that remains in doubt. It may take effect or not.
func (c *course) forget() {
	s, want := c.snapshot()
	c.store.Arm(faultstore.Fault{Kind: faultstore.Zombie, Verb: "create"})
	if _, err := c.owner.Commit(c.t.Context(), s); !errors.Is(err, checkpoint.ErrUnknown) {
		c.t.Fatalf("commit: %v, want ErrUnknown", err)
	}
	c.settle()
	if rapid.Bool().Draw(c.t, "landed") {
		c.store.Land()
	}
	c.lost = want
	settle(c.t, c.dir)
	if rapid.Bool().Draw(c.t, "dies") {
		c.restart()
	} else {
		c.commit()
	}
	c.find()
}

// find finds out what became of a commit in doubt.
func (c *course) find() {
	for _, seq := range takeInventory(c.t, c.bucket).retained(c.t) {
		if c.states[seq] == "" {
			c.states[seq] = c.lost
			if seq > c.base {
				c.goOnFrom(seq)
			}
		}
	}
}

func (c *course) loseReply() {
	verb := rapid.SampledFrom([]string{"put", "create"}).Draw(c.t, "verb")
	c.store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: verb, On: 1})
	c.commit()
	c.settle()
}

// draw chooses one of the existing checkpoints.
func (c *course) draw() *checkpoint.Checkpoint {
	synctest.Wait()
	task, _, _ := c.open(c.opts)
	list, err := task.List(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	if len(list) == 0 {
		c.t.Skip("there is no checkpoint yet")
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(c.t, "checkpoint")]
}

// restore restores into a new directory, or over an old state that was changed.
func (c *course) restore() {
	from, target := c.draw(), c.old
	if rapid.Bool().Draw(c.t, "new") {
		target = filepath.Join(tempDir(c.t), "new")
	} else if root, err := os.OpenRoot(target); err == nil {
		c.spoil(root)
		_ = root.Close()
	}
	if err := from.Restore(c.t.Context(), target, checkpoint.RestoreOptions{Replace: true}); err != nil {
		c.t.Fatalf("restore: %v", err)
	}
	c.compare(from.Seq, os.DirFS(target))
}

func (c *course) compare(seq uint64, got fs.FS) {
	want, ok := c.states[seq]
	if !ok {
		c.t.Fatalf("nobody made checkpoint %d", seq)
	}
	if got := c.digestOf(got, want); got != want {
		c.t.Fatalf("checkpoint %d gives back\n%s\nwant\n%s", seq, got, want)
	}
}

// spoil changes some files of an old state.
func (c *course) spoil(root *os.Root) {
	e := &editor{T: c.t, root: root}
	var files []string
	_ = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, p)
		}
		return nil
	})
	for i, name := range files {
		switch rapid.IntRange(0, 5).Draw(c.t, "spoil") {
		case 0:
			_ = root.Remove(name)
		case 1:
			_ = root.Rename(name, fmt.Sprint("renamed", i))
		case 2:
			_ = root.WriteFile(name, e.much(), 0o644)
		}
	}
}

// resume restores over the live state, and the task goes on with it.
func (c *course) resume() {
	from := c.draw()
	if err := from.Restore(c.t.Context(), c.dir, checkpoint.RestoreOptions{Replace: true}); err != nil {
		c.t.Fatalf("resume: %v", err)
	}
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	_ = c.edit.root.Close()
	c.edit.root = root
	c.compare(from.Seq, root.FS())
	settle(c.t, c.dir)
}

// rollBack makes an older checkpoint the newest.
func (c *course) rollBack() {
	from := c.draw()
	c.settle()
	task, _, store := c.open(c.opts)
	if rapid.Bool().Draw(c.t, "rollback") {
		if _, err := task.Rollback(c.t.Context(), checkpoint.Seq(from.Seq), checkpoint.RollbackOptions{Fence: true}); err != nil {
			c.t.Fatal(err)
		}
		c.owner, c.store = c.ownerWith(c.opts)
	} else {
		o, err := task.Claim(c.t.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(from.Seq)})
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { _ = o.Close(context.Background()) })
		c.owner, c.store = o, store
	}
	c.goOnFrom(from.Seq)
}

// check reads every existing checkpoint.
func (c *course) check() {
	synctest.Wait()
	task, _, _ := c.open(c.opts)
	list, err := task.List(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	s := takeInventory(c.t, c.bucket)
	numbers := s.retained(c.t)
	for i, made := range list {
		if i >= len(numbers) || made.Seq != numbers[i] || len(list) != len(numbers) {
			c.t.Fatalf("there are %d checkpoints; want %v", len(list), numbers)
		}
		state, err := made.FS(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		c.compare(made.Seq, state)
		s.account(c.t, made.Seq)
	}
	for seq, data := range s.manifests {
		if len(data) > format.MaxManifest {
			c.t.Fatalf("manifest %d has %d bytes", seq, len(data))
		}
	}
	if !slices.Contains(numbers, c.base) {
		c.t.Fatalf("%d is not there: %v", c.base, numbers)
	}
}
