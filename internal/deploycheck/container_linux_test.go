package deploycheck

import (
	"debug/elf"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// build runs the command of the Dockerfile that builds the program, and returns its path.
func build(t *testing.T, dir string) string {
	t.Helper()
	run := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 GOWORK=off go build .*) -o /holdfast (.*)$`).FindSubmatch(file(t, "deploy/container/Dockerfile"))
	if run == nil {
		t.Fatal("the Dockerfile builds no /holdfast")
	}
	holdfast := filepath.Join(dir, "holdfast")
	mustRun(t, command(t, "sh", "-c", string(run[1])+" -o '"+holdfast+"' "+string(run[2])))
	return holdfast
}

// TestContainer: what the Dockerfile builds needs no library, and runs as the first process of
// a PID namespace of its own, as a user without any rights, with nothing but a volume to
// write to.
func TestContainer(t *testing.T) {
	dir := t.TempDir()
	holdfast := build(t, dir)
	binary, err := elf.Open(holdfast)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	if libraries, err := binary.ImportedLibraries(); err != nil || len(libraries) > 0 || binary.Section(".interp") != nil {
		t.Errorf("it is not static: %q, %v", libraries, err)
	}
	if os.Getuid() != 0 {
		t.Skip("only root can make a PID namespace and become another user in it")
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "--pid", "--fork", "--mount-proc", "true").CombinedOutput(); err != nil {
		t.Skipf("this system lets nobody make a PID namespace: %v, %s", err, out)
	}
	volume := filepath.Join(dir, "volume")
	for path := dir; path != "/" && path != os.TempDir(); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(volume, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(volume, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	store := (&url.URL{Scheme: "file", Path: filepath.Join(volume, "store")}).String()
	cmd := command(t, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
		"setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
		holdfast, "run", store, "a", "--state", filepath.Join(volume, "state"), "--pause", "--every", "100ms", "--metrics", "127.0.0.1:0", "--", "sh", "-c", `
			grep -q '^PPid:[[:space:]]*1$' /proc/$PPID/status || { echo "run is not below process 1" >&2; exit 97; }
			( setsid sh -c 'sleep 0.2' & ) # an orphan
			echo 1 >"$HOLDFAST_STATE/n"
			sleep 1
			if grep -l '^State:[[:space:]]*Z' /proc/[0-9]*/status; then echo "nobody has collected the orphan" >&2; exit 98; fi
			exit 42`)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 42 {
		t.Errorf("%v: %s", err, out)
	}
	if out := mustRun(t, command(t, holdfast, "ls", store, "a")); !strings.Contains(out, "1") {
		t.Errorf("no checkpoint: %s", out)
	}
}

// TestDockerfile: its Go is not older than the module's.
func TestDockerfile(t *testing.T) {
	from := regexp.MustCompile(`(?m)^FROM golang:([0-9.]+) AS build$`).FindSubmatch(file(t, "deploy/container/Dockerfile"))
	is := regexp.MustCompile(`(?m)^go ([0-9]+\.[0-9]+)\.`).FindSubmatch(file(t, "go.mod"))
	if from == nil || is == nil || string(from[1]) != string(is[1]) {
		t.Errorf("the Dockerfile has Go %s, and go.mod wants %s", from, is)
	}
}
