package process

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestDiesWithItsParent kills the process that has started a program.
func TestDiesWithItsParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), childVariable+"=start:exec sleep 1000")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait() // which was killed
	eventually(t, "the death of the program", func() bool {
		state, _, err := status(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || state == dead
	})
}

// inNamespace runs the test's binary as PID 1 of a PID namespace.
func inNamespace(t *testing.T, command string) *exec.Cmd {
	t.Helper()
	args := []string{"--pid", "--fork", "--mount-proc", "--kill-child"}
	if os.Getuid() != 0 {
		args = append([]string{"--map-root-user"}, args...)
	}
	if out, err := exec.Command("unshare", append(args, "true")...).CombinedOutput(); err != nil {
		t.Skipf("this system does not let this user make a PID namespace: %v, %s", err, out)
	}
	cmd := exec.Command("unshare", append(args, os.Args[0])...)
	cmd.Env = append(os.Environ(), childVariable+"=init:"+command)
	return cmd
}

// TestInit: the first process of a namespace collects orphans, and ends as the program did.
func TestInit(t *testing.T) {
	// Each of 20 subshells leaves an orphan, which has a session of its own and ends soon.
	cmd := inNamespace(t, `
		for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do ( setsid sh -c 'sleep 0.05' & ); done
		sleep 0.5
		ps -A -o stat= | grep -c '^Z' | grep -qx 0 || { ps -A >&2; exit 98; }
		exit 42`)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Errorf("%v; %s", err, &stderr)
	}
}

// TestInitPassesSignalsOn: unshare's child is PID 1.
func TestInitPassesSignalsOn(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	cmd := inNamespace(t, `trap 'exit 43' USR1; touch '`+ready+`'; while :; do sleep 0.01; done`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its start", exists(ready))
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 43 {
		t.Errorf("%v", err)
	}
}
