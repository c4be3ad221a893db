package checkpoint

import "time"

// SetClock sets the clock of the machine that j runs on.
func SetClock(j *Job, now func() time.Time) { j.clock = now }

// SetSinceBoot sets what tells how long j's machine has been running. It comes before
// j.Task.
func SetSinceBoot(j *Job, f func() time.Duration) { j.sinceBoot = f }

// When an owner looks for manifests that others have removed.
const (
	LookAfter   = lookAfter
	LookCommits = lookCommits
)

// WithProcess is withProcess, for tests.
var WithProcess = withProcess

// MemoryIsFree reports whether nothing of j's memory for data under way is in use, and
// nothing is kept.
func MemoryIsFree(j *Job) bool {
	m := j.data
	if !m.buffers.TryAcquire(m.most) || !m.blocks.TryAcquire(m.most/4) {
		return false
	}
	m.buffers.Release(m.most)
	m.blocks.Release(m.most / 4)
	return m.users == 0 && m.size == 0 && m.owed == 0 && len(m.idle) == 0
}

// TakeMemory takes all of j's memory for what is sent and received, until it is given back.
func TakeMemory(j *Job) (giveBack func()) {
	if !j.data.buffers.TryAcquire(j.data.most) {
		panic("some of it is in use")
	}
	return func() { j.data.buffers.Release(j.data.most) }
}

// TakeCleanUps takes all turns for clean-ups of j's owners, until they are given back.
func TakeCleanUps(j *Job) (giveBack func()) {
	if !j.cleanUps.TryAcquire(cleanUps) {
		panic("some are under way")
	}
	return func() { j.cleanUps.Release(cleanUps) }
}

// BaselineMemory returns how many bytes of memory what o knows of its last checkpoint is
// counted for.
func BaselineMemory(o *Owner) int64 { return o.baseline.tree.size() }

// SetMaxChunks bounds the chunks of each file that j saves.
func SetMaxChunks(j *Job, n int) { j.data.chunks = n }
