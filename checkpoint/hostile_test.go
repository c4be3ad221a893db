//go:build !race

// The race detector takes memory of its own.

package checkpoint_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A forger makes a task of objects that no writer of this project would make, but
// whose sums and hashes are right.
type forger struct {
	*world
	codec   *codec.Codec
	segment format.SegmentID // the one being filled
	stored  []byte           // what is in it
}

func newForger(w *world) *forger {
	id := format.SegmentID{Epoch: 1, Writer: format.WriterID{1}}
	return &forger{world: w, codec: codec.New(), segment: id}
}

// chunk stores data.
func (f *forger) chunk(data []byte) format.Chunk {
	c := format.Chunk{Segment: f.segment, Offset: int64(len(f.stored)), Size: int64(len(data)), Hash: format.Sum(data)}
	e, encoded := f.codec.Encode(nil, data)
	if c.Encoding = e; e != format.Raw {
		data, c.Stored = encoded, int64(len(encoded))
	}
	f.stored = append(f.stored, data...)
	return c
}

// cut stores data in pieces, those that are the same once.
func (f *forger) cut(data []byte, size int) (list []format.Chunk) {
	known := make(map[format.Hash]format.Chunk)
	for piece := range slices.Chunk(data, size) {
		sum := format.Sum(piece)
		if _, ok := known[sum]; !ok {
			known[sum] = f.chunk(piece)
		}
		list = append(list, known[sum])
	}
	return list
}

// tree stores a list of files, and returns a content with it.
func (f *forger) tree(entries []format.Entry) *format.Content {
	f.Helper()
	var enc format.TreeEncoder
	for i := range entries {
		if err := enc.Add(&entries[i]); err != nil {
			f.Fatal(err)
		}
	}
	c := new(format.Content)
	f.list(c, f.cut(enc.Bytes(), int(format.MetaCut.Max)))
	return c
}

// list makes chunks a content's list of files.
func (f *forger) list(c *format.Content, chunks []format.Chunk) {
	c.Tree, c.TreeSize = chunks, 0
	if len(chunks) <= format.MaxTreeChunks {
		return
	}
	for i := range chunks {
		c.TreeSize += chunks[i].Size
	}
	c.Tree = f.cut(format.AppendTable(nil, slices.Values(chunks)), int(format.MetaCut.Max))
}

// commit stores what was made as checkpoint seq.
func (f *forger) commit(seq uint64, content *format.Content, files int, size int64) {
	f.Helper()
	c := &format.Checkpoint{Seq: seq, Epoch: 1, Files: files, Bytes: size, Content: content}
	if len(content.Tree) > 0 {
		content.Segments = []format.Segment{{ID: f.segment, Size: int64(len(f.stored))}}
	}
	data, err := json.Marshal(content)
	if err != nil {
		f.Fatal(err)
	}
	f.flush()
	if len(data) > format.MaxPart {
		at := f.chunk(data)
		c.Content, c.ContentAt = nil, &at
		f.flush()
	}
	f.put(&format.Manifest{Kind: format.KindCommit, Task: "orders/7", Seq: seq, Epoch: 1, Writer: f.segment.Writer, Checkpoint: c})
}

// flush makes what was stored an object.
func (f *forger) flush() {
	f.Helper()
	if len(f.stored) > 0 {
		f.write(format.SegmentKey(dir, f.segment), f.stored)
	}
	f.segment.N++
	f.stored = nil
}

// period returns what of a table repeats itself if chunks come again and again.
func period(chunks ...format.Chunk) []byte {
	once := format.AppendTable(nil, slices.Values(chunks))
	return format.AppendTable(nil, slices.Values(slices.Concat(chunks, chunks)))[len(once):]
}

// table stores the table of chunks that come so many times, in pieces that are all the
// same but for the last.
func (f *forger) table(times int, chunks ...format.Chunk) []format.Chunk {
	p := period(chunks...)
	return f.cut(bytes.Repeat(p, times), metaMax/len(p)*len(p))
}

// A hostile is a store that costs its maker next to nothing.
type hostile struct {
	name    string
	forge   func(f *forger)
	refused string   // what an error says; "" if it is a state that could be
	unread  []string // who does not come across it
	most    int64    // bytes that a restore of it may take, beside those for any
}

// data stores a chunk for files, of at most so many bytes.
func (f *forger) data(size int64) format.Chunk { return f.chunk(make([]byte, size)) }

// tabled makes n files of one chunk after the other, so many times, that share a
// table.
func (f *forger) tabled(n int, one format.Chunk, times int) []format.Entry {
	table := f.table(times, one)
	var entries []format.Entry
	for i := range n {
		entries = append(entries, format.Entry{Path: fmt.Sprint(i), Size: one.Size * int64(times), Table: table})
	}
	return entries
}

// saved stores entries as checkpoint 1, which claims what they say.
func (f *forger) saved(entries []format.Entry) {
	f.Helper()
	size := int64(0)
	for i := range entries {
		size += entries[i].Size
	}
	f.commit(1, f.tree(entries), len(entries), size)
}

// spilled stores data as a part of a manifest in a segment of its own.
func (f *forger) spilled(data []byte) *format.Chunk {
	f.Helper()
	at := f.chunk(data)
	f.flush()
	return &at
}

func (f *forger) manifest(seq uint64, content *format.Chunk, retained *format.Chunk, list ...format.Retained) {
	f.Helper()
	c := &format.Checkpoint{Seq: seq, Epoch: 1, ContentAt: content}
	if content == nil {
		c.Content = new(format.Content)
	}
	f.put(&format.Manifest{
		Kind: format.KindCommit, Task: "orders/7", Seq: seq, Epoch: 1, Writer: f.segment.Writer,
		Checkpoint: c, RetainedAt: retained, Retained: list,
	})
}

// manifests stores n checkpoints with one content.
func (f *forger) manifests(n uint64, content *format.Chunk) {
	f.Helper()
	var list []format.Retained
	for seq := uint64(1); seq <= n; seq++ {
		f.manifest(seq, content, nil, list...)
		list = append(list, format.Retained{Seq: seq, Time: time.Now()})
	}
}

const (
	dataMax = 32 << 10 // what writers cut
	metaMax = 8 << 10
)

var hostiles = []hostile{
	{
		name: "files that share a table of 1 GiB",
		forge: func(f *forger) {
			one := f.chunk([]byte("x"))
			entry := period(one)
			piece := f.chunk(repeat(entry, format.MaxChunk/len(entry)*len(entry)))
			const pieces, files = 15, 8
			size := piece.Size / int64(len(entry)) * pieces
			var entries []format.Entry
			for n := range files {
				entries = append(entries, format.Entry{Path: fmt.Sprint(n), Size: size, Table: slices.Repeat([]format.Chunk{piece}, pieces)})
			}
			f.saved(entries)
		},
		refused: "at most 8192 are cut",
	},
	{
		name:    "files of small chunks that share a table",
		forge:   func(f *forger) { f.saved(f.tabled(8, f.chunk([]byte("x")), 1<<16)) },
		refused: "are cut into at most",
	},
	{
		name:    "a file of many small chunks",
		forge:   func(f *forger) { f.saved(f.tabled(1, f.chunk(make([]byte, 4<<10-1)), 1<<16)) },
		refused: "is shorter than 4096 bytes, and not the last",
	},
	{
		name:    "a file of large chunks",
		forge:   func(f *forger) { f.saved(f.tabled(1, f.data(format.MaxChunk), 1<<16)) },
		refused: "at most 32768 are cut",
	},
	{
		name: "more bytes than the manifest says",
		forge: func(f *forger) {
			f.commit(1, f.tree(f.tabled(8, f.data(dataMax), 1<<20)), 8, 1<<30)
		},
		refused: "of all that the manifest says that there are",
	},
	{
		name: "more files than the manifest says",
		forge: func(f *forger) {
			f.commit(1, f.tree(f.tabled(8, f.data(dataMax), 100)), 7, 1<<30)
		},
		refused: "there are more files than the manifest says",
	},
	{
		// As of a state that is: a few files of 32 GiB that are all holes.
		name:  "files of zeros that share a table of 50 MiB",
		forge: func(f *forger) { f.saved(f.tabled(8, f.data(dataMax), 1<<20)) },
		most:  8 << 20 * 20, // a restore remembers where each chunk of each file belongs
	},
	{
		name: "two places for one hash, by turns",
		forge: func(f *forger) {
			a, b := f.data(dataMax), f.data(dataMax)
			f.saved([]format.Entry{{Path: "f", Size: 2 << 18 * dataMax, Table: f.table(1<<18, a, b)}})
		},
	},
	{
		name: "hashes that begin alike, by turns",
		forge: func(f *forger) {
			a, b := f.data(dataMax), f.data(dataMax)
			b.Hash[31]++
			f.saved([]format.Entry{{Path: "f", Size: 2 << 18 * dataMax, Table: f.table(1<<18, a, b)}})
		},
	},
	{
		name: "chunks that overlap",
		forge: func(f *forger) {
			at := f.chunk(noise(20 << 10))
			table := format.AppendTable(nil, func(yield func(format.Chunk) bool) {
				for n := range int64(100_000) {
					c := format.Chunk{Segment: at.Segment, Offset: n % (16 << 10), Size: 4<<10 + n>>14, Hash: format.Hash{1: byte(n), 2: byte(n >> 8), 3: byte(n >> 16)}}
					if !yield(c) {
						return
					}
				}
			})
			size := int64(0)
			for c, err := range format.DecodeTable(table, 1<<62) {
				if err != nil {
					break // at its end, which is not that of a file
				}
				size += c.Size
			}
			table = table[:200<<10] // which is further than anyone reads
			f.saved([]format.Entry{{Path: "f", Size: size, Table: f.cut(table, metaMax)}})
		},
		refused: "some overlap",
	},
	{
		name: "an entry without end",
		forge: func(f *forger) {
			piece := f.chunk(make([]byte, metaMax))
			c := new(format.Content)
			f.list(c, slices.Concat([]format.Chunk{f.chunk([]byte("\x80\x80\x80\x80\x04"))}, slices.Repeat([]format.Chunk{piece}, 1<<16)))
			f.commit(1, c, 1, 1<<20)
		},
		refused: "is shorter than 1024 bytes",
	},
	{
		name: "an entry of 512 MiB",
		forge: func(f *forger) {
			piece := f.chunk(make([]byte, metaMax))
			c := new(format.Content)
			f.list(c, slices.Concat([]format.Chunk{f.chunk(repeat([]byte("\x80\x80\x80\x80\x02"), metaMax))}, slices.Repeat([]format.Chunk{piece}, 1<<16)))
			f.commit(1, c, 1, 1<<20)
		},
		refused: "entry 1 has 536870912 bytes; at most",
	},
	{
		name: "deep directories",
		forge: func(f *forger) {
			var entries []format.Entry
			for n := 1; n <= 500; n++ {
				entries = append(entries, format.Entry{Path: strings.Repeat("/a", n)[1:], Mode: fs.ModeDir | 0o700})
			}
			f.commit(1, f.tree(entries), 0, 0)
		},
	},
	{
		name: "a content of 64 MiB of nothing",
		forge: func(f *forger) {
			text := slices.Concat([]byte(`{"tree":[{}`), repeat([]byte(`,{}`), format.MaxChunk/3*3-30), []byte(`]}`))
			f.manifest(1, f.spilled(text), nil)
		},
		refused: "at most 64 times as many are",
	},
	{
		name: "a content of as much as can be",
		forge: func(f *forger) {
			letters := []byte(base64.StdEncoding.EncodeToString(noise(32 << 10)))
			text := slices.Concat([]byte(`{"tree":[{}`), repeat([]byte(`,{}`), 3*600_000), []byte(`],"labels":{"`), letters, []byte(`":""}}`))
			f.manifest(1, f.spilled(text), nil)
		},
		refused: "chunk without a hash",
	},
	{
		name: "a list of checkpoints of 64 MiB of nothing",
		forge: func(f *forger) {
			text := slices.Concat([]byte(`[{}`), repeat([]byte(`,{}`), format.MaxChunk/3*3-30), []byte(`]`))
			f.manifest(1, nil, f.spilled(text))
		},
		refused: "at most 64 times as many are",
	},
	{
		name: "a list of checkpoints of as much as can be",
		forge: func(f *forger) {
			letters := []byte(base64.StdEncoding.EncodeToString(noise(32 << 10)))
			text := slices.Concat([]byte(`[{"a":"`), letters, []byte(`"}`), repeat([]byte(`,{}`), 3*600_000), []byte(`]`))
			f.manifest(1, nil, f.spilled(text))
		},
		refused: "retained checkpoint 0",
		unread:  []string{"restore", "file system"},
	},
	{
		name: "checkpoints that share a content of many offsets",
		forge: func(f *forger) {
			content := &format.Content{Offsets: map[string]string{}}
			for n := range 20_000 {
				content.Offsets[fmt.Sprint(n)] = "0"
			}
			data, err := json.Marshal(content)
			if err != nil {
				f.Fatal(err)
			}
			f.manifests(20, f.spilled(data))
		},
	},
	{
		name: "checkpoints with contents that are not there",
		forge: func(f *forger) {
			f.spilled([]byte("x"))
			at := format.Chunk{Segment: format.SegmentID{Epoch: 1, Writer: format.WriterID{1}}, Size: format.MaxChunk, Hash: format.Sum(nil)}
			f.manifests(40, &at)
		},
		refused: "ends before byte",
	},
}

// usage is what something took.
type usage struct {
	bytes int64 // on the heap, at once
	time  time.Duration
}

func (u usage) String() string {
	return fmt.Sprintf("%d MiB, %v", u.bytes>>20, u.time.Round(time.Millisecond))
}

// measure says what do takes.
func measure(do func()) usage {
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // so that it is what is used, more or less
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	now := func() int64 { metrics.Read(sample); return int64(sample[0].Value.Uint64()) }
	runtime.GC()
	before := now()
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		top := int64(0)
		for {
			select {
			case <-stop:
				most <- top
				return
			default:
				top = max(top, now()-before)
				time.Sleep(200 * time.Microsecond)
			}
		}
	}()
	start := time.Now()
	do()
	took := time.Since(start)
	close(stop)
	return usage{<-most, took}
}

// What someone stores who wants to harm those who read it costs them little.
func TestHostileStores(t *testing.T) {
	reads := map[string]func(context.Context, *checkpoint.Task, string) error{
		"verify": func(ctx context.Context, task *checkpoint.Task, _ string) error {
			r, err := task.Verify(ctx, checkpoint.VerifyOptions{})
			return errors.Join(err, reportError(r))
		},
		"restore": func(ctx context.Context, task *checkpoint.Task, target string) error {
			c, err := task.Latest(ctx)
			if err != nil {
				return err
			}
			return c.Restore(ctx, target, checkpoint.RestoreOptions{})
		},
		"file system": func(ctx context.Context, task *checkpoint.Task, _ string) error { return readFirst(ctx, task) },
		"save": func(ctx context.Context, task *checkpoint.Task, _ string) error {
			_, err := task.Save(ctx, checkpoint.Snapshot{State: checkpoint.FS(fstest.MapFS{"a": {Data: []byte("new")}})})
			return err
		},
	}
	for _, h := range hostiles {
		for how, read := range reads {
			t.Run(h.name+"/"+how, func(t *testing.T) {
				w := &world{tester: t, bucket: mem.NewBucket(time.Now)}
				h.forge(newForger(w))
				stored := int64(0)
				for _, o := range w.objects("") {
					stored += o.Size
				}
				if stored > 100<<10 {
					t.Errorf("it takes %d bytes to store", stored)
				}
				task, _, _ := w.process()
				var err error
				used := measure(func() { err = read(t.Context(), task, filepath.Join(t.TempDir(), "target")) })
				t.Logf("%d bytes in the store: %v; %.300v", stored, used, err)
				most := int64(96 << 20)
				if how == "restore" {
					most += h.most
				}
				if used.bytes > most || used.time > 20*time.Second {
					t.Errorf("%d bytes in the store cost %v", stored, used)
				}
				if err == nil && (h.refused == "" || how == "save" || slices.Contains(h.unread, how)) {
					return // a save goes by without a base that it cannot read
				}
				if !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), h.refused) {
					t.Errorf("%v; want ErrCorrupt, %q", err, h.refused)
				}
			})
		}
	}
}

func reportError(r *checkpoint.VerifyReport) error {
	if r == nil || len(r.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", r.Err(), r.Problems[0].Error)
}

// readFirst reads a little of the first file.
func readFirst(ctx context.Context, task *checkpoint.Task) error {
	c, err := task.Latest(ctx)
	if err != nil {
		return err
	}
	fsys, err := c.FS(ctx)
	if err != nil {
		return err
	}
	return fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := fsys.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.ReadFull(f, make([]byte, 1)); err != nil {
			return err
		}
		return fs.SkipAll
	})
}
