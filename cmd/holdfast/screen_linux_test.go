package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns a terminal of 62 columns, and the side on which a user sees
// it.
func openTerminal(t *testing.T) (user, terminal *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: TestProgressOfCommands has the same without one: ", err)
	}
	t.Cleanup(func() { _ = user.Close() })
	fd := int(user.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 62}); err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return user, terminal
}

// TestTerminal saves on a real terminal, to a store that does not answer until
// progress is visible.
func TestTerminal(t *testing.T) {
	user, terminal := openTerminal(t)
	s := startOn(t, terminal, "save", gateURL(t.TempDir(), "create"), "orders", makeState(t, "state "))
	if err := terminal.Close(); err != nil { // so that the reader sees its end
		t.Fatal(err)
	}
	// Four of five parts fit on the line.
	want := regexp.MustCompile(`saving 100%, 146 KiB of 146 KiB, 2/2 files, 1\d\d KiB sent`)
	var d display
	gone := false
	for buf := make([]byte, 4096); ; {
		n, err := user.Read(buf)
		_, _ = d.Write(buf[:n])
		if !gone && want.MatchString(d.text()) {
			gone = true
			s.open(t)
		}
		if err != nil {
			break // EIO: no process has the terminal open any more
		}
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%v; %q", err, d.text())
	}
	if !gone || d.text() != "" {
		t.Errorf("progress was shown: %v; left on the terminal: %q", gone, d.text())
	}
	if out := s.cmd.Stdout.(*bytes.Buffer).String(); !regexp.MustCompile(`^saved checkpoint 1 of "orders": .*\n$`).MatchString(out) {
		t.Errorf("result: %q", out)
	}
}
