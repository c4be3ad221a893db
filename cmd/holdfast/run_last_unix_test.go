//go:build linux || darwin

package main

import (
	"fmt"
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
	if got := w.wait(t); got.code != 121 || r.saved("n") != "one" ||
		!strings.Contains(got.stderr, filepath.Base(r.dir)+" is as the program has left it: save it with 'holdfast save'") {
		t.Errorf("it ends with %d, and saved %q; %s", got.code, r.saved("n"), got.stderr)
	}
}
