package atomicdir

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	holdFor    = "ATOMICDIR_TEST_HOLD"    // a target; turns this binary into a child that begins it and waits
	replaceFor = "ATOMICDIR_TEST_REPLACE" // a target; turns this binary into a child that replaces it for ever
)

func TestMain(m *testing.M) {
	if target := os.Getenv(holdFor); target != "" {
		hold(target)
	}
	if target := os.Getenv(replaceFor); target != "" {
		replaceForEver(target)
	}
	goleak.VerifyTestMain(m)
}

// fill writes the files of a generation into a directory: every file has the
// generation's name as its content.
func fill(dir, generation string) error { return fillWith(generationFiles, dir, generation) }

func fillWith(files []string, dir, generation string) error {
	for _, name := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(generation), 0o644); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(dir, "sub"), 0o555)
}

var generationFiles = []string{"a", "b", "c", "sub/d", "sub/e"}

// generation returns the generation of a directory, or an error if files are missing
// or are of different generations.
func generation(dir string) (string, error) { return generationOf(generationFiles, dir) }

func generationOf(files []string, dir string) (string, error) {
	var found []string
	one := ""
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, p))
		if err == nil && one != "" && string(data) != one {
			err = fmt.Errorf("%s is of %s, another file of %s", p, data, one)
		}
		one = string(data)
		found = append(found, p)
		return err
	})
	if err == nil && !slices.Equal(found, files) {
		err = fmt.Errorf("it has %v", found)
	}
	return one, err
}

func wantGeneration(t *testing.T, dir, want string) {
	t.Helper()
	if got, err := generation(dir); err != nil || got != want {
		t.Errorf("%s is of generation %q, %v; want %q", dir, got, err, want)
	}
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("in %s there is %q, want %q", dir, got, want)
	}
}

func begin(t *testing.T, target string, replace bool) *Dir {
	t.Helper()
	d, err := Begin(target, replace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Abort() })
	return d
}

// build begins, fills and commits a directory.
func build(target, gen string, replace bool) error {
	d, err := Begin(target, replace)
	if err != nil {
		return err
	}
	if err := fill(d.at(), gen); err != nil {
		return errors.Join(err, d.Abort())
	}
	return d.Commit(nil)
}

// at returns the path of the new directory.
func (d *Dir) at() string { return d.parent.path(d.aside) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// removeAll is os.RemoveAll for trees with read-only directories.
func removeAll(path string) error {
	root, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(clearOut(root), root.Close(), os.Remove(path))
}

// tempDir is t.TempDir for tests that make read-only directories.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillNew makes a directory and fills it.
func fillNew(dir, gen string) error { return errors.Join(os.MkdirAll(dir, 0o755), fill(dir, gen)) }

func mustFill(t *testing.T, dir, gen string) {
	t.Helper()
	if err := fillNew(dir, gen); err != nil {
		t.Fatal(err)
	}
}

func TestCommit(t *testing.T) {
	for _, c := range []struct {
		name    string
		make    func(parent string) error
		target  string // in parent
		replace bool
		want    []string // names in parent afterwards
	}{
		{name: "absent", target: "x", want: []string{"x"}},
		{name: "absent, to be replaced", target: "x", replace: true, want: []string{"x"}},
		{name: "empty", target: "x", want: []string{"x"},
			make: func(parent string) error { return os.Mkdir(filepath.Join(parent, "x"), 0o755) }},
		{name: "empty and read-only", target: "x", want: []string{"x"},
			make: func(parent string) error { return os.Mkdir(filepath.Join(parent, "x"), 0o555) }},
		{name: "not empty", target: "x", replace: true, want: []string{"x"},
			make: func(parent string) error { return fillNew(filepath.Join(parent, "x"), "old") }},
		{name: "parents missing", target: "a/b/x", want: []string{"a"}},
		{name: "link to a directory", target: "link", replace: true, want: []string{"link", "x"},
			make: func(parent string) error {
				return errors.Join(fillNew(filepath.Join(parent, "x"), "old"), os.Symlink("x", filepath.Join(parent, "link")))
			}},
		{name: "below a link", target: "link/x", want: []string{"link", "d"},
			make: func(parent string) error {
				return errors.Join(os.Mkdir(filepath.Join(parent, "d"), 0o755), os.Symlink("d", filepath.Join(parent, "link")))
			}},
		{name: "name that looks like a pattern", target: "[a*]?", replace: true, want: []string{"[a*]?"},
			make: func(parent string) error { return fillNew(filepath.Join(parent, "[a*]?"), "old") }},
		{name: "name with a backslash", target: `a\b[`, want: []string{`a\b[`}},
		{name: "hidden", target: ".x", want: []string{".x"}},
		{name: "beside others", target: "x", replace: true, want: []string{"x", "xx", ".x", ".x.holdfast", "y.lock"},
			make: func(parent string) error {
				var errs []error
				for _, name := range []string{"xx", ".x", ".x.holdfast", "y.lock"} {
					errs = append(errs, os.Mkdir(filepath.Join(parent, name), 0o755))
				}
				return errors.Join(errs...)
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := tempDir(t)
			if c.make != nil {
				if err := c.make(parent); err != nil {
					t.Fatal(err)
				}
			}
			target := filepath.Join(parent, c.target)
			if err := build(target, "new", c.replace); err != nil {
				t.Fatal(err)
			}
			wantGeneration(t, target+"/", "new")
			wantNames(t, parent, c.want...)
			wantNothingAside(t, parent)
		})
	}
}

// wantNothingAside fails if there is anything below dir that a Dir makes beside a
// target.
func wantNothingAside(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if strings.Contains(filepath.Base(p), ".holdfast-") {
			t.Errorf("%s is left", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRelativeTarget(t *testing.T) {
	t.Chdir(tempDir(t))
	mustFill(t, "x", "old")
	d := begin(t, "x", true)
	if err := fill(d.at(), "new"); err != nil {
		t.Fatal(err)
	}
	target := d.parent.path(d.target)
	t.Chdir(tempDir(t)) // the relative target must still mean the old place
	if err := d.Commit(nil); err != nil {
		t.Fatal(err)
	}
	wantGeneration(t, target, "new")
	wantNothingAside(t, filepath.Dir(target))
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		make    func(parent string) error
		target  string
		replace bool
		kind    error
		text    string // after the target
	}{
		{name: "not empty", target: "x", kind: ErrNotEmpty, text: ": the directory is not empty",
			make: func(parent string) error { return os.MkdirAll(filepath.Join(parent, "x", "sub"), 0o755) }},
		{name: "a file", target: "x", replace: true, text: ": not a directory",
			make: func(parent string) error { return os.WriteFile(filepath.Join(parent, "x"), nil, 0o644) }},
		{name: "a link to a file", target: "x", replace: true, text: ": not a directory",
			make: func(parent string) error {
				return errors.Join(os.WriteFile(filepath.Join(parent, "f"), nil, 0o644), os.Symlink("f", filepath.Join(parent, "x")))
			}},
		{name: "a link to nothing", target: "x", replace: true, text: ": a symbolic link to nothing",
			make: func(parent string) error { return os.Symlink("nothing", filepath.Join(parent, "x")) }},
		{name: "a link to itself", target: "x", replace: true, text: "too many links",
			make: func(parent string) error { return os.Symlink("x", filepath.Join(parent, "x")) }},
		{name: "below a file", target: "f/x", text: "not a directory",
			make: func(parent string) error { return os.WriteFile(filepath.Join(parent, "f"), nil, 0o644) }},
		{name: "a root", target: strings.Repeat("../", 40), replace: true, text: "/: a root directory cannot be replaced",
			make: func(string) error { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := tempDir(t)
			if err := c.make(parent); err != nil {
				t.Fatal(err)
			}
			before := names(t, parent)
			_, err := Begin(filepath.Join(parent, c.target), c.replace)
			if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") || c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("err = %v; want ...%s", err, c.text)
			}
			wantNames(t, parent, before...)
		})
	}
}

// A target that is filled between Begin and Commit is replaced only if replace is
// set.
func TestTargetThatIsFilledMeanwhile(t *testing.T) {
	for _, replace := range []bool{false, true} {
		for _, existed := range []bool{false, true} {
			t.Run(fmt.Sprintf("replace %v, existed %v", replace, existed), func(t *testing.T) {
				parent := tempDir(t)
				target := filepath.Join(parent, "x")
				if existed {
					if err := os.Mkdir(target, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				d := begin(t, target, replace)
				if err := fill(d.at(), "new"); err != nil {
					t.Fatal(err)
				}
				mustFill(t, target, "someone's")
				err := d.Commit(nil)
				if replace {
					if err != nil {
						t.Error(err)
					}
					wantGeneration(t, target, "new")
				} else {
					if !errors.Is(err, ErrNotEmpty) {
						t.Errorf("err = %v, want ErrNotEmpty", err)
					}
					wantGeneration(t, target, "someone's")
				}
				wantNames(t, parent, "x")
			})
		}
	}
}

// A target that becomes a file is not replaced.
func TestTargetThatBecomesAFile(t *testing.T) {
	parent := tempDir(t)
	target := filepath.Join(parent, "x")
	d := begin(t, target, true)
	if err := errors.Join(fill(d.at(), "new"), os.WriteFile(target, []byte("file"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(nil); err == nil {
		t.Error("it was replaced")
	}
	if data, err := os.ReadFile(target); string(data) != "file" {
		t.Errorf("%q, %v", data, err)
	}
	wantNames(t, parent, "x")
}

func TestAbortLeavesNothing(t *testing.T) {
	parent := tempDir(t)
	target := filepath.Join(parent, "x")
	mustFill(t, target, "old")
	d := begin(t, target, true)
	if err := fill(d.at(), "new"); err != nil { // includes a read-only directory
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Abort(); err != nil {
			t.Error(err)
		}
		wantGeneration(t, target, "old")
		wantNames(t, parent, "x")
	}
}

func TestAbortAfterCommitDoesNothing(t *testing.T) {
	parent := tempDir(t)
	d := begin(t, filepath.Join(parent, "x"), false)
	if err := errors.Join(fill(d.at(), "new"), d.Commit(nil), d.Abort()); err != nil {
		t.Error(err)
	}
	wantGeneration(t, filepath.Join(parent, "x"), "new")
	wantNames(t, parent, "x")
}

// child starts this binary as a child process.
func child(t *testing.T, variable, target string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+target)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe() // it ends the child if this process dies
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be dead already
		_ = cmd.Wait()
		_ = stdin.Close()
	})
	return cmd, bufio.NewReader(stdout)
}

// hold begins a target, fills it, prints a line and waits.
func hold(target string) {
	d, err := Begin(target, true)
	if err == nil {
		err = fill(d.at(), "half")
	}
	fmt.Println(err)
	untilParentIsGone()
}

// untilParentIsGone ends a child when its standard input ends.
func untilParentIsGone() {
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(0)
}

func TestLeftoversOfTheDeadAreSwept(t *testing.T) {
	parent := tempDir(t)
	target := filepath.Join(parent, "x")
	mustFill(t, target, "old")
	cmd, out := child(t, holdFor, target)
	if line, err := out.ReadString('\n'); line != "<nil>\n" {
		t.Fatalf("child: %q, %v", line, err)
	}
	left := names(t, parent)
	if len(left) != 3 {
		t.Fatalf("while the child lives, %q is left", left)
	}
	// Other processes replace the target meanwhile, and build another one.
	if err := errors.Join(build(target, "new", true), build(filepath.Join(parent, "y"), "y", false)); err != nil {
		t.Fatal(err)
	}
	wantGeneration(t, target, "new")
	wantNames(t, parent, append(left, "y")...)

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the error only says that the child was killed
	wantNames(t, parent, append(left, "y")...)
	if _, err := Begin(target, false); !errors.Is(err, ErrNotEmpty) { // a Begin that is refused sweeps as well
		t.Errorf("Begin = %v, want ErrNotEmpty", err)
	}
	wantNames(t, parent, "x", "y")
	wantGeneration(t, target, "new")
}

// Where directories cannot be exchanged, a process that is killed between the two
// renames leaves no target. The next Begin puts the old one back.
func TestKilledBetweenTwoRenames(t *testing.T) {
	aside := filepath.Join(".x.holdfast-abc")
	for _, c := range []struct {
		name    string
		make    []string // directories, of the generation that is their name
		replace bool
		refused bool
		want    string
	}{
		{name: "between", make: []string{aside, aside + oldSuffix}, refused: true, want: aside + oldSuffix},
		{name: "between, and replaced now", make: []string{aside, aside + oldSuffix}, replace: true, want: "new"},
		{name: "after both", make: []string{"x", aside + oldSuffix}, refused: true, want: "x"},
		{name: "before both", make: []string{"x", aside}, refused: true, want: "x"},
		{name: "before the directory was made", make: nil, want: "new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := tempDir(t)
			for _, name := range c.make {
				mustFill(t, filepath.Join(parent, name), name)
			}
			if err := os.WriteFile(filepath.Join(parent, aside+lockSuffix), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			err := build(filepath.Join(parent, "x"), "new", c.replace)
			if c.refused != errors.Is(err, ErrNotEmpty) || !c.refused && err != nil {
				t.Errorf("err = %v", err)
			}
			wantGeneration(t, filepath.Join(parent, "x"), c.want)
			wantNames(t, parent, "x")
		})
	}
}

func TestMoveAndRename(t *testing.T) {
	parent := tempDir(t)
	target := filepath.Join(parent, "x")
	mustFill(t, target, "old")
	d := begin(t, target, true)
	if err := errors.Join(fill(d.at(), "new"), d.moveAndRename()); err != nil {
		t.Fatal(err)
	}
	wantGeneration(t, target, "new")
	if err := d.Abort(); err != nil {
		t.Error(err)
	}
	wantNames(t, parent, "x")

	d = begin(t, target, true) // its new directory is removed below
	if err := errors.Join(os.Remove(d.at()), d.moveAndRename()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("err = %v, want ErrNotExist", err)
	}
	if err := d.Abort(); err != nil {
		t.Error(err)
	}
	wantGeneration(t, target, "new")
	wantNames(t, parent, "x")
}

// Names that only look similar are not swept.
func TestSweepLeavesWhatIsNotItsOwn(t *testing.T) {
	parent := tempDir(t)
	keep := []string{".x.holdfast-noone", ".x.holdfast-.lock.d", ".xx.holdfast-abc.lock", ".y.holdfast-abc.lock", "x.holdfast-abc.lock", "holdfast-abc.lock"}
	for _, name := range keep {
		if err := os.WriteFile(filepath.Join(parent, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := build(filepath.Join(parent, "x"), "new", false); err != nil {
		t.Fatal(err)
	}
	wantNames(t, parent, append(keep, "x")...)
}

// Many processes replace one target at once. Each succeeds, and the target is always
// the complete directory of one of them.
func TestManyReplaceOneTarget(t *testing.T) {
	parent := tempDir(t)
	target := filepath.Join(parent, "x")
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for k := range 5 {
				if err := build(target, fmt.Sprint(n, " ", k), true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := generation(target); err != nil {
		t.Error(err)
	}
	wantNames(t, parent, "x")
}

func TestManyMakeOneTarget(t *testing.T) {
	parent := tempDir(t)
	target := filepath.Join(parent, "new", "x")
	start := make(chan struct{})
	won := make(chan string, 8)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			<-start
			gen := fmt.Sprint("by ", n)
			switch err := build(target, gen, false); {
			case err == nil:
				won <- gen
			case !errors.Is(err, ErrNotEmpty):
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d succeeded, want 1", len(won))
	}
	wantGeneration(t, target, <-won)
	wantNames(t, filepath.Dir(target), "x")
}

// replaceForEver replaces a target again and again, and prints a letter before and
// after each commit.
func replaceForEver(target string) {
	go untilParentIsGone()
	for n := 0; ; n++ {
		d, err := Begin(target, true)
		if err == nil {
			fmt.Print("b")
			err = fill(d.at(), fmt.Sprint(os.Getpid(), " ", n))
		}
		if err == nil {
			fmt.Print("c")
			err = d.Commit(nil)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// A process that replaces a directory is killed again and again, at random moments.
// The directory always exists, and all its files are of one generation.
func TestKilledWhileItReplaces(t *testing.T) {
	parent := tempDir(t)
	target := filepath.Join(parent, "x")
	mustFill(t, target, "first")
	seen := map[string]bool{}
	for range 30 {
		cmd, out := child(t, replaceFor, target)
		// A commit begins after the letter c, and is over before the next b. Measure
		// how long one takes, then kill the child at a random moment of a later one.
		await(t, out, 'c')
		began := time.Now()
		await(t, out, 'b')
		takes := time.Since(began)
		await(t, out, 'c')
		for kill := time.Now().Add(rand.N(takes)); time.Now().Before(kill); {
			if _, err := os.Lstat(target); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the error only says that the child was killed
		gen, err := generation(target)
		if err != nil {
			t.Fatal(err)
		}
		seen[gen] = true
	}
	if len(seen) < 30 { // each child replaced it at least once
		t.Errorf("only %d generations were seen", len(seen))
	}
	if err := build(target, "last", true); err != nil {
		t.Error(err)
	}
	wantGeneration(t, target, "last")
	wantNames(t, parent, "x")
}

// await reads a child's output up to a letter.
func await(t *testing.T, out *bufio.Reader, step byte) {
	t.Helper()
	if _, err := out.ReadString(step); err != nil {
		t.Fatal(err)
	}
}
