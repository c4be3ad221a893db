package checkpoint

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

const (
	defaultMemory = 192 << 20
	minMemory     = 1 << 20
	maxSegment    = 8 << 20
)

// A memory is what a job's saves and restores may take for data under way.
//
// Nobody who waits for a buffer has one that another waiter needs: a save waits only when
// all of its buffers are being sent, and a fetch takes what it needs at once. So nobody
// waits for ever. Blocks are of another account, because a save holds them while it waits
// for a buffer; for them it does not wait.
type memory struct {
	segment int   // size of a full segment
	fetch   int   // bounds the buffer of one request of a restore
	most    int64 // bounds all buffers
	part    int64 // bounds what is read at a time of the lists of files and chunks
	chunks  int   // bounds the chunks of a file
	lists   int64 // bounds what stays in memory of the lists of files and chunks of a checkpoint
	buffers *semaphore.Weighted
	blocks  *semaphore.Weighted // of pipelines
	small   sync.Pool           // of small blocks of pipelines

	mu    sync.Mutex
	users int
	idle  [][]byte // buffers to be used again
	size  int64    // of all buffers, idle or in use
}

func newMemory(bytes int64) *memory {
	segment := int(min(bytes/16, maxSegment))
	return &memory{
		segment: segment, fetch: max(segment/2, minMemory/16), most: bytes / 2, lists: bytes / 3, part: min(bytes/24, maxSegment),
		chunks:  format.MaxTableChunks,
		buffers: semaphore.NewWeighted(bytes / 2), blocks: semaphore.NewWeighted(bytes / 8),
	}
}

// open counts a user: as long as there is one, buffers that were given back are kept. The
// caller calls done when it has given back all of its own.
func (m *memory) open() (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users++
	return m.close
}

func (m *memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users--; m.users == 0 {
		m.evict(0)
	}
}

// fits returns how many things of a size fit in the buffers: at least one.
func (m *memory) fits(size int64) int { return int(max(m.most/max(size, 1), 1)) }

// take returns a buffer with room for n bytes, or for as many as there may be if that is
// less, once there is memory for it. What is in it is undefined.
func (m *memory) take(ctx context.Context, n int) ([]byte, error) {
	if err := m.buffers.Acquire(ctx, m.weight(n)); err != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, buf := range m.idle {
		if cap(buf) == n {
			m.idle = slices.Delete(m.idle, i, i+1)
			return buf[:0], nil
		}
	}
	m.evict(m.most - m.weight(n))
	m.size += int64(n)
	return make([]byte, 0, n), nil
}

// give gives back a buffer that came from take.
func (m *memory) give(buf []byte) {
	m.mu.Lock()
	m.idle = append(m.idle, buf)
	m.mu.Unlock()
	m.buffers.Release(m.weight(cap(buf)))
}

// weight is what a buffer counts. One that is larger than all there may be has it alone.
func (m *memory) weight(n int) int64 { return min(int64(n), m.most) }

// evict drops idle buffers until all have at most so many bytes. The caller holds mu.
func (m *memory) evict(most int64) {
	for len(m.idle) > 0 && m.size > most {
		last := len(m.idle) - 1
		m.size -= int64(cap(m.idle[last]))
		m.idle[last] = nil
		m.idle = m.idle[:last]
	}
}
