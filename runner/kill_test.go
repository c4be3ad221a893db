package runner

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/child"
	"github.com/holdfast-io/holdfast/internal/testserver"
	_ "github.com/holdfast-io/holdfast/local"
	_ "github.com/holdfast-io/holdfast/s3"
)

var (
	killN  = flag.Int("kill.n", 10, "how often TestKillOnDisk kills a process")
	killS3 = flag.Int("kill.s3", 5, "how often TestKillOnS3 does")
)

// The tests of this file run this test binary again, as a process with eight tasks
// that count until it is killed: those of the job at childURL, with run directories in
// childDir. It tells what it does.
const (
	childURL = "HOLDFAST_RUNNER_CHILD_URL"
	childDir = "HOLDFAST_RUNNER_CHILD_DIR"
)

const killTasks = 8

func killTask(n int) string { return fmt.Sprint("orders/", n) }

// runChild is the process that is killed.
func runChild(place, dir string) error {
	// What a killed life has left is told of as it is deleted, and is no failure.
	warnings := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx := context.Background()
	keep := checkpoint.Retention{Last: 2}
	if os.Getenv(childStandby) != "" {
		keep.Last = 200 // as long as it takes to restore one
	}
	job, err := checkpoint.Open(ctx, place, checkpoint.Options{Memory: 1 << 20, Retention: keep, Logger: warnings})
	if err != nil {
		return err
	}
	opts := RunOptions{
		Options: Options{Interval: 15 * time.Millisecond, Logger: warnings},
		Job:     job, Dir: dir,
		Spec: Spec{Hooks: Hooks{After: func(_ context.Context, c *checkpoint.Checkpoint) error {
			fmt.Println("acknowledged", c.Task, c.Offsets["in"])
			return nil
		}}},
	}
	if os.Getenv(childStandby) != "" {
		opts.Assign, opts.Heartbeat = standBy, killSilence/6
	} else {
		for n := range killTasks {
			opts.Tasks = append(opts.Tasks, killTask(n))
		}
	}
	return errors.Join(Run(ctx, opts, openTally), job.Close(ctx))
}

// A tally is the state of a task: how far it has counted, in files that say more than
// that.
type tally struct {
	task string
	n    int
}

// openTally goes on from what was restored, which must be a state that there was.
func openTally(_ context.Context, task string, restored *Restored) (Worker, error) {
	w := &tally{task: task}
	start, err := restored.Start("in")
	if err == nil && start.At == Checkpointed {
		if w.n, err = strconv.Atoi(start.Offset); err == nil {
			err = w.same(restored.Dir(""))
		}
	}
	fmt.Println("opened", task, w.n)
	return w, err
}

func (w *tally) Process(ctx context.Context) error {
	select {
	case <-time.After(200 * time.Microsecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	w.n++
	return nil
}

func (w *tally) Cut(_ context.Context, dir string) (Cut, error) {
	fmt.Println("cut", w.task, w.n)
	for path, data := range w.files() {
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			return Cut{}, err
		}
	}
	return Cut{
		Offsets: map[string]string{"in": strconv.Itoa(w.n)},
		Stores:  map[string]checkpoint.Source{"": checkpoint.Dir(dir)},
	}, nil
}

func (w *tally) Close() error { return nil }

// files are the state. Some of it changes with each number, some hardly ever; some
// fits into a manifest, some does not.
func (w *tally) files() map[string][]byte {
	files := map[string][]byte{
		"n":          fmt.Append(nil, w.task, " ", w.n),
		"log":        bytes.Repeat([]byte("another one\n"), w.n%500),
		"pages/now":  w.page(w.n, 6<<10),
		"pages/then": w.page(w.n/50, 20<<10),
	}
	for k := max(0, w.n/100-2); k <= w.n/100; k++ {
		files[fmt.Sprint("tables/", k)] = w.page(k, 10<<10)
	}
	return files
}

// page returns content that does not compress.
func (w *tally) page(n, size int) []byte {
	var seed [32]byte
	copy(seed[:], fmt.Sprint(w.task, " ", n))
	page := make([]byte, size)
	_, _ = mathrand.NewChaCha8(seed).Read(page) // it never fails
	return page
}

// same compares a directory with the state.
func (w *tally) same(dir string) error {
	left := w.files()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if want, ok := left[filepath.ToSlash(name)]; err == nil && (!ok || !bytes.Equal(data, want)) {
			err = fmt.Errorf("%s of task %s is not that of %d", name, w.task, w.n)
		}
		delete(left, filepath.ToSlash(name))
		return err
	})
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("task %s lacks %d files of the state at %d", w.task, len(left), w.n)
	}
	return err
}

// A hunt kills one child after the other.
type hunt struct {
	t     *testing.T
	url   string
	hosts string // has a directory for each host
	host  int

	told, begun  map[string]int // what was acknowledged, and what was last cut
	during       map[string]int // kills, by what the child had said last
	acknowledged int
}

// TestKillOnDisk kills a process with eight tasks under load at any moment. Each goes
// on from what it was told last or from what came after it, with state and offset of
// one moment, on the same host or a new one.
func TestKillOnDisk(t *testing.T) {
	dir := t.TempDir()
	place := url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(filepath.ToSlash(dir), "/") + "/store"}
	(&hunt{t: t, url: place.String()}).kill(*killN)
}

// TestKillOnS3 does it with a store that is a server.
func TestKillOnS3(t *testing.T) {
	u, err := url.Parse(testserver.S3(t, "s3"))
	if err != nil {
		t.Fatal(err)
	}
	(&hunt{t: t, url: u.JoinPath("runner-" + strings.ToLower(rand.Text())).String()}).kill(*killS3)
}

func (h *hunt) kill(times int) {
	h.t.Helper()
	h.hosts, h.told, h.begun, h.during = h.t.TempDir(), make(map[string]int), make(map[string]int), make(map[string]int)
	began := time.Now()
	for n := range times {
		if n%3 == 2 {
			h.host++
		}
		h.life()
		h.look()
	}
	sum := 0
	for _, n := range h.told {
		sum += n
	}
	h.t.Logf("%d kills of %d tasks in %v, after it had said %v; %d commits were acknowledged, and it has counted to %d",
		times, killTasks, time.Since(began).Round(time.Second), h.during, h.acknowledged, sum)
	if times > 0 && h.acknowledged == 0 {
		h.t.Error("nothing was ever acknowledged")
	}
}

// life lets a child live until a moment by chance.
func (h *hunt) life() {
	h.t.Helper()
	env := []string{childURL + "=" + h.url, childDir + "=" + filepath.Join(h.hosts, fmt.Sprint("host-", h.host))}
	h.during[child.Live(h.t, env, mathrand.IntN(40*killTasks), 20*time.Millisecond, "nothing", h.listen)]++
}

// listen hears so many lines, or all that are left, and returns the first word of the
// last one that was ever heard.
func (h *hunt) listen(said *bufio.Scanner, lines int, last string) string {
	h.t.Helper()
	for heard := 0; heard != lines && said.Scan(); heard++ {
		last = h.note(said.Text())
	}
	return last
}

// note notes a line that a child has said, and returns its first word.
func (h *hunt) note(line string) string {
	h.t.Helper()
	words := strings.Fields(line)
	if len(words) != 3 {
		h.t.Fatalf("it said %q", line)
	}
	n, err := strconv.Atoi(words[2])
	if err != nil {
		h.t.Fatal(err)
	}
	switch words[0] {
	case "opened":
		if told := h.told[words[1]]; n < told || n > h.begun[words[1]] {
			h.t.Errorf("task %s goes on from %d; %d was acknowledged, and %d cut", words[1], n, told, h.begun[words[1]])
		}
	case "cut":
		h.begun[words[1]] = n
	case "acknowledged":
		h.told[words[1]] = n
		h.acknowledged++
	}
	return words[0]
}

// look restores the newest checkpoint of each task and compares it.
func (h *hunt) look() {
	h.t.Helper()
	job, err := checkpoint.Open(h.t.Context(), h.url, checkpoint.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = job.Close(context.Background()) }()
	for k := range killTasks {
		h.lookAt(job, killTask(k))
	}
}

func (h *hunt) lookAt(job *checkpoint.Job, name string) {
	h.t.Helper()
	task, err := job.Task(name)
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := task.Latest(h.t.Context())
	if errors.Is(err, checkpoint.ErrNoCheckpoint) && h.told[name] == 0 {
		return
	}
	if err != nil {
		h.t.Fatal(err)
	}
	n, err := strconv.Atoi(c.Offsets["in"])
	if err != nil || n < h.told[name] || n > h.begun[name] {
		h.t.Fatalf("the newest checkpoint of %s is of %d (%v); %d was acknowledged, and %d cut", name, n, err, h.told[name], h.begun[name])
	}
	h.told[name] = n // what was seen stays
	dir := filepath.Join(h.t.TempDir(), "restored")
	if err := c.Restore(h.t.Context(), dir, checkpoint.RestoreOptions{}); err != nil {
		h.t.Fatal(err)
	}
	if err := (&tally{task: name, n: n}).same(dir); err != nil {
		h.t.Fatal(err)
	}
}
