package main

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/backend"
	_ "github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/testreq"
	"github.com/holdfast-io/holdfast/internal/testserver"
	"github.com/holdfast-io/holdfast/runner"
)

// spoilEnv names the spoiler that the job runs with, when the test binary is
// started as the job.
const spoilEnv = "HOLDFAST_WORDCOUNT_SPOIL"

func TestMain(m *testing.M) {
	if s := os.Getenv(jobEnv); s != "" {
		os.Exit(runJob(s, newSpoiler(os.Getenv(spoilEnv))))
	}
	goleak.VerifyTestMain(m)
}

// spoilers are mistakes that a host can make.
var spoilers = map[string]func() spoiler{
	"offset without state": func() spoiler {
		return func(c *runner.Cut) {
			for _, at := range c.Offsets {
				if at != end {
					c.Stores[""] = checkpoint.Source{}
				}
			}
		}
	},
	"state with the offset before": func() spoiler {
		var mu sync.Mutex
		now, before := make(map[string]string), make(map[string]string) // by task; never the same
		return func(c *runner.Cut) {
			mu.Lock()
			defer mu.Unlock()
			for task, at := range c.Offsets {
				if at != now[task] {
					now[task], before[task] = at, now[task]
				}
				if was := before[task]; was != "" && at != end {
					c.Offsets[task] = was
				}
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

// writeTexts writes a small corpus, with what is awkward about real ones, and
// returns its directory.
func writeTexts(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "texts")
	files := map[string]string{
		"empty.txt":        "",
		"no-newline.txt":   "the last line has no end",
		"blank.md":         "\n\n\n",
		"long-line.txt":    strings.Repeat("very long line ", 20_000),
		"not-utf8.txt":     "caf\xe9 au lait\nna\xc3\xafve\x00nul\n",
		"crlf.txt":         "one\r\ntwo\r\n",
		"colon:in-it.txt":  "a name that looks like an offset\n",
		"picture.png":      "not read\n",
		"deeper/still.go":  "package still\n",
		"deeper/readme.md": "# Title\n\nÄhren über Bäume\n",
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		var b strings.Builder
		for range 200 {
			for range rnd.IntN(12) {
				fmt.Fprintf(&b, "w%s ", strings.Repeat("x", rnd.IntN(40)))
			}
			b.WriteByte('\n')
		}
		files[fmt.Sprintf("many/%02d.txt", i)] = b.String()
	}
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mustFind(t *testing.T, paths ...string) *corpus {
	t.Helper()
	texts, err := findTexts(paths)
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// countUntilThird runs the job in this process until one of its tasks has been
// told of its third commit, and returns that task's name. The job then makes last
// commits, as a process does that is asked to end.
func countUntilThird(t *testing.T, s settings, spoil spoiler) (task string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	commits := make(map[string]int)
	err := countWords(ctx, s, func(e event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Op != commit || !e.End {
			return
		}
		if commits[e.Task]++; commits[e.Task] == 3 {
			task = e.Task
			cancel()
		}
	}, spoil)
	if err != nil || task == "" {
		t.Fatalf("the job ended with %v; want it to be stopped in the midst", err)
	}
	return task
}

func silent(event) {}

// memURL returns the URL of a store of its own.
func memURL() string { return "mem://" + strings.ToLower(crand.Text()) }

// testSettings returns settings with which the job would run for a minute.
func testSettings(t *testing.T, url string) settings {
	return settings{
		URL: url, Paths: []string{writeTexts(t)}, Dir: filepath.Join(t.TempDir(), "work"),
		Interval: 10 * time.Millisecond, Start: time.Now(), Over: time.Minute,
	}
}

// countInTwoLives stops the job in the midst of it, lets it go on to the end,
// and compares.
func countInTwoLives(t *testing.T, s settings, spoil spoiler) verdict {
	t.Helper()
	countUntilThird(t, s, spoil)
	s.Over = 0
	if err := countWords(t.Context(), s, silent, spoil); err != nil {
		t.Fatal(err)
	}
	return mustVerify(t, s)
}

func mustVerify(t *testing.T, s settings) verdict {
	t.Helper()
	v, err := verify(t.Context(), s.URL, mustFind(t, s.Paths...), filepath.Join(t.TempDir(), "verify"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestResumedCountsAreExact(t *testing.T) {
	v := countInTwoLives(t, testSettings(t, memURL()), nil)
	if v.differences != 0 || v.words == 0 {
		t.Errorf("verdict %+v; want some words and no differences", v)
	}
}

// The comparison is worth something only if it fails when the job is wrong.
func TestSpoiledSnapshotsAreSeen(t *testing.T) {
	for name, spoil := range spoilers {
		t.Run(name, func(t *testing.T) {
			if v := countInTwoLives(t, testSettings(t, memURL()), spoil()); v.differences == 0 {
				t.Error("no difference was seen")
			}
		})
	}
}

func TestMissingOffsetIsRefused(t *testing.T) {
	s := testSettings(t, memURL())
	countUntilThird(t, s, func(c *runner.Cut) { clear(c.Offsets) })
	err := countWords(t.Context(), s, silent, nil)
	if err == nil || !strings.Contains(err.Error(), "has no offset") {
		t.Errorf("error %v; want one that says so", err)
	}
}

// A store that loses what it has acknowledged is seen too.
func TestLostCheckpointIsSeen(t *testing.T) {
	s := testSettings(t, memURL())
	task := countUntilThird(t, s, nil)
	s.Over, s.Interval = 0, time.Hour // so that the only commit is that at the end
	if err := countWords(t.Context(), s, silent, nil); err != nil {
		t.Fatal(err)
	}
	store, err := backend.Open(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	// The newest two are the release and the commit.
	var manifests []string
	for o, err := range store.List(t.Context(), strings.ReplaceAll(task, "/", "_2f")+"/manifests/", "") {
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, o.Key)
	}
	if err := store.Delete(t.Context(), manifests[:2]...); err != nil {
		t.Fatal(err)
	}
	v := mustVerify(t, s)
	if v.differences < 2 || !strings.Contains(strings.Join(v.some, "\n"), "not at the end") {
		t.Errorf("verdict %+v; want differences, and that %s is not at the end", v, task)
	}
}

func TestOtherTextsAreRefused(t *testing.T) {
	s := testSettings(t, memURL())
	s.Over = 0
	if err := countWords(t.Context(), s, silent, nil); err != nil {
		t.Fatal(err)
	}
	s.Paths = []string{filepath.Join(s.Paths[0], "many")}
	err := countWords(t.Context(), s, silent, nil)
	if err == nil || !strings.Contains(err.Error(), "other texts") {
		t.Errorf("error %v; want one that says so", err)
	}
}

// A job that is started twice has one owner: the later one.
func TestSecondJobFencesFirst(t *testing.T) {
	s := testSettings(t, memURL())
	second := s
	second.Over = 0
	second.Dir = filepath.Join(t.TempDir(), "second")
	var once sync.Once
	outcome := make(chan error, 1)
	first := countWords(t.Context(), s, func(e event) {
		if e.Op == commit && e.End {
			once.Do(func() {
				go func() { outcome <- countWords(t.Context(), second, silent, nil) }()
			})
		}
	}, nil)
	if !errors.Is(first, checkpoint.ErrFenced) {
		t.Errorf("the first job ended with %v; want ErrFenced", first)
	}
	if err := <-outcome; err != nil {
		t.Errorf("the second job: %v", err)
	}
	if v := mustVerify(t, s); v.differences != 0 {
		t.Errorf("verdict %+v; want no differences", v)
	}
}

// The whole story, with processes that are killed.
func TestStory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a few seconds")
	}
	args := []string{"--dir", t.TempDir(), "--kills", "7", "--interval", "50ms", "--over", "3s", writeTexts(t)}
	code, account := runForTest(t, args...)
	if code != 0 || !strings.Contains(account, "killed 7 times") || !strings.Contains(account, "all equal") {
		t.Errorf("exit code %d; want 0, 7 kills, and all equal", code)
	}
	code, account = runForTest(t, args...) // with the same store again
	if code != 0 || !strings.Contains(account, "done by an earlier run") || !strings.Contains(account, "all equal") {
		t.Errorf("exit code %d the second time; want 0, nothing to kill, and all equal", code)
	}
}

// The same on stores that are servers: the child processes find what
// credentials they need in their environment.
func TestStoryOnServers(t *testing.T) {
	for suite, place := range map[string]func(testing.TB, string) string{"s3": testserver.S3, "gcs": testserver.GCS} {
		t.Run(suite, func(t *testing.T) {
			testreq.Suite(t, suite)
			u, err := neturl.Parse(place(t, suite))
			if err != nil {
				t.Fatal(err)
			}
			u = u.JoinPath("wordcount-" + strings.ToLower(crand.Text()))
			code, account := runForTest(t, "--checkpoint", u.String(), "--dir", t.TempDir(),
				"--kills", "7", "--interval", "50ms", "--over", "4s", writeTexts(t))
			if code != 0 || !strings.Contains(account, "killed 7 times") || !strings.Contains(account, "all equal") {
				t.Errorf("exit code %d; want 0, 7 kills, and all equal", code)
			}
		})
	}
}

// A job that is wrong ends the program with exit code 1.
func TestStoryOfASpoiledJob(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a few seconds")
	}
	for name, spoil := range spoilers {
		t.Run(name, func(t *testing.T) {
			t.Setenv(spoilEnv, name)
			dir := t.TempDir()
			s := testSettings(t, fileURL(filepath.Join(dir, "store")))
			countUntilThird(t, s, spoil()) // so that there surely is something to go on from
			code, account := runForTest(t, "--dir", dir, "--kills", "2", "--interval", "50ms", "--over", "1s", s.Paths[0])
			if code != 1 || !strings.Contains(account, "DIFFERENCES") {
				t.Errorf("exit code %d; want 1, and differences", code)
			}
		})
	}
}

func runForTest(t *testing.T, args ...string) (code int, account string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = runStory(args, &stdout, &stderr)
	t.Logf("%s%s", &stdout, &stderr)
	return code, stdout.String()
}

func TestBadUsage(t *testing.T) {
	texts := writeTexts(t)
	pictures := filepath.Join(t.TempDir(), "pictures")
	if err := os.Mkdir(pictures, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"unknown flag", []string{"--kill", "5"}, 2, "flag provided but not defined"},
		{"no interval", []string{"--interval", "0", texts}, 2, "--interval is 0s; set more than 0"},
		{"less than no time", []string{"--over", "-1s", texts}, 2, "--over is -1s; set 0 or more"},
		{"less than no kills", []string{"--kills", "-1", texts}, 2, "--kills is -1; set 0 or more"},
		{"unknown scheme", []string{"--checkpoint", "ftp://host/x", texts}, 1, `unknown scheme "ftp"`},
		{"no such directory", []string{filepath.Join(texts, "none")}, 1, "none"},
		{"no texts", []string{pictures}, 1, "no text files"},
		{"the same texts twice", []string{texts, texts}, 1, "would both be known as"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := runStory(test.args, &stdout, &stderr)
			if code != test.code || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("exit code %d, stderr %q; want %d and %q", code, &stderr, test.code, test.want)
			}
		})
	}
}
