//go:build !race

// The race detector takes memory of its own.

package checkpoint_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
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

// A forger makes a task of objects that no writer of this project would make. Their
// checksums and hashes are right.
type forger struct {
	*world
	codec   *codec.Codec
	segment format.SegmentID // the one that is being filled
	stored  []byte           // its content so far
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

// cut stores data in pieces. Equal pieces are stored once.
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

// tree stores entries as one leaf.
func (f *forger) tree(entries []format.Entry) leaf {
	f.Helper()
	var enc format.TreeEncoder
	for i := range entries {
		if e := &entries[i]; len(e.Table) > 0 {
			e.Uses = []format.Use{{Segment: f.segment, Bytes: 1}}
		}
		if err := enc.Add(&entries[i]); err != nil {
			f.Fatal(err)
		}
	}
	return leaf{entries[0].Path, f.cut(enc.Bytes(), int(format.MetaCut.Max))}
}

// A leaf is one that holds a whole tree, or claims to.
type leaf struct {
	first  string
	chunks []format.Chunk
}

// list returns a content with a list of one leaf.
func (f *forger) list(l leaf, files int, size int64) *format.Content {
	body := append(binary.AppendUvarint(nil, uint64(len(l.first))), l.first...)
	body = binary.AppendUvarint(body, uint64(files))
	body = binary.AppendUvarint(body, uint64(size))
	body = append(body, 0)                       // no fingerprint
	body = binary.AppendUvarint(body, uint64(1)) // one segment
	id := binary.BigEndian.AppendUint64(nil, f.segment.Epoch)
	id = append(id, f.segment.Writer[:]...)
	body = append(body, binary.BigEndian.AppendUint32(id, f.segment.N)...)
	body = append(append(body, 1), period(l.chunks...)...)
	data := append(binary.AppendUvarint(nil, uint64(len(body))), body...)
	if len(data) <= 4<<10 {
		return &format.Content{Tree: data}
	}
	c := &format.Content{TreeAt: f.cut(data, int(format.MetaCut.Max))}
	if len(c.TreeAt) > format.MaxTreeChunks {
		c.TreeSize = int64(len(data))
		c.TreeAt = f.cut(format.AppendTable(nil, slices.Values(c.TreeAt)), int(format.MetaCut.Max))
	}
	return c
}

// commit stores a tree as checkpoint seq.
func (f *forger) commit(seq uint64, tree leaf, files int, size int64) {
	f.Helper()
	content := f.list(tree, files, size)
	c := &format.Checkpoint{Seq: seq, Epoch: 1, Files: files, Bytes: size, Content: content}
	content.Segments = []format.Segment{{ID: f.segment, Size: int64(len(f.stored))}}
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

// flush writes what was stored as a segment.
func (f *forger) flush() {
	f.Helper()
	if len(f.stored) > 0 {
		f.write(format.SegmentKey(dir, f.segment), f.stored)
	}
	f.segment.N++
	f.stored = nil
}

// period returns the part of a table that lists some chunks, whatever comes before it.
func period(chunks ...format.Chunk) (b []byte) {
	other := format.Chunk{Segment: format.SegmentID{Epoch: 1 << 40}, Size: 1}
	before := len(format.AppendTable(nil, slices.Values([]format.Chunk{other})))
	for _, c := range chunks {
		b = append(b, format.AppendTable(nil, slices.Values([]format.Chunk{other, c}))[before:]...)
	}
	return b
}

// table stores a table of chunks that repeat the given number of times. All its
// pieces but the last are equal.
func (f *forger) table(times int, chunks ...format.Chunk) []format.Chunk {
	p := period(chunks...)
	return f.cut(bytes.Repeat(p, times), metaMax/len(p)*len(p))
}

// A hostile is a task that costs its maker almost nothing.
type hostile struct {
	name    string
	forge   func(f *forger)
	refused string   // what the error says; "" if the state is possible
	unread  []string // the operations that do not read it
	most    int64    // the bytes that a restore may need, in addition to those of any restore
}

// data stores a chunk of at most the given number of bytes, for files.
func (f *forger) data(size int64) format.Chunk { return f.chunk(make([]byte, size)) }

// tabled makes n files that share a table. Each consists of the given number of
// copies of one chunk.
func (f *forger) tabled(n int, one format.Chunk, times int) []format.Entry {
	table := f.table(times, one)
	var entries []format.Entry
	for i := range n {
		entries = append(entries, format.Entry{Path: fmt.Sprint(i), Size: one.Size * int64(times), Table: table})
	}
	return entries
}

// saved stores entries as checkpoint 1, with the right counts.
func (f *forger) saved(entries []format.Entry) {
	f.Helper()
	size := int64(0)
	for i := range entries {
		size += entries[i].Size
	}
	f.commit(1, f.tree(entries), len(entries), size)
}

// spilled stores data as a part of a manifest, in a segment of its own.
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

// manifests stores n checkpoints with the same content.
func (f *forger) manifests(n uint64, content *format.Chunk) {
	f.Helper()
	var list []format.Retained
	for seq := uint64(1); seq <= n; seq++ {
		f.manifest(seq, content, nil, list...)
		list = append(list, format.Retained{Seq: seq, Time: time.Now()})
	}
}

const (
	dataMax = 32 << 10 // the size of chunks that writers make
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
		refused: "a leaf ends after",
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
		// This could be a real state: a few files of 32 GiB that consist of holes.
		name:  "files of zeros that share a table of 50 MiB",
		forge: func(f *forger) { f.saved(f.tabled(8, f.data(dataMax), 1<<20)) },
		most:  8 << 20 * 20, // a restore remembers the place of each chunk of each file
	},
	{
		// Likewise, with a table of some 60 bytes for each file.
		name: "files of zeros with tables of their own",
		forge: func(f *forger) {
			one := f.data(dataMax)
			var entries []format.Entry
			for n := range 8 {
				times := 1<<20 - n
				table := format.AppendTable(nil, slices.Values(slices.Repeat([]format.Chunk{one}, times)))
				entries = append(entries, format.Entry{Path: fmt.Sprint(n), Size: dataMax * int64(times), Table: f.cut(table, metaMax)})
			}
			f.saved(entries)
		},
		most: 8 << 20 * 10,
	},
	{
		name: "a small chunk again and again",
		forge: func(f *forger) {
			one := f.chunk([]byte("x"))
			table := format.AppendTable(nil, slices.Values(slices.Repeat([]format.Chunk{one}, 1<<20)))
			f.saved([]format.Entry{{Path: "f", Size: 1 << 20, Table: f.cut(table, metaMax)}})
		},
		refused: "is shorter than 4096 bytes, and not the last",
	},
	{
		name: "a chunk that says that it is zeros",
		forge: func(f *forger) {
			one := f.chunk(noise(4 << 10))
			one.Hash = format.Sum(make([]byte, dataMax))
			f.saved(f.tabled(1, one, 100))
		},
		refused: "corrupt",
		unread:  []string{"verify"}, // which does not read data here
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
					break // at its end, which is not the end of a file
				}
				size += c.Size
			}
			table = table[:200<<10] // more than anyone reads
			f.saved([]format.Entry{{Path: "f", Size: size, Table: f.cut(table, metaMax)}})
		},
		refused: "some overlap",
	},
	{
		name: "an entry without end",
		forge: func(f *forger) {
			piece := f.chunk(make([]byte, metaMax))
			chunks := slices.Concat([]format.Chunk{f.chunk([]byte("\x80\x80\x80\x80\x04"))}, slices.Repeat([]format.Chunk{piece}, 1<<16))
			f.commit(1, leaf{"f", chunks}, 1, 1<<20)
		},
		refused: "is shorter than 1024 bytes",
	},
	{
		name: "an entry of 512 MiB",
		forge: func(f *forger) {
			piece := f.chunk(make([]byte, metaMax))
			chunks := slices.Concat([]format.Chunk{f.chunk(repeat([]byte("\x80\x80\x80\x80\x02"), metaMax))}, slices.Repeat([]format.Chunk{piece}, 1<<16))
			f.commit(1, leaf{"f", chunks}, 1, 1<<20)
		},
		refused: "a leaf ends after",
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
			text := slices.Concat([]byte(`{"tree_at":[{}`), repeat([]byte(`,{}`), format.MaxChunk/3*3-30), []byte(`]}`))
			f.manifest(1, f.spilled(text), nil)
		},
		refused: "at most 64 times as many are",
	},
	{
		name: "a content of as much as can be",
		forge: func(f *forger) {
			letters := []byte(base64.StdEncoding.EncodeToString(noise(32 << 10)))
			text := slices.Concat([]byte(`{"tree_at":[{}`), repeat([]byte(`,{}`), 3*600_000), []byte(`],"labels":{"`), letters, []byte(`":""}}`))
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
		name: "an index of as much as can be",
		forge: func(f *forger) {
			letters := []byte(base64.StdEncoding.EncodeToString(noise(32 << 10)))
			text := slices.Concat([]byte(`[{"a":"`), letters, []byte(`"}`), repeat([]byte(`,{}`), 3*600_000), []byte(`]`))
			f.manifest(1, nil, f.spilled(text))
		},
		refused: "index of the retained list",
		unread:  []string{"restore", "file system"},
	},
	{
		name: "a list whose pieces are one",
		forge: func(f *forger) {
			letters := base64.StdEncoding.EncodeToString(noise(32 << 10))
			piece := format.Piece{N: 10_000, Chunk: *f.spilled([]byte(`[{"a":"` + letters + `"}` + strings.Repeat(`,{}`, 200_000) + `]`))}
			index, err := json.Marshal(slices.Repeat([]format.Piece{piece}, 1600))
			if err != nil {
				f.Fatal(err)
			}
			f.manifest(1, nil, f.spilled(bytes.Replace(index, []byte(`[{`), []byte(`[{"a":"`+letters+`",`), 1)))
		},
		refused: "index of the retained list",
		unread:  []string{"restore", "file system"},
	},
	{
		name: "pieces of nothing",
		forge: func(f *forger) {
			letters := []byte(base64.StdEncoding.EncodeToString(noise(10 << 10)))
			text := slices.Concat([]byte(`[{"a":"`), letters, []byte(`"}`), repeat([]byte(`,{}`), 3*200_000), []byte(`]`))
			var pieces []format.Piece
			for range 5 {
				pieces = append(pieces, format.Piece{N: 15_000, Chunk: *f.spilled(text)})
			}
			index, err := format.EncodeIndex(pieces)
			if err != nil {
				f.Fatal(err)
			}
			f.manifest(1, nil, f.spilled(index))
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

// usage is the memory that something used.
type usage struct {
	bytes int64 // in use on the heap at the same time
	time  time.Duration
	cpu   time.Duration // 0 where the system does not say
}

func (u usage) String() string {
	return fmt.Sprintf("%d MiB, %v, %v of them on a processor", u.bytes>>20, u.time.Round(time.Millisecond), u.cpu.Round(time.Millisecond))
}

// measure returns the memory that do uses.
func measure(do func()) usage {
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // so that the heap contains little garbage
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
	start, cpu := time.Now(), processorTime()
	do()
	took, cpu := time.Since(start), processorTime()-cpu
	close(stop)
	return usage{<-most, took, cpu}
}

// A task that was made to harm its readers costs them little.
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
			_, err := task.Save(ctx, checkpoint.Snapshot{State: checkpoint.FS(fstest.MapFS{"a": {Data: []byte("new")}})}, checkpoint.SaveOptions{Fence: true})
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
				if used.bytes > most || used.cpu > 20*time.Second {
					t.Errorf("%d bytes in the store cost %v", stored, used)
				}
				if err == nil && (h.refused == "" || how == "save" || slices.Contains(h.unread, how)) {
					return // a save goes on without a base that it cannot read
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

// readFirst reads the beginning of the first file.
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
