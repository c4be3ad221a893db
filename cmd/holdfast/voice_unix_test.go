//go:build linux || darwin

package main

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/engines/dir"
	"github.com/holdfast-io/holdfast/internal/process"
	"github.com/holdfast-io/holdfast/runner"
)

// A slowCut is a supervisor whose copies wait, and the checkpoints that it has saved.
type slowCut struct {
	*supervisor
	began, goOn chan struct{}

	mu    sync.Mutex
	saved []*checkpoint.Checkpoint
}

func newSlowCut(t *testing.T) *slowCut {
	t.Helper()
	root := t.TempDir()
	job, err := checkpoint.Open(t.Context(), fileURL(filepath.Join(root, "store")), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	c := &slowCut{
		supervisor: &supervisor{p: &program{}, o: &runFlags{whenAsked: true, stateDir: filepath.Join(root, "state"), runDir: filepath.Join(root, "run")}, job: job},
		began:      make(chan struct{}, 10), goOn: make(chan struct{}),
	}
	if err := os.Mkdir(c.o.runDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if c.group, err = process.Start(process.Command{Args: []string{"sleep", "100"}, Env: os.Environ()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.group.Stop(syscall.SIGKILL, 0) })
	if c.voice, err = openVoice(c.supervisor); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.voice.close)
	r, err := runner.New(job, runner.Options{Interval: runner.Manual})
	if err != nil {
		t.Fatal(err)
	}
	c.voice.task, err = r.Own(t.Context(), "a", runner.Spec{
		Dir: c.o.runDir, State: &runner.StateDir{Path: c.o.stateDir, Job: "job"}, Open: c.openSlowly, Hooks: runner.Hooks{After: c.note},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(c.voice.task.ReleaseAsIs(context.Background()), r.Drain(context.Background())) })
	return c
}

func (c *slowCut) openSlowly(_ context.Context, restored *runner.Restored) (runner.Cutter, error) {
	engine, err := dir.Open(restored.Dir(""), restored.Cuts, dir.Options{Still: func(ctx context.Context, copy func(context.Context) error) error {
		c.began <- struct{}{}
		<-c.goOn
		return copy(ctx)
	}})
	return &cutter{engine, c.supervisor}, err
}

func (c *slowCut) note(_ context.Context, saved *checkpoint.Checkpoint) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.saved = append(c.saved, saved)
	return nil
}

func (c *slowCut) ask(ctx context.Context, who string) <-chan error {
	answer := make(chan error, 1)
	go func() {
		_, err := c.voice.do(&asked{ctx: ctx, offsets: map[string]string{"in": who}, labels: map[string]string{"who": who}})
		answer <- err
	}()
	return answer
}

// TestRequestsAreNotMixed: a program gives up a request while its state is copied, goes on to write,
// and makes another request before the copy is made. No checkpoint has something of both.
func TestRequestsAreNotMixed(t *testing.T) {
	c := newSlowCut(t)
	first, giveUp := context.WithCancel(t.Context())
	a := c.ask(first, "a")
	<-c.began
	giveUp()
	if err := <-a; !errors.Is(err, context.Canceled) {
		t.Fatalf("the first one: %v", err)
	}
	mustWrite(t, filepath.Join(c.o.stateDir, "n"), "in between")
	b := c.ask(t.Context(), "b")
	eventually(t, "the second request", func() bool { return len(c.voice.asking) == 1 })
	close(c.goOn)
	if err := <-b; err != nil {
		t.Errorf("the second one: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, saved := range c.saved {
		if saved.Labels["who"] != "b" || saved.Offsets["in"] != "b" {
			t.Errorf("checkpoint %d has offsets %v and labels %v", saved.Seq, saved.Offsets, saved.Labels)
		}
	}
	if len(c.saved) != 1 {
		t.Errorf("%d checkpoints", len(c.saved))
	}
}

// TestLabelsAreOfTheirRequest: a later checkpoint by time has none of them.
func TestLabelsAreOfTheirRequest(t *testing.T) {
	r := newRunTest(t)
	x, where := r.startVoice("--every", "50ms")
	c := speak[checkpointDoc](t, "POST", where+"/commit", url.Values{"label": {"step=4"}}, 200)
	if c.Labels["step"] != "4" {
		t.Errorf("labels %v", c.Labels)
	}
	eventually(t, "a checkpoint by time", func() bool { return r.status().Latest.Seq > c.Seq+1 })
	if latest := r.status().Latest; latest.Labels["step"] != "" {
		t.Errorf("checkpoint %d has labels %v of the request of %d", latest.Seq, latest.Labels, c.Seq)
	}
	x.signal(syscall.SIGTERM)
	x.wantEnd(0, "")
}
