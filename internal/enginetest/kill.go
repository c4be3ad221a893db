package enginetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/child"
)

// A child goes on from the newest checkpoint of the job at childURL, in the directory
// childDir, and tells what it does.
const (
	childURL = "HOLDFAST_ENGINE_CHILD_URL"
	childDir = "HOLDFAST_ENGINE_CHILD_DIR"
)

// A hunt kills one child after the other.
type hunt struct {
	Kind
	t     *testing.T
	url   string
	hosts string // has a directory for each host
	host  int

	told, begun uint64 // the last commit that a child told of, and the last that one began
	tally       tally
	during      map[string]int // kills, by what the child had said last
}

// Kill kills a job under load n times, at any moment. The newest checkpoint is an intact
// database, no older than the job was told, whose counts are those of its offset, and the
// next life goes on from it, on the same host or a new one.
//
// The job is the test's program: its TestMain calls [Kind.Child].
func (k Kind) Kill(t *testing.T, n int) {
	dir := filepath.ToSlash(t.TempDir())
	h := &hunt{Kind: k, t: t, url: "file://" + dir + "/store", hosts: dir, tally: tally{state: make(map[string]string)}, during: make(map[string]int)}
	began := time.Now()
	for life := range n {
		if life%3 == 2 {
			h.host++
		}
		h.life()
		h.look()
	}
	t.Logf("%d kills in %v, after it had said %v; %d records", n, time.Since(began).Round(time.Second), h.during, h.tally.records)
	if h.tally.records == 0 {
		t.Error("nothing was ever committed")
	}
}

// life lets a child live until a moment by chance.
func (h *hunt) life() {
	h.t.Helper()
	env := []string{childURL + "=" + h.url, childDir + "=" + filepath.Join(h.hosts, fmt.Sprint("host-", h.host))}
	h.during[child.Live(h.t, env, rand.IntN(40), 20*time.Millisecond, "nothing", h.listen)]++
}

// listen hears so many lines, or all that are left, and returns the first word of the last
// one that was ever heard.
func (h *hunt) listen(said *bufio.Scanner, lines int, last string) string {
	for n := 0; n != lines && said.Scan(); n++ {
		what, number, _ := strings.Cut(said.Text(), " ")
		records, _ := strconv.ParseUint(number, 10, 64) // of what has none it is not used
		switch what {
		case "commit":
			h.begun = max(h.begun, records)
		case "committed":
			h.told = records
		}
		last = what
	}
	return last
}

// look restores the newest checkpoint and compares it with the tally.
func (h *hunt) look() {
	h.t.Helper()
	job, err := checkpoint.Open(h.t.Context(), h.url, checkpoint.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	defer job.Close(context.Background())
	task, err := job.Task(taskName)
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := task.Latest(h.t.Context())
	if errors.Is(err, checkpoint.ErrNoCheckpoint) && h.told == 0 {
		return
	}
	if err != nil {
		h.t.Fatal(err)
	}
	n, err := strconv.ParseUint(c.Offsets["in"], 10, 64)
	if err != nil || n < h.told || n > h.begun {
		h.t.Fatalf("the newest checkpoint is of %d records (%v); %d were told, %d begun", n, err, h.told, h.begun)
	}
	h.told = n // what was seen stays
	h.tally.advance(n)
	h.mustHold(h.t, c, h.tally.state)
}

// Child is the job that Kill kills. In a process that is none, it returns false at once.
func (k Kind) Child() bool {
	url := os.Getenv(childURL)
	if url == "" {
		return false
	}
	fmt.Fprintln(os.Stderr, k.live(url, newPlace(os.Getenv(childDir))))
	return true
}
