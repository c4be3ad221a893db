//go:build linux || darwin

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRunWaitsForItsLastCheckpoint: the last checkpoint of a program that has ended by itself
// takes as long as it takes. When run is asked to end meanwhile, it has --grace.
func TestRunWaitsForItsLastCheckpoint(t *testing.T) {
	const grace = 200 * time.Millisecond
	r := newRunTest(t)
	start := func(noise string) *waiting { // until it saves its last checkpoint
		return startTo(t, "run", gateURL(r.store, "put")+"&in=segments", "a", "--state", r.dir, "--every", "1h", "--grace", grace.String(), "--",
			"sh", "-c", fmt.Sprintf(`head -c 200000 /dev/urandom >"$HOLDFAST_STATE/large"; echo %s >"$HOLDFAST_STATE/n"`, noise))
	}
	w := start("one")
	time.Sleep(3 * grace) // which passes
	w.open(t)
	if got := w.wait(t); got.code != 0 || r.saved("n") != "one" {
		t.Errorf("it ends with %d, and saved %q; %s", got.code, r.saved("n"), got.stderr)
	}
	w = start("two")
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := w.wait(t); got.code != 120 || r.saved("n") != "one" ||
		!strings.Contains(got.stderr, filepath.Base(r.dir)+" is as the program has left it: save it with 'holdfast save'") {
		t.Errorf("it ends with %d, and saved %q; %s", got.code, r.saved("n"), got.stderr)
	}
}

// TestRunHeader: a program speaks by a header from a file, so that no command line has the
// secret. Only its user can read the file, which is gone in the end.
func TestRunHeader(t *testing.T) {
	r := newRunTest(t)
	x, where := r.startVoice("--when-asked")
	header := filepath.Join(filepath.Dir(r.dir), ".state.holdfast", "header")
	data, err := os.ReadFile(header)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(header); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	name, value, ok := strings.Cut(strings.TrimSuffix(string(data), "\n"), ": ")
	address, _ := path.Split(where)
	secret := strings.TrimPrefix(where, address)
	if !ok || !strings.Contains(value, secret) {
		t.Fatalf("the header is %q", data)
	}
	for _, c := range []struct {
		path, value string
		code        int
	}{
		{"health", value, http.StatusOK},
		{"health", strings.Replace(value, secret, strings.Repeat("A", len(secret)), 1), http.StatusUnauthorized},
		{"health", "", http.StatusUnauthorized},
		{secret + "/health", "Bearer", http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(name, c.value)
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.code || (c.code == http.StatusUnauthorized) != strings.Contains(string(body), headerVariable) {
			t.Errorf("/%s with %q: %s, %s; want %d", c.path, c.value, resp.Status, body, c.code)
		}
	}
	x.signal(syscall.SIGTERM)
	x.wantEnd(0, "")
	if _, err := os.Stat(header); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}

// TestRunIsKilledBeforeItsFirstCheckpoint: what the program has left is nothing to go on from,
// if its state is not consistent at any moment. It is moved aside, and not removed.
func TestRunIsKilledBeforeItsFirstCheckpoint(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags []string
		ends  string // how the program ends; "" for a kill of run
		from  string // what the next one begins with
	}{
		{"when asked", []string{"--when-asked"}, "", ""},
		{"when asked, its program alone", []string{"--when-asked"}, "kill -KILL $$", ""},
		{"when asked, it ends well", []string{"--when-asked"}, "exit 0", "half"},
		{"between hooks", []string{"--pre", "true", "--every", "1h"}, "", ""},
		{"at any moment", []string{"--every", "1h"}, "", "half"},
		{"pausing", []string{"--pause", "--every", "1h"}, "", "half"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunTest(t)
			x := r.start(`echo half >"$HOLDFAST_STATE/n"; `+c.ends+`
				touch "$HOLDFAST_STATE/ready"; exec sleep 100`, c.flags...)
			if c.ends == "" {
				eventually(t, "the program", r.hasFile("ready"))
				x.signal(syscall.SIGKILL)
			}
			x.end()
			y := r.start(`[ -e "$HOLDFAST_STATE/n" ] && cat "$HOLDFAST_STATE/n"; exit 0`, c.flags...)
			y.wantEnd(0, "")
			if got := strings.TrimSpace(y.stdout.String()); got != c.from {
				t.Errorf("it goes on from %q; want %q", got, c.from)
			}
			aside := filepath.Join(filepath.Dir(r.dir), ".state.holdfast", "unsaved")
			data, err := os.ReadFile(filepath.Join(aside, "n"))
			if moved := err == nil && string(data) == "half\n"; moved != (c.from == "") || moved != strings.Contains(y.said(), "is in "+aside) {
				t.Errorf("it has moved %q, %v; it says %s", data, err, y.said())
			}
		})
	}
}

// TestCrashLoopBeforeTheFirstCheckpoint: the work of hours is killed, and the program then fails
// each time that it is started. What the first one has left is kept, whatever the others leave.
func TestCrashLoopBeforeTheFirstCheckpoint(t *testing.T) {
	r := newRunTest(t)
	aside := filepath.Join(filepath.Dir(r.dir), ".state.holdfast", "unsaved")
	left := func(dir string) string {
		data, err := os.ReadFile(filepath.Join(dir, "n"))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(data))
	}
	for i, program := range []string{
		`echo hours >"$HOLDFAST_STATE/n"; exit 1`, "exit 1", "exit 1", `echo more >"$HOLDFAST_STATE/n"; exit 1`, "exit 1", "exit 1",
	} {
		r.start(program, "--when-asked").wantEnd(1, "")
		if got := left(aside); i > 0 && got != "hours" {
			t.Fatalf("after start %d, %s has %q", i, aside, got)
		}
	}
	if got := left(aside + "-2"); got != "more" {
		t.Errorf("the second one has %q", got)
	}
	if _, err := os.Stat(aside + "-3"); err == nil {
		t.Error("an empty directory was moved aside")
	}
	for n := range 8 {
		r.start(fmt.Sprintf(`echo %d >"$HOLDFAST_STATE/n"; exit 1`, n), "--when-asked").wantEnd(1, "")
	}
	r.start(`echo last >"$HOLDFAST_STATE/n"; exit 1`, "--when-asked").wantEnd(1, aside+"-10")
	r.start("true", "--when-asked").wantEnd(121, "10 others lie aside already")
	if got := left(r.dir); got != "last" || left(aside) != "hours" {
		t.Errorf("what cannot be moved is %q; the first one is %q", got, left(aside))
	}
}

// TestRunSaysThatTheStoreIsSilent: a run that cannot begin for long says why.
func TestRunSaysThatTheStoreIsSilent(t *testing.T) {
	r := newRunTest(t)
	var stderr output
	w := startOn(t, &stderr, "run", gateURL(r.store, "list"), "a", "--state", r.dir, "--", "true")
	eventually(t, "a note", func() bool { return strings.Contains(stderr.String(), "the store has not answered for 3s") })
	w.open(t)
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("%v; %s", err, &stderr)
	}
}
