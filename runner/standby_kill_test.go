package runner

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

var killStandby = flag.Int("kill.standby", 2, "how often TestKillBesideAStandby kills an owner")

// childStandby, if it is set, makes a child a standby of all tasks, which takes over those
// that nobody has owned, or given a sign of life of, for killSilence.
const (
	childStandby = "HOLDFAST_RUNNER_CHILD_STANDBY"
	killSilence  = 3 * time.Second
)

// standBy is the Assign of such a child.
func standBy(ctx context.Context, w *Workers) error {
	var group errgroup.Group
	for n := range killTasks {
		group.Go(func() error {
			s, err := w.Follow(ctx, killTask(n), 100*time.Millisecond)
			if err != nil {
				return err
			}
			if _, err := s.Wait(ctx, killSilence); err != nil {
				return err
			}
			return w.Promote(ctx, s)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// A spare is a child that is a standby, or the owner that it has become.
type spare struct {
	cmd  *exec.Cmd
	said chan string // what it says; closed when it has ended
}

func (h *hunt) spare(host int) *spare {
	h.t.Helper()
	p := &spare{exec.Command(os.Args[0]), make(chan string, 1<<20)}
	p.cmd.Env = append(os.Environ(), childURL+"="+h.url, childDir+"="+filepath.Join(h.hosts, fmt.Sprint("host-", host)), childStandby+"=1")
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { p.kill() })
	go func() {
		defer close(p.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.said <- lines.Text()
		}
	}()
	return p
}

// kill kills it, and waits until it has ended.
func (p *spare) kill() {
	_ = p.cmd.Process.Kill() // it fails if the process has ended
	_ = p.cmd.Wait()
}

// takesOver hears a spare until it owns all tasks.
func (h *hunt) takesOver(p *spare) {
	h.t.Helper()
	deadline := time.After(time.Minute)
	for opened := 0; opened < killTasks; {
		select {
		case line, ok := <-p.said:
			if !ok {
				h.t.Fatal("a standby has ended")
			}
			if h.note(line) == "opened" {
				opened++
			}
		case <-deadline:
			h.t.Fatalf("a standby has taken over %d of %d tasks in a minute", opened, killTasks)
		}
	}
}

// TestKillBesideAStandby kills the owner of eight tasks under load at any moment. Its
// standby, on another host, notices, and goes on with each task from what was acknowledged
// last or from what came after it. Then it is killed, beside a new standby, and so on.
func TestKillBesideAStandby(t *testing.T) {
	place := url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(filepath.ToSlash(t.TempDir()), "/") + "/store"}
	h := &hunt{t: t, url: place.String(), hosts: t.TempDir(), told: make(map[string]int), begun: make(map[string]int)}
	owner := h.spare(0)
	h.takesOver(owner)
	for n := range *killStandby {
		standby := h.spare(n + 1)
		<-time.After(time.Duration(rand.Int64N(int64(2 * time.Second))))
		owner.kill()
		killed := time.Now()
		for line := range owner.said {
			h.note(line)
		}
		h.takesOver(standby)
		t.Logf("all tasks were taken over %v after the kill", time.Since(killed).Round(10*time.Millisecond))
		owner = standby
	}
	owner.kill()
	for line := range owner.said {
		h.note(line)
	}
	h.look()
	if h.acknowledged == 0 {
		t.Error("nothing was ever acknowledged")
	}
}
