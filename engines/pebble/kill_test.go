package pebble

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/child"
)

var killN = flag.Int("kill.n", 12, "how often TestKill kills a process")

// TestKill runs this test binary again, as a job that counts records until it is
// killed: it goes on from the newest checkpoint of the job at childURL, with a
// state in the directory childDir, and tells what it does.
const (
	childURL = "HOLDFAST_PEBBLE_CHILD_URL"
	childDir = "HOLDFAST_PEBBLE_CHILD_DIR"
)

// A record adds one to a counter, and puts itself among the newest ones.
const (
	counters = 500
	newest   = 100
)

func counterOf(record uint64) string {
	return fmt.Sprintf("count/%03d", record*0x9e3779b97f4a7c15>>32%counters)
}

func newestKey(record uint64) string { return fmt.Sprintf("newest/%012d", record) }

func newestValue(record uint64) string { return strings.Repeat(fmt.Sprint(record, " "), 40) }

// A tally is the state after so many records, kept in memory.
type tally struct {
	records uint64
	state   map[string]string
}

// advance adds records up to n.
func (m *tally) advance(n uint64) {
	for ; m.records < n; m.records++ {
		key := counterOf(m.records)
		count, _ := strconv.ParseUint(m.state[key], 10, 64) // of an empty text it is 0
		m.state[key] = strconv.FormatUint(count+1, 10)
		m.state[newestKey(m.records)] = newestValue(m.records)
		if m.records >= newest {
			delete(m.state, newestKey(m.records-newest))
		}
	}
}

// same compares a database with the tally.
func (m *tally) same(dir string) error {
	got, err := read(dir, counting())
	if err != nil {
		return err
	}
	sum := uint64(0)
	for key, value := range got {
		if strings.HasPrefix(key, "count/") {
			sum += binary.BigEndian.Uint64([]byte(value))
			got[key] = fmt.Sprint(binary.BigEndian.Uint64([]byte(value)))
		}
	}
	if sum != m.records || !maps.Equal(got, m.state) {
		return fmt.Errorf("the state in %s is not that after %d records: its counters add up to %d", dir, m.records, sum)
	}
	return nil
}

// counting is small with a merge operator that adds.
func counting() *pebbledb.Options {
	opts := small()
	opts.Merger = &pebbledb.Merger{Name: "sum", Merge: func(_, value []byte) (pebbledb.ValueMerger, error) {
		return &sum{binary.BigEndian.Uint64(value)}, nil
	}}
	return opts
}

type sum struct{ n uint64 }

func (s *sum) MergeNewer(value []byte) error {
	s.n += binary.BigEndian.Uint64(value)
	return nil
}

func (s *sum) MergeOlder(value []byte) error { return s.MergeNewer(value) }

func (s *sum) Finish(bool) ([]byte, io.Closer, error) {
	return binary.BigEndian.AppendUint64(nil, s.n), nil, nil
}

// A killedJob is a job that is killed.
type killedJob struct {
	engine     *Engine
	owner      *checkpoint.Owner
	records    uint64
	committing chan error
}

func runChild(url, dir string) error {
	ctx := context.Background()
	job, err := checkpoint.Open(ctx, url, checkpoint.Options{
		Memory: 1 << 20, Retention: checkpoint.Retention{Last: 2},
		// What a killed life has left is told of as it is deleted, and is no failure.
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	task, err := job.Task("orders/7")
	if err != nil {
		return err
	}
	c := &killedJob{}
	if c.owner, err = task.Claim(ctx, checkpoint.ClaimOptions{}); err != nil {
		return err
	}
	fmt.Println("resume")
	newest, err := c.owner.Resume(ctx, filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	if newest.Seq > 0 {
		if c.records, err = strconv.ParseUint(newest.Offsets["in"], 10, 64); err != nil {
			return err
		}
	}
	fmt.Println("open")
	if c.engine, err = Open(filepath.Join(dir, "state"), counting(), filepath.Join(dir, "cuts")); err != nil {
		return err
	}
	for {
		if err := c.step(ctx); err != nil {
			return err
		}
	}
}

// step processes some records, and cuts when the commit before has returned.
func (c *killedJob) step(ctx context.Context) error {
	b := c.engine.DB.NewBatch()
	for range 10 {
		err := errors.Join(
			b.Merge([]byte(counterOf(c.records)), binary.BigEndian.AppendUint64(nil, 1), nil),
			b.Set([]byte(newestKey(c.records)), []byte(newestValue(c.records)), nil))
		if c.records >= newest {
			err = errors.Join(err, b.Delete([]byte(newestKey(c.records-newest)), nil))
		}
		if err != nil {
			return err
		}
		c.records++
	}
	if err := errors.Join(b.Commit(pebbledb.NoSync), b.Close()); err != nil {
		return err
	}
	select {
	case err := <-c.committing:
		c.committing = nil
		return err
	default:
	}
	if c.committing != nil {
		return nil
	}
	return c.cut(ctx)
}

func (c *killedJob) cut(ctx context.Context) error {
	n := c.records
	fmt.Println("cut", n)
	src, remove, err := c.engine.Cut(ctx)
	if err != nil {
		return err
	}
	c.committing = make(chan error, 1)
	fmt.Println("commit", n)
	go func() {
		_, err := c.owner.Commit(ctx, checkpoint.Snapshot{Offsets: map[string]string{"in": fmt.Sprint(n)}, State: src})
		if err == nil {
			fmt.Println("committed", n)
		}
		err = errors.Join(err, remove())
		fmt.Println("removed", n)
		c.committing <- err
	}()
	return nil
}

// A hunt kills one child after the other.
type hunt struct {
	t     *testing.T
	url   string
	hosts string // has a directory for each host
	host  int

	told, begun uint64 // the last commit that a child told of, and the last that one began
	tally       tally
	during      map[string]int // kills, by what the child had said last
}

// TestKill kills a job under load at any moment. The newest checkpoint is a whole
// database, no older than the job was told, and the next life goes on from it, on
// the same host or a new one.
func TestKill(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	h := &hunt{t: t, url: "file://" + dir + "/store", hosts: dir, tally: tally{state: make(map[string]string)}, during: make(map[string]int)}
	began := time.Now()
	for n := range *killN {
		if n%3 == 2 {
			h.host++
		}
		h.life()
		h.look()
	}
	h.sweep()
	t.Logf("%d kills in %v, after it had said %v; %d records", *killN, time.Since(began).Round(time.Second), h.during, h.tally.records)
	if h.tally.records == 0 {
		t.Error("nothing was ever committed")
	}
}

func (h *hunt) place() place {
	dir := filepath.Join(h.hosts, fmt.Sprint("host-", h.host))
	return place{filepath.Join(dir, "state"), filepath.Join(dir, "cuts")}
}

// life lets a child live until a moment by chance.
func (h *hunt) life() {
	h.t.Helper()
	env := []string{childURL + "=" + h.url, childDir + "=" + filepath.Dir(h.place().dir)}
	h.during[child.Live(h.t, env, rand.IntN(40), 20*time.Millisecond, "nothing", h.listen)]++
}

// listen hears so many lines, or all that are left, and returns the first word of
// the last one that was ever heard.
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
	task, err := job.Task("orders/7")
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
	if err := h.tally.same(mustRestore(h.t, c)); err != nil {
		h.t.Fatal(err)
	}
}

// sweep opens what the last child has left, and makes sure that nothing of its
// cuts stays.
func (h *hunt) sweep() {
	h.t.Helper()
	owner := mustClaim(h.t, h.url)
	if _, err := owner.Resume(h.t.Context(), h.place().dir); err != nil {
		h.t.Fatal(err)
	}
	mustOpen(h.t, h.place(), counting())
	wantNoCuts(h.t, h.place())
}
