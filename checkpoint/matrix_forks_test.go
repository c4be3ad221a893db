package checkpoint_test

import (
	"context"
	"errors"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// The scenarios of forks and deletion. The source of the fork is the task of the other
// scenarios, which goes on beside it and afterwards.
var forkScenarios = []scenario{
	{name: "fork", prepare: all((*cell).history, (*cell).quiet), run: (*cell).forkTask, lacks: "put delete"},
	{name: "fork of an older checkpoint", prepare: all((*cell).history, (*cell).quiet), run: (*cell).forkOlder, lacks: "put delete", slow: true},
	{name: "commit beside a new fork", prepare: all((*cell).history, (*cell).mustClaim, (*cell).mustCommit, (*cell).forked), run: (*cell).commitLarge, lacks: "delete", slow: true},
	{name: "retention beside a hold", last: 2, prepare: all((*cell).history, (*cell).forked, (*cell).mustClaim, (*cell).mustCommit, (*cell).pause), run: (*cell).commitTwice, lacks: "get", slow: true},
	{name: "commit in a fork", prepare: all((*cell).history, (*cell).forked), run: (*cell).commitInFork, lacks: "delete", slow: true},
	{name: "detachment of a fork", prepare: all((*cell).history, (*cell).forked, (*cell).pause), run: (*cell).detach, slow: true},
	{name: "deletion of a fork", prepare: all((*cell).history, (*cell).forked, (*cell).pause), run: (*cell).deleteFork, lacks: "put"},
	{name: "collection that ends a hold", prepare: all((*cell).history, (*cell).deadFork, (*cell).pause), run: (*cell).collect, lacks: "put delete", slow: true},
	{name: "deletion", prepare: all((*cell).history, (*cell).rival, (*cell).quiet), run: (*cell).deleteTask, lacks: "put", slow: true},
	{name: "savepoint that is removed", prepare: all((*cell).history, (*cell).amended, (*cell).quiet), run: (*cell).removeSavepoint, lacks: "put delete", slow: true},
}

// taskOf returns another task of the job, as the process under test opens it or, if store is
// nil, another one.
func (c *cell) taskOf(name string, store *faultstore.Store) *checkpoint.Task {
	s := c.audit.open()
	if store != nil {
		s = store
	}
	task, err := newJob(c, s, c.opts).Task(name)
	c.must(err)
	return task
}

// Preparations.

// forked is a fork of the latest checkpoint, that another process has made.
func (c *cell) forked() {
	_, err := c.other.Fork(c.Context(), fork, checkpoint.ForkOptions{})
	c.must(err)
	c.isForked = true
}

// deadFork is what a process that was killed has left of a fork: the hold, and nothing else.
func (c *cell) deadFork() {
	dying := faultstore.New(c.audit.open(), faultstore.Fault{Kind: faultstore.CrashFirst, Verb: "create", Key: fork + "/"})
	_, err := c.open(dying).Fork(c.Context(), fork, checkpoint.ForkOptions{})
	if err == nil || len(c.audit.newest.Held) != 1 {
		c.Fatalf("%v, and %d are held", err, len(c.audit.newest.Held))
	}
}

// Scenarios.

func (c *cell) forkTask() error { return c.forkAt(checkpoint.Ref{}) }

func (c *cell) forkOlder() error { return c.forkAt(checkpoint.Seq(2)) }

func (c *cell) forkAt(at checkpoint.Ref) error {
	_, err := c.task.Fork(c.Context(), fork, checkpoint.ForkOptions{At: at})
	c.isForked = err == nil
	return err
}

// commitInFork goes on with the fork. What it commits shares data with the source.
func (c *cell) commitInFork() error {
	owner, err := c.taskOf(fork, c.store).Claim(c.Context(), checkpoint.ClaimOptions{})
	if err != nil {
		return err
	}
	c.forkOwner = owner
	s, _ := c.audit.snapshot(state(c.n, 6))
	made, err := owner.Commit(c.Context(), s)
	if err == nil {
		c.inFork = made.Seq
	}
	return err
}

func (c *cell) detach() error {
	_, err := c.taskOf(fork, c.store).Detach(c.Context(), checkpoint.DetachOptions{})
	c.audit.mu.Lock()
	defer c.audit.mu.Unlock()
	if err == nil && !c.audit.blind && len(c.audit.neededFromSource()) > 0 {
		c.audit.badf("the fork was detached, and needs data of its source")
	}
	return err
}

func (c *cell) deleteFork() error {
	c.isForked = false
	_, err := c.taskOf(fork, c.store).Delete(c.Context(), checkpoint.DeleteOptions{Fence: true})
	return err
}

func (c *cell) deleteTask() error {
	_, err := c.task.Delete(c.Context(), checkpoint.DeleteOptions{Fence: true})
	return err
}

func (c *cell) removeSavepoint() error {
	_, err := c.task.RemoveSavepoint(c.Context(), "another's")
	c.audit.mu.Lock()
	defer c.audit.mu.Unlock()
	if err == nil && !c.audit.blind && c.audit.hasSavepoint("another's") {
		c.audit.badf("a savepoint was removed, and is there")
	}
	return err
}

// What must hold in the end.

// wantFork checks that a fork that was acknowledged is there, with what was committed in it,
// and that its checkpoints can be read.
func (c *cell) wantFork() {
	list, err := c.taskOf(fork, nil).List(c.Context())
	switch {
	case errors.Is(err, checkpoint.ErrNoCheckpoint):
		err = nil
	case err == nil && c.inFork > 0 && (len(list) == 0 || list[0].Seq < c.inFork):
		c.audit.badf("checkpoint %d of the fork was acknowledged, and is not there", c.inFork)
	}
	if err == nil && c.isForked && len(list) == 0 {
		c.audit.badf("a fork was acknowledged, and is not there")
	}
	for _, cp := range list {
		err = errors.Join(err, c.audit.wantWhole(c.Context(), cp))
	}
	if err != nil && (!c.audit.damage || !errors.Is(err, checkpoint.ErrCorrupt)) {
		c.audit.badf("the fork: %v", err)
	}
}

// wantHolds checks that the source holds what the fork needs, and nothing else.
func (c *cell) wantHolds() {
	c.audit.mu.Lock()
	defer c.audit.mu.Unlock()
	if c.audit.damage {
		return
	}
	held, f := 0, c.audit.fork.newest
	if f != nil && f.Source != nil {
		held = 1
	}
	if got := len(c.audit.newest.Held); got != held {
		c.audit.badf("%d checkpoints are held for the fork; want %d", got, held)
	}
}

// closeFork closes the fork's owner.
func (c *cell) closeFork() {
	if c.forkOwner == nil {
		return
	}
	if err := c.forkOwner.Close(context.Background()); err != nil {
		c.audit.badf("close: %v", err)
	}
}
