package filelock

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

const holdIn = "FILELOCK_TEST_HOLD_IN" // a directory; turns this binary into a child that holds a lock in it

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdIn); dir != "" {
		hold(dir)
	}
	goleak.VerifyTestMain(m)
}

// hold takes the lock, prints the result, and keeps the lock until it is killed or
// its standard input ends.
func hold(dir string) {
	root, err := os.OpenRoot(dir)
	if err == nil {
		_, err = TryLock(root, "lock", 0o666)
	}
	fmt.Println(err)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(0)
}

func openRoot(t *testing.T) *os.Root {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func mustLock(t *testing.T, root *os.Root) *Lock {
	t.Helper()
	l, err := TryLock(root, "lock", 0o666)
	if err != nil {
		t.Fatalf("TryLock = %v, want a lock", err)
	}
	return l
}

func TestExcludes(t *testing.T) {
	root := openRoot(t)
	l := mustLock(t, root)
	if _, err := TryLock(root, "lock", 0o666); !errors.Is(err, ErrHeld) {
		t.Fatalf("second TryLock = %v, want ErrHeld", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l = mustLock(t, root)
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Lstat("lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("after Remove: Lstat = %v, want ErrNotExist", err)
	}
}

func TestKilledProcessLosesItsLock(t *testing.T) {
	root := openRoot(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), holdIn+"="+root.Name())
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "<nil>\n" {
		t.Fatalf("child's TryLock: %q, %v", line, err)
	}
	if _, err := TryLock(root, "lock", 0o666); !errors.Is(err, ErrHeld) {
		t.Errorf("TryLock while the child lives = %v, want ErrHeld", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // the error only says that the child was killed
	if err := mustLock(t, root).Unlock(); err != nil {
		t.Error(err)
	}
}

// A lock on a file that was removed excludes nobody, and TryLock must not return it:
// of many processes that lock and remove, never two hold the lock at once.
func TestRemoveNeverLetsTwoIn(t *testing.T) {
	root := openRoot(t)
	var inside, entered atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 300 {
				l, err := TryLock(root, "lock", 0o666)
				if errors.Is(err, ErrHeld) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				entered.Add(1)
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d holders at once", n)
				}
				inside.Add(-1)
				if err := l.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if entered.Load() == 0 {
		t.Error("no one ever got the lock")
	}
}

func TestErrors(t *testing.T) {
	root := openRoot(t)
	if err := root.Mkdir("dir", 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dir", "missing/lock", "../lock"} {
		if l, err := TryLock(root, name, 0o666); err == nil {
			_ = l.Unlock()
			t.Errorf("TryLock(%q) gave a lock", name)
		}
	}
}
