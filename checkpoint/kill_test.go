package checkpoint_test

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

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/child"
	"github.com/holdfast-io/holdfast/internal/testserver"
)

var (
	killN  = flag.Int("kill.n", 60, "how often TestKillOnDisk kills a process")
	killS3 = flag.Int("kill.s3", 30, "how often TestKillOnS3 does")
)

// The tests in this file start this test binary again, as a process that saves or
// restores until it is killed. A child does what roleVar says, for the job at urlVar
// and the directory dirVar, and prints what it does.
const (
	roleVar = "CHECKPOINT_TEST_ROLE"
	urlVar  = "CHECKPOINT_TEST_URL"
	dirVar  = "CHECKPOINT_TEST_DIR"
)

// A warning of a child is a failure. That it deleted what a killed process left is
// none.
var killOptions = checkpoint.Options{
	Memory: 1 << 20, Retention: checkpoint.Retention{Last: 3},
	Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
}

func runRole(role string) error {
	ctx := context.Background()
	job, err := checkpoint.Open(ctx, os.Getenv(urlVar), killOptions)
	if err != nil {
		return err
	}
	task, err := job.Task("orders/7")
	if err != nil {
		return err
	}
	if role == "save" {
		return saveForEver(ctx, task, os.Getenv(dirVar))
	}
	return restoreForEver(ctx, task, os.Getenv(dirVar))
}

// saveForEver is a job: it goes on from the newest checkpoint, and counts.
func saveForEver(ctx context.Context, task *checkpoint.Task, dir string) error {
	fmt.Println("claim")
	o, err := task.Claim(ctx, checkpoint.ClaimOptions{})
	if err != nil {
		return err
	}
	fmt.Println("resume")
	c, err := o.Resume(ctx, dir)
	if err != nil {
		return err
	}
	n := 0
	if c.Seq > 0 {
		if n, err = strconv.Atoi(c.Offsets["in"]); err != nil {
			return err
		}
		if err := sameAsCount(os.DirFS(dir), n); err != nil {
			return err
		}
	}
	for {
		n++
		if err := writeCount(dir, n); err != nil {
			return err
		}
		fmt.Println("save", n)
		if _, err := o.Commit(ctx, countSnapshot(dir, n)); err != nil {
			return err
		}
		fmt.Println("saved", n)
	}
}

func countSnapshot(dir string, n int) checkpoint.Snapshot {
	return checkpoint.Snapshot{Offsets: map[string]string{"in": strconv.Itoa(n)}, State: checkpoint.Dir(dir)}
}

// restoreForEver restores one checkpoint after the other.
func restoreForEver(ctx context.Context, task *checkpoint.Task, dir string) error {
	for {
		list, err := task.List(ctx)
		if err != nil {
			return err
		}
		for _, c := range list {
			fmt.Println("restore", c.Offsets["in"])
			if err := c.Restore(ctx, dir, checkpoint.RestoreOptions{Replace: true}); err != nil {
				return err
			}
			fmt.Println("restored", c.Offsets["in"])
		}
	}
}

// countFiles are the state of a job that has counted to n: some files change with
// every number, some hardly ever.
func countFiles(n int) map[string][]byte {
	files := map[string][]byte{
		"n":                 []byte(strconv.Itoa(n)),
		"log":               bytes.Repeat([]byte("another one\n"), n%500),
		"pages/now":         bytesOf(uint64(n), 9<<10),
		"pages/deep/before": bytesOf(uint64(n/4), 40<<10),
	}
	for k := max(0, n/6-2); k <= n/6; k++ {
		files[fmt.Sprint("tables/", k)] = bytesOf(uint64(k), 30<<10)
	}
	return files
}

// writeCount makes a directory the state at n.
func writeCount(dir string, n int) error {
	files := countFiles(n)
	for name, data := range files {
		name = filepath.Join(dir, name)
		if was, err := os.ReadFile(name); err == nil && bytes.Equal(was, data) {
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o777), os.WriteFile(name, data, 0o666)); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if _, ok := files[filepath.ToSlash(rel)]; err == nil && !ok {
			err = os.Remove(name)
		}
		return err
	})
}

// sameAsCount compares a whole file system with the state at n.
func sameAsCount(got fs.FS, n int) error {
	want := countFiles(n)
	found := 0
	err := fs.WalkDir(got, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		found++
		data, err := fs.ReadFile(got, name)
		if err == nil && !bytes.Equal(data, want[name]) {
			err = fmt.Errorf("%s is %d bytes that are not those of state %d", name, len(data), n)
		}
		return err
	})
	if err == nil && found != len(want) {
		err = fmt.Errorf("%d files; state %d has %d", found, n, len(want))
	}
	return err
}

// A hunt kills one process after the other that works on a job.
type hunt struct {
	t   *testing.T
	url string
	dir string // contains the directory of the job and the one that is restored to

	told, begun int          // the last checkpoint that was acknowledged, and the last that was begun
	target      map[int]bool // the states that the restored directory may have
	restored    bool         // the restored directory exists
	under       map[string]int
	saves       int
	usual       time.Duration // the usual time until a process prints another line
}

func newHunt(t *testing.T, url string) *hunt {
	return &hunt{t: t, url: url, dir: t.TempDir(), target: make(map[int]bool), under: make(map[string]int), usual: 20 * time.Millisecond}
}

// life lets a process live until a random moment, and then checks what it left.
func (h *hunt) life(role string) {
	h.t.Helper()
	env := []string{roleVar + "=" + role, urlVar + "=" + h.url, dirVar + "=" + filepath.Join(h.dir, role, "state")}
	h.under[child.Live(h.t, env, mathrand.IntN(12), 2*h.usual, "start", h.listen)]++
	h.look()
	if role == "restore" {
		h.lookAtTarget()
	}
}

// listen reads the given number of lines, or all that are left, and returns what the
// process was doing last.
func (h *hunt) listen(said *bufio.Scanner, lines int, doing string) string {
	begun := time.Now()
	for n := 0; n != lines && said.Scan(); n++ {
		what, number, _ := strings.Cut(said.Text(), " ")
		n, _ := strconv.Atoi(number) // not used if the line has no number
		switch what {
		case "save":
			h.begun = max(h.begun, n)
		case "saved":
			h.told = n
			h.saves++
		case "restore":
			h.target[n] = true
		case "restored":
			h.target, h.restored = map[int]bool{n: true}, true
		}
		doing = what
		if n > 2 {
			h.usual = time.Since(begun) / time.Duration(n)
			h.usual = min(max(h.usual, time.Millisecond), 100*time.Millisecond)
		}
	}
	return doing
}

func (h *hunt) task() (*checkpoint.Task, *checkpoint.Job) {
	h.t.Helper()
	job, err := checkpoint.Open(h.t.Context(), h.url, killOptions)
	if err != nil {
		h.t.Fatal(err)
	}
	task, err := job.Task("orders/7")
	if err != nil {
		h.t.Fatal(err)
	}
	return task, job
}

// look checks that the newest checkpoint is intact, and not older than the last
// acknowledged one.
func (h *hunt) look() {
	h.t.Helper()
	task, job := h.task()
	defer job.Close(context.Background())
	c, err := task.Latest(h.t.Context())
	if errors.Is(err, checkpoint.ErrNoCheckpoint) && h.told == 0 {
		return
	}
	if err != nil {
		h.t.Fatalf("told of %d: %v", h.told, err)
	}
	n, _ := strconv.Atoi(c.Offsets["in"])
	if n < h.told || n > h.begun {
		h.t.Fatalf("the newest is %d; %d was told, %d begun", n, h.told, h.begun)
	}
	h.told = n // the checkpoint that was found stays; one that was begun may still appear
	got, err := c.FS(h.t.Context())
	if err == nil {
		err = sameAsCount(got, n)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// lookAtTarget checks that the restored directory has all of one state, and that the
// next restore leaves nothing beside it.
func (h *hunt) lookAtTarget() {
	h.t.Helper()
	dir := filepath.Join(h.dir, "restore", "state")
	if !h.isOne(dir) {
		h.t.Fatalf("%s has none of the states %v", dir, h.target)
	}
	task, job := h.task()
	defer job.Close(context.Background())
	c, err := task.Latest(h.t.Context())
	if errors.Is(err, checkpoint.ErrNoCheckpoint) {
		return
	}
	if err == nil {
		err = c.Restore(h.t.Context(), dir, checkpoint.RestoreOptions{Replace: true})
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.target, h.restored = map[int]bool{h.told: true}, true
	h.alone(dir)
	if !h.isOne(dir) {
		h.t.Fatal("the next restore is wrong")
	}
}

func (h *hunt) isOne(dir string) bool {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return !h.restored
	}
	for n := range h.target {
		if sameAsCount(os.DirFS(dir), n) == nil {
			return true
		}
	}
	return false
}

// alone checks that there is nothing beside a directory.
func (h *hunt) alone(dir string) {
	h.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		h.t.Errorf("beside %s: %v, %v", dir, entries, err)
	}
}

// end lets a last process finish. Then nothing is damaged, and there is no garbage.
func (h *hunt) end() {
	h.t.Helper()
	ctx := h.t.Context()
	task, job := h.task()
	o, err := task.Claim(ctx, checkpoint.ClaimOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	dir := filepath.Join(h.dir, "save", "state")
	if _, err := o.Resume(ctx, dir); err != nil {
		h.t.Error(err)
	}
	h.alone(dir)
	_, err = o.Commit(ctx, countSnapshot(dir, h.told))
	if err := errors.Join(err, o.Release(ctx), o.Close(context.Background())); err != nil {
		h.t.Fatal(err)
	}
	if _, err := task.Collect(ctx, checkpoint.CollectOptions{}); err != nil {
		h.t.Error(err)
	}
	report, err := task.Verify(ctx, checkpoint.VerifyOptions{Data: true})
	if err != nil {
		h.t.Fatal(err)
	}
	none := checkpoint.CollectResult{}
	if report.Err() != nil || report.Garbage != none || report.InFlight != none || report.Unclear != none || len(report.OtherObjects) > 0 {
		h.t.Errorf("%+v", report)
	}
	if err := job.Close(context.Background()); err != nil {
		h.t.Error(err)
	}
	h.wantLive(report.Live)
}

// wantLive checks that the store contains exactly the segments that checkpoints need.
func (h *hunt) wantLive(live checkpoint.CollectResult) {
	h.t.Helper()
	store, err := backend.Open(h.t.Context(), h.url)
	if err != nil {
		h.t.Fatal(err)
	}
	defer store.Close()
	segments, manifests := checkpoint.CollectResult{}, 0
	for o, err := range store.List(h.t.Context(), "", "") {
		if err != nil {
			h.t.Fatal(err)
		}
		if strings.Contains(o.Key, "/manifests/") {
			manifests++ // they are kept for the fence window
			continue
		}
		segments.Segments++
		segments.Bytes += o.Size
	}
	if segments != live {
		h.t.Errorf("the store has %+v beside manifests, of which checkpoints need %+v", segments, live)
	}
	h.t.Logf("%d manifests, %+v", manifests, segments)
}

func (h *hunt) run(kills int) {
	for _, role := range []string{"save", "restore"} {
		if err := os.Mkdir(filepath.Join(h.dir, role), 0o777); err != nil {
			h.t.Fatal(err)
		}
	}
	begun := time.Now()
	for n := range kills {
		role := "save"
		if n%3 == 2 && h.told > 0 {
			role = "restore"
		}
		h.life(role)
	}
	h.end()
	h.t.Logf("%d kills in %v, during %v; %d saves were acknowledged", kills, time.Since(begun).Round(time.Second), h.under, h.saves)
	if h.saves == 0 || h.under["save"] == 0 {
		h.t.Error("no process was killed in the midst of a save")
	}
}

// TestKillOnDisk kills real processes by SIGKILL at random moments.
func TestKillOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}
	newHunt(t, u.String()).run(*killN)
	left, err := os.ReadDir(filepath.Join(dir, ".holdfast-tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files: %v, %v", left, err)
	}
}

func TestKillOnS3(t *testing.T) {
	u, err := url.Parse(testserver.S3(t, "s3"))
	if err != nil {
		t.Fatal(err)
	}
	newHunt(t, u.JoinPath("kill-"+strings.ToLower(rand.Text())).String()).run(*killS3)
}
