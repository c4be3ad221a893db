package deploycheck

import (
	"bufio"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// root is the root of the main module.
const root = "../.."

// file returns the content of a file of the main module.
func file(t *testing.T, path string) []byte {
	t.Helper()
	return mustRead(t, filepath.Join(root, path))
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// command returns a command in the main module, apart from any workspace.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "GOWORK=off")
	return cmd
}

// mustRun runs a command that must succeed, and returns what it has printed.
func mustRun(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// A metric is what a run exports under one name.
type metric struct{ labels map[string]bool }

// exported returns the metrics of a real run, by the names that queries use.
func exported(t *testing.T) map[string]metric {
	t.Helper()
	dir := t.TempDir()
	holdfast := filepath.Join(dir, "holdfast")
	mustRun(t, command(t, "go", "build", "-o", holdfast, "./cmd/holdfast"))
	store := (&url.URL{Scheme: "file", Path: filepath.Join(dir, "store")}).String()
	state := filepath.Join(dir, "state")
	mustRun(t, command(t, holdfast, "run", store, "a", "--state", state, "--", "sh", "-c", "echo 1 >$HOLDFAST_STATE/n"))
	mustRun(t, command(t, holdfast, "verify", store, "--restorable"))

	said := filepath.Join(dir, "stderr")
	stderr, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	run := command(t, holdfast, "run", store, "a", "--state", state, "--every", "50ms", "--metrics", "127.0.0.1:0", "--",
		"sh", "-c", `n=0; while :; do n=$((n+1)); echo $n >$HOLDFAST_STATE/n; sleep 0.02; done`)
	run.Stderr = stderr
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = run.Process.Kill()
		_ = run.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		found := scrape(t, said)
		_, tested := found["holdfast_restore_test_age_seconds"]
		if _, saved := found["holdfast_commit_duration_seconds_count"]; saved && tested {
			return found
		}
		if time.Now().After(end) {
			t.Fatalf("a run does not export its metrics; it has %v, and says %s", found, mustRead(t, said))
		}
	}
}

var (
	address = regexp.MustCompile(`metrics are at (http://\S+)\n`)
	label   = regexp.MustCompile(`([a-z_]+)="`)
)

// scrape returns what is exported now by the run that has said its address in a file.
func scrape(t *testing.T, said string) map[string]metric {
	t.Helper()
	found := make(map[string]metric)
	data, err := os.ReadFile(said)
	m := address.FindSubmatch(data)
	if err != nil || m == nil {
		return found
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, string(m[1]), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(strings.NewReader(string(body))); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		name := line[:strings.IndexAny(line, "{ ")]
		if found[name].labels == nil {
			found[name] = metric{make(map[string]bool)}
		}
		for _, l := range label.FindAllStringSubmatch(line, -1) {
			found[name].labels[l[1]] = true
		}
	}
	return found
}
