package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A trouble is a fault in one call of a process, and the time when a late request is
// applied.
type trouble struct {
	name  string
	fault faultstore.Fault
	lands moment
	// harmless says that a retry is enough: the call must succeed.
	harmless bool
	// overtaken says that others recover while the call is slow, and not after it.
	overtaken bool
	// telling says that it finds most of what the other troubles find. Where time is
	// short, only these are run.
	telling bool
}

type moment int

const (
	never          moment = iota
	atOnce                // before anyone else does anything
	afterRecovery         // when another writer has claimed and committed
	afterTheWindow        // when the manifests that overtook it have been deleted
)

var troubles = []trouble{
	{name: "fails", harmless: true, fault: faultstore.Fault{Kind: faultstore.FailBefore}},
	{name: "is refused", telling: true, fault: faultstore.Fault{Kind: faultstore.FailBefore, Err: backend.ErrPermission}},
	{name: "loses its reply", harmless: true, fault: faultstore.Fault{Kind: faultstore.LoseReply}},
	{name: "lands late", harmless: true, fault: faultstore.Fault{Kind: faultstore.Zombie}, lands: atOnce},
	{name: "lands after the recovery", telling: true, harmless: true, fault: faultstore.Fault{Kind: faultstore.Zombie}, lands: afterRecovery},
	{name: "lands after the window", harmless: true, fault: faultstore.Fault{Kind: faultstore.Zombie}, lands: afterTheWindow},
	{name: "takes a minute", harmless: true, fault: faultstore.Fault{Kind: faultstore.Delay, For: time.Minute}},
	{name: "takes a day, is overtaken", telling: true, fault: faultstore.Fault{Kind: faultstore.Delay, For: 24 * time.Hour}, overtaken: true},
	{name: "is the last before a crash", telling: true, fault: faultstore.Fault{Kind: faultstore.CrashAfter}},
	{name: "meets a crash", fault: faultstore.Fault{Kind: faultstore.CrashFirst}},
	{name: "meets a crash, lands late", fault: faultstore.Fault{Kind: faultstore.CrashZombie}, lands: atOnce},
	{name: "meets a crash, lands after the recovery", fault: faultstore.Fault{Kind: faultstore.CrashZombie}, lands: afterRecovery},
	{name: "meets a crash, lands after the window", telling: true, fault: faultstore.Fault{Kind: faultstore.CrashZombie}, lands: afterTheWindow},
	{name: "reads half", fault: faultstore.Fault{Kind: faultstore.Truncate, Verb: "get"}},
	{name: "reads a wrong bit", fault: faultstore.Fault{Kind: faultstore.Corrupt, Verb: "get"}},
	{name: "lists half", harmless: true, fault: faultstore.Fault{Kind: faultstore.Truncate, Verb: "list"}},
	{name: "deletes half", harmless: true, fault: faultstore.Fault{Kind: faultstore.Truncate, Verb: "delete"}},
	{name: "puts half", fault: faultstore.Fault{Kind: faultstore.Truncate, Verb: "put"}},
	{name: "puts a wrong bit", fault: faultstore.Fault{Kind: faultstore.Corrupt, Verb: "put"}},
	{name: "creates half", fault: faultstore.Fault{Kind: faultstore.Truncate, Verb: "create"}},
	{name: "creates a wrong bit", fault: faultstore.Fault{Kind: faultstore.Corrupt, Verb: "create"}},
}

// damages reports whether what is stored differs from what was sent. A writer cannot
// know this.
func (tr *trouble) damages() bool {
	return (tr.fault.Kind == faultstore.Truncate || tr.fault.Kind == faultstore.Corrupt) &&
		(tr.fault.Verb == "put" || tr.fault.Verb == "create")
}

// A scenario is something that a process does. prepare runs without faults.
type scenario struct {
	name    string
	last    int // the number of checkpoints that retention keeps
	prepare func(*cell)
	run     func(*cell) error
	lacks   string // the methods that it does not call
	slow    bool   // fewer troubles are run, and less is done afterwards
}

var scenarios = []scenario{
	{name: "first claim", run: (*cell).claim, lacks: "put delete get"},
	{name: "first commit", prepare: (*cell).mustClaim, run: (*cell).commitSmall, lacks: "put delete"},
	{name: "first save", run: (*cell).save, lacks: "get delete"},
	{name: "commit, small", prepare: all((*cell).history, (*cell).mustClaim, (*cell).mustCommit), run: (*cell).commitSmall, lacks: "put get delete list"},
	{name: "commit, first of an owner", prepare: all((*cell).history, (*cell).mustClaim), run: (*cell).commitLarge, lacks: "delete"},
	{name: "commit, large, with chunks that move", prepare: all((*cell).history, (*cell).mustClaim, (*cell).mustCommit), run: (*cell).commitMoving, lacks: "get list delete"},
	{name: "commit, when others went away", last: 2, prepare: all((*cell).history, (*cell).orphans, (*cell).mustClaim), run: (*cell).commitTwice},
	{name: "one-off save", prepare: (*cell).history, run: (*cell).save, lacks: "delete"},
	{name: "claim over a live owner", prepare: all((*cell).history, (*cell).rival), run: (*cell).claimAndCommit, lacks: "delete"},
	{name: "claim beside orphans", prepare: all((*cell).history, (*cell).orphans), run: (*cell).claimAndCommit},
	{name: "claim, when manifests were lost", prepare: all((*cell).history, (*cell).loss), run: (*cell).claimAndCommit, lacks: "delete"},
	{name: "rollback", prepare: all((*cell).history, (*cell).rival), run: (*cell).rollback, lacks: "put delete"},
	{name: "rollback with a long list", last: checkpoint.KeepAll, prepare: (*cell).longHistory, run: (*cell).rollback, slow: true},
	{name: "retention with clean-up", last: 2, prepare: all((*cell).history, (*cell).mustClaim, (*cell).mustCommit, (*cell).pause), run: (*cell).commitTwice, lacks: "get"},
	{name: "release", prepare: all((*cell).history, (*cell).mustClaim, (*cell).mustCommit), run: (*cell).release, lacks: "put get delete list"},
	{name: "amendment beside an owner", prepare: all((*cell).history, (*cell).quiet), run: (*cell).amend, lacks: "put delete"},
	{name: "prune beside an owner", prepare: all((*cell).history, (*cell).quiet), run: (*cell).prune, lacks: "put"},
	{name: "commit that is amended", prepare: all((*cell).history, (*cell).mustClaim, (*cell).mustCommit, (*cell).amended), run: (*cell).commitLarge, lacks: "delete"},
	{name: "release that is amended", prepare: all((*cell).history, (*cell).mustClaim, (*cell).mustCommit, (*cell).amended), run: (*cell).release, lacks: "put delete"},
	{name: "collection", last: 2, prepare: all((*cell).history, (*cell).rival, (*cell).quiet, (*cell).orphans), run: (*cell).collect, lacks: "put create"},
	{name: "restore", prepare: (*cell).history, run: (*cell).restore, lacks: "put create delete"},
	{name: "verify", prepare: all((*cell).history, (*cell).rival, (*cell).orphans), run: (*cell).verify, lacks: "put create delete"},
	{name: "verify, and record that it is restorable", prepare: (*cell).history, run: (*cell).testRestore, lacks: "create delete"},
	{name: "status and list", prepare: all((*cell).history, (*cell).rival), run: (*cell).look, lacks: "put create delete"},
}

func all(list ...func(*cell)) func(*cell) {
	return func(c *cell) {
		for _, f := range list {
			f(c)
		}
	}
}

// TestMatrix makes every trouble happen in every call of every scenario. Then a fresh
// process takes over, and all promises must hold.
func TestMatrix(t *testing.T) {
	var cells, pairs atomic.Int64
	scenarios := slices.Concat(scenarios, forkScenarios)
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			for _, tr := range troubles {
				if (sc.slow || raceDetector) && !tr.telling {
					continue
				}
				k := 1
				for ; matrixCell(t, sc, tr, k) && !t.Failed(); k++ {
					cells.Add(1)
				}
				verb := tr.fault.Verb
				if lacks := verb != "" && strings.Contains(sc.lacks, verb); (k == 1) != lacks {
					t.Errorf("%s: %d calls that may be one that %s", sc.name, k-1, tr.name)
				}
				if k > 1 {
					pairs.Add(1)
				}
			}
		})
	}
	t.Cleanup(func() {
		t.Logf("%d cells (scenario, trouble, call), in each of which the trouble befell the call: of %d scenarios and %d troubles, %d pairs",
			cells.Load(), len(scenarios), len(troubles), pairs.Load())
	})
}

// matrixCell runs one cell, and reports whether there is a k-th call.
func matrixCell(t *testing.T, sc scenario, tr trouble, k int) (fired bool) {
	synctest.Test(t, func(t *testing.T) {
		run(t, func(w *world) {
			c := newCell(w, sc, tr)
			fired = c.do(k)
			c.audit.end()
			if report := c.audit.report(); report != "" {
				t.Errorf("call %d %s: %s", k, tr.name, report)
			}
		})
	})
	return fired
}

// A cell is one scenario, one trouble, and one call.
type cell struct {
	*world
	sc    scenario
	tr    trouble
	audit *audit
	opts  checkpoint.Options

	// The process under test.
	store *faultstore.Store
	task  *checkpoint.Task
	owner *checkpoint.Owner

	other  *checkpoint.Task    // the task as another process opens it
	others []*checkpoint.Owner // the owners so far
	n      int                 // the number of states
	made   *checkpoint.Checkpoint

	isForked  bool              // a fork was acknowledged, and nobody has begun to delete it
	inFork    uint64            // the checkpoint that was acknowledged in the fork, or 0
	forkOwner *checkpoint.Owner // who went on with it, or nil
}

func newCell(w *world, sc scenario, tr trouble) *cell {
	c := &cell{world: w, sc: sc, tr: tr, audit: newAudit(w.bucket, time.Now)}
	if c.audit.last = sc.last; sc.last == 0 {
		c.audit.last = 5
	}
	c.opts = checkpoint.Options{
		Memory: 1 << 20, Retention: checkpoint.Retention{Last: c.audit.last},
		Backoff: backend.Backoff{Attempts: 4}, Logger: c.audit.logger(),
	}
	c.audit.damage = tr.damages()
	c.store = faultstore.New(c.audit.open())
	c.task, c.other = c.open(c.store), c.open(c.audit.open())
	return c
}

// open returns the task as a process opens it.
func (c *cell) open(store backend.Store) *checkpoint.Task {
	task, err := newJob(c, store, c.opts).Task("orders/7")
	if err != nil {
		c.Fatal(err)
	}
	return task
}

// do runs the cell, and reports whether its fault happened.
func (c *cell) do(k int) bool {
	if c.sc.prepare != nil {
		c.sc.prepare(c)
	}
	c.quiet()
	f := c.tr.fault
	f.On, f.Seed = k, uint64(k)
	c.store.Arm(f)
	done := make(chan error)
	go func() {
		start := time.Now()
		err := c.sc.run(c)
		if took := time.Since(start); took > f.For+10*time.Minute {
			c.audit.badf("it took %v", took)
		}
		done <- err
	}()
	if c.tr.overtaken {
		time.Sleep(time.Hour)
		if len(c.store.Unfired()) == 0 {
			c.recover(c.others)
		}
	}
	err := <-done
	c.quiet()
	fired := len(c.store.Unfired()) == 0
	if err != nil && (!fired || c.tr.harmless) {
		c.audit.badf("it fails: %v", err)
	}
	c.store.Disarm()
	if c.tr.lands == atOnce {
		c.store.Land()
	}
	c.finish()
	return fired
}

// finish lets a fresh process take over, and then lets the old one go on to its end.
func (c *cell) finish() {
	fenced := slices.Clone(c.others)
	if c.owner != nil && !c.store.Crashed() {
		fenced = append(fenced, c.owner)
	}
	c.recover(fenced)
	for _, o := range append(c.others, c.owner) {
		if o == nil {
			continue
		}
		if err := o.Close(context.Background()); err != nil {
			c.audit.badf("close: %v", err)
		}
	}
	c.closeFork()
	c.wantWholeHistory()
	c.pause() // so that what a process has left that was killed while it forked is ended
	c.collectAll()
	c.wantFork()
	c.wantHolds()
}

// quiet waits until nothing happens in the background, except delayed requests.
func (c *cell) quiet() {
	time.Sleep(30 * time.Second)
	synctest.Wait()
}

// recover is what happens when another process takes over: everything is intact, it
// can commit, earlier owners cannot, and no garbage is left.
func (c *cell) recover(fenced []*checkpoint.Owner) {
	if !c.wantWholeHistory() {
		return // damaged, and noticed
	}
	heir := c.heir()
	if heir == nil {
		return
	}
	_ = c.commit(heir, nil, state(c.n, 3)) // the audit judges the result
	for _, o := range fenced {
		if err := c.commit(o, c.store, nil); err == nil || !errors.Is(err, checkpoint.ErrFenced) && !strings.HasPrefix(c.sc.name, "release") && !c.audit.damage {
			c.audit.badf("an owner before the heir commits: %v", err)
		}
	}
	if c.tr.lands == afterRecovery {
		c.store.Land()
	}
	c.collectAll()
	if c.sc.slow && c.tr.lands != afterTheWindow {
		return
	}
	time.Sleep(checkpoint.FenceWindow + time.Minute)
	_ = c.commit(heir, nil, nil)
	c.collectAll()
	if c.tr.lands == afterTheWindow {
		c.store.Land()
		heir = c.heir()
		_ = c.commit(heir, nil, nil)
		c.collectAll()
	}
	time.Sleep(checkpoint.FenceWindow + time.Minute)
	_ = c.commit(heir, nil, state(c.n, 2))
	c.collectAll()
	c.wantWholeHistory()
}

func (c *cell) heir() *checkpoint.Owner {
	heir, err := c.other.Claim(c.Context(), checkpoint.ClaimOptions{})
	if err != nil {
		if !c.audit.damage || !errors.Is(err, checkpoint.ErrCorrupt) {
			c.audit.badf("the heir cannot claim: %v", err)
		}
		return nil
	}
	c.others = append(c.others, heir)
	return heir
}

// collectAll collects, and checks that no garbage is left.
func (c *cell) collectAll() {
	c.quiet()
	before := c.audit.newestSeq()
	_, err := c.other.Collect(c.Context(), checkpoint.CollectOptions{})
	if err == nil && c.audit.newestSeq() > before { // it has ended a hold, in a manifest of its own
		_, err = c.other.Collect(c.Context(), checkpoint.CollectOptions{})
	}
	switch {
	case c.audit.damage:
	case err != nil:
		c.audit.badf("collection: %v", err)
	default:
		c.audit.wantExact()
	}
}

// wantWholeHistory reads everything that is retained. It returns false if something
// is damaged, which is allowed only in a store that damages.
func (c *cell) wantWholeHistory() bool {
	list, err := c.other.List(c.Context())
	if errors.Is(err, checkpoint.ErrNoCheckpoint) {
		err = nil
	}
	for _, cp := range list {
		if damaged := c.audit.wantWhole(c.Context(), cp); damaged != nil {
			err = fmt.Errorf("checkpoint %d: %w", cp.Seq, damaged)
		}
	}
	if err == nil {
		return true
	}
	if !c.audit.damage || !errors.Is(err, checkpoint.ErrCorrupt) {
		c.audit.badf("what is retained: %v", err)
	}
	return false
}

// state is the n-th state. Two of six files are equal to those of the state before.
// The larger one fills more than half of its segment, which is named again; the other
// fills less than half, so it is stored again.
func state(n, files int) fstest.MapFS {
	all := fstest.MapFS{}
	for i := range files {
		data := noise(20<<10 + 100*i)
		switch {
		case i == 0:
			data = noise(40 << 10)
		case i%3 != 0:
			data = noise(20<<10 + 100*i + n%90 + 1)
		}
		all[fmt.Sprint("file", i)] = &fstest.MapFile{Data: data}
	}
	return all
}

// commit commits a state. store is the process's store, if the process may die.
func (c *cell) commit(o *checkpoint.Owner, store *faultstore.Store, state fstest.MapFS) error {
	return c.told(store, state, func(s checkpoint.Snapshot) (*checkpoint.Checkpoint, error) { return o.Commit(c.Context(), s) })
}

func (c *cell) told(store *faultstore.Store, state fstest.MapFS, save func(checkpoint.Snapshot) (*checkpoint.Checkpoint, error)) error {
	c.n++
	s, offset := c.audit.snapshot(state)
	cp, err := save(s)
	c.made = cp
	if err != nil && store != nil && store.Crashed() {
		c.audit.tell(offset, nil, errDead)
	} else {
		c.audit.tell(offset, cp, err)
	}
	return err
}

// Preparations.

// history makes two checkpoints by an owner that may or may not be dead.
func (c *cell) history() { c.rival(); c.must(c.commit(c.others[0], nil, state(1, 6))) }

// rival is an owner that commits and goes on.
func (c *cell) rival() {
	o := c.heir()
	c.must(c.commit(o, nil, state(0, 6)))
}

// longHistory makes a retained list that is too large for a manifest.
func (c *cell) longHistory() {
	o := c.heir()
	for n := range 60 {
		c.n++
		s, offset := c.audit.snapshot(nil)
		s.Savepoint = fmt.Sprint(n, strings.Repeat("\\", 120)) // takes twice as much space in JSON
		cp, err := o.Commit(c.Context(), s)
		c.must(err)
		c.audit.tell(offset, cp, nil)
	}
}

// orphans are what killed writers left. They appear when no earlier clean-up can find
// them any more.
func (c *cell) orphans() {
	c.quiet()
	store := c.audit.open()
	for n := range byte(5) {
		id := format.SegmentID{Epoch: 1, Writer: format.WriterID{0xee, n}, N: uint32(n)}
		_, err := store.Put(c.Context(), format.SegmentKey(dir, id), noise(100))
		c.must(err)
	}
}

// loss deletes the newest manifests, as a person might: all those of a dead owner.
func (c *cell) loss() {
	first := c.audit.newest.Seq + 1
	o := c.heir()
	c.must(c.commit(o, nil, state(2, 6)))
	c.quiet()
	c.must(o.Close(context.Background()))
	c.others = c.others[:len(c.others)-1]
	c.audit.lose(first)
}

func (c *cell) pause() { time.Sleep(checkpoint.FenceWindow + time.Minute) }

func (c *cell) mustClaim() { c.must(c.claim()) }

func (c *cell) mustCommit() { c.must(c.commitLarge()); c.quiet() }

func (c *cell) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// amended is an amendment of the latest checkpoint by another process.
func (c *cell) amended() {
	_, err := c.other.AddSavepoint(c.Context(), "another's", checkpoint.SavepointOptions{})
	c.must(err)
}

// Scenarios.

// amend makes the latest checkpoint a savepoint; nobody removes it.
func (c *cell) amend() error {
	_, err := c.task.AddSavepoint(c.Context(), "mine", checkpoint.SavepointOptions{})
	c.audit.mu.Lock()
	defer c.audit.mu.Unlock()
	if err == nil && !c.audit.blind && !c.audit.hasSavepoint("mine") {
		c.audit.badf("a savepoint was acknowledged, and is not there")
	}
	return err
}

func (c *cell) prune() error {
	_, err := c.task.Prune(c.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})
	return err
}

func (c *cell) claim() (err error) {
	c.owner, err = c.task.Claim(c.Context(), checkpoint.ClaimOptions{})
	return err
}

func (c *cell) commitSmall() error { return c.commit(c.owner, c.store, nil) }

func (c *cell) commitLarge() error { return c.commit(c.owner, c.store, state(c.n, 6)) }

// commitMoving is commitLarge. It also checks that the commit really repacks.
func (c *cell) commitMoving() error {
	before := c.audit.newest.own
	err := c.commitLarge()
	if err != nil || c.tr.overtaken || c.audit.blind {
		return err
	}
	again := 0
	for key := range c.audit.newest.own {
		if _, ok := before[key]; ok {
			again++
		}
	}
	const changed, moved = 4 * 20 << 10, 20 << 10
	if c.made.NewBytes < changed+moved || again == 0 {
		c.audit.badf("%d new bytes; %d segments of the base are named again", c.made.NewBytes, again)
	}
	return nil
}

func (c *cell) commitTwice() error {
	err := c.commitLarge()
	c.quiet()
	return errors.Join(err, c.commitLarge())
}

func (c *cell) claimAndCommit() error {
	if err := c.claim(); err != nil {
		return err
	}
	return c.commitTwice()
}

func (c *cell) release() error { return c.owner.Release(c.Context()) }

func (c *cell) save() error {
	return c.told(c.store, state(c.n, 6), func(s checkpoint.Snapshot) (*checkpoint.Checkpoint, error) {
		return c.task.Save(c.Context(), s, checkpoint.SaveOptions{Fence: true})
	})
}

func (c *cell) rollback() error {
	cp, err := c.task.Rollback(c.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{Fence: true})
	if err == nil && cp.Seq != 2 {
		c.audit.badf("rolled back to %d", cp.Seq)
	}
	return err
}

func (c *cell) collect() error {
	_, err := c.task.Collect(c.Context(), checkpoint.CollectOptions{})
	return err
}

func (c *cell) verify() error {
	report, err := c.task.Verify(c.Context(), checkpoint.VerifyOptions{Data: true})
	return c.check(report, err)
}

func (c *cell) testRestore() error {
	report, err := c.task.TestRestore(c.Context(), checkpoint.VerifyOptions{})
	if err == nil && report.Err() == nil && report.RestoreTest == nil {
		c.audit.badf("nothing is wrong, and nothing was recorded")
	}
	return c.check(report, err)
}

// check checks that a report finds no damage where there is none, unless data is
// damaged while it is read.
func (c *cell) check(report *checkpoint.VerifyReport, err error) error {
	if err != nil {
		return err
	}
	kind := c.tr.fault.Kind
	if damaged := kind == faultstore.Truncate || kind == faultstore.Corrupt; report.Err() != nil && !damaged {
		c.audit.badf("a false alarm: %v", report.Problems)
	}
	if report.Err() == nil && (report.Intact != report.Checkpoints || report.Intact == 0 || report.DataRead == 0) {
		c.audit.badf("nothing is wrong, and this is the report: %+v", report)
	}
	return report.Err()
}

// restore must leave the old directory or the new one.
func (c *cell) restore() error {
	target := filepath.Join(c.tester.(*testing.T).TempDir(), "state")
	old := fstest.MapFS{"old": {Data: noise(7)}}
	c.must(os.CopyFS(target, old))
	want := old
	cp, err := c.task.Latest(c.Context())
	if err == nil {
		if err = cp.Restore(c.Context(), target, checkpoint.RestoreOptions{Replace: true}); err == nil {
			want = c.audit.states[cp.Offsets["in"]]
		}
	}
	if other := sameTree(os.DirFS(target), want); other != nil {
		c.audit.badf("after a restore that said %v: %v", err, other)
	}
	return err
}

// look reads as a user would.
func (c *cell) look() error {
	status, err := c.task.Status(c.Context())
	if err == nil && status.Manifest != c.audit.newest.Seq && !c.tr.overtaken {
		c.audit.badf("status says %d", status.Manifest)
	}
	_, listErr := c.task.List(c.Context())
	older, olderErr := c.task.Get(c.Context(), checkpoint.Seq(2))
	err = errors.Join(err, listErr, olderErr)
	for _, cp := range []*checkpoint.Checkpoint{status.Latest, older} {
		if cp == nil {
			continue
		}
		whole := c.audit.wantWhole(c.Context(), cp)
		if errors.Is(whole, errOther) {
			c.audit.badf("checkpoint %d: %v", cp.Seq, whole)
		}
		err = errors.Join(err, whole)
	}
	return err
}
