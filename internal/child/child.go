// Package child runs the test's own program once more, as a process that a test kills.
package child

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Live starts the test's program as a child, with env added to its environment, and kills
// it at a moment by chance: less than within after it has said so many lines.
//
// hear hears so many lines, or all that are left if lines is negative, and returns what the
// child was doing at the last one; it is given what it had returned before, at first
// last. Live calls it twice: for those lines, and for all that the child said before it
// died. Live returns what the child was doing then. A child that ends by itself, or says
// anything on its standard error, fails the test.
func Live(t testing.TB, env []string, lines int, within time.Duration, last string,
	hear func(said *bufio.Scanner, lines int, last string) string,
) (doing string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }() // when the test ends it early
	said := bufio.NewScanner(out)
	doing = hear(said, lines, last)
	<-time.After(time.Duration(rand.Int64N(int64(within))))
	_ = cmd.Process.Kill() // it fails if the process has ended, which Wait tells
	doing = hear(said, -1, doing)
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Fatalf("it ended by itself, during %s: %v; %s", doing, err, &stderr)
	}
	return doing
}
