package format

import (
	"encoding/json"
	"slices"
	"time"
)

// A fork is a task whose checkpoints need segments of another task, its source. The source
// holds the checkpoint from which the fork was made, for as long as the fork needs it.

// A Hold says that a checkpoint must be kept for a fork.
type Hold struct {
	Fork  Token  `json:"fork"`  // this fork, and no other
	Seq   uint64 `json:"seq"`   // the checkpoint that is held
	Task  string `json:"task"`  // the fork's name
	First uint64 `json:"first"` // the number of the fork's first manifest

	// Time is when the manifest was made that the hold follows, by the store's clock.
	Time time.Time `json:"time"`
}

// A Source says from where a fork was made. A fork's manifests have it for as long as any
// of its checkpoints needs segments of another task.
type Source struct {
	Fork Token  `json:"fork"` // as in the Hold
	Task string `json:"task"`
	Seq  uint64 `json:"seq"` // the checkpoint that is held
}

// MaxHolds bounds the holds of a task, in bytes of a manifest: each manifest repeats them.
const MaxHolds = 4 << 10

// Holds are all that a task holds for forks.
type Holds []Hold

// Has reports whether checkpoint seq is held.
func (h Holds) Has(seq uint64) bool {
	return slices.ContainsFunc(h, func(one Hold) bool { return one.Seq == seq })
}

// HasFork reports whether something is held for a fork.
func (h Holds) HasFork(fork Token) bool {
	return slices.ContainsFunc(h, func(one Hold) bool { return one.Fork == fork })
}

// Size returns how many bytes of a manifest h takes.
func (h Holds) Size() (int, error) {
	data, err := json.Marshal(h)
	return len(data), err
}

// checkForks reports what is wrong with what m says of forks.
func (m *Manifest) checkForks() error {
	if s := m.Source; s != nil && (s.Fork == Token{} || s.Seq == 0 || s.Seq > maxNumber || s.Task == m.Task || !isTask(s.Task)) {
		return corruptf("it is a fork of checkpoint %d of task %q", s.Seq, s.Task)
	}
	if (len(m.Held) > 0 || m.Source != nil) && m.Checkpoint == nil {
		return corruptf("it holds checkpoints, or is a fork, and has no checkpoint")
	}
	if m.Source == nil && slices.ContainsFunc(m.Retained, func(r Retained) bool { return r.Foreign }) {
		return corruptf("checkpoints in its list need segments of another task, and it does not say which")
	}
	seen := make(map[Token]bool)
	for _, h := range m.Held {
		if h.Fork == (Token{}) || seen[h.Fork] || h.Seq == 0 || h.Seq > m.Seq || h.First == 0 || h.First > maxNumber || h.Task == m.Task || !isTask(h.Task) {
			return corruptf("it holds checkpoint %d for task %q", h.Seq, h.Task)
		}
		seen[h.Fork] = true
	}
	if size, err := m.Held.Size(); err != nil || size > MaxHolds {
		return corruptf("holds of %d bytes, more than %d", size, MaxHolds)
	}
	return nil
}

func isTask(name string) bool {
	_, err := EscapeTask(name)
	return err == nil
}

// checkForeign reports what is wrong with whose c says that its segments are.
func (c *Checkpoint) checkForeign(m *Manifest) error {
	switch {
	case c.Of != "" && (c.Of == m.Task || !isTask(c.Of) || !c.Foreign):
		return corruptf("checkpoint %d has segments of task %q", c.Seq, c.Of)
	case c.Foreign && m.Source == nil:
		return corruptf("checkpoint %d needs segments of another task, and the manifest does not say which", c.Seq)
	}
	if c.Content == nil {
		return nil
	}
	for _, s := range c.Content.Segments {
		if s.Task == m.Task || s.Task != "" && !c.Foreign {
			return corruptf("segment %s of task %q in checkpoint %d of task %q", s.ID, s.Task, c.Seq, m.Task)
		}
	}
	return nil
}

// Resolve makes each segment of c say whose it is: those that do not are of task of. If
// of is "", nothing is to be done. It returns a copy.
func (c *Content) Resolve(of string) *Content {
	if of == "" {
		return c
	}
	out := *c
	out.Segments = make(Segments, len(c.Segments))
	for i, s := range c.Segments {
		if s.Task == "" {
			s.Task = of
		}
		out.Segments[i] = s
	}
	return &out
}

// IsForeign reports whether c needs segments of other tasks.
func (c *Content) IsForeign() bool {
	for i := range c.Segments {
		if c.Segments[i].Task != "" {
			return true
		}
	}
	return false
}

// KeepSource makes m forget from where the task was forked if none of the checkpoints that
// it lists, m's own among them, needs another task's segments any more.
func (m *Manifest) KeepSource(all []Retained) {
	for i := range all {
		if all[i].Foreign {
			return
		}
	}
	m.Source = nil
}
