//go:build linux || darwin

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// silence is after how long a standby of these tests takes an owner to be dead. The owners save
// much more often, also on a busy machine.
const silence = "3s"

// A standbyTest is an owner that counts, and a standby on another machine.
type standbyTest struct {
	owner, standby *runTest
	x, y           *running // the owner's, and the standby's
	where          string   // the standby answers
}

// startStandby starts both, and waits until the standby has a checkpoint.
func startStandby(t *testing.T, flags ...string) *standbyTest {
	t.Helper()
	o := newRunTest(t)
	s := &standbyTest{owner: o, standby: &runTest{t, o.store, filepath.Join(t.TempDir(), "state")}}
	s.x = o.start(`trap 'echo ended >"$HOLDFAST_STATE/../ended"; exit 7' TERM;`+count, "--every", "100ms", "--silence", silence, "--exclude", "*.tmp")
	eventually(t, "a checkpoint", func() bool { return o.saved("n") != "" }) // the first may be of an empty directory
	s.y, s.where = s.standby.startMonitored(fileURL(o.store), count, append([]string{"--standby", "--every", "100ms", "--exclude", "*.tmp"}, flags...)...)
	s.wantFollowing()
	return s
}

func (s *standbyTest) wantFollowing() {
	s.owner.t.Helper()
	eventually(s.owner.t, "a copy", func() bool {
		status, body := ask(s.owner.t, s.where+"/ready")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "this one follows it: it has checkpoint ")
	})
}

// wantTakenOver waits until the standby's program goes on, from what was saved, and ends it.
func (s *standbyTest) wantTakenOver(says string) {
	t := s.owner.t
	t.Helper()
	eventually(t, "the standby's program", func() bool {
		status, _ := ask(t, s.where+"/ready")
		return status == http.StatusOK
	})
	got, _ := scrape(t, s.where)
	if got[`holdfast_run_following{holdfast_task="a"}`] != 0 || got[`holdfast_run_ready{holdfast_task="a"}`] != 1 {
		t.Errorf("its metrics are %v", got)
	}
	eventually(t, "its first number", func() bool { return strings.Count(s.y.stdout.String(), "\n") > 1 })
	s.y.signal(syscall.SIGTERM)
	s.y.wantEnd(143, says)
	from, to := s.y.counted()
	if saved := s.owner.saved("n"); from == 0 || saved != fmt.Sprint(to) && saved != fmt.Sprint(to+1) {
		t.Errorf("it went from %d to %d, and saved %s", from, to, saved)
	}
}

// TestStandbySucceedsAKilledRun: the owner is killed, and its standby goes on from the newest
// checkpoint.
func TestStandbySucceedsAKilledRun(t *testing.T) {
	s := startStandby(t, "--silence", silence)
	s.x.signal(syscall.SIGKILL)
	s.x.end()
	saved := s.owner.saved("n")
	s.wantTakenOver("its owner has given no sign of life for " + silence)
	if from, _ := s.y.counted(); fmt.Sprint(from) != saved {
		t.Errorf("it goes on from %d, and %s was saved", from, saved)
	}
}

// TestStandbySucceedsAReleasedRun: the owner is asked to end, and gives the task back.
func TestStandbySucceedsAReleasedRun(t *testing.T) {
	s := startStandby(t)
	s.x.signal(syscall.SIGTERM)
	s.x.wantEnd(7, "")
	saved := s.owner.saved("n")
	s.wantTakenOver("its owner has given it back")
	if from, _ := s.y.counted(); fmt.Sprint(from) != saved {
		t.Errorf("it goes on from %d, and %s was saved", from, saved)
	}
}

// TestStandbyIsAsked: the standby takes over from an owner that lives, whose program is ended.
func TestStandbyIsAsked(t *testing.T) {
	s := startStandby(t)
	s.y.signal(syscall.SIGUSR1)
	s.x.wantEnd(124, "fenced")
	if _, err := os.Stat(filepath.Join(filepath.Dir(s.owner.dir), "ended")); err != nil {
		t.Errorf("its program was not asked to end: %v", err)
	}
	s.y.signal(syscall.SIGUSR1) // once more is too late, and the program does not get it
	s.wantTakenOver("is taken over: as it was asked for")
}

// TestStandbyOutlivesTheStore: the store is away when the standby is to take over. It follows again,
// and takes over when it is asked once more.
func TestStandbyOutlivesTheStore(t *testing.T) {
	s := startStandby(t)
	s.x.signal(syscall.SIGKILL)
	s.x.end()
	store := s.owner.store
	if err := errors.Join(os.Rename(store, store+".away"), os.WriteFile(store, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s.y.signal(syscall.SIGUSR1)
	eventually(t, "a failure", func() bool { return strings.Contains(s.y.said(), "could not be taken over, and is followed again") })
	if err := errors.Join(os.Remove(store), os.Rename(store+".away", store)); err != nil {
		t.Fatal(err)
	}
	s.wantFollowing()
	s.y.signal(syscall.SIGUSR1)
	s.wantTakenOver("is taken over: as it was asked for")
}

// TestStandbyIsNotNeeded: a standby is asked to end while it follows. Its program was not
// started, and its owner goes on.
func TestStandbyIsNotNeeded(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			if signal.Ignored(sig) {
				t.Skip("this process was started so that it ignores the signal, by nohup for example, and so are those that it starts")
			}
			s := startStandby(t, "--silence", silence)
			before := s.owner.status()
			s.y.signal(sig)
			s.y.wantEnd(0, "is followed: its owner is ")
			if entries, err := os.ReadDir(s.standby.dir); len(entries) > 0 || s.y.stdout.String() != "" {
				t.Errorf("its directory has %v, %v; it said %q", entries, err, &s.y.stdout)
			}
			if after := s.owner.status(); after.Epoch != before.Epoch || !after.Claimed {
				t.Errorf("its owner was fenced: %+v", after)
			}
		})
	}
}

// TestTwoStandbysOfARun: one succeeds the owner, and the other one follows it, and succeeds it.
func TestTwoStandbysOfARun(t *testing.T) {
	s := startStandby(t, "--silence", silence)
	third := &runTest{t, s.owner.store, filepath.Join(t.TempDir(), "state")}
	z, where := third.startMonitored(fileURL(third.store), count, "--standby", "--silence", silence, "--every", "100ms", "--exclude", "*.tmp")
	both := []*standbyTest{s, {s.owner, third, s.x, z, where}}
	both[1].wantFollowing()
	s.x.signal(syscall.SIGKILL)
	s.x.end()
	ready := func(s *standbyTest) bool {
		status, _ := ask(t, s.where+"/ready")
		return status == http.StatusOK
	}
	eventually(t, "a successor", func() bool { return ready(both[0]) || ready(both[1]) })
	if ready(both[1]) {
		slices.Reverse(both)
	}
	both[1].wantFollowing()
	eventually(t, "a checkpoint of it", func() bool { return strings.Count(both[0].y.stdout.String(), "\n") > 10 })
	both[0].y.signal(syscall.SIGKILL)
	both[0].y.end()
	both[1].wantTakenOver("is taken over")
}

// TestStandbyOnTheOwnersMachine: the first of several that are all started as standbys owns the
// task at once, and so does one that is started again where it was killed: it knows that its
// owner is dead.
func TestStandbyOnTheOwnersMachine(t *testing.T) {
	r := newRunTest(t)
	ready := filepath.Join(filepath.Dir(r.dir), "ready")
	for range 2 {
		x := r.start(count, "--standby", "--every", "50ms", "--exclude", "*.tmp")
		eventually(t, "the program", func() bool { return os.Remove(ready) == nil })
		x.signal(syscall.SIGKILL)
		x.end()
	}
}

// TestStandbyOfADeletedTask: what was deleted is not begun anew.
func TestStandbyOfADeletedTask(t *testing.T) {
	s := startStandby(t)
	s.x.signal(syscall.SIGKILL)
	s.x.end()
	if got := runQuietly(t.Context(), "rm", fileURL(s.owner.store), "a", "--take-over"); got.code != 0 {
		t.Fatal(got.stderr)
	}
	s.y.wantEnd(123, "was deleted while it was followed; run again to begin it anew")
}

// TestRunIsSeenToLive: an owner that saves nothing gives signs of life, if a silence is stated.
func TestRunIsSeenToLive(t *testing.T) {
	r := newRunTest(t)
	x := r.start(`touch "$HOLDFAST_STATE/ready"; exec sleep 100`, "--every", "1h", "--silence", "1s")
	eventually(t, "a heartbeat", func() bool {
		_, err := os.Stat(filepath.Join(r.store, "a", "owner-heartbeat"))
		return err == nil
	})
	x.signal(syscall.SIGTERM)
	x.wantEnd(143, "")
}

// TestStandbyMetrics: a standby has the metrics of a run, and those that docs/run.md names of
// standbys.
func TestStandbyMetrics(t *testing.T) {
	doc, err := os.ReadFile("../../docs/run.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(holdfast_standby_[a-z_]+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		documented = append(documented, row[1])
	}
	s := startStandby(t)
	got, metrics := scrape(t, s.where)
	metrics = slices.DeleteFunc(metrics, func(m string) bool { return !strings.HasPrefix(m, "holdfast_standby_") })
	if slices.Sort(documented); !slices.Equal(metrics, documented) {
		t.Errorf("docs/run.md has\n%q\na standby has\n%q", documented, metrics)
	}
	for name, want := range map[string]float64{
		`holdfast_run_following{holdfast_task="a"}`:    1,
		`holdfast_run_ready{holdfast_task="a"}`:        0,
		`holdfast_standby_failures_total{kind="look"}`: 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %t); want %v", name, v, ok, want)
		}
	}
	if lag, ok := got[`holdfast_standby_lag_seconds{holdfast_task="a"}`]; !ok || lag > 60 {
		t.Errorf("lag %v, there: %t", lag, ok)
	}
}
