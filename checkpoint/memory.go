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

// A memory is what a job's saves and restores may take for data under way. The longer the lists of
// files and chunks of these are, the less of it there is for buffers, but never less than half.
//
// Nobody who waits for a buffer has one that another waiter needs: a save waits only when
// all of its buffers are being sent (see packer.yield), and a fetch takes what it needs at once. So
// nobody waits for ever. Blocks are of another account, because a save holds them while it waits
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
	owed  int64    // what lists take
	lent  int64    // how much of that is taken from buffers
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

// take returns a buffer with room for n bytes, once there is memory for it. What is in it is undefined.
func (m *memory) take(ctx context.Context, n int) ([]byte, error) {
	m.lend()
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
	m.evict(m.most - m.lent - m.weight(n))
	m.size += int64(n)
	return make([]byte, 0, n), nil
}

// give gives back a buffer that came from take.
func (m *memory) give(buf []byte) {
	weight := m.weight(cap(buf))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lent+weight <= m.owing() {
		m.lent += weight
		m.size -= int64(cap(buf))
		return
	}
	m.idle = append(m.idle, buf)
	m.buffers.Release(weight)
}

// weight is what a buffer counts: half of all there may be if it is larger than that, since lists may
// have the other half.
func (m *memory) weight(n int) int64 { return min(int64(n), m.most-m.most/2) }

// count says that lists take so many bytes more, or less. The caller takes back all that it has counted
// when its save or restore ends.
func (m *memory) count(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owed += bytes
	if over := m.lent - m.owing(); over > 0 {
		m.lent -= over
		m.buffers.Release(over)
	}
}

// owing returns what buffers are to leave to lists: whole segments, since room for a part of one is of
// no use to a save.
func (m *memory) owing() int64 {
	segment := int64(m.segment)
	return min(m.owed/segment*segment, m.most/2)
}

// lend leaves to lists what no buffer has now, in whole segments. The rest comes with buffers that are
// given back.
func (m *memory) lend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for more := m.owing() - m.lent; more > 0; more -= int64(m.segment) {
		if m.buffers.TryAcquire(more) {
			m.lent += more
			m.evict(m.most - m.lent)
			return
		}
	}
}

// evict drops idle buffers until all have at most so many bytes. The caller holds mu.
func (m *memory) evict(most int64) {
	for len(m.idle) > 0 && m.size > most {
		last := len(m.idle) - 1
		m.size -= int64(cap(m.idle[last]))
		m.idle[last] = nil
		m.idle = m.idle[:last]
	}
}
