package checkpoint_test

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// repeat returns size bytes of repeated copies of p.
func repeat(p []byte, size int) []byte { return bytes.Repeat(p, size/len(p)+1)[:size] }

// A file is what an account knows about a file: its entry, and the chunks of its
// data.
type file struct {
	format.Entry
	chunks []format.Chunk
}

// bounds checks that the parts of a checkpoint are within the limits that readers
// enforce. It computes them independently. All tests that keep account of what random
// programs have saved call it.
func (a *account) bounds(c *format.Checkpoint, files []file, leaves []format.Leaf) error {
	count, size := 0, int64(0)
	for _, f := range files {
		if !f.Mode.IsRegular() {
			continue
		}
		count, size = count+1, size+f.Size
		if err := cutBetween(f.chunks, 4<<10, 32<<10); err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
		if err := tableOf(f.Table, f.chunks, 4<<10); err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
	}
	if count != c.Files || size != c.Bytes {
		return fmt.Errorf("%d files of %d bytes; the manifest says %d of %d", count, size, c.Files, c.Bytes)
	}
	for _, l := range leaves {
		if err := cutBetween(l.Chunks, 1<<10, 8<<10); err != nil {
			return fmt.Errorf("leaf %q: %w", l.First, err)
		}
	}
	if err := cutBetween(a.list, 1<<10, 8<<10); err != nil {
		return fmt.Errorf("list of leaves: %w", err)
	}
	if a.content.TreeSize > 0 {
		if err := tableOf(a.content.TreeAt, a.list, 1<<10); err != nil {
			return fmt.Errorf("list of leaves: %w", err)
		}
	}
	for _, at := range a.spilled {
		if at.Size > 64<<10 && at.Size > 64*at.StoredSize() {
			return fmt.Errorf("a part of %d bytes is stored in %d", at.Size, at.StoredSize())
		}
	}
	return a.apart()
}

// cutBetween reports a chunk that is too long, or too short and not the last.
func cutBetween(chunks []format.Chunk, least, most int64) error {
	for i, c := range chunks {
		if c.Size > most || c.Size < least && i < len(chunks)-1 {
			return fmt.Errorf("chunk %d of %d has %d bytes", i+1, len(chunks), c.Size)
		}
	}
	return nil
}

// tableOf checks a table of chunks. All chunks but the last have at least the size
// least. A chunk takes at most 63 bytes in the table.
func tableOf(table, chunks []format.Chunk, least int64) error {
	if err := cutBetween(table, 1<<10, 8<<10); err != nil {
		return fmt.Errorf("table: %w", err)
	}
	var size, has int64
	for _, c := range chunks {
		size += c.Size
	}
	for _, c := range table {
		has += c.Size
	}
	if has > 63*(size/least+1) {
		return fmt.Errorf("a table of %d bytes for %d", has, size)
	}
	return nil
}

// apart reports chunks that overlap in a segment or in the inline data.
func (a *account) apart() error {
	all := slices.Concat(a.data, a.meta)
	slices.SortFunc(all, func(x, y format.Chunk) int {
		return cmp.Or(cmp.Compare(x.Segment.String(), y.Segment.String()), cmp.Compare(x.Offset, y.Offset))
	})
	all = slices.Compact(all)
	for i := range all[min(1, len(all)):] {
		x, y := all[i], all[i+1]
		if x.Segment == y.Segment && x.Offset+x.StoredSize() > y.Offset {
			return fmt.Errorf("%+v and %+v overlap", x, y)
		}
	}
	return nil
}

// For every state, what is stored is within the limits, and readers get the state
// back.
func TestEveryStateIsWithinTheBounds(t *testing.T) {
	kinds := []func(seed uint64, n int) []byte{
		func(_ uint64, n int) []byte { return make([]byte, n) },
		func(seed uint64, n int) []byte { return repeat([]byte{byte(seed)}, n) },
		bytesOf, bytesOf,
	}
	rapid.Check(t, func(t *rapid.T) {
		state := fstest.MapFS{}
		edit := func() {
			for range rapid.IntRange(1, 4).Draw(t, "edits") {
				kind := rapid.SampledFrom(kinds).Draw(t, "kind")
				n := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, 70<<10), rapid.IntRange(0, 2<<20)).Draw(t, "size")
				data := kind(rapid.Uint64Range(0, 9).Draw(t, "seed"), n)
				for range rapid.IntRange(1, 3).Draw(t, "copies") {
					name := rapid.SampledFrom([]string{"a", "b", "c/a", "c/b", "c/d/e"}).Draw(t, "name")
					state[name] = &fstest.MapFile{Data: data, Mode: 0o600}
				}
			}
			for n := range rapid.SampledFrom([]int{0, 0, 1500}).Draw(t, "small files") {
				state[fmt.Sprintf("small/%d", n)] = &fstest.MapFile{Data: []byte(fmt.Sprint(n)), Mode: 0o600}
			}
		}
		w := &world{tester: t, bucket: mem.NewBucket(time.Now)}
		o, _ := w.ownerWith(checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll}})
		for range rapid.IntRange(1, 3).Draw(t, "commits") {
			edit()
			s := checkpoint.Snapshot{State: checkpoint.FS(state), Offsets: map[string]string{}}
			for n := range rapid.SampledFrom([]int{0, 20_000}).Draw(t, "offsets") {
				s.Offsets[fmt.Sprintf("orders/%05d", n)] = "0"
			}
			made := commit(w, o, s)
			takeInventory(w, w.bucket).account(w, made.Seq)
			reader, _, _ := w.process()
			opened, err := reader.Get(w.Context(), checkpoint.Seq(made.Seq))
			if err != nil {
				t.Fatal(err)
			}
			fsys, err := opened.FS(w.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got, want := digest(t, fsys), digest(t, state); got != want {
				t.Fatalf("checkpoint %d is\n%s\nwant\n%s", made.Seq, got, want)
			}
		}
		task, _, _ := w.process()
		if r, err := task.Verify(w.Context(), allData); err != nil || len(r.Problems) > 0 {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

func TestPartsOfManifestsAreNotCompressedToNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		labels := map[string]string{"long": strings.Repeat("x", 300<<10)}
		made := commit(w, o, checkpoint.Snapshot{Labels: labels})
		synctest.Wait()
		at := w.manifest(made.Seq).Checkpoint.ContentAt
		if at == nil || at.Encoding != format.Raw {
			t.Errorf("%+v, want it stored as it is", at)
		}
		task, _, _ := w.process()
		if c, err := task.Latest(w.Context()); err != nil || c.Labels["long"] != labels["long"] {
			t.Errorf("%v", err)
		}
	})
}

// Files with the same content share one table, and one list of chunks in memory. When
// earlier chunks are forgotten, the list must be updated only once.
func TestFilesThatShareATable(t *testing.T) {
	inWorld(t, func(w *world) {
		opts := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll}}
		data := noise(300 << 10)
		state := fstest.MapFS{"0.sst": {Data: noise(200 << 10)}, "gone.sst": {Data: noise(200 << 10)}}
		for _, name := range []string{"1.sst", "2.sst", "3.sst"} {
			state[name] = &fstest.MapFile{Data: data}
		}
		save := func(o *checkpoint.Owner, n int) {
			state["n"] = &fstest.MapFile{Data: fmt.Append(nil, n)}
			made := commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(state).Immutable("*.sst")})
			reader, _, _ := w.process()
			c, err := reader.Get(w.Context(), checkpoint.Seq(made.Seq))
			if err != nil {
				t.Fatal(err)
			}
			fsys, err := c.FS(w.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got, want := digest(t, fsys), digest(t, state); got != want {
				t.Fatalf("commit %d is\n%s\nwant\n%s", n, got, want)
			}
		}
		first, _ := w.ownerWith(opts)
		save(first, 1)
		heir, _ := w.ownerWith(opts) // reads what the first one has stored
		save(heir, 2)
		delete(state, "0.sst")
		save(heir, 3)
		delete(state, "gone.sst")
		delete(state, "1.sst") // the other files share its list
		save(heir, 4)
		save(heir, 5)
		synctest.Wait()
		w.wantClean(5)
	})
}
