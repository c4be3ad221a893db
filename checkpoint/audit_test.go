package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// An audit watches what is applied to a bucket, and compares it with the invariants
// of docs/protocol.md and with what writers were told. It builds its own account of
// the history from the manifests.
type audit struct {
	bucket *mem.Bucket
	now    func() time.Time // the bucket's clock
	codec  *codec.Codec     // nil until it is needed

	// last is the smallest number of checkpoints that retention keeps.
	last int
	// damage says that the store damages what is written, so objects need not be
	// intact. The damage must be noticed, and nothing else may suffer.
	damage bool
	// apart is the largest difference between the times in replies and in listings. A
	// manifest may be deleted that much before the fence window ends by the bucket's
	// clock.
	apart time.Duration
	fork  forkAudit
	blind bool // a manifest was damaged, so the history is unknown

	mu        sync.Mutex
	newest    *auditManifest
	committed map[uint64]*auditManifest // the committed manifests, by number
	sizes     map[string]int64          // of all objects
	times     map[string]time.Time
	written   map[string]uint64       // for each key, the hash of everything that was ever written to it
	states    map[string]fstest.MapFS // the states that writers tried to commit, by offset
	told      map[string]told         // what the writers were told, by offset
	at        map[string]uint64       // the manifest by which it was committed, by offset
	lost      map[string]uint64       // segments whose manifests were lost, with their epochs
	stale     int                     // the number of late manifests
	bad       []string                // the violations
	log       []line                  // what was applied
}

// auditManifest is a committed manifest with what it needs.
type auditManifest struct {
	*format.Manifest
	all     []format.Retained // its own checkpoint first
	own     map[string]int64  // the segments that its own checkpoint needs, with their sizes
	spilled map[string]int64  // the segment with a part of its checkpoint's description
	list    map[string]int64  // the segments with its list of the others
	made    time.Time
}

// told is what a writer was told about a commit.
type told struct {
	seq uint64
	err error
}

func newAudit(bucket *mem.Bucket, now func() time.Time) *audit {
	return &audit{
		bucket: bucket, now: now, committed: make(map[uint64]*auditManifest),
		sizes: make(map[string]int64), times: make(map[string]time.Time), written: make(map[string]uint64),
		states: make(map[string]fstest.MapFS), told: make(map[string]told), at: make(map[string]uint64),
		lost: make(map[string]uint64),
	}
}

// lose deletes the manifests from number seq on, as a person might. The segments of
// their owners must be kept for as long as the history shows that it does not contain
// these owners.
func (a *audit) lose(seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	epochs := make(map[uint64]bool)
	for n := seq; n <= a.newest.Seq; n++ {
		key := format.ManifestKey(dir, n)
		if err := a.bucket.Open().Delete(context.Background(), key); err != nil {
			panic(err)
		}
		delete(a.sizes, key)
		delete(a.times, key)
		epochs[a.committed[n].Epoch] = true
		delete(a.committed, n)
	}
	maps.DeleteFunc(a.at, func(_ string, n uint64) bool { return n >= seq })
	a.newest = a.committed[seq-1]
	for key := range a.sizes {
		id, ok := format.ParseSegmentKey(dir, key)
		if ok && epochs[id.Epoch] && id.Epoch > a.newest.Epoch {
			a.lost[key] = id.Epoch
		}
	}
	a.logf("manifests are lost from number %d on", seq)
}

// shows reports whether the history contains an owner of an epoch, or can still get
// one.
func (a *audit) shows(epoch uint64) bool {
	if epoch >= a.newest.Epoch {
		return true
	}
	return slices.ContainsFunc(a.newest.all, func(r format.Retained) bool { return a.committed[r.Seq] != nil && a.committed[r.Seq].Epoch == epoch })
}

// copy returns an audit that knows what a knows, for a copy of its bucket.
func (a *audit) copy(bucket *mem.Bucket) *audit {
	b := newAudit(bucket, a.now)
	b.last, b.damage, b.apart, b.newest = a.last, a.damage, a.apart, a.newest
	maps.Copy(b.committed, a.committed)
	maps.Copy(b.sizes, a.sizes)
	maps.Copy(b.times, a.times)
	maps.Copy(b.written, a.written)
	maps.Copy(b.states, a.states)
	maps.Copy(b.told, a.told)
	maps.Copy(b.at, a.at)
	maps.Copy(b.lost, a.lost)
	b.fork = forkAudit{a.fork.newest, maps.Clone(a.fork.needs)}
	b.bad, b.log = slices.Clone(a.bad), slices.Clone(a.log)
	return b
}

// logger returns a log that must not report lost manifests, because none is lost.
func (a *audit) logger() *slog.Logger { return lossLogger(func() *audit { return a }) }

func lossLogger(of func() *audit) *slog.Logger { return slog.New(lossHandler{slog.DiscardHandler, of}) }

type lossHandler struct {
	slog.Handler
	of func() *audit
}

func (lossHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h lossHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h lossHandler) Handle(_ context.Context, r slog.Record) error {
	a := h.of()
	a.mu.Lock()
	defer a.mu.Unlock()
	if strings.HasPrefix(r.Message, "manifests were lost") && !a.damage && len(a.lost) == 0 {
		a.badf("a false alarm: %s", r.Message)
	}
	return nil
}

// open opens the bucket; the audit watches what is done.
func (a *audit) open() backend.Store { return audited{a.bucket.Open(), a} }

type audited struct {
	backend.Store
	a *audit
}

func (s audited) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	o, err := s.Store.Create(ctx, key, data)
	if err == nil {
		s.a.created(o, data) //nolint:contextcheck // what it reads is in memory, and must not fail
	}
	return o, err
}

func (s audited) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	o, err := s.Store.Put(ctx, key, data)
	if err == nil {
		s.a.put(o, data)
	}
	return o, err
}

func (s audited) Delete(ctx context.Context, keys ...string) error {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	for _, key := range keys {
		s.a.deleted(key)
	}
	return s.Store.Delete(ctx, keys...)
}

func (a *audit) badf(f string, args ...any) { a.bad = append(a.bad, fmt.Sprintf(f, args...)) }

func (a *audit) logf(f string, args ...any) {
	a.log = append(a.log, line{a.now(), f, args})
}

// A line of the log is formatted only when something has gone wrong, because there
// are millions of lines.
type line struct {
	at   time.Time
	f    string
	args []any
}

func (l line) String() string { return l.at.Format("02 15:04:05 ") + fmt.Sprintf(l.f, l.args...) }

func (a *audit) lines() string {
	var b strings.Builder
	for _, l := range a.log {
		fmt.Fprintln(&b, l)
	}
	return b.String()
}

var hashSeed = maphash.MakeSeed()

// put records that a segment was written (I6), or a record on which nothing depends.
func (a *audit) put(o backend.Object, data []byte) {
	if o.Key == format.RestoreTestKey(dir) || o.Key == format.AnnouncedKey(dir) || o.Key == format.HeartbeatKey(dir) || strings.HasPrefix(o.Key, format.StartpointPrefix(dir)) {
		return
	}
	a.sizes[o.Key], a.times[o.Key] = o.Size, o.ModTime
	a.logf("put %s", o.Key)
	hash := maphash.Bytes(hashSeed, data)
	if before, ok := a.written[o.Key]; ok && before != hash && !a.damage {
		a.badf("%s was written twice, with different content", o.Key)
	}
	a.written[o.Key] = hash
}

// created records that a manifest was written.
func (a *audit) created(o backend.Object, data []byte) {
	a.sizes[o.Key], a.times[o.Key] = o.Size, o.ModTime
	if isElsewhere(o.Key) {
		a.createdElsewhere(o, data)
		return
	}
	_, seq, ok := format.ParseManifestKey(o.Key)
	if !ok {
		a.badf("created %s, which is no manifest", o.Key)
		return
	}
	m, err := format.DecodeManifest(data, "orders/7", seq)
	if err != nil {
		if !a.damage {
			a.badf("manifest %d: %v", seq, err)
		}
		a.logf("create %d, damaged", seq)
		a.blind = true
		return
	}
	a.logf("create %d %s epoch %d writer %s", seq, m.Kind, m.Epoch, m.Writer)
	if a.newest != nil && seq <= a.newest.Seq {
		a.stale++
		a.log[len(a.log)-1].f += ", too late"
		return
	}
	s, err := a.read(m, o.ModTime)
	if err != nil {
		if !a.damage {
			a.badf("step %d: %v", seq, err)
		}
		a.blind = true
		return
	}
	if !a.damage {
		a.judge(s)
	}
	a.newest, a.committed[seq] = s, s
	if offset, ok := a.offset(m); ok && m.Kind == format.KindCommit {
		a.at[offset] = seq
	}
}

// judge compares a manifest with the one before it.
func (a *audit) judge(s *auditManifest) {
	before := a.newest
	if before == nil {
		before = &auditManifest{Manifest: new(format.Manifest)}
	}
	bad := func(f string, args ...any) {
		a.badf("step %d, a %s of epoch %d: "+f, append([]any{s.Seq, s.Kind, s.Epoch}, args...)...)
	}
	if s.Seq != before.Seq+1 { // I2
		bad("it follows step %d", before.Seq)
	}
	if before.Seq > 0 && (s.Base == nil || s.Base.Token != before.Token) { // I2
		bad("it was made of another than the one before")
	}
	same := s.Epoch == before.Epoch && s.Writer == before.Writer
	switch { // I4
	case s.Kind == format.KindAmend && same && s.Released == before.Released:
	case s.Kind == format.KindAmend:
		bad("it amends one of epoch %d, writer %s, released: %v", before.Epoch, before.Writer, before.Released)
	case s.Epoch == before.Epoch+1 && s.Writer != before.Writer:
	case same && !before.Released && s.Kind != format.KindClaim:
	default:
		bad("it follows one of epoch %d, writer %s", before.Epoch, before.Writer)
	}
	a.judgeRetained(s, before, bad)
	a.judgeNames(s, before, bad)
	for key, size := range s.names() { // I1
		if have, ok := a.sizes[key]; !ok || have != size {
			bad("of %s, which it names, there are %d bytes", key, have)
		}
	}
}

// judgeRetained checks that checkpoints are removed only by retention, and that none
// comes back.
func (a *audit) judgeRetained(s, before *auditManifest, bad func(string, ...any)) {
	for _, r := range s.all {
		if r.Seq != s.Seq && !has(before.all, r.Seq) {
			bad("it retains checkpoint %d, which the step before does not", r.Seq)
		}
		if _, ok := a.sizes[format.ManifestKey(dir, r.Seq)]; !ok {
			bad("it retains checkpoint %d, whose manifest is gone", r.Seq)
		}
	}
	if s.Kind == format.KindDeleted {
		if len(before.Held) > 0 {
			bad("it deletes a task that holds data for forks")
		}
		return
	}
	for i, r := range before.all {
		keep := s.Kind != format.KindCommit || before.Held.Has(r.Seq) || a.last < 0 || i < a.last-1 || r.Savepoint != ""
		if s.Kind == format.KindAmend {
			keep = i == 0 || r.Savepoint != "" || before.Held.Has(r.Seq) // a prune may do more
		}
		if keep && !has(s.all, r.Seq) {
			bad("it drops checkpoint %d, against retention's rules", r.Seq)
		}
	}
}

// judgeNames checks that only amendments change names.
func (a *audit) judgeNames(s, before *auditManifest, bad func(string, ...any)) {
	if s.Kind == format.KindAmend {
		if s.all[0].Seq != before.all[0].Seq {
			bad("it makes another checkpoint the current one")
		}
		return
	}
	for _, r := range s.all {
		i := slices.IndexFunc(before.all, func(b format.Retained) bool { return b.Seq == r.Seq })
		if i >= 0 && (r.Savepoint != before.all[i].Savepoint || r.Note != before.all[i].Note) {
			bad("it calls checkpoint %d %q, and the one before calls it %q", r.Seq, r.Savepoint, before.all[i].Savepoint)
		}
	}
}

func (a *audit) newestSeq() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.newest == nil {
		return 0
	}
	return a.newest.Seq
}

// hasSavepoint reports whether the newest manifest retains a savepoint.
func (a *audit) hasSavepoint(name string) bool {
	return slices.ContainsFunc(a.newest.all, func(r format.Retained) bool { return r.Savepoint == name })
}

func has(all []format.Retained, seq uint64) bool {
	return slices.ContainsFunc(all, func(r format.Retained) bool { return r.Seq == seq })
}

// needs returns the segments that a manifest's checkpoint needs.
func (s *auditManifest) needs() map[string]int64 {
	keys := maps.Clone(s.own)
	maps.Copy(keys, s.spilled)
	return keys
}

// names returns the segments that a manifest names: those of its list too, which nobody
// needs any more when it is not the newest.
func (s *auditManifest) names() map[string]int64 {
	keys := s.needs()
	maps.Copy(keys, s.list)
	return keys
}

// needed returns what the newest manifest and its retained checkpoints need.
func (a *audit) needed() map[string]bool {
	needed := make(map[string]bool)
	if a.newest == nil {
		return needed
	}
	needed[format.ManifestKey(dir, a.newest.Seq)] = true
	for key := range a.newest.names() {
		needed[key] = true
	}
	for _, r := range a.newest.all {
		needed[format.ManifestKey(dir, r.Seq)] = true
		if s := a.committed[r.Seq]; s != nil {
			for key := range s.needs() {
				needed[key] = true
			}
		}
	}
	return needed
}

// deleted checks that an object may be deleted (I1, I5).
func (a *audit) deleted(key string) {
	made, ok := a.times[key]
	if !ok {
		return
	}
	a.logf("delete %s", key)
	if epoch, ok := a.lost[key]; ok && a.shows(epoch) {
		a.badf("%s is deleted, which proves that manifests were lost", key)
	}
	if slices.Contains(a.neededByFork(), key) { // I8
		a.badf("%s is deleted, and the fork needs it", key)
	}
	if isElsewhere(key) {
		delete(a.sizes, key)
		delete(a.times, key)
		return
	}
	if a.newest != nil && !a.blind && a.needed()[key] {
		a.badf("%s is deleted, and still needed", key)
	}
	_, seq, _ := format.ParseManifestKey(key)
	if s := a.committed[seq]; s != nil && !a.blind && s.made.Equal(made) && a.newest.made.Sub(made) <= checkpoint.FenceWindow-a.apart {
		a.badf("%s is deleted within the fence window", key)
	}
	delete(a.sizes, key)
	delete(a.times, key)
}

// read finds out what a manifest needs.
func (a *audit) read(m *format.Manifest, made time.Time) (*auditManifest, error) {
	s := &auditManifest{Manifest: m, made: made, own: make(map[string]int64), spilled: make(map[string]int64), list: make(map[string]int64)}
	retained, err := listOf(m, a.chunk)
	if err != nil {
		return nil, err
	}
	for _, id := range m.ListSegments() {
		key := format.SegmentKey(dir, id)
		s.list[key] = a.sizes[key]
	}
	if m.Checkpoint != nil && m.Checkpoint.ContentAt != nil {
		key := format.SegmentKey(dir, m.Checkpoint.ContentAt.Segment)
		s.spilled[key] = a.sizes[key]
	}
	if m.Checkpoint == nil {
		s.all = retained
		return s, nil
	}
	s.all = append([]format.Retained{m.Checkpoint.Retained()}, retained...)
	c, err := a.content(m.Checkpoint)
	if err != nil {
		return nil, err
	}
	for _, seg := range c.Segments {
		s.own[format.SegmentKey(dir, seg.ID)] = seg.Size
	}
	return s, nil
}

func (a *audit) content(c *format.Checkpoint) (*format.Content, error) {
	if c.Content != nil {
		return c.Content, nil
	}
	data, err := a.chunk(c.ContentAt)
	if err != nil {
		return nil, err
	}
	return format.DecodeContent(data)
}

// chunk returns the data of a chunk.
func (a *audit) chunk(c *format.Chunk) ([]byte, error) {
	stored := make([]byte, c.StoredSize())
	n, err := a.bucket.Open().Get(context.Background(), format.SegmentKey(dir, c.Segment), c.Offset, stored)
	if err != nil {
		return nil, err
	}
	if a.codec == nil {
		a.codec = codec.New() // made in the bubble in which it is used
	}
	return a.codec.Decode(nil, c.Encoding, stored[:n], int(c.Size))
}

// offset returns the offset of a manifest's checkpoint.
func (a *audit) offset(m *format.Manifest) (string, bool) {
	if m.Checkpoint == nil {
		return "", false
	}
	c, err := a.content(m.Checkpoint)
	if err != nil {
		return "", false
	}
	offset, ok := c.Offsets["in"]
	return offset, ok
}

// snapshot returns a snapshot of a state, with a unique offset.
func (a *audit) snapshot(state fstest.MapFS) (checkpoint.Snapshot, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.states) + 1
	s := at(n)
	if len(state) > 0 {
		s.State = checkpoint.FS(state)
	}
	a.states[s.Offsets["in"]] = state
	return s, s.Offsets["in"]
}

// tell records what a writer was told about the commit of an offset. If it was
// acknowledged, it must be in the history at this moment (I3).
func (a *audit) tell(offset string, c *checkpoint.Checkpoint, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := told{err: err}
	if err == nil {
		t.seq = c.Seq
	}
	a.told[offset] = t
	a.logf("offset %s: %v", offset, t)
	if err == nil && !a.blind && a.at[offset] != c.Seq {
		a.badf("offset %s is acknowledged as checkpoint %d; in the history it is %d", offset, c.Seq, a.at[offset])
	}
}

func (t told) String() string {
	if t.err != nil {
		return t.err.Error()
	}
	return fmt.Sprint("committed as ", t.seq)
}

// end checks that what was refused has never been committed (I3).
func (a *audit) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for offset, t := range a.told {
		if seq, is := a.at[offset]; is && t.err != nil && !errors.Is(t.err, checkpoint.ErrUnknown) && !errors.Is(t.err, errDead) {
			a.badf("offset %s: its writer was told %v; in the history it is checkpoint %d", offset, t.err, seq)
		}
	}
}

// errDead stands for what a dead writer was told: nothing.
var errDead = errors.New("died")

// wantExact checks that the bucket contains only what is needed, except for manifests
// that are not old yet.
func (a *audit) wantExact() {
	a.mu.Lock()
	defer a.mu.Unlock()
	needed := a.needed()
	for key, made := range a.times {
		old := strings.Contains(key, segments) || a.newest.made.Sub(made) > checkpoint.FenceWindow
		if _, lost := a.lost[key]; old && !lost && !needed[key] && !isElsewhere(key) {
			a.badf("an orphan survives: %s", key)
		}
	}
	for key := range needed {
		if _, ok := a.times[key]; !ok {
			a.badf("%s is needed, and not there", key)
		}
	}
}

// wantWhole reads all of a checkpoint.
func (a *audit) wantWhole(ctx context.Context, c *checkpoint.Checkpoint) error {
	a.mu.Lock()
	want, ok := a.states[c.Offsets["in"]]
	a.mu.Unlock()
	if !ok {
		return fmt.Errorf("checkpoint %d has offset %q, which nobody committed", c.Seq, c.Offsets["in"])
	}
	fsys, err := c.FS(ctx)
	if err != nil {
		return err
	}
	return sameTree(fsys, want)
}

// errOther means that a state differs from what was saved, and that no error reported
// it.
var errOther = errors.New("wrong data, unnoticed")

func sameTree(got fs.FS, want fstest.MapFS) error {
	files := 0
	err := fs.WalkDir(got, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := fs.ReadFile(got, path)
		if f := want[path]; err == nil && (f == nil || string(data) != string(f.Data)) {
			err = fmt.Errorf("%w: in %s", errOther, path)
		}
		return err
	})
	if err == nil && files != len(want) {
		err = fmt.Errorf("%w: %d files of %d", errOther, files, len(want))
	}
	return err
}

// report describes the violations and what led to them; "" if there are none.
func (a *audit) report() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.bad) == 0 {
		return ""
	}
	return strings.Join(a.bad, "\n") + "\n" + a.lines()
}
