package main

import (
	"bytes"
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A display is a terminal with what this program uses of one: text, \n and \r.
type display struct {
	mu     sync.Mutex
	rows   [][]byte
	column int
	seen   []string    // the text of the last row after each write
	times  []time.Time // the times of the writes
}

func (d *display) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range p {
		d.put(b)
	}
	d.seen = append(d.seen, d.last())
	d.times = append(d.times, time.Now())
	return len(p), nil
}

func (d *display) put(b byte) {
	if len(d.rows) == 0 {
		d.rows = [][]byte{nil}
	}
	row := &d.rows[len(d.rows)-1]
	switch {
	case b == '\r':
		d.column = 0
	case b == '\n':
		d.rows, d.column = append(d.rows, nil), 0
	case d.column < len(*row):
		(*row)[d.column] = b
		d.column++
	default:
		*row = append(*row, b)
		d.column++
	}
}

func (d *display) last() string {
	if len(d.rows) == 0 {
		return ""
	}
	return strings.TrimRight(string(d.rows[len(d.rows)-1]), " ")
}

// text returns what is visible.
func (d *display) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var lines []string
	for _, row := range d.rows {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	return strings.Join(lines, "\n")
}

func (d *display) writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.times)
}

func onDisplay(columns int) (*program, *display) {
	d := new(display)
	return &program{stdout: d, stderr: &screen{out: d, width: func() int { return columns }}}, d
}

func wantText(t *testing.T, d *display, want string) {
	t.Helper()
	synctest.Wait()
	if got := d.text(); got != want {
		t.Errorf("%q is shown, want %q", got, want)
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := onDisplay(80)
		report, stop := p.follow("saving", "sent")
		report(checkpoint.Progress{AllFiles: 32, AllBytes: 1 << 30, Moved: 1 << 20})
		time.Sleep(patience - time.Millisecond)
		wantText(t, d, "")
		time.Sleep(2 * time.Millisecond)
		wantText(t, d, "saving 0%, 0 B of 1.0 GiB, 0/32 files, 1.0 MiB sent, 2.0 MiB/s")

		// However often progress is reported, it is drawn only a few times per
		// second.
		before := d.writes()
		for n := range int64(1000) {
			report(checkpoint.Progress{Files: 8, AllFiles: 32, Bytes: 256<<20 + n, AllBytes: 1 << 30, Moved: 200 << 20})
			time.Sleep(time.Millisecond)
		}
		if n := d.writes() - before; n < 2 || n > 4 {
			t.Errorf("drawn %d times in a second", n)
		}
		wantText(t, d, "saving 25%, 256 MiB of 1.0 GiB, 8/32 files, 200 MiB sent, 133 MiB/s")

		// A note replaces the progress line, which is drawn again below.
		p.note("the store is slow")
		wantText(t, d, "holdfast: note: the store is slow\n")
		time.Sleep(redraw)
		wantText(t, d, "holdfast: note: the store is slow\nsaving 25%, 256 MiB of 1.0 GiB, 8/32 files, 200 MiB sent, 114 MiB/s")

		// A shorter text overwrites all of a longer one.
		report(checkpoint.Progress{Files: 1, AllFiles: 1, Bytes: 9, AllBytes: 9})
		time.Sleep(redraw)
		wantText(t, d, "holdfast: note: the store is slow\nsaving 100%, 9 B of 9 B, 1/1 files, 0 B sent, 0 B/s")

		// At the end the line is erased, with anything that the terminal has added.
		_, _ = d.Write([]byte("^C"))
		stop()
		wantText(t, d, "holdfast: note: the store is slow\n")
		time.Sleep(time.Minute)
		wantText(t, d, "holdfast: note: the store is slow\n")
	})
}

// TestNoProgress covers the cases without progress: a command that ends soon, one
// with nothing to count, and output that is not a terminal or is for a program.
func TestNoProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := onDisplay(80)
		report, stop := p.follow("restoring", "fetched")
		report(checkpoint.Progress{AllFiles: 3, AllBytes: 1 << 20})
		time.Sleep(patience - time.Millisecond)
		report(checkpoint.Progress{Files: 3, AllFiles: 3, Bytes: 1 << 20, AllBytes: 1 << 20})
		stop()
		_, stop = p.follow("saving", "sent")
		time.Sleep(time.Minute)
		stop()
		if n := d.writes(); n > 0 {
			t.Errorf("%d writes: %q", n, d.seen)
		}
	})
	p, _ := onDisplay(80)
	p.asJSON = true
	piped := &program{stderr: newScreen(new(bytes.Buffer))}
	for _, p := range []*program{p, piped} {
		report, stop := p.follow("saving", "sent")
		stop()
		if report != nil {
			t.Error("progress is requested although nobody sees it")
		}
	}
}

func TestProgressLine(t *testing.T) {
	const full = "saving 45%, 470 MiB of 1.0 GiB, 14/32 files, 201 MiB sent, 87.0 MiB/s"
	some := checkpoint.Progress{Files: 14, AllFiles: 32, Bytes: 470 << 20, AllBytes: 1 << 30, Moved: 201 << 20}
	for _, c := range []struct {
		columns int
		now     checkpoint.Progress
		want    string
	}{
		{len(full), some, full},
		{len(full) - 1, some, "saving 45%, 470 MiB of 1.0 GiB, 14/32 files, 201 MiB sent"},
		{40, some, "saving 45%, 470 MiB of 1.0 GiB"},
		{5, some, "saving 45%"}, // the screen cuts it off
		{60, checkpoint.Progress{Files: 1, AllFiles: 2, Bytes: 1<<40 - 1, AllBytes: 1 << 40}, "saving 99%, 1.0 TiB of 1.0 TiB, 1/2 files, 0 B sent"},
		{60, checkpoint.Progress{Files: 1, AllFiles: 3}, "saving 33%, 0 B of 0 B, 1/3 files, 0 B sent, 87.0 MiB/s"},
		{60, checkpoint.Progress{Files: 2, AllFiles: 2, Bytes: 11, AllBytes: 10}, "saving 100%, 11 B of 10 B, 2/2 files, 0 B sent, 87.0 MiB/s"},
	} {
		f := follower{doing: "saving", moved: "sent"}
		if got := f.line(c.now, 87<<20, c.columns); got != c.want {
			t.Errorf("in %d columns: %q, want %q", c.columns, got, c.want)
		}
	}
	// The longest line of a large restore fits on an ordinary terminal.
	f := follower{doing: "restoring", moved: "fetched"}
	large := checkpoint.Progress{Files: 3_950, AllFiles: 4_000, Bytes: 999 << 20, AllBytes: 123 << 30, Moved: 888 << 20}
	if got, want := f.line(large, 777<<20, 79), "restoring 0%, 999 MiB of 123 GiB, 3950/4000 files, 888 MiB fetched, 777 MiB/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestNarrowScreen checks that the line fits, in a window whose size changes.
func TestNarrowScreen(t *testing.T) {
	columns := 20
	d := new(display)
	s := &screen{out: d, width: func() int { return columns }}
	for _, c := range []struct {
		columns int
		want    string
	}{{20, "saving 46%, 470 MiB"}, {6, "savin"}, {1, ""}, {0, ""}, {90, "saving 46%, 470 MiB of 1.0 GiB"}} {
		columns = c.columns
		s.show("saving 46%, 470 MiB of 1.0 GiB")
		if got := d.text(); got != c.want {
			t.Errorf("in %d columns: %q, want %q", c.columns, got, c.want)
		}
		s.hide()
		if got := d.text(); got != "" {
			t.Errorf("in %d columns, hidden: %q", c.columns, got)
		}
	}
}

func TestRate(t *testing.T) {
	var r rate
	now := time.Now()
	for _, c := range []struct {
		seconds, bytes, want int64
	}{
		{0, 0, 0}, {1, 100, 100}, {1, 300, 150},
		{8, 300, 30}, {1, 300, 20}, // the first second no longer counts
		{1000, 300, 0},
		{1, 10, 0}, {1, 20, 10}, // it began again
	} {
		now = now.Add(time.Duration(c.seconds) * time.Second)
		if got := r.add(now, c.bytes); got != c.want {
			t.Errorf("%d after %d more seconds: %d/s, want %d/s", c.bytes, c.seconds, got, c.want)
		}
	}
}

// TestProgressOfCommands uses a slow store.
func TestProgressOfCommands(t *testing.T) {
	state := makeState(t, "state ")
	synctest.Test(t, func(t *testing.T) {
		h, url := newHook(t, time.Now)
		h.do = func(_ context.Context, op, key string, perform func() error) error {
			if op == "put" || strings.Contains(key, "/segments/") {
				time.Sleep(2 * time.Second)
			}
			return perform()
		}
		p, d := onDisplay(100)
		out := filepath.Join(t.TempDir(), "out")
		if err := p.save(t.Context(), url, "orders", source{dir: state}, checkpoint.Snapshot{}, checkpoint.Retention{}, checkpoint.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := p.restore(t.Context(), url, "orders", out, "", checkpoint.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		if diff := difference(t, out, state); diff != "" {
			t.Error(diff)
		}
		seen := strings.Join(d.seen, "\n")
		for _, want := range []string{
			`(?m)^saving 100%, 146 KiB of 146 KiB, 2/2 files, 0 B sent, 0 B/s$`,
			`(?m)^restoring 0%, 0 B of 146 KiB, 0/2 files, 0 B fetched, 0 B/s$`,
		} {
			if !regexp.MustCompile(want).MatchString(seen) {
				t.Errorf("%s was not shown:\n%s", want, seen)
			}
		}
		if want := regexp.MustCompile(`^saved checkpoint 1 .*\nrestored checkpoint 1 .*\n$`); !want.MatchString(d.text()) {
			t.Errorf("left on the screen: %q", d.text())
		}
	})
}

// A command that works on many tasks shows how many are done; none is shown where there is
// no terminal, or the result is JSON.
func TestProgressOfTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := onDisplay(80)
		lines := eachTask(p, "collecting", make([]*checkpoint.Task, 8), func(*checkpoint.Task) int {
			time.Sleep(time.Second)
			return 1
		})
		if len(lines) != 8 || !slices.Contains(d.seen, "collecting 0%, 0/8 tasks") || !slices.Contains(d.seen, "collecting 50%, 4/8 tasks") {
			t.Errorf("%q is shown", d.seen)
		}
		wantText(t, d, "")

		quiet, d := onDisplay(80)
		quiet.asJSON = true
		eachTask(quiet, "collecting", make([]*checkpoint.Task, 8), func(*checkpoint.Task) int {
			time.Sleep(time.Second)
			return 1
		})
		wantText(t, d, "")
		var out bytes.Buffer
		eachTask(&program{stderr: newScreen(&out)}, "collecting", make([]*checkpoint.Task, 8), func(*checkpoint.Task) int {
			time.Sleep(time.Second)
			return 1
		})
		if out.Len() > 0 {
			t.Errorf("%q is written to what is no terminal", &out)
		}
	})
}
