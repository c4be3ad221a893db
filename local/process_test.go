package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

// The tests in this file start this test binary again, as other processes that use
// the same directory. A child does what roleVar says, in the directory dirVar, and
// communicates over its standard input and output.
const (
	roleVar = "LOCAL_TEST_ROLE"
	dirVar  = "LOCAL_TEST_DIR"
)

func runRole(role string) {
	roles := map[string]func(s *Store, id string, in *bufio.Reader) error{
		"race": raceRole, "stall": stallRole, "write": writeRole,
	}
	s, err := New(os.Getenv(dirVar))
	if err == nil {
		err = roles[role](s, strconv.Itoa(os.Getpid()), bufio.NewReader(os.Stdin))
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// raceRole creates each key that it reads, and prints whether it succeeded.
func raceRole(s *Store, id string, in *bufio.Reader) error {
	for {
		key, err := in.ReadString('\n')
		if err != nil {
			return s.Close()
		}
		_, err = s.Create(context.Background(), strings.TrimSpace(key), []byte(id))
		switch {
		case err == nil:
			fmt.Println("won", id)
		case errors.Is(err, backend.ErrExist):
			fmt.Println("lost")
		default:
			return err
		}
	}
}

// stallRole creates a key of its own, and stops just before the link until it is told
// to go on.
func stallRole(s *Store, id string, in *bufio.Reader) error {
	s.step = func(op, _ string, do func() error) error {
		if op == "link" {
			fmt.Println("stalled")
			if _, err := in.ReadString('\n'); err != nil {
				return err
			}
		}
		return do()
	}
	_, err := s.Create(context.Background(), "stall/"+id, []byte(id))
	fmt.Println("created", err)
	return errors.Join(err, s.Close())
}

// writeRole makes objects, by Create and Put in turn, until it is killed. It prints
// each key when the object is durable.
func writeRole(s *Store, id string, _ *bufio.Reader) error {
	for i := 0; ; i++ {
		v := writes[i%2]
		key := fmt.Sprintf("write/%s/%05d", id, i)
		if _, err := v.call(s, context.Background(), key, bytesOf(key)); err != nil {
			return err
		}
		fmt.Println(key)
	}
}

// bytesOf returns up to 512 KiB that depend only on the key.
func bytesOf(key string) []byte {
	h := fnv.New64a()
	h.Write([]byte(key))
	r := rand.New(rand.NewPCG(h.Sum64(), 0))
	data := make([]byte, r.IntN(512<<10))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t *testing.T, role, dir string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0])}
	c.Env = append(os.Environ(), roleVar+"="+role, dirVar+"="+dir)
	c.Stderr = os.Stderr
	var err error
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewScanner(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// kill ends the child with SIGKILL, and waits for its end. The errors would only say
// that it was killed.
func (c *child) kill() {
	_ = c.Process.Kill()
	_ = c.Wait()
}

func (c *child) say(t *testing.T, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		t.Fatal(err)
	}
}

// hear returns the child's next line.
func (c *child) hear(t *testing.T) string {
	t.Helper()
	if !c.out.Scan() {
		t.Fatalf("the child said no more: %v", c.out.Err())
	}
	return c.out.Text()
}

func TestProcessesRace(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	var children []*child
	for range 4 {
		children = append(children, start(t, "race", dir))
	}
	for round := range 100 {
		key := fmt.Sprintf("race/%03d", round)
		for _, c := range children {
			c.say(t, key)
		}
		var winners []string
		for _, c := range children {
			if id, won := strings.CutPrefix(c.hear(t), "won "); won {
				winners = append(winners, id)
			}
		}
		if len(winners) != 1 || content(t, s, key) != winners[0] {
			t.Fatalf("%s holds %q; winners: %q", key, content(t, s, key), winners)
		}
	}
	for _, c := range children {
		if err := errors.Join(c.in.Close(), c.Wait()); err != nil {
			t.Errorf("child: %v", err)
		}
	}
	if n := locks(t, dir); n != 0 || temporary(t, dir) != nil {
		t.Errorf("left: %d locks and %q", n, temporary(t, dir))
	}
}

// The next handle that writes removes the temporary files of a killed process, and
// keeps those of a living one, however long it stalls.
func TestSweepSparesTheLiving(t *testing.T) {
	dir := t.TempDir()
	dead, living := start(t, "stall", dir), start(t, "stall", dir)
	for _, c := range []*child{dead, living} {
		if got := c.hear(t); got != "stalled" {
			t.Fatalf("child: %s", got)
		}
	}
	mustCreate(t, openStore(t, dir), "first", "data")
	if left := temporary(t, dir); len(left) != 2 {
		t.Fatalf("while both live: %q, want 2 files", left)
	}
	dead.kill()
	if left := temporary(t, dir); len(left) != 2 {
		t.Fatalf("after the kill: %q, want 2 files", left)
	}
	mustCreate(t, openStore(t, dir), "second", "data")
	if left := temporary(t, dir); len(left) != 1 {
		t.Fatalf("after the sweep: %q, want only the file of the living process", left)
	}
	if n := locks(t, dir); n != 3 {
		t.Errorf("%d locks, want 3, of the living processes", n)
	}
	living.say(t, "go on")
	if got := living.hear(t); got != "created <nil>" {
		t.Errorf("the living process: %s", got)
	}
}

// Processes are killed while they write. All objects that they acknowledged exist,
// all objects are complete, and their temporary files are removed.
func TestKilledWriters(t *testing.T) {
	dir := t.TempDir()
	acknowledged := 0
	for kill := range 12 {
		c := start(t, "write", dir)
		for range 1 + rand.IntN(12) {
			c.hear(t)
			acknowledged++
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		acknowledged += checkWriter(t, dir, c)
		if kill%4 == 3 { // a new handle sweeps after several deaths at once
			mustCreate(t, openStore(t, dir), fmt.Sprintf("sweep/%02d", kill), "")
			if left := temporary(t, dir); left != nil {
				t.Fatalf("left: %q", left)
			}
		}
	}
	t.Logf("%d objects acknowledged", acknowledged)
}

// checkWriter reads the remaining output of a killed writer, and checks all objects
// that it made. It returns the number of lines that it read.
func checkWriter(t *testing.T, dir string, c *child) int {
	t.Helper()
	last, said := "", 0
	for ; c.out.Scan(); said++ {
		last = c.out.Text()
	}
	id := strconv.Itoa(c.Process.Pid)
	c.kill()
	s := openStore(t, dir)
	keys := list(t, s, "write/"+id+"/", "")
	for i, key := range keys {
		if want := fmt.Sprintf("write/%s/%05d", id, i); key != want {
			t.Fatalf("the object after %d others is %s, want %s", i, key, want)
		}
		if got := content(t, s, key); got != string(bytesOf(key)) {
			t.Fatalf("%s: %d bytes that are not what was written", key, len(got))
		}
	}
	if last != "" && (len(keys) == 0 || keys[len(keys)-1] < last) {
		t.Fatalf("%s was acknowledged; there are %q", last, keys)
	}
	return said
}
