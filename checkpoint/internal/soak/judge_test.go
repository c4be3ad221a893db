package soak

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A judge holds the history of one task, as it stands in the store in the end,
// against what was told of it. No manifest is old enough to be deleted, so the
// history is there from its first manifest on.
type judge struct {
	*record
	store backend.Store
	dir   string // of the task, in keys
	codec *codec.Codec

	manifests []*format.Manifest // in the order of their numbers
	bytes     int64              // in them
	segments  map[format.SegmentID]int64
	retained  []uint64          // by the account of the judge, the newest first
	names     map[uint64]string // of savepoints, likewise
	commits   []*attempt        // in the history
}

func newJudge(r *record, store backend.Store, dir string) *judge {
	return &judge{
		record: r, store: store, dir: dir, codec: codec.New(),
		segments: make(map[format.SegmentID]int64), names: make(map[uint64]string),
	}
}

// load reads all manifests, and lists the segments.
func (j *judge) load(ctx context.Context) error {
	for o, err := range j.store.List(ctx, j.dir+"/", "") {
		if err != nil {
			return err
		}
		if id, ok := format.ParseSegmentKey(j.dir, o.Key); ok {
			j.segments[id] = o.Size
			continue
		}
		_, seq, ok := format.ParseManifestKey(o.Key)
		if o.Key == format.AnnouncedKey(j.dir) {
			continue
		}
		if !ok {
			return fmt.Errorf("there is an object %s", o.Key)
		}
		data := make([]byte, o.Size)
		if _, err := j.store.Get(ctx, o.Key, 0, data); err != nil {
			return err
		}
		m, err := format.DecodeManifest(data, j.task, seq)
		if err != nil {
			return err
		}
		j.manifests = append(j.manifests, m)
		j.bytes += o.Size
	}
	slices.Reverse(j.manifests)
	return nil
}

// history reads all manifests.
func (j *judge) history() {
	before := new(format.Manifest)
	for _, m := range j.manifests {
		if m.Seq != before.Seq+1 {
			j.badf("manifest %d follows %d", m.Seq, before.Seq)
		}
		switch {
		case m.Epoch == before.Epoch+1 && m.Kind == format.KindClaim && m.Writer != before.Writer:
		case m.Kind == format.KindAmend && m.Epoch == before.Epoch && m.Writer == before.Writer && m.Released == before.Released:
		case m.Epoch == before.Epoch && m.Kind != format.KindClaim && m.Writer == before.Writer && !before.Released:
		default:
			j.badf("manifest %d, a %s of epoch %d, writer %s, follows epoch %d, writer %s", m.Seq, m.Kind, m.Epoch, m.Writer, before.Epoch, before.Writer)
		}
		if m.Base != nil && m.Base.Token != before.Token || m.Base == nil && m.Seq > 1 {
			j.badf("manifest %d was not made from manifest %d", m.Seq, before.Seq)
		}
		if m.Kind == format.KindCommit {
			j.commit(m)
		}
		j.retention(m, before)
		before = m
	}
	if len(before.Held) > 0 {
		j.badf("it holds checkpoints for forks, all of which were deleted: %+v", before.Held)
	}
	j.acknowledged()
	j.named(before)
}

// commit finds out which attempt a manifest commits. It goes on from the commit
// before, but for such as their owner did not know to have succeeded.
func (j *judge) commit(m *format.Manifest) {
	if m.Checkpoint.Content == nil {
		j.badf("manifest %d does not say itself what it commits", m.Seq)
		return
	}
	name := m.Checkpoint.Content.Offsets["in"]
	a := j.attempts[name]
	switch {
	case a == nil:
		j.badf("manifest %d commits %q, which nobody made", m.Seq, name)
		return
	case slices.Contains(j.commits, a):
		j.badf("manifest %d commits %s again", m.Seq, name)
	case a.epoch != m.Epoch:
		j.badf("manifest %d of epoch %d commits %s, whose owner has epoch %d", m.Seq, m.Epoch, name, a.epoch)
	case a.refused():
		j.badf("manifest %d commits %s, whose owner was told: %v", m.Seq, name, a.err)
	case a.seq != 0 && a.seq != m.Seq:
		j.badf("manifest %d commits %s, which was acknowledged as %d", m.Seq, name, a.seq)
	}
	for i := len(j.commits) - 1; ; i-- {
		on := ""
		if i >= 0 {
			on = j.commits[i].name
		}
		if on == a.on {
			break
		}
		if i < 0 || j.commits[i].epoch != a.epoch || !j.commits[i].unknown() {
			j.badf("manifest %d commits %s, which goes on from %q and not from %q, the commit before", m.Seq, name, a.on, on)
			break
		}
	}
	j.commits = append(j.commits, a)
	if m.Checkpoint.Savepoint != a.savepoint {
		j.badf("manifest %d commits savepoint %q, want %q", m.Seq, m.Checkpoint.Savepoint, a.savepoint)
	}
}

// retention makes sure that a manifest retains what the policy says, no more and no
// less. Only an amendment may drop others, by a pruning, and change names.
func (j *judge) retention(m, before *format.Manifest) {
	if m.RetainedAt != nil {
		j.badf("manifest %d does not say itself what it retains", m.Seq)
	}
	var got []uint64
	names := make(map[uint64]string)
	for _, r := range listOf(m) {
		got = append(got, r.Seq)
		names[r.Seq] = r.Savepoint
	}
	want := j.kept(before, keepLast-1)
	switch m.Kind {
	case format.KindCommit:
		want = append([]uint64{m.Seq}, want...)
		j.names[m.Seq] = names[m.Seq]
	case format.KindAmend:
		if want = j.retained; len(got) < len(want) {
			want = j.kept(before, pruneLast)
		}
		j.changed(m, names)
	default:
		want = j.retained
	}
	if !slices.Equal(got, want) {
		j.badf("manifest %d, a %s, retains %v, want %v", m.Seq, m.Kind, got, want)
	}
	for _, seq := range got {
		if names[seq] != j.names[seq] {
			j.badf("manifest %d, a %s, calls checkpoint %d %q, and before it was %q", m.Seq, m.Kind, seq, names[seq], j.names[seq])
		}
	}
	j.retained = got
}

// kept returns what is kept of the checkpoints that manifest before retains: the last ones,
// savepoints, and what is held for forks.
func (j *judge) kept(before *format.Manifest, last int) (list []uint64) {
	for i, seq := range j.retained {
		if i < last || j.names[seq] != "" || before.Held.Has(seq) {
			list = append(list, seq)
		}
	}
	return list
}

// changed takes the names from an amendment. They are such as were asked for.
func (j *judge) changed(m *format.Manifest, names map[uint64]string) {
	for seq, name := range names {
		was := j.names[seq]
		switch {
		case name == was:
			continue
		case name != "" && was == "":
			if n := j.naming(name); n == nil || n.added == refused || n.added == done && n.seq != seq {
				j.badf("amendment %d makes checkpoint %d savepoint %q, which nobody asked for, or was told to be refused", m.Seq, seq, name)
			}
		case name == "":
			if n := j.naming(was); n == nil || n.removed == unasked || n.removed == refused {
				j.badf("amendment %d removes savepoint %q, which nobody asked for, or was told to be refused", m.Seq, was)
			}
		default:
			j.badf("amendment %d calls savepoint %q %q", m.Seq, was, name)
		}
		j.names[seq] = name
	}
}

func (j *judge) naming(name string) *naming {
	for _, n := range j.namings {
		if n.name == name {
			return n
		}
	}
	return nil
}

// named makes sure that the savepoints which were added and not removed are there, and
// those which were removed are not.
func (j *judge) named(newest *format.Manifest) {
	is := make(map[string]uint64)
	for _, r := range listOf(newest) {
		is[r.Savepoint] = r.Seq
	}
	for _, n := range j.namings {
		seq := is[n.name]
		if n.added == done && n.removed <= refused && seq != n.seq {
			j.badf("savepoint %s was added to checkpoint %d and not removed, and is now %d", n.name, n.seq, seq)
		}
		if n.removed == done && seq != 0 {
			j.badf("savepoint %s was removed, and is checkpoint %d", n.name, seq)
		}
	}
}

// listOf lists all checkpoints of a manifest, its own first.
func listOf(m *format.Manifest) []format.Retained {
	if m.Checkpoint == nil {
		return m.Retained
	}
	return append([]format.Retained{m.Checkpoint.Retained()}, m.Retained...)
}

// acknowledged makes sure that what was acknowledged is in the history.
func (j *judge) acknowledged() {
	for name, a := range j.attempts {
		if a.told && a.err == nil && !slices.Contains(j.commits, a) {
			j.badf("attempt %s was acknowledged as %d and is not in the history", name, a.seq)
		}
	}
}

// checkpoints makes sure that those which are retained can be read, and are what
// was saved.
func (j *judge) checkpoints(ctx context.Context, task *checkpoint.Task) {
	list, err := task.List(ctx)
	if err != nil {
		j.badf("its checkpoints: %v", err)
	}
	var got []uint64
	for _, c := range list {
		got = append(got, c.Seq)
		fsys, err := c.FS(ctx)
		if err == nil {
			var s *state
			if s, err = readState(fsys); err == nil {
				j.found(c, s)
			}
		}
		if err != nil {
			j.badf("checkpoint %d: %v", c.Seq, err)
		}
	}
	if !slices.Equal(got, j.retained) {
		j.badf("it has checkpoints %v, want %v", got, j.retained)
	}
}

// slack is by how much the bytes of a task's segments may pass twice what is
// needed of them: a piece of the list of files, of which it cannot be told
// before it is made whether it stays (docs/decisions/0013-dead-space.md).
const slack = 16 << 10

// space returns the bytes of the segments that there are, and of those what the
// retained checkpoints need.
func (j *judge) space(ctx context.Context) (stored, live int64) {
	for _, size := range j.segments {
		stored += size
	}
	n := &need{judge: j, spots: make(map[spot]int64)}
	for _, seq := range j.retained {
		c := j.manifests[seq-1].Checkpoint
		if err := n.checkpoint(ctx, c.Content, c.Files, c.Bytes); err != nil {
			j.badf("checkpoint %d: %v", seq, err)
		}
	}
	used := make(map[format.SegmentID]bool)
	for at, size := range n.spots {
		used[at.segment] = true
		live += size
	}
	if len(used) != len(j.segments) {
		j.badf("there are %d segments, and %d are needed", len(j.segments), len(used))
	}
	if stored > 2*live+slack {
		j.badf("%d bytes are stored, and %d are needed", stored, live)
	}
	return stored, live
}

// A spot is where a chunk begins.
type spot struct {
	segment format.SegmentID
	offset  int64
}

// need is what checkpoints need in segments.
type need struct {
	*judge
	spots map[spot]int64
}

func (n *need) checkpoint(ctx context.Context, c *format.Content, files int, bytes int64) error {
	if len(c.TreeAt) > 0 {
		return errors.New("its list of leaves is in a segment")
	}
	leaves, err := format.DecodeLeaves(c.Tree, files, bytes)
	if err != nil {
		return err
	}
	var chunks []format.Chunk
	for i := range leaves {
		chunks = append(chunks, leaves[i].Chunks...)
	}
	tree, err := n.join(ctx, chunks, c.Inline)
	if err != nil {
		return err
	}
	entries, err := format.DecodeTree(tree)
	if err != nil {
		return err
	}
	for _, e := range entries {
		n.add(e.Chunks...)
		if e.Table == nil {
			continue
		}
		table, err := n.join(ctx, e.Table, c.Inline)
		if err != nil {
			return err
		}
		for chunk, err := range format.DecodeTable(table, e.Size) {
			if err != nil {
				return err
			}
			n.add(chunk)
		}
	}
	return nil
}

func (n *need) add(chunks ...format.Chunk) {
	for _, c := range chunks {
		if c.Segment != (format.SegmentID{}) {
			n.spots[spot{c.Segment, c.Offset}] = c.StoredSize()
		}
	}
}

// join notes chunks, and returns their data.
func (n *need) join(ctx context.Context, chunks []format.Chunk, inline []byte) (all []byte, err error) {
	n.add(chunks...)
	for _, c := range chunks {
		stored := make([]byte, c.StoredSize())
		if c.Segment == (format.SegmentID{}) {
			copy(stored, inline[c.Offset:])
		} else if _, err := n.store.Get(ctx, format.SegmentKey(n.dir, c.Segment), c.Offset, stored); err != nil {
			return nil, err
		}
		if all, err = n.codec.Decode(all, c.Encoding, stored, int(c.Size)); err != nil {
			return nil, err
		}
	}
	return all, nil
}
