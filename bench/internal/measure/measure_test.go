package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// childVar makes a copy of the test binary a program to measure.
const childVar = "MEASURE_TEST_CHILD"

func TestMain(m *testing.M) {
	Launcher()
	if what, ok := os.LookupEnv(childVar); ok {
		os.Exit(child(what))
	}
	os.Exit(m.Run())
}

func child(what string) int {
	verb, amount, _ := strings.Cut(what, " ")
	n, _ := strconv.Atoi(amount)
	switch verb {
	case "hold": // MiB
		held := touch(int64(n) << 20)
		runtime.KeepAlive(held)
	case "spin": // milliseconds of processor time
		for Self() < time.Duration(n)*time.Millisecond {
		}
	case "lock": // a directory, until it is killed
		if err := holdLock(amount); err != nil {
			fmt.Println(err)
			return 1
		}
	case "fail":
		fmt.Println(strings.Repeat("much ", 2000))
		fmt.Println("said at last")
		return 3
	}
	return 0
}

func runChild(ctx context.Context, t *testing.T, what string) (Usage, error) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Run(ctx, Command{Args: []string{self}, Env: append(os.Environ(), childVar+"="+what)})
}

func TestPeakIsTheChildsOwn(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not tell")
	}
	held := touch(300 << 20)
	defer runtime.KeepAlive(held)
	// The race detector doubles what a child holds.
	for _, c := range []struct{ hold, least, most int64 }{{0, 1, 100}, {100, 100, 280}} {
		u, err := runChild(t.Context(), t, fmt.Sprint("hold ", c.hold))
		if err != nil {
			t.Fatal(err)
		}
		if peak := u.PeakRSS >> 20; peak < c.least || peak > c.most {
			t.Errorf("a child that holds %d MiB has a peak of %d MiB, want %d to %d", c.hold, peak, c.least, c.most)
		}
	}
}

func TestCPU(t *testing.T) {
	u, err := runChild(t.Context(), t, "spin 300")
	if err != nil {
		t.Fatal(err)
	}
	if u.CPU() < 300*time.Millisecond || u.Wall <= 0 {
		t.Errorf("got %+v for 300 ms of processor time", u)
	}
}

func TestFailure(t *testing.T) {
	_, err := runChild(t.Context(), t, "fail")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.HasSuffix(err.Error(), "said at last\n") || len(err.Error()) > 2*tailSize {
		t.Errorf("got %v, want the exit status and the end of what it said", err)
	}
	if _, err := Run(t.Context(), Command{Args: []string{"no-such-program"}}); err == nil {
		t.Error("a program that does not exist has run")
	}
}

func holdLock(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	for {
		_, err := filelock.TryLock(root, "lock", 0o600)
		if err == nil {
			break
		}
		if !errors.Is(err, filelock.ErrHeld) { // by the test, which looks
			return err
		}
	}
	time.Sleep(time.Hour)
	return nil
}

// TestCancel makes sure that nothing is left running, by a lock that the child
// holds for as long as it lives.
func TestCancel(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there a child may outlive a run that is cancelled")
	}
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := runChild(ctx, t, "lock "+dir)
		ended <- err
	}()
	waitLock(t, root, true)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	waitLock(t, root, false)
}

// waitLock waits until the lock is held, or free.
func waitLock(t *testing.T, root *os.Root, held bool) {
	t.Helper()
	for range 500 {
		l, err := filelock.TryLock(root, "lock", 0o600)
		switch {
		case err == nil:
			err = l.Unlock()
			if err == nil && !held {
				return
			}
		case errors.Is(err, filelock.ErrHeld):
			if held {
				return
			}
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("after 5 s the lock is not yet as expected (held: %v)", held)
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		runs []float64
		want float64
	}{{[]float64{7}, 7}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 9, 1, 2}, 3}} {
		if got := Median(c.runs, func(v float64) float64 { return v }); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.runs, got, c.want)
		}
	}
}
