package deploycheck

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const unit = "deploy/systemd/holdfast-run@.service"

// verify returns what systemd says of a unit: nothing, if it is right. The command need not be
// installed.
func verify(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "holdfast-run@.service")
	content = strings.ReplaceAll(content, "ExecStart=/usr/local/bin/holdfast ", "ExecStart=/bin/true ")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, "systemd-analyze", "verify", path).CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return string(out)
}

// TestSystemdUnit: systemd finds nothing to say of the unit.
func TestSystemdUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no systemd-analyze here, which is in Debian's package systemd")
	}
	content := string(file(t, unit))
	if said := verify(t, content); said != "" {
		t.Error(said)
	}
	for name, wrong := range map[string]string{
		"an option that does not exist": strings.Replace(content, "KillMode=", "KillMod=", 1),
		"a value that is none":          strings.Replace(content, "TimeoutStopSec=75", "TimeoutStopSec=soon", 1),
		"a command that is not there":   strings.Replace(content, "ExecStart=/usr/local/bin/", "ExecStart=/nowhere/", 1),
	} {
		if verify(t, wrong) == "" {
			t.Errorf("%s is not found", name)
		}
	}
}

// TestSystemdUnitRuns runs the command line of the unit, as instance orders, with directories
// of this test's in place of the system's.
func TestSystemdUnitRuns(t *testing.T) {
	start := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindSubmatch(file(t, unit))
	if start == nil {
		t.Fatal("the unit starts nothing")
	}
	dir := t.TempDir()
	holdfast := filepath.Join(dir, "holdfast")
	mustRun(t, command(t, "go", "build", "-o", holdfast, "./cmd/holdfast"))
	if err := os.MkdirAll(filepath.Join(dir, "holdfast-run", "orders"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "orders"), []byte("#!/bin/sh\necho 1 >$HOLDFAST_STATE/n\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	args := strings.Fields(strings.NewReplacer("%i", "orders", "%S", dir, "/usr/local/bin", dir, "/usr/local/lib/holdfast-run", dir).Replace(string(start[1])))
	store := (&url.URL{Scheme: "file", Path: filepath.Join(dir, "store")}).String()
	cmd := command(t, args[0], args[1:]...)
	cmd.Env = append(cmd.Env, "HOLDFAST_URL="+store)
	mustRun(t, cmd)
	if out := mustRun(t, command(t, holdfast, "ls", store)); !strings.Contains(out, "orders") {
		t.Errorf("no checkpoint of orders in\n%s", out)
	}
}

// TestSystemdTimes: systemd waits for the program and for its last checkpoint, and does not
// start again what would end in the same way.
func TestSystemdTimes(t *testing.T) {
	content := string(file(t, unit))
	if !regexp.MustCompile(`--grace 30s`).MatchString(content) || !strings.Contains(content, "\nTimeoutStopSec=75\n") {
		t.Error("TimeoutStopSec is not twice --grace, and 15 s")
	}
	codes := regexp.MustCompile(`(?m)^\| (12[0-9]) \|`).FindAllStringSubmatch(string(file(t, "docs/run.md")), -1)
	prevent := regexp.MustCompile(`(?m)^RestartPreventExitStatus=(.*)$`).FindStringSubmatch(content)
	if len(codes) != 8 || prevent == nil {
		t.Fatalf("%q, %q", codes, prevent)
	}
	var all []string
	for _, c := range codes {
		if c[1] != "121" { // the store could not be reached, say: that may pass
			all = append(all, c[1])
		}
	}
	if want := strings.Join(all, " "); prevent[1] != want {
		t.Errorf("it is not started again after %s; by docs/run.md, that is %s", prevent[1], want)
	}
}
