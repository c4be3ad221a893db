package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
	"github.com/holdfast-io/holdfast/checkpoint/internal/segment"
)

// VerifyOptions say how far a verification goes. The zero value reads what
// describes the states, and none of their data.
type VerifyOptions struct {
	// Data reads all data of every checkpoint and holds it against its hashes.
	// What checkpoints share is read once.
	Data bool
}

// Verify makes sure, without restoring, that what the task's checkpoints need
// is in the store: that every manifest, list of files and table can be read and
// has the hash that it should have, that every segment that they name exists
// and has the right size, and that every chunk lies within its segment. It
// learns of segments by one listing of the task's objects. It asks for those that
// the listing leaves out, or shows with another size, one by one: missing is only
// what a read of it does not find. A segment that cannot be read for another
// reason, such as permissions, is an error of Verify.
//
// It writes nothing, and may run at any time, beside owners, saves and collectors. What
// is retired meanwhile is no damage. It returns an error if the task could not be
// verified, ErrNoCheckpoint if it does not exist, and ErrGone if all of its
// checkpoints were retired before they had been verified. That something is damaged is
// no error: see [VerifyReport.Err].
func (t *Task) Verify(ctx context.Context, opts VerifyOptions) (*VerifyReport, error) {
	return t.verify(ctx, opts, false)
}

// TestRestore is Verify that also reads all data of the latest checkpoint, as a restore
// does, and records in the store that it could be restored: see [Task.LastRestoreTest].
// If that checkpoint is damaged, nothing is recorded. If all that failed was the record,
// the report comes with the error.
func (t *Task) TestRestore(ctx context.Context, opts VerifyOptions) (*VerifyReport, error) {
	return t.verify(ctx, opts, true)
}

func (t *Task) verify(ctx context.Context, opts VerifyOptions, testRestore bool) (*VerifyReport, error) {
	return history.Reread(ctx, func() (*VerifyReport, error) {
		v := &verifier{
			task: t, opts: opts, testRestore: testRestore, problems: make(map[string]*problem),
			segments: make(map[format.SegmentID]int64), named: make(map[format.SegmentID]bool),
			wrong: make(map[format.Segment]error), checked: make(map[format.Hash]bool),
			written: make(map[format.SegmentID]time.Time), writers: make(map[uint64]format.WriterID),
			lost: make(map[format.SegmentID]bool), others: make(map[format.SegmentID]int64), read: make(map[uint64]*format.Manifest),
		}
		for _, stage := range []func(context.Context) error{v.begin, v.list, v.open, v.sources, v.forks, v.chain, v.checkUnlisted, v.states, v.settle, v.losses} {
			if err := stage(ctx); err != nil {
				return nil, err
			}
		}
		err := v.recordTest(ctx)
		return v.report(), err
	})
}

// A verifier verifies one task. The order of its stages matters: the newest
// manifest is read first, and what is listed afterwards has all that this one
// and its checkpoints need, unless it was retired in between.
type verifier struct {
	task        *Task
	opts        VerifyOptions
	testRestore bool               // see TestRestore
	newest      *history.Committed // the newest that can be read; nil if there is none
	unreadable  uint64             // number of the newest manifest, if it is damaged
	unlisted    string             // key of something that is lost of the list of what it retains, or ""
	subjects    []*subject

	segments     map[format.SegmentID]int64 // sizes of all that exist
	others       map[format.SegmentID]int64 // likewise, of segments of other tasks
	wrong        map[format.Segment]error   // what is wrong with those that do not, or are of another size
	written      map[format.SegmentID]time.Time
	lost         map[format.SegmentID]bool // those that prove that manifests were lost
	manifests    []backend.Object          // likewise
	otherObjects []string
	record       *backend.Object // of the last restore test
	recorded     *RestoreTest    // what it says
	unheld       *ForkInfo       // what the source does not hold
	needless     []NeedlessHold  // what is held for forks that need it no more
	live         int64           // bytes of data that were read and are right

	mu       sync.Mutex
	named    map[format.SegmentID]bool
	writers  map[uint64]format.WriterID // of the manifests, by epoch
	problems map[string]*problem        // by key
	checked  map[format.Hash]bool       // whether a chunk is right, by its identity
	read     map[uint64]*format.Manifest
}

// A subject is one checkpoint.
type subject struct {
	format.Retained
	checkpoint *Checkpoint // nil if it cannot be read
	damaged    bool        // something that it needs is wrong
	repeated   bool        // its own manifest is wrong, and the newest one repeats it
	retired    bool        // meanwhile, so that nobody needs it
}

// A problem is an object with something wrong.
type problem struct {
	Problem
	affects []*subject
	unknown bool // which checkpoints it affects cannot be known
}

// found notes that something is wrong with an object, and which checkpoints it affects.
func (v *verifier) found(key string, kind ProblemKind, why string, affects ...*subject) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.problems[key]
	if p == nil {
		p = &problem{Problem: Problem{Object: key, Kind: kind, Error: why}, unknown: len(affects) == 0}
		v.problems[key] = p
	}
	for _, s := range affects {
		s.damaged = true
		if !slices.Contains(p.affects, s) {
			p.affects = append(p.affects, s)
		}
	}
}

// begin finds out what there is to verify.
func (v *verifier) begin(ctx context.Context) error {
	t := v.task
	s, err := t.log.Newest(ctx)
	if errors.Is(err, ErrCorrupt) {
		s, err = v.beforeNewest(ctx)
	}
	switch {
	case err != nil:
		return err
	case s == nil && v.unreadable == 0:
		if err := t.requireNew(ctx); err != nil {
			return err
		}
		return fmt.Errorf("task %q does not exist: %w", t.Name(), ErrNoCheckpoint)
	case s == nil:
		return nil
	}
	v.newest = s
	all, lost, err := t.log.Salvage(ctx, s)
	if errors.Is(err, ErrGone) && v.unreadable > 0 {
		all, lost, err = v.withoutList(ctx, s)
	}
	for _, why := range lost {
		v.unlisted = format.SegmentKey(t.log.Dir, s.RetainedAt.Segment)
		if about := (*segment.Error)(nil); errors.As(why, &about) {
			v.unlisted = about.Key
		}
		v.found(v.unlisted, kindOf(why), why.Error())
	}
	for _, r := range all {
		v.subjects = append(v.subjects, &subject{Retained: r})
	}
	return err
}

// beforeNewest returns the newest step that can be read, and notes that the
// newest of all cannot.
func (v *verifier) beforeNewest(ctx context.Context) (*history.Committed, error) {
	h := v.task.log
	seq, _, err := h.NewestSeq(ctx)
	if err != nil {
		return nil, err
	}
	_, damage := h.Read(ctx, seq)
	if !errors.Is(damage, ErrCorrupt) { // another one was made just now
		return nil, errors.Join(ErrGone, damage)
	}
	v.unreadable = seq
	v.found(format.ManifestKey(h.Dir, seq), Damaged, damage.Error(), &subject{Retained: format.Retained{Seq: seq}})
	return h.NewestIntact(ctx)
}

// withoutList returns what manifest s says of its list by itself. Another one followed s, so
// that the list was deleted, and that one is damaged.
func (v *verifier) withoutList(ctx context.Context, s *history.Committed) (all []format.Retained, lost []error, err error) {
	if err := v.task.log.CheckNoneAfter(ctx, v.unreadable); err != nil {
		return nil, nil, err
	}
	key := v.task.log.Segments.Key(s.RetainedAt.Segment)
	why := fmt.Errorf("the list of manifest %d, which segment %s has the index of, was deleted at least in part when manifest %d followed it, and that is damaged: %w", s.Seq, key, v.unreadable, fs.ErrNotExist)
	return s.With(s.Retained), []error{&segment.Error{Key: key, Err: why}}, nil
}

func kindOf(err error) ProblemKind {
	if errors.Is(err, fs.ErrNotExist) {
		return Missing
	}
	return Damaged
}

// twice reads once more what is not there, or not what was written: a bit may have
// flipped on its way here, and a repair would drop what is intact.
func twice[T any](read func() (T, error)) (T, error) {
	got, err := read()
	if errors.Is(err, ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
		return read()
	}
	return got, err
}

// list finds out what objects there are.
func (v *verifier) list(ctx context.Context) error {
	dir := v.task.log.Dir
	for o, err := range v.task.job.store.List(ctx, dir+"/", "") {
		if err != nil {
			return err
		}
		if id, ok := format.ParseSegmentKey(dir, o.Key); ok {
			v.segments[id], v.written[id] = o.Size, o.ModTime
		} else if _, _, ok := format.ParseManifestKey(o.Key); ok {
			v.manifests = append(v.manifests, o)
		} else if o.Key == format.AnnouncedKey(dir) || o.Key == format.HeartbeatKey(dir) {
			continue
		} else if o.Key == format.RestoreTestKey(dir) {
			v.record = &o
		} else if _, ok := format.ParseStartpointKey(dir, o.Key); ok {
			continue
		} else {
			v.otherObjects = append(v.otherObjects, o.Key)
		}
	}
	return nil
}

// open reads what the manifests of all checkpoints say.
func (v *verifier) open(ctx context.Context) error {
	if v.newest != nil {
		v.name(v.newest.Manifest, nil)
		v.nameList(v.newest.Manifest)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(v.task.job.opts.Requests)
	for _, s := range v.subjects {
		group.Go(func() error { return v.openOne(ctx, s) })
	}
	return group.Wait()
}

// name notes which segments a manifest and its content name.
func (v *verifier) name(m *format.Manifest, content *format.Content) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writers[m.Epoch] = m.Writer
	v.read[m.Seq] = &format.Manifest{Token: m.Token, Base: m.Base}
	for _, id := range m.Segments(content) {
		v.named[id] = true
	}
}

// nameList notes which segments the newest manifest's list lies in. Those of other
// manifests are not needed.
func (v *verifier) nameList(m *format.Manifest) {
	for _, id := range m.ListSegments() {
		v.named[id] = true
	}
	if m.RetainedAt == nil || v.unlisted != "" {
		return
	}
	v.exists(m.RetainedAt)
	for i := range m.Pieces {
		v.exists(&m.Pieces[i].Chunk)
	}
}

func (v *verifier) openOne(ctx context.Context, s *subject) error {
	m, err := v.manifest(ctx, s)
	if m == nil || err != nil {
		return err
	}
	t := v.task
	c, err := twice(func() (*Checkpoint, error) { return t.open(ctx, m.Checkpoint) })
	switch {
	case errors.Is(err, ErrGone):
		s.retired = true
		return nil
	case errors.Is(err, ErrCorrupt):
		v.found(v.contentKey(m.Checkpoint), kindOf(err), err.Error(), s)
		return nil
	case err != nil:
		return err
	}
	v.name(m, c.content)
	s.checkpoint = c.bare()
	if at := m.Checkpoint.ContentAt; at != nil && m.Checkpoint.Of == "" {
		v.exists(at)
	}
	return nil
}

// contentKey returns the key of the segment in which a checkpoint's content lies.
func (v *verifier) contentKey(c *format.Checkpoint) string {
	dir := v.task.log.Dir
	if of, err := format.EscapeTask(c.Of); err == nil {
		dir = of
	}
	return format.SegmentKey(dir, c.ContentAt.Segment)
}

// exists notes that a part of a segment was read, which the listing may have left
// out.
func (v *verifier) exists(at *format.Chunk) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, listed := v.segments[at.Segment]; !listed {
		v.segments[at.Segment] = at.Offset + at.StoredSize()
	}
}

// manifest returns a manifest that has the checkpoint, nil if that cannot be
// read. The newest one may repeat the checkpoint of another, which will be
// needed when it is not the newest any more.
func (v *verifier) manifest(ctx context.Context, s *subject) (*format.Manifest, error) {
	newest := *v.newest.Manifest
	newest.Checkpoint = v.newest.Current()
	repeated := newest.Checkpoint != nil && newest.Checkpoint.Seq == s.Seq
	if repeated && newest.Seq == s.Seq {
		return &newest, nil
	}
	m, err := twice(func() (*format.Manifest, error) { return v.task.log.ReadCommit(ctx, s.Retained) })
	if err == nil {
		return m, nil
	}
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	v.found(format.ManifestKey(v.task.log.Dir, s.Seq), kindOf(err), err.Error(), s)
	if !repeated {
		return nil, nil
	}
	s.repeated = true
	return &newest, nil
}

// states verifies the states, one after the other.
func (v *verifier) states(ctx context.Context) error {
	for _, s := range v.subjects {
		if s.checkpoint == nil || s.retired {
			continue
		}
		v.sizes(s)
		err := v.state(ctx, s)
		key := format.ManifestKey(v.task.log.Dir, s.Seq)
		about := (*segment.Error)(nil)
		switch {
		case errors.Is(err, ErrGone):
			s.retired = true
		case errors.As(err, &about):
			v.found(about.Key, kindOf(err), err.Error(), s)
		case errors.Is(err, ErrCorrupt) && s.damaged:
			// A segment that is known to be missing.
		case errors.Is(err, ErrCorrupt):
			v.found(key, Damaged, err.Error(), s)
		case err != nil:
			return err
		}
	}
	return nil
}

// sizes notes what is wrong with the segments that a checkpoint names.
func (v *verifier) sizes(s *subject) {
	for _, seg := range s.checkpoint.content.Segments {
		if err := v.wrong[seg]; err != nil {
			v.found(s.checkpoint.segments.Key(seg.ID), kindOf(err), err.Error(), s)
		}
	}
}

// state verifies the list of a checkpoint's files, the tables, and where chunks
// lie.
func (v *verifier) state(ctx context.Context, s *subject) error {
	all, err := twice(func() (*survey, error) { return s.checkpoint.survey(ctx) })
	if wanted := v.opts.Data || v.testRestore && v.isCurrent(s); err != nil || !wanted {
		return err
	}
	return v.data(ctx, s, all)
}

// isCurrent reports whether s is the current checkpoint, as far as is known.
func (v *verifier) isCurrent(s *subject) bool {
	c := v.newest.Current()
	return v.unreadable == 0 && c != nil && c.Seq == s.Seq
}

// settle forgets what was retired since the newest manifest was read. What is
// missing of it, no one needs.
func (v *verifier) settle(ctx context.Context) error {
	if err := v.retired(ctx); err != nil {
		return err
	}
	gone := 0
	for _, s := range v.subjects {
		if s.retired {
			gone++
		}
	}
	if gone > 0 && (gone == len(v.subjects) || v.testRestore && v.subjects[0].retired) {
		return fmt.Errorf("task %q: its checkpoints were retired while they were verified: %w", v.task.Name(), ErrGone)
	}
	return nil
}

// recordTest records that the current checkpoint could be restored, if that is what
// was found, or reads what was recorded before.
func (v *verifier) recordTest(ctx context.Context) error {
	if v.testRestore && len(v.subjects) > 0 {
		if s := v.subjects[0]; v.isCurrent(s) && s.checkpoint != nil && !s.damaged {
			proof, err := v.task.recordRestoreTest(ctx, s.checkpoint)
			if err != nil {
				return fmt.Errorf("checkpoint %d can be restored, but the record of that could not be written: %w", s.Seq, err)
			}
			v.recorded = proof
			return nil
		}
	}
	if v.record == nil {
		return nil
	}
	var err error
	v.recorded, err = v.task.readRestoreTest(ctx, v.record)
	switch {
	case errors.Is(err, ErrCorrupt):
		v.otherObjects = append(v.otherObjects, v.record.Key) // no checkpoint needs it
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

func (v *verifier) retired(ctx context.Context) error {
	if len(v.problems) == 0 {
		return nil
	}
	newest, all, err := v.task.log.NewestAndAll(ctx)
	if errors.Is(err, ErrCorrupt) {
		return nil // and so it was before, or nothing is known to be retired
	}
	if err == nil && newest != nil {
		err = v.task.log.CheckNoneAfter(ctx, newest.Seq)
	}
	for _, s := range v.subjects {
		if !slices.ContainsFunc(all, func(r format.Retained) bool { return r.Seq == s.Seq }) {
			s.retired = s.retired || err == nil
		}
	}
	return err
}
