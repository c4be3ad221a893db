//go:build linux || darwin

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A runTest is a store, and programs that are run on it.
type runTest struct {
	t          *testing.T
	store, dir string // dir is the program's state
}

func newRunTest(t *testing.T) *runTest {
	root := t.TempDir()
	return &runTest{t, filepath.Join(root, "store"), filepath.Join(root, "state")}
}

// A running is a holdfast run that was started.
type running struct {
	*exec.Cmd
	t              *testing.T
	stdout, stderr output
}

// An output is what a process has written until now.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// said returns what was told on stderr until now.
func (x *running) said() string { return x.stderr.String() }

// start starts a shell command under holdfast run.
func (r *runTest) start(command string, flags ...string) *running {
	r.t.Helper()
	return r.startOn(fileURL(r.store), command, flags...)
}

func (r *runTest) startOn(store, command string, flags ...string) *running {
	r.t.Helper()
	args := append([]string{"run", store, "a", "--state", r.dir}, flags...)
	x := &running{Cmd: exec.Command("holdfast", append(args, "--", "sh", "-c", command)...), t: r.t}
	x.Stdout, x.Stderr = &x.stdout, &x.stderr
	x.WaitDelay = 10 * time.Second // a process that got away has the pipes
	if err := x.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = x.Process.Kill() })
	return x
}

// end waits for the end, and returns the exit code.
func (x *running) end() int {
	x.t.Helper()
	timer := time.AfterFunc(time.Minute, func() { _ = x.Process.Kill() })
	defer timer.Stop()
	if err := x.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		x.t.Error(err)
	}
	return x.ProcessState.ExitCode()
}

func (x *running) wantEnd(code int, says string) {
	x.t.Helper()
	if got := x.end(); got != code || !strings.Contains(x.stderr.String(), says) {
		x.t.Fatalf("exit code %d; want %d, and %q\nstdout: %s\nstderr: %s", got, code, says, &x.stdout, &x.stderr)
	}
}

func (x *running) signal(sig os.Signal) {
	x.t.Helper()
	if err := x.Process.Signal(sig); err != nil {
		x.t.Fatal(err)
	}
}

// eventually waits for something that is to become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

func (r *runTest) hasFile(name string) func() bool {
	return func() bool {
		_, err := os.Stat(filepath.Join(r.dir, name))
		return err == nil
	}
}

// status looks at the task.
func (r *runTest) status() checkpoint.Status {
	r.t.Helper()
	job, err := checkpoint.Open(r.t.Context(), fileURL(r.store), checkpoint.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer job.Close(context.Background())
	task, err := job.Task("a")
	if err != nil {
		r.t.Fatal(err)
	}
	status, err := task.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return status
}

// saved returns what the newest checkpoint has in a file; "" if there is none.
func (r *runTest) saved(name string) string {
	r.t.Helper()
	if r.status().Latest == nil {
		return ""
	}
	out := filepath.Join(r.t.TempDir(), "out")
	if got := runQuietly(r.t.Context(), "restore", fileURL(r.store), "a", out); got.code != 0 {
		r.t.Fatal(got.stderr)
	}
	data, err := os.ReadFile(filepath.Join(out, name))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// count is a program that counts in a file, which it writes by rename, and says from where
// it goes on. It says so of each number that is in its place.
const count = `
	cd "$HOLDFAST_STATE"; n=0; [ -e n ] && read n <n; echo "from $n"; touch ../ready
	while :; do n=$((n+1)); echo $n >n.tmp; mv n.tmp n; echo $n; sleep 0.01; done`

// from returns where a counter went on, and the last number that it said.
func (x *running) counted() (from, to int) {
	x.t.Helper()
	lines := strings.Split(strings.TrimSpace(x.stdout.String()), "\n")
	if _, err := fmt.Sscanf(lines[0], "from %d", &from); err != nil {
		x.t.Fatalf("%v in %s%s", err, &x.stdout, &x.stderr)
	}
	to = from
	if len(lines) > 1 {
		to, _ = strconv.Atoi(lines[len(lines)-1])
	}
	return from, to
}

// TestRunIsKilled kills run at moments by chance. Its program dies with it, and the next
// run, without being told to take over, goes on from the newest checkpoint.
func TestRunIsKilled(t *testing.T) {
	r := newRunTest(t)
	for range 6 {
		x := r.start(count, "--every", "100ms", "--exclude", "*.tmp")
		ready := filepath.Join(filepath.Dir(r.dir), "ready")
		eventually(t, "the program", func() bool { return os.Remove(ready) == nil })
		time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		x.signal(syscall.SIGKILL)
		x.end()
		from, to := x.counted()
		saved, _ := strconv.Atoi(r.saved("n"))
		if saved < from || saved > to+1 {
			t.Fatalf("it went from %d to %d, and the checkpoint has %d", from, to, saved)
		}
		y := r.start(`cat "$HOLDFAST_STATE/n"`, "--no-save-on-failure")
		y.wantEnd(0, "")
		if got := strings.TrimSpace(y.stdout.String()); got != strconv.Itoa(saved) {
			t.Fatalf("it goes on from %s; the checkpoint has %d", got, saved)
		}
	}
}

// TestRunEndsWithItsProgram: whatever the program's end, and whatever is saved after it.
func TestRunEndsWithItsProgram(t *testing.T) {
	const write = `echo new >"$HOLDFAST_STATE/n"; `
	for _, c := range []struct {
		name, command string
		flags         []string
		code          int
		saved         string
	}{
		{"done", write + "exit 0", nil, 0, "new"},
		{"failed", write + "exit 3", nil, 3, "new"},
		{"killed", write + "kill -KILL $$", nil, 137, "new"},
		{"failed, not to be saved", write + "exit 3", []string{"--no-save-on-failure"}, 3, "old"},
		{"done, failures not to be saved", write + "exit 0", []string{"--no-save-on-failure"}, 0, "new"},
		{"failed, pausing", write + "exit 3", []string{"--pause"}, 3, "new"},
		{"failed, between hooks alone", write + "exit 3", []string{"--pre", "true"}, 3, "old"},
		{"done, between hooks alone", write + "exit 0", []string{"--post", "true"}, 0, "new"},
		{"done, when asked", write + "exit 0", []string{"--when-asked"}, 0, "old"},
		{"a code of run's", write + "exit 121", nil, 121, "new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunTest(t)
			r.start(`echo old >"$HOLDFAST_STATE/n"`).wantEnd(0, "")
			r.start(c.command, append(c.flags, "--every", "1h")...).wantEnd(c.code, "")
			if got := r.saved("n"); got != c.saved {
				t.Errorf("the checkpoint has %q; want %q", got, c.saved)
			}
			if r.status().Claimed {
				t.Error("the task was not released")
			}
		})
	}
}

// TestRunIsTerminated: the program first, then a last checkpoint, then its code.
func TestRunIsTerminated(t *testing.T) {
	const ready = `touch "$HOLDFAST_STATE/ready"; while :; do sleep 0.01; done`
	for _, c := range []struct {
		name, command string
		flags         []string
		code          int
		saved, says   string
	}{
		{"it writes something", `trap 'echo bye >"$HOLDFAST_STATE/n"; exit 9' TERM; ` + ready, nil, 9, "bye", ""},
		{"it does not hear", ready, nil, 143, "", ""},
		{"it does not want to end", `trap '' TERM; echo stays >"$HOLDFAST_STATE/n"; ` + ready, []string{"--grace", "300ms"}, 137, "stays", "has not ended within 300ms, which --grace gives it, and was killed"},
		{"failures are not saved, but this is none", `trap 'echo bye >"$HOLDFAST_STATE/n"; exit 9' TERM; ` + ready, []string{"--no-save-on-failure"}, 9, "bye", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunTest(t)
			x := r.start(c.command, append([]string{"--every", "1h"}, c.flags...)...)
			eventually(t, "the program", r.hasFile("ready"))
			x.signal(syscall.SIGTERM)
			x.wantEnd(c.code, c.says)
			if got := r.saved("n"); got != c.saved || r.status().Claimed {
				t.Errorf("the checkpoint has %q, want %q; claimed: %v", got, c.saved, r.status().Claimed)
			}
		})
	}
}

// TestRunPassesOn is about what a program has of the world: signals, and standard input.
func TestRunPassesOn(t *testing.T) {
	r := newRunTest(t)
	x := r.start(`trap 'echo usr1; exit 5' USR1; touch "$HOLDFAST_STATE/ready"; while :; do sleep 0.01; done`)
	eventually(t, "the program", r.hasFile("ready"))
	x.signal(syscall.SIGUSR1)
	x.wantEnd(5, "")
	if got := x.stdout.String(); got != "usr1\n" {
		t.Errorf("it said %q", got)
	}
	cmd := exec.Command("holdfast", "run", fileURL(r.store), "a", "--state", r.dir, "--", "cat")
	cmd.Stdin = strings.NewReader("through")
	if out, err := cmd.Output(); err != nil || string(out) != "through" {
		t.Errorf("it said %q, %v", out, err)
	}
}

// TestRunIsFenced: another run takes the task over. The first one's program is ended.
func TestRunIsFenced(t *testing.T) {
	for _, flags := range [][]string{{}, {"--pause"}, {"--when-asked"}, {"--pre", "false"}} { // the last one's cuts fail
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			r := newRunTest(t)
			x := r.start(`trap 'echo ended; exit 0' TERM; touch "$HOLDFAST_STATE/ready"; while :; do sleep 0.01; done`,
				append(flags, "--every", "200ms")...)
			eventually(t, "the program", r.hasFile("ready"))
			second := &runTest{t, r.store, r.dir + "2"}
			second.start("true").wantEnd(124, "give --take-over to fence it")
			second.start("true", "--take-over").wantEnd(0, "")
			x.wantEnd(124, "the task is not this run's any more, so the program is asked to end")
			if got := x.said(); strings.Count(got, "fenced") != 1 {
				t.Errorf("it is not said once that it was fenced: %s", got)
			}
			if got := x.stdout.String(); got != "ended\n" {
				t.Errorf("the program said %q", got)
			}
		})
	}
}

// TestRunInUse: a run that lives keeps the next one from starting, and so does what one that was
// killed has started, and that lives on.
func TestRunInUse(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("there is no setsid here")
	}
	r := newRunTest(t)
	x := r.start(`setsid sh -c 'trap "" TERM; echo $$ >"$HOLDFAST_STATE/pid"; while :; do sleep 0.01; done' >/dev/null 2>&1 &
		while ! [ -s "$HOLDFAST_STATE/pid" ]; do sleep 0.01; done; touch "$HOLDFAST_STATE/ready"; while :; do sleep 0.01; done`)
	eventually(t, "the program", r.hasFile("ready"))
	data, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	r.start("true").wantEnd(124, "is in use by another 'holdfast run'")
	r.start("true", "--take-over").wantEnd(124, "--take-over is for a run on another machine")
	x.signal(syscall.SIGKILL)
	x.end()
	r.start("true").wantEnd(121, "which a 'holdfast run' that was killed has left running")
	_ = syscall.Kill(pid, syscall.SIGKILL)
	r.start("true").wantEnd(0, "")
}

// TestRunHooks: --post is run whatever comes of --pre, and nothing is saved then.
func TestRunHooks(t *testing.T) {
	const ready = `touch "$HOLDFAST_STATE/ready"; while ! [ -e "$HOLDFAST_STATE/../end" ]; do sleep 0.01; done; exit 1`
	for _, c := range []struct {
		name, pre string
		saved     bool
	}{
		{"it succeeds", `kill -0 "$HOLDFAST_PID" && echo pre >>"$HOLDFAST_STATE/../log"`, true},
		{"it fails", `echo pre >>"$HOLDFAST_STATE/../log"; false`, false},
		{"it takes too long", `echo pre >>"$HOLDFAST_STATE/../log"; sleep 100`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunTest(t)
			log := filepath.Join(filepath.Dir(r.dir), "log")
			x := r.start(ready, "--every", "100ms", "--limit", "1s", "--pre", c.pre, "--post", `echo post >>"$HOLDFAST_STATE/../log"`)
			eventually(t, "hooks", func() bool {
				data, _ := os.ReadFile(log)
				return strings.Count(string(data), "post") >= 2
			})
			mustWrite(t, filepath.Join(filepath.Dir(r.dir), "end"), "")
			x.wantEnd(1, "")
			data, err := os.ReadFile(log)
			if err != nil || !strings.HasPrefix(string(data), "pre\npost\npre\npost\n") {
				t.Errorf("%q, %v", data, err)
			}
			if got := r.status().Latest != nil; got != c.saved {
				t.Errorf("saved: %v, want %v; %s", got, c.saved, &x.stderr)
			}
		})
	}
}

// TestRunHooksAtTheEnd: what --pre makes is in the last checkpoint, too. A hook that needs the
// program fails, and the state is saved all the same.
func TestRunHooksAtTheEnd(t *testing.T) {
	for _, c := range []struct{ name, grace, pre, want, says string }{
		{"one that waits", "400ms", `until [ -e "$HOLDFAST_STATE/../never" ]; do sleep 0.01; done`, "1", "it took longer than 100ms; the program"},
		{"a backup", "2m", `cp "$HOLDFAST_STATE/../live" "$HOLDFAST_STATE/n"; [ -z "$HOLDFAST_PID" ]`, "2", ""},
		{"a signal", "2m", `kill -USR1 "$HOLDFAST_PID"`, "1", "; the program has ended, and its last checkpoint"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunTest(t)
			x := r.start(`echo 1 >"$HOLDFAST_STATE/n"; echo 2 >"$HOLDFAST_STATE/../live"`, "--every", "1h", "--grace", c.grace, "--pre", c.pre, "--post", "exit 3")
			x.wantEnd(0, c.says)
			if got := r.saved("n"); got != c.want {
				t.Errorf("%q is saved; want %q", got, c.want)
			}
		})
	}
}

// TestRunUncopied: a state that cannot be copied does not keep a run alive for ever when the program
// has ended.
func TestRunUncopied(t *testing.T) {
	r := newRunTest(t)
	x := r.start(`mkfifo "$HOLDFAST_STATE/pipe"; echo kept >"$HOLDFAST_STATE/n"`, "--every", "1h")
	x.wantEnd(120, "its last checkpoint was not saved: ")
	if got := x.stderr.String(); !strings.Contains(got, "pipe: it is no file, directory or symbolic link") || strings.Contains(got, "not closed yet") {
		t.Errorf("it says %s", got)
	}
	if data, err := os.ReadFile(filepath.Join(r.dir, "n")); err != nil || string(data) != "kept\n" {
		t.Errorf("the state has %q, %v", data, err)
	}
	r.start("true", "--exclude", "pipe").wantEnd(0, "")
}

// speak asks run for something, as its program.
func speak[T any](t *testing.T, method, where string, form url.Values, code int) (doc T) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, where, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != code {
		t.Fatalf("%s %s %v: %s, %s, %v; want %d", method, where, form, resp.Status, body, err, code)
	}
	if code == http.StatusOK {
		err = json.Unmarshal(body, &doc)
	}
	if err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return doc
}

// startVoice starts a program that does nothing but say how it can be spoken for.
func (r *runTest) startVoice(flags ...string) (x *running, where string) {
	r.t.Helper()
	_ = os.Remove(filepath.Join(filepath.Dir(r.dir), "url"))
	x = r.start(`trap 'exit 0' TERM; echo "$HOLDFAST_RUN_URL" >"$HOLDFAST_STATE/../url"; touch "$HOLDFAST_STATE/../url.ready"; while :; do sleep 0.01; done`, flags...)
	ready := filepath.Join(filepath.Dir(r.dir), "url.ready")
	eventually(r.t, "the program", func() bool { return os.Remove(ready) == nil })
	data, err := os.ReadFile(filepath.Join(filepath.Dir(r.dir), "url"))
	if err != nil {
		r.t.Fatal(err)
	}
	return x, strings.TrimSpace(string(data))
}

// TestRunVoice: the program says when, with offsets and labels, and is told of them when it
// is started again.
func TestRunVoice(t *testing.T) {
	r := newRunTest(t)
	x, where := r.startVoice("--when-asked")
	if got := speak[resumeDoc](t, "GET", where+"/resume", nil, 200); got.Checkpoint != 0 || got.Task != "a" || got.State != r.dir {
		t.Errorf("new: %+v", got)
	}
	mustWrite(t, filepath.Join(r.dir, "n"), "1")
	c := speak[checkpointDoc](t, "POST", where+"/commit", url.Values{"offset": {"in/7=41=1", "in/8=5"}, "label": {"step=3"}}, 200)
	if status := r.status(); status.Latest == nil || status.Latest.Seq != c.Seq || r.saved("n") != "1" {
		t.Errorf("it is not durable: %+v, %+v", c, status)
	}
	mustWrite(t, filepath.Join(r.dir, "n"), "2")
	c = speak[checkpointDoc](t, "POST", where+"/commit?offset=in/8=6", nil, 200)
	if c.Offsets["in/7"] != "41=1" || c.Offsets["in/8"] != "6" || len(c.Labels) != 0 {
		t.Errorf("offsets %v, labels %v", c.Offsets, c.Labels)
	}
	if c := speak[checkpointDoc](t, "POST", where+"/commit", url.Values{"savepoint": {"before"}, "label": {"a=b"}}, 200); c.Savepoint != "before" {
		t.Errorf("savepoint %q", c.Savepoint)
	}
	if h := speak[healthDoc](t, "GET", where+"/health", nil, 200); h.Checkpoint == 0 || h.Time.IsZero() || h.Error != "" {
		t.Errorf("health %+v", h)
	}
	secret := where[strings.LastIndex(where, "/"):]
	for _, c := range []struct {
		method, where string
		form          url.Values
		code          int
	}{
		{"POST", where + "/commit", url.Values{"offset": {"none"}}, 400},
		{"POST", where + "/commit", url.Values{"label": {"a=b", "a=c"}}, 400},
		{"POST", where + "/commit", url.Values{"ofset": {"a=b"}}, 400},
		{"POST", where + "/commit", url.Values{"savepoint": {"before"}}, 400}, // it exists
		{"POST", where + "/commit", url.Values{"label": {"a=\xff"}}, 400},
		{"POST", where + "/commit", url.Values{"savepoint": {"b", "c"}}, 400},
		{"GET", where + "/commit", nil, 405},
		{"POST", where + "/resume", nil, 405},
		{"GET", where, nil, 404},
		{"POST", where + "/comit", nil, 404},
		{"POST", strings.TrimSuffix(where, secret) + "/commit", nil, 401},
		{"GET", strings.TrimSuffix(where, secret) + "/commit", nil, 401},
		{"POST", strings.TrimSuffix(where, secret) + "/" + strings.Repeat("A", len(secret)-1) + "/commit", nil, 401},
	} {
		speak[struct{}](t, c.method, c.where, c.form, c.code)
	}
	speak[healthDoc](t, "GET", where+"/health", nil, 200) // all that was the fault of who asked
	x.signal(syscall.SIGTERM)
	x.wantEnd(0, "")
	if got := x.said(); strings.Contains(got, "holdfast: ") {
		t.Errorf("it says %s", got)
	}

	x, where = r.startVoice("--when-asked")
	got := speak[resumeDoc](t, "GET", where+"/resume", nil, 200)
	if got.Checkpoint == 0 || got.Offsets["in/7"] != "41=1" || got.Labels["a"] != "b" {
		t.Errorf("it goes on from %+v", got)
	}
	x.signal(syscall.SIGTERM)
	x.wantEnd(0, "")

	x, where = r.startVoice()
	speak[struct{}](t, "POST", where+"/commit", url.Values{"offset": {"a=b"}}, 400)
	if c := speak[checkpointDoc](t, "POST", where+"/commit", url.Values{"label": {"step=4"}}, 200); c.Labels["step"] != "4" {
		t.Errorf("labels %v", c.Labels)
	}
	x.signal(syscall.SIGTERM)
	x.wantEnd(0, "")
}

// TestRunReminds: a program that is told by a signal when to commit.
func TestRunReminds(t *testing.T) {
	r := newRunTest(t)
	x := r.start(`trap 'echo told >>"$HOLDFAST_STATE/n"' USR1; touch "$HOLDFAST_STATE/ready"; while :; do sleep 0.01; done`,
		"--when-asked", "--signal", "USR1", "--every", "100ms")
	eventually(t, "two signals", func() bool {
		data, _ := os.ReadFile(filepath.Join(r.dir, "n"))
		return strings.Count(string(data), "told") >= 2
	})
	x.signal(syscall.SIGTERM)
	x.wantEnd(143, "")
	if r.status().Latest != nil {
		t.Error("it was committed although nobody asked")
	}
}

// TestRunSaysThatNothingWasSaved: what a program that forgets to ask has, and which one has not.
func TestRunSaysThatNothingWasSaved(t *testing.T) {
	const note = "this run has saved no checkpoint: the program has not asked for one"
	for _, c := range []struct {
		name, command string
		flags         []string
		code          int
		says          string
	}{
		{"it has not asked", "true", []string{"--when-asked"}, 0, note},
		{"it has failed before", "exit 3", []string{"--when-asked"}, 3, note},
		{"by time", "true", nil, 0, ""},
		{"adopted", "true", []string{"--when-asked", "--adopt"}, 0, ""},
		{"it dies of the request", "while :; do sleep 0.01; done", []string{"--when-asked", "--every", "50ms", "--signal", "USR1"}, 128 + int(syscall.SIGUSR1), "like those that --signal sends"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunTest(t)
			x := r.start(c.command, c.flags...)
			x.wantEnd(c.code, c.says)
			if c.says == "" && x.said() != "" {
				t.Errorf("it says %s", x.said())
			}
		})
	}
}

// TestRunSpeaksPlainly: what a checkpoint that failed is told with.
func TestRunSpeaksPlainly(t *testing.T) {
	r := newRunTest(t)
	x := r.start(`mkfifo "$HOLDFAST_STATE/pipe"; while ! [ -e "$HOLDFAST_STATE/../end" ]; do sleep 0.01; done; rm "$HOLDFAST_STATE/pipe"`, "--every", "50ms")
	eventually(t, "a failure", func() bool { return strings.Contains(x.said(), "a checkpoint failed") })
	mustWrite(t, filepath.Join(filepath.Dir(r.dir), "end"), "")
	x.wantEnd(0, "a checkpoint failed; the one before stands: copying "+r.dir)
}

// TestRunGoesOnWithoutAStore: a store that cannot be written to does not end the program.
// What was not saved is said, and how to save it.
func TestRunGoesOnWithoutAStore(t *testing.T) {
	if os.Getuid() == 0 {
		t.Log("root may write everywhere: the store is replaced by a file")
	}
	r := newRunTest(t)
	x := r.start(`touch "$HOLDFAST_STATE/ready"; while ! [ -e "$HOLDFAST_STATE/../end" ]; do sleep 0.01; done; echo kept >"$HOLDFAST_STATE/n"`, "--every", "50ms", "--grace", "300ms")
	eventually(t, "the program", r.hasFile("ready"))
	if err := errors.Join(os.Rename(r.store, r.store+".away"), os.WriteFile(r.store, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a failure", func() bool { return strings.Contains(x.said(), "a checkpoint failed") })
	mustWrite(t, filepath.Join(filepath.Dir(r.dir), "end"), "")
	eventually(t, "a failure of the last checkpoint", func() bool { return strings.Contains(x.said(), "its last checkpoint is tried again") })
	x.signal(syscall.SIGTERM)
	if code := x.end(); code != 120 || !strings.Contains(x.said(), "save it with 'holdfast save' before the program is run again") {
		t.Errorf("exit code %d, %s", code, x.said())
	}
	if data, err := os.ReadFile(filepath.Join(r.dir, "n")); err != nil || string(data) != "kept\n" {
		t.Errorf("the state is %q, %v", data, err)
	}
	// Advice is worth what comes of it.
	if err := errors.Join(os.Remove(r.store), os.Rename(r.store+".away", r.store)); err != nil {
		t.Fatal(err)
	}
	if got := runQuietly(t.Context(), "save", fileURL(r.store), "a", r.dir); got.code != 4 || !strings.Contains(got.stderr, "--take-over") {
		t.Errorf("without --take-over: %d, %s", got.code, got.stderr)
	}
	ok(t, "save", fileURL(r.store), "a", r.dir, "--take-over")
	y := r.start(`cat "$HOLDFAST_STATE/n"`)
	if y.wantEnd(0, ""); y.stdout.String() != "kept\n" {
		t.Errorf("the next run goes on from %q", &y.stdout)
	}
}
