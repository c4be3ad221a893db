package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A chain is a task whose checkpoints share data of every kind.
type chain struct {
	*patient
	bucket *mem.Bucket
	list   []*checkpoint.Checkpoint // newest first
	states map[uint64]string        // the state that each must give back
}

var chainOptions = checkpoint.Options{
	Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll},
	Logger: slog.New(slog.DiscardHandler),
}

// newChain makes a checkpoint of everything, one after a changed page, one with a
// small change that is stored inline, one whose own parts do not fit into its
// manifest, and one without a change.
func newChain(t *testing.T) *chain {
	t.Helper()
	c := &chain{bucket: mem.NewBucket(time.Now), states: make(map[uint64]string)}
	_, task := jobOf(t, c.bucket, chainOptions)
	o := claim(t, task)
	files := fstest.MapFS{
		"noise": {Data: noise(120 << 10), Mode: 0o644},
		"text":  {Data: text(100 << 10), Mode: 0o600},
		"hole":  {Data: make([]byte, 70<<10)},
		"d/one": {Data: []byte("one")},
		"empty": {},
		"link":  {Data: []byte("d/one"), Mode: fs.ModeSymlink | 0o777},
	}
	save := func(s checkpoint.Snapshot) {
		s.State = checkpoint.FS(files)
		made := commit(t, o, s)
		c.states[made.Seq] = digest(t, files)
	}
	save(at(1))
	files["noise"] = &fstest.MapFile{Data: bytes.Clone(files["noise"].Data), Mode: 0o644}
	copy(files["noise"].Data[60<<10:], noise(16<<10))
	save(at(2))
	files["d/one"] = &fstest.MapFile{Data: []byte("two")}
	save(at(3))
	many := checkpoint.Snapshot{Offsets: map[string]string{}}
	for n := range 1500 {
		many.Offsets[fmt.Sprint("orders/", n)] = fmt.Sprint(n * n)
	}
	save(many)
	save(at(5))
	if err := o.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	_, reader := jobOf(t, c.bucket, chainOptions)
	var err error
	if c.list, err = reader.List(t.Context()); err != nil || len(c.list) != 5 {
		t.Fatalf("%d checkpoints, %v", len(c.list), err)
	}
	c.patient = &patient{store: c.bucket.Open(), task: reader}
	for o, err := range c.store.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		c.keys = append(c.keys, o.Key)
	}
	return c
}

func jobOf(t tester, b *mem.Bucket, opts checkpoint.Options) (*checkpoint.Job, *checkpoint.Task) {
	t.Helper()
	job := newJob(t, b.Open(), opts)
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	task, err := job.Task("orders/7")
	if err != nil {
		t.Fatal(err)
	}
	return job, task
}

// text returns n bytes that can be compressed and do not repeat.
func text(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, `{"order":%d,"state":"open","amount":%d}`+"\n", rnd.Uint32(), rnd.IntN(100))
	}
	return b[:n]
}

// readOne reads a checkpoint that was opened before its objects were damaged.
func (c *chain) readOne(ctx context.Context, made *checkpoint.Checkpoint) (string, error) {
	fsys, err := made.FS(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = describeTo(&b, fsys, p, d)
		}
		return err
	})
	return b.String(), err
}

// wantCaught reads checkpoints. Each must be intact, or give an error that says where
// it is damaged. It returns the number of damaged ones.
func (c *chain) wantCaught(t *testing.T, list []*checkpoint.Checkpoint, what, key string) (caught int) {
	t.Helper()
	for _, made := range list {
		got, err := c.readOne(t.Context(), made)
		switch {
		case err == nil && got != c.states[made.Seq]:
			t.Fatalf("%s: checkpoint %d gives back wrong data", what, made.Seq)
		case err == nil:
			continue
		case !errors.Is(err, checkpoint.ErrCorrupt) || errors.Is(err, checkpoint.ErrGone) || !strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "\n"):
			t.Fatalf("%s: checkpoint %d: %v; want ErrCorrupt, and %s named, on one line", what, made.Seq, err, key)
		}
		caught++
	}
	return caught
}

// A part is a part of a segment, with the checkpoints that need it.
type part struct {
	chunk   format.Chunk
	meta    bool // it belongs to a table or to a list of files
	spilled bool
	users   []*checkpoint.Checkpoint
}

// parts returns the parts of all segments.
func (c *chain) parts(t *testing.T) map[format.SegmentID][]*part {
	t.Helper()
	s := takeInventory(t, c.bucket)
	at := make(map[spot]*part)
	add := func(by *checkpoint.Checkpoint, list []format.Chunk, p part) {
		for _, p.chunk = range list {
			place := spot{p.chunk.Segment, p.chunk.Offset}
			if p.chunk.Segment == (format.SegmentID{}) {
				continue
			}
			if at[place] == nil {
				at[place] = new(p)
			}
			if p := at[place]; !slices.Contains(p.users, by) {
				p.users = append(p.users, by)
			}
		}
	}
	for _, made := range c.list {
		a := s.account(t, made.Seq)
		add(made, a.data, part{})
		add(made, a.meta, part{meta: true})
		add(made, a.spilled, part{spilled: true})
	}
	parts := make(map[format.SegmentID][]*part)
	for place, p := range at {
		parts[place.segment] = append(parts[place.segment], p)
	}
	return parts
}

// A flipped bit in any table, list or data is detected by each checkpoint that needs
// it, and by no other.
func TestDamageOfSharedDataIsFound(t *testing.T) {
	c := newChain(t)
	kinds := make(map[string]int)
	flips, unseen := 0, 0
	for id, parts := range c.parts(t) {
		key := format.SegmentKey(dir, id)
		data := c.get(t, key)
		for _, p := range parts {
			if p.spilled {
				continue // it was read when the checkpoint was opened
			}
			kinds[fmt.Sprintf("meta %v, encoding %d", p.meta, p.chunk.Encoding)]++
			kinds[fmt.Sprintf("meta %v, shared %v", p.meta, len(p.users) > 1)]++
			for _, i := range p.places() {
				bit := byte(1) << rand.IntN(8)
				data[i] ^= bit
				c.put(t, key, data)
				what := fmt.Sprintf("bit %b of byte %d flipped", bit, i)
				readers := p.users
				if flips++; flips%16 == 0 {
					readers = c.list // the others must not be affected
				}
				switch caught := c.wantCaught(t, readers, what, key); {
				case caught == len(p.users):
				case caught == 0 && p.chunk.Encoding == format.Zstd:
					unseen++ // the decoder ignores this bit: all give back what they should
				default:
					t.Errorf("%s: %d checkpoints are damaged, want %d", what, caught, len(p.users))
				}
				data[i] ^= bit
			}
		}
		c.put(t, key, data)
	}
	for _, kind := range []string{
		"meta false, encoding 0", "meta false, encoding 1", "meta false, shared false", "meta false, shared true",
		"meta true, encoding 0", "meta true, encoding 1", "meta true, shared true",
	} {
		if kinds[kind] == 0 {
			t.Errorf("there was no chunk of the kind %q: %v", kind, kinds)
		}
	}
	if unseen > flips/50 {
		t.Errorf("%d flipped bits of %d had no effect", unseen, flips)
	}
	if n := c.wantCaught(t, c.list, "with everything back in its place", ""); n > 0 {
		t.Errorf("%d checkpoints are damaged with everything back in its place", n)
	}
	t.Logf("%v; %d flipped bits, %d without effect", kinds, flips, unseen)
}

// places returns the bytes of a part to damage: all of a small part that says where
// the rest is, otherwise both ends and a few between.
func (p *part) places() (list []int64) {
	size := p.chunk.StoredSize()
	if p.meta {
		for i := range min(size, 1500) {
			list = append(list, p.chunk.Offset+i)
		}
		return list
	}
	for _, i := range []int64{0, size / 3, rand.Int64N(size), size - 1} {
		list = append(list, p.chunk.Offset+i)
	}
	return list
}

// The same for what is read when a checkpoint is opened: each byte of each manifest,
// and the parts that did not fit into one.
func TestDamageOfManifestsOfAChainIsFound(t *testing.T) {
	c := newChain(t)
	for _, key := range c.keys {
		_, seq, ok := format.ParseManifestKey(key)
		if !ok || seq == 1 { // number 1 is the claim
			continue
		}
		data := c.get(t, key)
		for i := range data {
			bit := byte(1) << rand.IntN(8)
			data[i] ^= bit
			c.put(t, key, data)
			_, err := c.task.Get(t.Context(), checkpoint.Seq(seq))
			if !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), key) {
				t.Fatalf("bit %b of byte %d of manifest %d flipped: %v", bit, i, seq, err)
			}
			data[i] ^= bit
		}
		c.put(t, key, data)
	}
	for id, parts := range c.parts(t) {
		for _, p := range parts {
			if !p.spilled {
				continue
			}
			key := format.SegmentKey(dir, id)
			data := c.get(t, key)
			for i := p.chunk.Offset; i < p.chunk.Offset+p.chunk.StoredSize(); i += 7 {
				data[i] ^= 4
				c.put(t, key, data)
				if _, err := c.task.Get(t.Context(), checkpoint.Seq(5)); !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), key) {
					t.Fatalf("byte %d of %s: %v", i, key, err)
				}
				data[i] ^= 4
			}
			c.put(t, key, data)
		}
	}
}

// A segment that is cut off or missing is detected by the checkpoints that need the
// missing part, and a restore of these changes nothing.
func TestTruncatedSegmentOfAChain(t *testing.T) {
	c := newChain(t)
	parent := t.TempDir()
	target := filepath.Join(parent, "target")
	if err := errors.Join(os.Mkdir(target, 0o755), os.WriteFile(filepath.Join(target, "old"), noise(10<<10), 0o644)); err != nil {
		t.Fatal(err)
	}
	before := digest(t, os.DirFS(target))
	for id, parts := range c.parts(t) {
		key := format.SegmentKey(dir, id)
		data := c.get(t, key)
		for _, size := range []int{0, 1, len(data) / 2, len(data) - 1} {
			c.put(t, key, data[:size])
			users := 0
			for _, p := range parts {
				if p.chunk.Offset+p.chunk.StoredSize() > int64(size) && !p.spilled {
					users = max(users, len(p.users))
				}
			}
			if caught := c.wantCaught(t, c.list, fmt.Sprintf("%d bytes cut to %d", len(data), size), key); caught < users {
				t.Errorf("%s cut to %d: %d checkpoints are damaged, want %d", key, size, caught, users)
			}
		}
		for _, made := range c.list {
			_, readErr := c.readOne(t.Context(), made)
			if readErr == nil {
				continue // it does not need this segment
			}
			err := made.Restore(t.Context(), target, checkpoint.RestoreOptions{Replace: true})
			if !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), key) {
				t.Errorf("restore of %d: %v", made.Seq, err)
			}
			if left, _ := os.ReadDir(parent); len(left) != 1 || digest(t, os.DirFS(target)) != before {
				t.Fatalf("restore of %d left %v", made.Seq, left)
			}
			break
		}
		c.put(t, key, data)
	}
}

// A base that cannot be read does not stop later saves: everything is stored again,
// and the log says why.
func TestDamagedBaseIsNotBuiltUpon(t *testing.T) {
	flip := func(data []byte) []byte { data[len(data)/2] ^= 1; return data }
	none := func([]byte) []byte { return nil }
	for what, pick := range map[string]func(p *part) bool{
		"list or table":       func(p *part) bool { return p.meta },
		"what did not fit in": func(p *part) bool { return p.spilled },
	} {
		for how, damage := range map[string]func([]byte) []byte{"flipped": flip, "gone": none} {
			for _, by := range []string{"owner", "save"} {
				t.Run(what+" "+how+", "+by, func(t *testing.T) {
					testDamagedBase(t, pick, damage, by == "owner")
				})
			}
		}
	}
}

func testDamagedBase(t *testing.T, pick func(*part) bool, damage func([]byte) []byte, owned bool) {
	bucket := mem.NewBucket(time.Now)
	files := fstest.MapFS{"noise": {Data: noise(200 << 10)}, "text": {Data: text(150 << 10)}}
	var log logged
	opts := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: 2}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	_, task := jobOf(t, bucket, opts)
	o := claim(t, task)
	s := checkpoint.Snapshot{State: checkpoint.FS(files), Offsets: map[string]string{}}
	for n := range 1500 {
		s.Offsets[fmt.Sprint("orders/", n)] = fmt.Sprint(n * n)
	}
	first := commit(t, o, s)
	if err := o.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	c := &chain{patient: &patient{store: bucket.Open()}, bucket: bucket, list: []*checkpoint.Checkpoint{first}}
	damaged := 0
	for id, parts := range c.parts(t) {
		i := slices.IndexFunc(parts, pick)
		if i < 0 {
			continue
		}
		key, ch := format.SegmentKey(dir, id), parts[i].chunk
		data := c.get(t, key)
		if rest := damage(bytes.Clone(data[ch.Offset : ch.Offset+ch.StoredSize()])); rest != nil {
			copy(data[ch.Offset:], rest)
			c.put(t, key, data)
		} else if err := c.store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		damaged++
		break
	}
	if damaged == 0 {
		t.Fatal("nothing was damaged")
	}

	_, task = jobOf(t, bucket, opts)
	files["noise"] = &fstest.MapFile{Data: noise(200<<10 + 1)}
	save := func(ctx context.Context, s checkpoint.Snapshot) (*checkpoint.Checkpoint, error) {
		return task.Save(ctx, s, checkpoint.SaveOptions{Fence: true})
	}
	if owned {
		o, err := task.Claim(t.Context(), checkpoint.ClaimOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = o.Close(context.Background()) })
		save = o.Commit
	}
	made, err := save(t.Context(), s)
	if err != nil {
		t.Fatalf("the next save: %v", err)
	}
	if n := strings.Count(log.String(), "the checkpoint before cannot be read; everything is saved anew"); n != 1 || !strings.Contains(log.String(), "corrupt") {
		t.Errorf("it says %d times so:\n%s", n, &log)
	}
	log.Reset()
	again, err := save(t.Context(), s)
	if err != nil {
		t.Fatalf("the one after it: %v", err)
	}
	// The first shares nothing with the damaged checkpoint. The second shares
	// everything with the first.
	if made.NewBytes < 200<<10 || again.NewBytes > 64<<10 || strings.Contains(log.String(), "saved anew") {
		t.Errorf("%d and %d new bytes; then\n%s", made.NewBytes, again.NewBytes, &log)
	}
	for _, c := range []*checkpoint.Checkpoint{made, again} {
		fsys, err := c.FS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := digest(t, fsys), digest(t, files); got != want {
			t.Errorf("checkpoint %d is\n%s\nwant\n%s", c.Seq, got, want)
		}
	}
}

// The size that a manifest and a list of leaves state is not trusted: memory is allocated for
// what can be read, and a state that has less is refused.
func TestSizeOfAStateIsNotTakenOnTrust(t *testing.T) {
	for _, size := range []int64{1 << 34, 1 << 62, math.MaxInt64} {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprint(size, " in the list too ", both), func(t *testing.T) {
				inWorld(t, func(w *world) { w.claimTooMuch(size, both) })
			})
		}
	}
}

func (w *world) claimTooMuch(size int64, inList bool) {
	o, _ := w.owner()
	made := commit(w, o, with(1, 100<<10))
	m := w.manifest(made.Seq)
	if inList {
		leaves, err := format.DecodeLeaves(m.Checkpoint.Content.Tree, m.Checkpoint.Files, m.Checkpoint.Bytes)
		if err != nil {
			w.Fatal(err)
		}
		leaves[0].Bytes = size
		m.Checkpoint.Content.Tree = oneLeaf(w, leaves[0])
	}
	m.Seq, m.Checkpoint.Seq, m.Checkpoint.Bytes = m.Seq+1, m.Seq+1, size
	w.put(m)
	task, _, _ := w.process()
	c, err := task.Latest(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	for name, read := range map[string]func() error{
		"file system": func() error { _, err := c.FS(w.Context()); return err },
		"entries":     func() error { _, err := c.Entries(w.Context()); return err },
		"restore": func() error {
			return c.Restore(w.Context(), filepath.Join(tempDir(w), "state"), checkpoint.RestoreOptions{})
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := read()
		runtime.ReadMemStats(&after)
		if !errors.Is(err, checkpoint.ErrCorrupt) {
			w.Errorf("%s: %v; want ErrCorrupt", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			w.Errorf("%s: %d MiB were allocated", name, n>>20)
		}
	}
}

// A logged is the text of a log that may be written in the background.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}
