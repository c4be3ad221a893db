package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A patient is a task whose objects are damaged one by one.
type patient struct {
	store backend.Store
	task  *checkpoint.Task
	keys  []string // of the objects that read reads
}

func (p *patient) get(t *testing.T, key string) []byte {
	t.Helper()
	data := make([]byte, 1<<20)
	n, err := p.store.Get(t.Context(), key, 0, data)
	if err != nil {
		t.Fatal(err)
	}
	return data[:n]
}

func (p *patient) put(t *testing.T, key string, data []byte) {
	t.Helper()
	if _, err := p.store.Put(t.Context(), key, data); err != nil {
		t.Fatal(err)
	}
}

// read reads the newest checkpoint with each of its files, and the offsets of the two
// oldest ones.
func (p *patient) read(ctx context.Context) error {
	c, err := p.task.Latest(ctx)
	if err != nil {
		return err
	}
	fsys, err := c.FS(ctx)
	if err != nil {
		return err
	}
	err = fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := fsys.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
	if err != nil {
		return err
	}
	for _, seq := range []uint64{2, 3} { // number 1 is the claim
		if seq >= c.Seq {
			break
		}
		if _, err := p.task.Get(ctx, checkpoint.Seq(seq)); err != nil {
			return err
		}
	}
	return nil
}

// wantCorrupt fails unless the read reports the damage, and its place.
func (p *patient) wantCorrupt(t *testing.T, what, key string) {
	t.Helper()
	err := p.read(t.Context())
	if !errors.Is(err, checkpoint.ErrCorrupt) || errors.Is(err, checkpoint.ErrVersion) || errors.Is(err, checkpoint.ErrGone) {
		t.Fatalf("%s: %v, want ErrCorrupt", what, err)
	}
	if !strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%s: %v; want %s to be named, on one line", what, err, key)
	}
}

// kept returns tasks that store what they save in all possible ways.
func kept() map[string][]checkpoint.Snapshot {
	small := checkpoint.FS(fstest.MapFS{
		"a/one": {Data: []byte("1"), Mode: 0o644}, "a/link": {Data: []byte("one"), Mode: fs.ModeSymlink | 0o777}, "two": {Data: noise(300), Mode: 0o600},
	})
	large := checkpoint.FS(fstest.MapFS{"a": {Data: noise(100 << 10)}, "b": {Data: noise(70 << 10)}, "c": {Data: []byte("c")}})
	many := map[string]string{}
	for n := range 2000 {
		many[fmt.Sprint("orders/", n)] = fmt.Sprint(n * n)
	}
	var savepoints []checkpoint.Snapshot
	for n := range 120 { // until their list does not fit into a manifest
		savepoints = append(savepoints, checkpoint.Snapshot{Savepoint: fmt.Sprintf("%0127d.", n)})
	}
	return map[string][]checkpoint.Snapshot{
		"offsets":                    {at(1)},
		"inline":                     {{State: small}},
		"in segments":                {{State: large}},
		"many offsets":               {{Offsets: many}},
		"many offsets, and inline":   {{Offsets: many, State: small}},
		"many offsets, and segments": {{Offsets: many, State: large}},
		"several":                    {{State: large}, at(2), {Offsets: many}},
		"many savepoints":            savepoints,
	}
}

func newPatient(t *testing.T, snapshots []checkpoint.Snapshot) *patient {
	t.Helper()
	bucket := mem.NewBucket(time.Now)
	opts := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll}}
	o := claim(t, openTask(t, bucket, opts))
	for _, s := range snapshots {
		commit(t, o, s)
	}
	if err := o.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	watch := &watched{Store: bucket.Open(), got: map[string]bool{}}
	job := newJob(t, watch, opts)
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	task, err := job.Task("orders/7")
	if err != nil {
		t.Fatal(err)
	}
	p := &patient{store: bucket.Open(), task: task}
	if err := p.read(t.Context()); err != nil {
		t.Fatalf("before anything is damaged: %v", err)
	}
	p.keys = slices.Sorted(maps.Keys(watch.got))
	return p
}

// watched records what is read.
type watched struct {
	backend.Store
	mu  sync.Mutex
	got map[string]bool
}

func (w *watched) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	w.mu.Lock()
	w.got[key] = true
	w.mu.Unlock()
	return w.Store.Get(ctx, key, offset, p)
}

// places returns the bytes of an object to damage: all of them if each test reads
// little, otherwise a sample that includes both ends.
func (p *patient) places(size int) []int {
	var list []int
	if len(p.keys) == 1 {
		for i := range size {
			list = append(list, i)
		}
		return list
	}
	list = append(list, 0, size-1)
	for range 8 {
		list = append(list, rand.IntN(size))
	}
	return list
}

func TestDamageIsFound(t *testing.T) {
	for name, snapshots := range kept() {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, snapshots)
			t.Run("flipped bits", p.flip)
			t.Run("truncated", p.truncate)
			t.Run("swapped", p.swap)
			if err := p.read(t.Context()); err != nil {
				t.Errorf("with everything back in its place: %v", err)
			}
			t.Run("missing", p.miss)
		})
	}
}

func (p *patient) flip(t *testing.T) {
	for _, key := range p.keys {
		data := p.get(t, key)
		for _, i := range p.places(len(data)) {
			bit := rand.IntN(8)
			data[i] ^= 1 << bit
			p.put(t, key, data)
			p.wantCorrupt(t, fmt.Sprintf("bit %d of byte %d of %d flipped", bit, i, len(data)), key)
			data[i] ^= 1 << bit
		}
		p.put(t, key, data)
	}
}

func (p *patient) truncate(t *testing.T) {
	for _, key := range p.keys {
		data := p.get(t, key)
		for _, n := range p.places(len(data)) {
			p.put(t, key, data[:n])
			p.wantCorrupt(t, fmt.Sprintf("%d bytes cut to %d", len(data), n), key)
			if err := p.read(t.Context()); strings.Contains(key, segments) && !strings.Contains(err.Error(), "ends before byte") {
				t.Fatalf("%d bytes cut to %d: %v; want it to say where it ends", len(data), n, err)
			}
		}
		p.put(t, key, data)
	}
}

func (p *patient) swap(t *testing.T) {
	for i, a := range p.keys {
		for _, b := range p.keys[:i] {
			dataA, dataB := p.get(t, a), p.get(t, b)
			p.put(t, a, dataB)
			p.put(t, b, dataA)
			p.wantCorrupt(t, a+" and "+b+" swapped", "")
			p.put(t, a, dataA)
			p.put(t, b, dataB)
		}
	}
}

// miss deletes all objects except the newest manifest. Without the newest manifest,
// the one before would be the newest, and nothing in the store would show it.
func (p *patient) miss(t *testing.T) {
	for _, key := range p.keys[1:] { // the newest manifest sorts first
		data := p.get(t, key)
		if err := p.store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		p.wantCorrupt(t, "deleted", key)
		p.put(t, key, data)
	}
	if err := p.store.Delete(t.Context(), p.keys[0]); err != nil {
		t.Fatal(err)
	}
	if err := p.read(t.Context()); err != nil && !errors.Is(err, checkpoint.ErrNoCheckpoint) {
		t.Errorf("without the newest manifest: %v", err)
	}
}

// A manifest that was copied from another task is refused.
func TestManifestOfAnotherTaskIsFound(t *testing.T) {
	p := newPatient(t, kept()["inline"])
	job := newJob(t, p.store, checkpoint.Options{})
	other, err := job.Task("orders/8")
	if err != nil {
		t.Fatal(err)
	}
	commit(t, claim(t, other), at(8))
	p.put(t, p.keys[0], p.get(t, format.ManifestKey("orders_2f8", 2)))
	p.wantCorrupt(t, "another task's manifest", p.keys[0])
}

// The tree is not trusted either: a file's data must be in a segment that the
// checkpoint names.
func TestChunkOutsideTheCheckpointIsFound(t *testing.T) {
	inWorld(t, func(w *world) {
		c := commit(w, claim(w, openTask(w, w.bucket, lastOne)), with(1, 100<<10))
		m := w.manifest(c.Seq)
		elsewhere := m.Checkpoint.Content.Segments[0]
		var encoder format.TreeEncoder
		err := encoder.Add(&format.Entry{Path: "s", Size: 10, Chunks: []format.Chunk{{Segment: elsewhere.ID, Size: 10}}})
		if err != nil {
			t.Fatal(err)
		}
		tree := encoder.Bytes()
		m.Seq, m.Checkpoint.Seq = 3, 3
		m.Checkpoint.Files, m.Checkpoint.Bytes = 1, 10
		m.Checkpoint.Content = &format.Content{Inline: tree, Tree: oneLeaf(t, format.Leaf{
			First: "s", Files: 1, Bytes: 10, Uses: []format.Use{{Segment: elsewhere.ID, Bytes: 10}},
			Chunks: []format.Chunk{{Size: int64(len(tree)), Hash: format.Sum(tree)}},
		})}
		w.put(m)
		task, _, store := w.process()
		forged, err := task.Latest(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := store.Calls()
		_, err = forged.FS(w.Context())
		if !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), `file "s": corrupt: chunk in segment`) || store.Calls() != before {
			t.Errorf("err = %v, want ErrCorrupt without a request", err)
		}
	})
}

// oneLeaf returns a list of one leaf.
func oneLeaf(t tester, l format.Leaf) []byte {
	t.Helper()
	data, err := format.EncodeLeaves([]format.Leaf{l})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A restore that finds damage does not change its target.
func TestRestoreOfADamagedStateChangesNothing(t *testing.T) {
	for _, name := range []string{"in segments", "many offsets, and segments", "several"} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, kept()[name])
			c, err := p.task.Get(t.Context(), checkpoint.Seq(2))
			if err != nil {
				t.Fatal(err)
			}
			parent := t.TempDir()
			full := filepath.Join(parent, "full")
			if err := errors.Join(os.Mkdir(full, 0o750), os.WriteFile(filepath.Join(full, "old"), []byte("old"), 0o600)); err != nil {
				t.Fatal(err)
			}
			before := describe(t, full)
			damages := map[string]func([]byte) []byte{
				"flipped":   func(b []byte) []byte { i := rand.IntN(len(b)); b[i] ^= 1 << rand.IntN(8); return b },
				"truncated": func(b []byte) []byte { return b[:rand.IntN(len(b))] },
				"emptied":   func([]byte) []byte { return nil },
			}
			for _, key := range p.keys {
				if !strings.Contains(key, segments) {
					continue
				}
				data := p.get(t, key)
				for what, damage := range damages {
					p.put(t, key, damage(bytes.Clone(data)))
					for _, target := range []string{full, filepath.Join(parent, "absent")} {
						err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{Replace: true})
						if err == nil {
							// This segment belongs to another checkpoint, or contains
							// the offsets.
							if err := removeReadOnly(target); err != nil {
								t.Fatal(err)
							}
							continue
						}
						if !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), key) {
							t.Errorf("%s %s: %v", key, what, err)
						}
						beside, err := os.ReadDir(parent)
						if err != nil || len(beside) != 1 || describe(t, full) != before {
							t.Fatalf("%s %s: it left %v, with\n%s\nwant\n%s", key, what, beside, describe(t, full), before)
						}
					}
				}
				p.put(t, key, data)
			}
		})
	}
}

func TestReaderThatIsTooSlow(t *testing.T) {
	large := func(n int) checkpoint.Snapshot { return with(n, 100<<10) }
	for name, read := range map[string]func(context.Context, *checkpoint.Checkpoint, *testing.T) error{
		"restore": func(ctx context.Context, c *checkpoint.Checkpoint, t *testing.T) error {
			target := filepath.Join(t.TempDir(), "target")
			err := c.Restore(ctx, target, checkpoint.RestoreOptions{})
			if left, _ := os.ReadDir(filepath.Dir(target)); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
			return err
		},
		"entries": func(ctx context.Context, c *checkpoint.Checkpoint, _ *testing.T) error {
			_, err := c.Entries(ctx)
			return err
		},
		"file system": func(ctx context.Context, c *checkpoint.Checkpoint, _ *testing.T) error {
			_, err := c.FS(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(lastOne)
				c := commit(w, o, large(1))
				commit(w, o, large(2))
				synctest.Wait() // until the segments are deleted
				if err := read(w.Context(), c, t); !errors.Is(err, checkpoint.ErrGone) || errors.Is(err, checkpoint.ErrCorrupt) {
					t.Errorf("a retired checkpoint: %v, want ErrGone", err)
				}

				c = commit(w, o, large(3))
				for _, s := range w.objects(segments) {
					if err := w.bucket.Open().Delete(w.Context(), s.Key); err != nil {
						t.Fatal(err)
					}
				}
				if err := read(w.Context(), c, t); !errors.Is(err, checkpoint.ErrCorrupt) || errors.Is(err, checkpoint.ErrGone) {
					t.Errorf("a retained checkpoint whose segments are missing: %v, want ErrCorrupt", err)
				}
			})
		})
	}
}

// An open file of a checkpoint that was retired meanwhile returns ErrGone.
func TestOpenFileOfARetiredCheckpoint(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		fsys, err := commit(w, o, with(1, 900<<10)).FS(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		f, err := fsys.Open("s")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		commit(w, o, at(2))
		synctest.Wait()
		_, err = io.Copy(io.Discard, f)
		if pe := (*fs.PathError)(nil); !errors.Is(err, checkpoint.ErrGone) || !errors.As(err, &pe) || pe.Path != "s" {
			t.Errorf("err = %v, want ErrGone for s", err)
		}
	})
}

// Whoever asks for the newest checkpoint gets it, however fast it changes: a writer
// that overtakes a reader costs it one or two requests.
func TestReaderIsOvertaken(t *testing.T) {
	many := at(0)
	for n := range 1000 {
		many.Offsets[fmt.Sprint("orders/", n)] = strings.Repeat("7", 20)
	}
	for name, read := range map[string]func(context.Context, *checkpoint.Task) (*checkpoint.Checkpoint, error){
		"newest": func(ctx context.Context, t *checkpoint.Task) (*checkpoint.Checkpoint, error) { return t.Latest(ctx) },
		"list": func(ctx context.Context, t *checkpoint.Task) (*checkpoint.Checkpoint, error) {
			list, err := t.List(ctx)
			if err != nil || len(list) != 1 {
				return nil, fmt.Errorf("%d checkpoints: %w", len(list), err)
			}
			return list[0], nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(lastOne)
				commit(w, o, many)
				_, _, store := w.process()
				overtaken := &overtaken{Store: store, times: 2, by: func() { commit(w, o, many); synctest.Wait() }}
				job := newJob(t, overtaken, checkpoint.Options{})
				task, err := job.Task("orders/7")
				if err != nil {
					t.Fatal(err)
				}
				c, err := read(w.Context(), task)
				if err != nil || c.Seq != 4 || overtaken.times != 0 {
					t.Errorf("%+v, %v, want number 4", c, err)
				}
			})
		})
	}
}

// overtaken runs another writer before its first reads of segments.
type overtaken struct {
	backend.Store
	times int
	by    func()
}

func (o *overtaken) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if strings.Contains(key, segments) && o.times > 0 {
		o.times--
		o.by()
	}
	return o.Store.Get(ctx, key, offset, p)
}

// removeReadOnly is os.RemoveAll for trees with read-only directories.
func removeReadOnly(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(path, 0o700) // if it fails, the removal says so
		}
		return nil
	})
	return os.RemoveAll(dir)
}
