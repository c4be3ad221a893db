//go:build !race

// The race detector takes memory of its own.

package checkpoint_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/fstest"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// What an owner keeps of a checkpoint takes about as much memory as is counted.
func TestMemoryOfABaseline(t *testing.T) {
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	const files = 20_000
	inWorld(t, func(w *world) {
		state := fstest.MapFS{}
		for n := range files {
			state[fmt.Sprintf("d%03d/f%05d", n/100, n)] = &fstest.MapFile{Data: fmt.Append(nil, n), Mode: 0o600}
		}
		o, _ := w.ownerWith(checkpoint.Options{Memory: 1 << 30})
		before := heap()
		made := commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(state)})
		used := heap() - before
		for _, obj := range w.objects("") {
			used -= obj.Size
		}
		counted := checkpoint.BaselineMemory(o)
		t.Logf("%d bytes for each of %d files, and %d are counted", used/files, made.Files, counted/files)
		if used > counted || counted > 4*used {
			t.Errorf("%d bytes, and %d are counted", used, counted)
		}
		runtime.KeepAlive(o)
	})
}
