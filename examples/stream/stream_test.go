package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/examples/internal/clicks"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// spoilEnv names the spoiler that a worker runs with, when the test binary is started as one.
const spoilEnv = "HOLDFAST_STREAM_SPOIL"

func TestMain(m *testing.M) {
	if s := os.Getenv(workerEnv); s != "" {
		os.Exit(runWorker(s, newSpoiler(os.Getenv(spoilEnv))))
	}
	goleak.VerifyTestMain(m)
}

// spoilers are mistakes that a worker can make.
var spoilers = map[string]func() spoiler{
	"offset without state": func() spoiler {
		return func(c *runner.Cut) { c.Stores[""] = checkpoint.Source{} }
	},
	"state with the offset before": func() spoiler {
		var mu sync.Mutex
		before := make(map[string]string) // by task
		return func(c *runner.Cut) {
			mu.Lock()
			defer mu.Unlock()
			for task, now := range c.Offsets {
				c.Offsets[task] = cmp.Or(before[task], now)
				before[task] = now
			}
		}
	},
}

func newSpoiler(name string) spoiler {
	if spoil := spoilers[name]; spoil != nil {
		return spoil()
	}
	return nil
}

func runForTest(t *testing.T, args ...string) (code int, account string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{"-dir", t.TempDir(), "-events", "20000", "-duration", "4s", "-partitions", "4", "-interval", "200ms", "-expiry", "2s", "-seed", "7"}, args...)
	code = runStory(args, &stdout, &stderr)
	t.Logf("%s%s", &stdout, &stderr)
	return code, stdout.String() + stderr.String()
}

// The whole story, with processes that are killed, paused and replaced.
func TestStory(t *testing.T) {
	if !canPause {
		t.Skip("this system cannot pause a process")
	}
	code, account := runForTest(t, "-kills", "3", "-pauses", "1", "-rebalances", "2")
	if code != 0 {
		t.Errorf("exit code %d; want 0", code)
	}
	for _, want := range []string{"killed 3 times, paused 1 time,", "After 1 of the pauses the store refused", "20000 events,", "all equal."} {
		if !strings.Contains(account, want) {
			t.Errorf("%q is not told", want)
		}
	}
}

// The comparison is worth something only if it fails when a worker is wrong.
func TestSpoiledWorkersAreSeen(t *testing.T) {
	for name := range spoilers {
		t.Run(name, func(t *testing.T) {
			t.Setenv(spoilEnv, name)
			code, account := runForTest(t, "-duration", "2s", "-kills", "2", "-pauses", "0", "-rebalances", "0")
			if code != 1 || !strings.Contains(account, "DIFFERENCES") {
				t.Errorf("exit code %d; want 1, and differences", code)
			}
		})
	}
}

func TestMeasures(t *testing.T) {
	code, account := runForTest(t, "-bench", "-rounds", "1")
	if code != 0 || !strings.Contains(account, "| every 200ms | ") || !strings.Contains(account, "| none | ") {
		t.Errorf("exit code %d; want 0, and two lines of figures", code)
	}
}

func TestWhatARunEndsWith(t *testing.T) {
	for _, test := range []struct {
		name     string
		pauses   int
		zombies  int64
		restores int
		differ   int
		wrong    []string
		want     error
	}{
		{"all is well", 2, 1, 1, 0, nil, nil},
		{"a count differs", 2, 1, 1, 1, nil, errWrong},
		{"the store did what it must not", 2, 1, 1, 0, []string{"a checkpoint was lost"}, errWrong},
		{"no commit was refused", 2, 0, 1, 0, nil, errNoZombie},
		{"nobody was paused", 0, 0, 1, 0, nil, nil},
		{"nobody has gone on", 2, 1, 0, 0, nil, errNoRestore},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &story{options: &options{kills: 1, pauses: test.pauses}, crew: &crew{wrong: test.wrong, restores: test.restores}}
			s.zombies.Store(test.zombies)
			if err := s.judge(clicks.Verdict{Differences: test.differ}); !errors.Is(err, test.want) {
				t.Errorf("%v; want %v", err, test.want)
			}
		})
	}
}

// A worker that fails by itself is not taken for one that was killed.
func TestWorkersThatWereNotAsked(t *testing.T) {
	for _, test := range []struct {
		name  string
		fate  fate
		code  int
		fixed bool
		asked bool
	}{
		{"killed", killed, -1, false, true},
		{"it fails before it is killed", killed, failed, false, false},
		{"it leaves", leaving, 0, false, true},
		{"it fails as it leaves", leaving, failed, false, false},
		{"it ends in the midst of its work", working, 0, false, false},
		{"it has done what there was", working, 0, true, true},
		{"it fails at what there is", working, failed, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var said error
			c := newCrew(settings{Fixed: test.fixed}, "", func(err error) { said = err })
			c.end(&worker{fate: test.fate}, test.code, nil)
			if asked := said == nil; asked != test.asked {
				t.Errorf("%v; that it was asked is %t, want %t", said, asked, test.asked)
			}
		})
	}
}

// A worker leaves when the process is gone that started it.
func TestWorkerLeavesWithItsParent(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	o := &options{dir: dir, name: "test", partitions: 1, expiry: 4 * time.Second}
	b, err := o.openBroker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.close(context.Background()) }()
	c := newCrew(settings{
		Broker: b.url, Stream: b.stream, Partitions: 1, URL: fileURL(filepath.Join(dir, "store")),
		Interval: time.Second, Expiry: o.expiry,
	}, filepath.Join(dir, "workers"), func(err error) { t.Error(err) })
	defer c.killAll()
	w, err := c.start()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.until(ctx, "it works", c.restoredAll); err != nil {
		t.Fatal(err)
	}
	c.change(func() { w.fate = leaving })
	if err := w.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.until(ctx, "it has left", func() bool { return w.gone }); err != nil {
		t.Error(err)
	}
}

// Who waits too long is told for what.
func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(settings{}, "", nil)
		c.patience = time.Minute
		err := c.until(t.Context(), "pigs fly", func() bool { return false })
		if !errors.Is(err, errPatience) || !strings.Contains(err.Error(), "waiting until pigs fly: after 1m0s") {
			t.Errorf("%v; want an error that says for what", err)
		}
	})
}

// What must never happen is seen when it is told of, in whatever order.
func TestWhatTheStoreMustNotDo(t *testing.T) {
	const task = "clicks/0"
	type told struct {
		worker int
		note
	}
	opened := func(worker int, seq uint64) told { return told{worker, note{Op: open, Task: task, Seq: seq}} }
	commits := func(worker int, seq, epoch uint64) told {
		return told{worker, note{Op: commit, Task: task, Seq: seq, Epoch: epoch}}
	}
	for _, test := range []struct {
		name  string
		notes []told
		wrong bool
	}{
		{"a takeover", []told{opened(0, 0), commits(0, 2, 1), opened(1, 2), commits(1, 4, 2), commits(1, 5, 2)}, false},
		{"news of the last commit comes late", []told{opened(0, 0), opened(1, 2), commits(1, 4, 2), commits(0, 2, 1)}, false},
		{"a paused worker tells late that it has begun", []told{opened(0, 0), commits(0, 2, 1), opened(2, 2), commits(2, 5, 3), opened(1, 2), commits(2, 6, 3)}, false},
		{"one has it twice", []told{opened(0, 0), commits(0, 2, 1), opened(1, 2), commits(1, 4, 2), opened(0, 4), commits(0, 6, 3)}, false},
		{"a checkpoint is lost", []told{opened(0, 0), commits(0, 2, 1), commits(0, 3, 1), opened(1, 2), commits(1, 5, 2)}, true},
		{"one that was replaced commits", []told{opened(0, 0), commits(0, 2, 1), opened(1, 2), commits(1, 4, 2), commits(0, 5, 1)}, true},
		{"two commit in one epoch", []told{opened(0, 0), commits(0, 2, 1), opened(1, 2), commits(1, 4, 1)}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCrew(settings{Partitions: 1}, "", func(err error) { t.Error(err) })
			var workers []*worker
			for id := range 3 {
				workers = append(workers, &worker{id: id, tasks: map[int]bool{}, from: map[int]uint64{}, commits: map[int]bool{}})
			}
			for _, told := range test.notes {
				c.change(func() { c.note(workers[told.worker], told.note) })
			}
			if wrong := len(c.wrong) > 0; wrong != test.wrong {
				t.Errorf("it is said to be wrong: %q; want %v", c.wrong, test.wrong)
			}
		})
	}
}

// A partition that is done before the next one is restored has been begun all the same: whoever
// measures would wait for ever.
func TestPartitionsAreDoneOneByOne(t *testing.T) {
	c := newCrew(settings{Partitions: 2, Fixed: true}, "", func(err error) { t.Error(err) })
	w := &worker{tasks: map[int]bool{}, from: map[int]uint64{}, commits: map[int]bool{}}
	for i, told := range []note{{Op: open, Task: "clicks/0"}, {Op: closed, Task: "clicks/0"}, {Op: open, Task: "clicks/1"}, {Op: closed, Task: "clicks/1"}} {
		c.change(func() { c.note(w, told) })
		if begun, want := c.begunAll(), i >= 2; begun != want {
			t.Errorf("after note %d all are begun: %t; want %t", i, begun, want)
		}
	}
}

// A picture replaces the one before, and lines stay above it.
func TestPictureIsReplaced(t *testing.T) {
	var out bytes.Buffer
	width, height := 80, 24
	a := newAccount(&out, func() (int, int) { return width, height })
	a.draw("one\ntwo\n")
	a.say("a line\n")
	a.draw("three\n")
	width = 3 // "three" goes on in a second row now
	a.draw("four\n")
	height = 2 // only the second row of two is still there
	a.draw("")
	const up = "\x1b["
	want := "one\ntwo\n" + up + "2A" + up + "Ja line\nthree\n" + up + "2A" + up + "Jfour\n" + up + "1A" + up + "J"
	if got := out.String(); got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

// Where a picture does not fit, none is drawn: to clear it, the cursor would have to go where there
// is no window.
func TestPictureFits(t *testing.T) {
	const picture = "four\n1234567\n"
	for _, test := range []struct {
		name          string
		width, height int
		fits          bool
	}{
		{"no terminal", 0, 0, false},
		{"a row is left for the cursor", 80, 3, true},
		{"no row is left", 80, 2, false},
		{"a line takes two rows", 6, 3, false},
		{"there is a row for that", 6, 4, true},
		{"a line fills its row", 7, 3, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			a := newAccount(&out, func() (int, int) { return test.width, test.height })
			if fits := a.draw(picture); fits != test.fits || fits != (out.Len() > 0) {
				t.Errorf("it fits: %t, and %q is written; want %t", fits, &out, test.fits)
			}
		})
	}
}

// What cannot move its cursor, or is no terminal, is a window without a size.
func TestWindowsWithoutASize(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	for _, test := range []struct {
		name, term string
		out        io.Writer
	}{
		{"no file", "xterm", io.Discard},
		{"no terminal", "xterm", null},
		{"TERM is unset", "", null},
		{"TERM is dumb", "dumb", null},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("TERM", test.term)
			if width, height := windowOf(test.out)(); width != 0 || height != 0 {
				t.Errorf("%d x %d; want no size", width, height)
			}
		})
	}
}

// A run leaves nothing behind, however it ends.
func TestTemporaryDirectoryIsRemoved(t *testing.T) {
	small := []string{"-events", "1000", "-duration", "1s", "-partitions", "2", "-interval", "100ms", "-kills", "0", "-pauses", "0", "-rebalances", "0"}
	for _, test := range []struct {
		name   string
		stdout io.Writer
		args   []string
		code   int
		want   string
	}{
		{"all is well", io.Discard, nil, 0, ""},
		{"nobody reads on", &shortReader{lines: 6}, []string{"-duration", "1m"}, 1, "the output cannot be written: io: read/write on closed pipe"},
		{"no broker", io.Discard, []string{"-nats", "nats://127.0.0.1:1"}, 1, "connecting to NATS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			if os.TempDir() != tmp {
				t.Skip("this system has another variable for it")
			}
			var stderr strings.Builder
			began := time.Now()
			if code := runStory(append(slices.Clone(small), test.args...), test.stdout, &stderr); code != test.code || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("exit code %d, %q; want %d, %q", code, &stderr, test.code, test.want)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
			left, err := os.ReadDir(tmp)
			if err != nil || len(left) > 0 {
				t.Errorf("%v are left, %v; want nothing", left, err)
			}
		})
	}
}

// A shortReader takes some lines, and no more.
type shortReader struct{ lines int }

func (r *shortReader) Write(p []byte) (int, error) {
	if r.lines -= bytes.Count(p, []byte("\n")); r.lines < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestBadUsage(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"unknown flag", []string{"-kill", "5"}, 2, "flag provided but not defined"},
		{"too many partitions", []string{"-partitions", "100000"}, 2, "-partitions is 100000; set 256 or less"},
		{"pauses that do not fit", []string{"-pauses", "99"}, 2, "-pauses is 99, each of more than the 2s of -expiry, and -duration is 4s; set -duration 3m18s or more, or fewer -pauses"},
		{"rounds of nothing", []string{"-rounds", "5"}, 2, "-rounds is of -bench, which is not set"},
		{"an argument", []string{"now"}, 2, `unexpected argument "now"`},
		{"no events", []string{"-events", "0"}, 2, "-events is 0; set 1 or more"},
		{"less than no kills", []string{"-kills", "-1"}, 2, "-kills is -1; set 0 or more"},
		{"one worker", []string{"-workers", "1"}, 2, "-workers is 1; set 2 or more"},
		{"no interval", []string{"-interval", "0"}, 2, "-interval is 0s; set 1ms or more"},
		{"a short lease", []string{"-expiry", "1ms"}, 2, "-expiry is 1ms; set 1s to 1m"},
		{"unknown scheme", []string{"-checkpoint", "ftp://host/x"}, 1, `unknown scheme "ftp"`},
		{"no broker", []string{"-nats", "nats://127.0.0.1:1"}, 1, "connecting to NATS at nats://127.0.0.1:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			began := time.Now()
			code, account := runForTest(t, test.args...)
			if code != test.code || !strings.Contains(account, test.want) {
				t.Errorf("exit code %d; want %d and %q", code, test.code, test.want)
			}
			if lines := strings.Count(account, "\n"); lines != 1 {
				t.Errorf("%d lines; want one", lines)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it was found out after %v", took)
			}
		})
	}
}
