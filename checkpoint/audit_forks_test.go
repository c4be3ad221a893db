package checkpoint_test

import (
	"context"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// fork is the name of the one fork that the plays make of the task.
const fork = "fork"

// A forkAudit watches a fork: it is the audit's account of another task, of which only
// matters what it needs (I1, I8).
type forkAudit struct {
	newest *format.Manifest
	needs  map[uint64][]string // by manifest: segments
}

// isElsewhere reports whether a key is another task's.
func isElsewhere(key string) bool { return !strings.HasPrefix(key, dir+"/") }

// createdElsewhere records that a manifest of the fork was written.
func (a *audit) createdElsewhere(o backend.Object, data []byte) {
	_, seq, ok := format.ParseManifestKey(o.Key)
	m, err := format.DecodeManifest(data, fork, seq)
	if !ok || err != nil {
		if !a.damage {
			a.badf("created %s: %v", o.Key, err)
		}
		return
	}
	a.logf("create %d %s of the fork, epoch %d", seq, m.Kind, m.Epoch)
	f := &a.fork
	if f.newest != nil && seq <= f.newest.Seq {
		a.log[len(a.log)-1].f += ", too late"
		return
	}
	f.newest = m
	if f.needs == nil {
		f.needs = make(map[uint64][]string)
	}
	if c := m.Checkpoint; c != nil && c.Seq == seq {
		if c.Content == nil {
			a.badf("the content of the fork is not in its manifest; the audit cannot read it")
			return
		}
		for _, s := range c.Content.Resolve(c.Of).Segments {
			if s.Task == source {
				f.needs[seq] = append(f.needs[seq], format.SegmentKey(dir, s.ID))
			} else {
				f.needs[seq] = append(f.needs[seq], format.SegmentKey(fork, s.ID))
			}
		}
	}
	for _, key := range a.neededByFork() {
		if _, ok := a.sizes[key]; !ok && !a.damage {
			a.badf("manifest %d of the fork needs %s, which is not there", seq, key)
		}
	}
}

// neededFromSource returns the segments of the audited task that the fork needs.
func (a *audit) neededFromSource() []string {
	return slices.DeleteFunc(a.neededByFork(), isElsewhere)
}

// neededByFork returns the segments that the fork needs: the audited task's, and its own.
func (a *audit) neededByFork() (keys []string) {
	m := a.fork.newest
	if m == nil || m.Checkpoint == nil {
		return nil
	}
	keys = append(keys, a.fork.needs[m.Checkpoint.Seq]...)
	for _, r := range m.Retained {
		keys = append(keys, a.fork.needs[r.Seq]...)
	}
	return keys
}

// What processes do with a fork.

func (p *process) makeFork() {
	_, err := p.task.Fork(context.Background(), fork, checkpoint.ForkOptions{})
	p.check("fork", err, checkpoint.ErrConflict, checkpoint.ErrUnknown)
	if err == nil {
		p.wantFork()
	}
}

// wantFork checks that a fork that was acknowledged is there.
func (p *process) wantFork() {
	p.audit.mu.Lock()
	defer p.audit.mu.Unlock()
	if p.audit.fork.newest == nil {
		p.audit.badf("%s: a fork was acknowledged, and is not there", p.name)
	}
}

// commitFork goes on with the fork, if it is there, and commits what shares no data with
// the task that was forked. Then it deletes the fork.
func (p *process) commitFork() {
	ctx := context.Background()
	task := p.other(fork)
	status, err := task.Status(ctx)
	p.check("status of the fork", err)
	if err != nil || status.Latest == nil {
		return
	}
	p.check("read of the fork", p.audit.wantWhole(ctx, status.Latest), checkpoint.ErrGone)
	owner, err := task.Claim(ctx, checkpoint.ClaimOptions{})
	p.check("claim of the fork", err)
	if err != nil {
		return
	}
	_, err = owner.Commit(ctx, checkpoint.Snapshot{State: checkpoint.FS(small)})
	p.check("commit of the fork", err, checkpoint.ErrUnknown, checkpoint.ErrFenced)
	p.check("close", owner.Close(ctx))
	_, err = task.Delete(ctx, checkpoint.DeleteOptions{Fence: true})
	p.check("deletion of the fork", err, checkpoint.ErrUnknown)
}

// other returns another task of the job.
func (p *process) other(name string) *checkpoint.Task {
	task, err := p.job.Task(name)
	if err != nil {
		panic(err)
	}
	return task
}
