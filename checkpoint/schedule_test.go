package checkpoint_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// This file runs the engine one store call at a time, in a synctest bubble. When
// nothing runs there any more, every process waits in a store call that must be
// released, or has ended.

// A stage is a bucket, and processes whose calls wait until they are released.
type stage struct {
	play   *play
	procs  []*process
	anyone *process // its calls never wait
	ops    map[string]*op
	start  *image // the result of the play's before; nil until it has run

	// For the present schedule:
	audit   *audit
	now     time.Time // the bucket's clock; guarded by the audit's lock
	faults  int       // how many may still happen
	jumps   int       // of the clock: how many may still happen
	writers map[format.WriterID]string
	last    int // the process of the last step

	mu      sync.Mutex
	open    bool // calls do not wait
	waiting []*call
	ended   int // the number of processes that have ended
}

// A process does what a play says.
type process struct {
	*stage
	index   int
	name    string
	job     *checkpoint.Job
	task    *checkpoint.Task
	door    *door
	faults  *faultstore.Store
	owner   *checkpoint.Owner
	writers int
	late    []*op // requests that were not yet applied
}

// A door is a store whose calls wait.
type door struct {
	backend.Store
	p     *process
	ahead time.Duration // how far the times in replies are ahead
}

// An op is what a call does. Its names are the same in each schedule.
type op struct {
	verb  string
	keys  []string // for a list, what they begin with
	label string
}

func (o *op) writes() bool { return o.verb == "create" || o.verb == "put" || o.verb == "delete" }

// clocked reports whether the time of the call matters.
func (o *op) clocked() bool { return o.verb == "create" || o.verb == "put" }

func (o *op) meets(p *op) bool {
	if !o.writes() && !p.writes() {
		return false
	}
	for _, a := range o.keys {
		for _, b := range p.keys {
			if a == b || o.verb == "list" && strings.HasPrefix(b, a) || p.verb == "list" && strings.HasPrefix(a, b) {
				return true
			}
		}
	}
	return false
}

// A call waits to be released.
type call struct {
	p   *process
	op  *op
	key string        // as the store sees it
	let chan struct{} // closed when the call may go on
}

// A mode is what happens to a call.
type mode string

const (
	apply mode = ""
	lose  mode = " (the reply is lost)"
	late  mode = " (it will land late)"
	crash mode = " (the process dies before it)"
	land  mode = " (it lands)"
	jump  mode = "the clock goes on by more than a window"
)

// An event is a step of a schedule.
type event struct {
	proc int
	mode mode
	op   *op
	same int // the number of equal ones before it
}

func (e event) Actor() int { return e.proc }

func (e event) Rare() bool {
	return e.mode == lose || e.mode == late || e.mode == crash || e.mode == jump
}

// touches reports whether the event reads or changes the store.
func (e event) touches() bool { return e.mode == apply || e.mode == lose || e.mode == land }

func (e event) Conflicts(f event) bool {
	switch {
	case e.mode == jump && f.mode == jump:
		return true
	case e.mode == jump:
		return f.touches() && f.op.clocked()
	case f.mode == jump:
		return e.touches() && e.op.clocked()
	case e.proc == f.proc:
		return e.mode != apply || f.mode != apply || e.op.writes() || f.op.writes()
	case e.Rare() && f.Rare(): // the number of these is limited
		return true
	}
	return e.touches() && f.touches() && e.op.meets(f.op)
}

func newStage(p *play) *stage {
	s := &stage{play: p, ops: make(map[string]*op)}
	for i, role := range p.roles {
		p := s.newProcess(i, role.name)
		p.door.ahead = role.ahead
		s.procs = append(s.procs, p)
	}
	s.anyone = s.newProcess(len(p.roles), "anyone")
	return s
}

// newProcess makes a process, whose job is used in many schedules.
func (s *stage) newProcess(i int, name string) *process {
	p := &process{stage: s, index: i, name: name}
	p.door = &door{p: p}
	job, err := checkpoint.New(p.door, checkpoint.Options{
		Memory: 1 << 20, Retention: checkpoint.Retention{Last: s.play.last}, Logger: lossLogger(func() *audit { return s.audit }),
		// A wait of almost no length: the bubble's clock must not advance.
		Backoff: backend.Backoff{First: 1, Max: 1, Attempts: 4},
	})
	if err != nil {
		panic(err)
	}
	p.job = job
	if p.task, err = job.Task("orders/7"); err != nil {
		panic(err)
	}
	return p
}

// reset sets the stage to the state before a schedule.
func (s *stage) reset() {
	s.now = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return s.now }
	bucket := mem.NewBucket(clock)
	if s.start != nil {
		s.audit, s.writers = s.start.develop(bucket)
	} else {
		s.audit, s.writers = newAudit(bucket, clock), make(map[format.WriterID]string)
		s.audit.last = s.play.last
	}
	s.faults, s.jumps, s.last = s.play.faults, s.play.jumps, 0
	s.waiting, s.ended, s.open = nil, 0, true
	for _, p := range append(slices.Clone(s.procs), s.anyone) {
		p.faults = faultstore.New(s.audit.open())
		p.door.Store, p.owner, p.writers, p.late = p.faults, nil, 0, nil
	}
}

// begin starts the processes, up to their first calls.
func (s *stage) begin() {
	if s.start == nil {
		if s.play.before != nil {
			s.play.before(s)
		}
		s.start = s.image()
	}
	for i, role := range s.play.roles {
		if role.before != nil {
			role.before(s.procs[i])
		}
	}
	quiesce()
	s.mu.Lock()
	s.open = false
	s.mu.Unlock()
	for i, role := range s.play.roles {
		go func() {
			role.run(s.procs[i])
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ended++
		}()
	}
}

// An image is the content of a bucket, and what is known about it. To make it anew
// for each schedule would take as long as the schedule itself.
type image struct {
	objects map[string][]byte
	audit   *audit
	writers map[format.WriterID]string
}

func (s *stage) image() *image {
	i := &image{make(map[string][]byte), s.audit.copy(s.audit.bucket), maps.Clone(s.writers)}
	store := s.audit.bucket.Open()
	for o, err := range store.List(context.Background(), "", "") {
		data := make([]byte, o.Size)
		if err == nil {
			_, err = store.Get(context.Background(), o.Key, 0, data)
		}
		if err != nil {
			panic(err)
		}
		i.objects[o.Key] = data
	}
	return i
}

// develop fills a bucket.
func (i *image) develop(bucket *mem.Bucket) (*audit, map[format.WriterID]string) {
	store := bucket.Open()
	for key, data := range i.objects {
		if _, err := store.Create(context.Background(), key, data); err != nil {
			panic(err)
		}
	}
	return i.audit.copy(bucket), maps.Clone(i.writers)
}

// quiesce waits until no process runs; all that they did happens before quiesce
// returns. Time stands still in the bubble: waits between attempts have no length,
// and the five seconds that a save has for its clean-up never end.
func quiesce() { synctest.Wait() }

// end lets the processes run to their ends. Those that have not ended are dead.
func (s *stage) end() {
	for _, p := range s.procs {
		s.mu.Lock()
		ended := s.ended == len(s.procs)
		s.mu.Unlock()
		if !ended && !p.faults.Crashed() {
			p.faults.Arm(faultstore.Fault{Kind: faultstore.CrashFirst})
		}
	}
	s.mu.Lock()
	s.open = true
	s.mu.Unlock()
	s.release(func(*call) bool { return true })
	quiesce()
}

// release releases calls.
func (s *stage) release(which func(*call) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(c *call) bool {
		if !which(c) {
			return false
		}
		close(c.let)
		return true
	})
}

// events returns what may happen next, in an order that is always the same.
func (s *stage) events() []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []event
	for _, c := range s.waiting {
		all = append(all, event{proc: c.p.index, op: c.op})
	}
	for _, p := range s.procs {
		if len(p.late) > 0 {
			all = append(all, event{proc: p.index, mode: land, op: p.late[0]})
		}
	}
	// The process of the last step comes first: it goes on unless something else is
	// chosen.
	place := func(e event) int {
		if e.proc == s.last {
			return -1
		}
		return e.proc
	}
	slices.SortFunc(all, func(a, b event) int {
		return cmp.Or(place(a)-place(b), cmp.Compare(a.mode, b.mode), cmp.Compare(a.op.label, b.op.label))
	})
	for i := 1; i < len(all); i++ {
		if before := all[i-1]; before.proc == all[i].proc && before.mode == all[i].mode && before.op == all[i].op {
			all[i].same = before.same + 1
		}
	}
	for _, e := range all {
		all = append(all, s.faultsAt(e)...)
	}
	if s.jumps > 0 && len(all) > 0 {
		all = append(all, event{proc: len(s.procs), mode: jump, op: &noOp})
	}
	return all
}

var noOp op

// faultsAt returns what may go wrong with a call. Only writes fail: a failed read is
// repeated, which is the same as a later read, and a process that dies before a read
// might as well die before its next write.
func (s *stage) faultsAt(e event) []event {
	if s.faults == 0 || e.mode != apply || !e.op.writes() {
		return nil
	}
	modes := []mode{lose, late}
	if s.play.roles[e.proc].dies {
		modes = append(modes, crash)
	}
	var all []event
	for _, m := range modes {
		e.mode = m
		all = append(all, e)
	}
	return all
}

// take makes an event happen.
func (s *stage) take(e event) {
	s.last = e.proc
	switch e.mode {
	case jump:
		s.jumps--
		s.jump()
		return
	case land:
		s.procs[e.proc].faults.Land()
		s.procs[e.proc].late = nil
		return
	}
	c := s.find(e)
	p := c.p
	if e.mode != apply {
		s.faults--
		kinds := map[mode]faultstore.Kind{lose: faultstore.LoseReply, late: faultstore.Zombie, crash: faultstore.CrashFirst}
		p.faults.Arm(faultstore.Fault{Kind: kinds[e.mode], Verb: e.op.verb, Key: c.key, On: 1})
	}
	if e.mode == late {
		p.late = append(p.late, e.op)
	}
	s.release(func(other *call) bool { return other == c })
	if e.mode == crash {
		quiesce()
		s.release(func(other *call) bool { return other.p == p })
	}
}

// jump sets the clock, which is read under the audit's lock. The lock is for the race
// detector: a goroutine that waits in a sync.WaitGroup, such as the Close of an
// owner, is idle, but to the race detector this is not ordered before the return of
// [synctest.Wait].
func (s *stage) jump() {
	s.audit.mu.Lock()
	defer s.audit.mu.Unlock()
	s.now = s.now.Add(checkpoint.FenceWindow + time.Minute)
}

// find returns the call of an event.
func (s *stage) find(e event) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := e.same
	i := slices.IndexFunc(s.waiting, func(c *call) bool {
		if c.p.index != e.proc || c.op != e.op {
			return false
		}
		same--
		return same < 0
	})
	return s.waiting[i]
}

func (s *stage) String(e event) string {
	if e.mode == jump {
		return string(jump)
	}
	return s.procs[e.proc].name + ": " + e.op.label + string(e.mode)
}

// Names.

// op returns the op of a call.
func (p *process) op(verb string, keys ...string) *op {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = p.keyName(key)
	}
	slices.Sort(names)
	label := verb + " " + strings.Join(names, " ")
	o := p.ops[label]
	if o == nil {
		o = &op{verb, names, label}
		p.ops[label] = o
	}
	return o
}

// keyName returns a name for a key. In it, writers are called by the names of their
// processes.
func (p *process) keyName(key string) string {
	if in, seq, ok := format.ParseManifestKey(key); ok && in == dir {
		return fmt.Sprintf("manifest %03d.", seq)
	} else if ok {
		return fmt.Sprintf("manifest of the fork %03d.", seq)
	}
	id, ok := format.ParseSegmentKey(dir, key)
	if !ok {
		return strings.TrimSuffix(strings.TrimPrefix(key, dir+"/"), "s/") // of a List: all manifests, or all segments
	}
	if _, ok := p.stage.writers[id.Writer]; !ok {
		p.writers++
		p.stage.writers[id.Writer] = fmt.Sprint(p.name, p.writers)
	}
	return fmt.Sprintf("segment %03d-%s-%d.", id.Epoch, p.stage.writers[id.Writer], id.N)
}

// wait returns when the call may go on.
func (d *door) wait(verb string, keys ...string) {
	s := d.p.stage
	s.mu.Lock()
	if s.open || d.p.faults.Crashed() {
		for _, key := range keys {
			d.p.keyName(key) // gives its writer a name in any case
		}
		s.mu.Unlock()
		return
	}
	c := &call{p: d.p, op: d.p.op(verb, keys...), key: strings.Join(keys, " "), let: make(chan struct{})}
	s.waiting = append(s.waiting, c)
	s.mu.Unlock()
	<-c.let
}

func (d *door) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	d.wait("create", key)
	return proxied{d.Store, &d.ahead}.Create(ctx, key, data)
}

func (d *door) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	d.wait("put", key)
	return d.Store.Put(ctx, key, data)
}

func (d *door) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	d.wait("get", key)
	return d.Store.Get(ctx, key, offset, p)
}

func (d *door) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		d.wait("list", prefix)
		d.Store.List(ctx, prefix, after)(yield)
	}
}

func (d *door) Delete(ctx context.Context, keys ...string) error {
	d.wait("delete", keys...)
	return d.Store.Delete(ctx, keys...)
}

// What processes do.

// bad records a violation.
func (p *process) bad(f string, args ...any) {
	p.audit.mu.Lock()
	defer p.audit.mu.Unlock()
	p.audit.badf(p.name+": "+f, args...)
}

func (p *process) claim() {
	var err error
	if p.owner, err = p.task.Claim(context.Background(), checkpoint.ClaimOptions{}); err != nil {
		p.owner = nil
		p.check("claim", err)
	}
}

// check records an error that nothing on this stage explains.
func (p *process) check(what string, err error, allowed ...error) {
	if err == nil || p.faults.Crashed() || slices.ContainsFunc(allowed, func(a error) bool { return errors.Is(err, a) }) {
		return
	}
	p.bad("%s: %v", what, err)
}

func (p *process) commit(state fstest.MapFS) {
	if p.owner == nil {
		return
	}
	p.told("commit", state, func(s checkpoint.Snapshot) (*checkpoint.Checkpoint, error) {
		c, err := p.owner.Commit(context.Background(), s)
		if errors.Is(err, checkpoint.ErrFenced) && p.newest().Epoch == p.owner.Epoch() {
			p.bad("it is told %v, and nobody has taken the task over", err)
		}
		return c, err
	}, checkpoint.ErrFenced)
}

// newest returns the newest manifest.
func (s *stage) newest() *format.Manifest {
	s.audit.mu.Lock()
	defer s.audit.mu.Unlock()
	if s.audit.newest == nil {
		return new(format.Manifest)
	}
	return s.audit.newest.Manifest
}

func (p *process) save(state fstest.MapFS) {
	p.told("save", state, func(s checkpoint.Snapshot) (*checkpoint.Checkpoint, error) {
		return p.task.Save(context.Background(), s, checkpoint.SaveOptions{Fence: true})
	}, checkpoint.ErrConflict)
}

func (p *process) told(what string, state fstest.MapFS, save func(checkpoint.Snapshot) (*checkpoint.Checkpoint, error), lost error) {
	s, offset := p.audit.snapshot(state)
	c, err := save(s)
	if err != nil && p.faults.Crashed() {
		c, err = nil, errDead
	}
	p.audit.tell(offset, c, err)
	p.check(what, err, lost, checkpoint.ErrUnknown)
}

func (p *process) close() {
	if p.owner != nil {
		p.check("close", p.owner.Close(context.Background()))
	}
}

func (p *process) collect() {
	_, err := p.task.Collect(context.Background(), checkpoint.CollectOptions{})
	p.check("collection", err)
}

// read reads the newest checkpoint, which must be at least as new as the newest one
// when read began.
func (p *process) read() {
	least := p.newest().Seq
	status, err := p.task.Status(context.Background())
	p.check("status", err)
	if err != nil || status.Latest == nil {
		return
	}
	if status.Manifest < least {
		p.bad("status says %d, after %d was made", status.Manifest, least)
	}
	p.check("read", p.audit.wantWhole(context.Background(), status.Latest), checkpoint.ErrGone)
}
