package checkpoint_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// hardly returns n bytes that zstd compresses slowly, and only by about a tenth: each
// KiB contains 120 bytes of the one before.
func hardly(n int) []byte {
	data := noise(n)
	for at := 1 << 10; at < n; at += 1 << 10 {
		copy(data[at:], data[at-1<<10+600:][:120])
	}
	return data
}

// Data that hardly compresses is mostly stored as it is, which is found out by
// trying. The data after it is compressed again.
func TestCompressionThatDoesNotPay(t *testing.T) {
	lines := new(bytes.Buffer)
	for n := 0; lines.Len() < 4<<20; n++ {
		fmt.Fprintf(lines, "{\"id\": %d, \"event\": \"click\", \"page\": \"/products/%d\"}\n", n, n*7919%10007)
	}
	for name, c := range map[string]struct {
		mode        checkpoint.Compression
		data        []byte
		least, most float64 // stored bytes per byte of data
	}{
		"hardly":                           {"", hardly(4 << 20), 0.97, 1.01},
		"hardly, but as much as it can be": {checkpoint.CompressionZstd, hardly(4 << 20), 0.8, 0.95},
		"lines":                            {checkpoint.CompressionAuto, lines.Bytes(), 0, 0.4},
		"lines, as they are":               {checkpoint.CompressionOff, lines.Bytes(), 1, 1.01},
		"lines after noise":                {"", append(noise(1<<20), lines.Bytes()...), 0.2, 0.5},
		"lines after hardly, in one block": {"", append(hardly(256<<10), lines.Bytes()[:768<<10]...), 0.25, 0.65},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				task, _, _ := w.open(checkpoint.Options{Compression: c.mode})
				state := fstest.MapFS{"f": {Data: c.data}}
				saved, err := task.Save(w.Context(), checkpoint.Snapshot{State: checkpoint.FS(state)}, checkpoint.SaveOptions{})
				if err != nil {
					t.Fatal(err)
				}
				stored := int64(0)
				for _, o := range w.objects(segments) {
					stored += o.Size
				}
				if got := float64(stored) / float64(len(c.data)); got < c.least || got > c.most {
					t.Errorf("%.3f bytes are stored for each, want %v to %v", got, c.least, c.most)
				}
				fsys, err := saved.FS(w.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got, err := fs.ReadFile(fsys, "f"); err != nil || !bytes.Equal(got, c.data) {
					t.Errorf("it does not come back: %v", err)
				}
			})
		})
	}
}
