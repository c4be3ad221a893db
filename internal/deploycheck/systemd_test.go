package deploycheck

import (
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

// TestSystemdTimes: systemd waits for the program and for its last checkpoint, and does not
// start again what would end in the same way.
func TestSystemdTimes(t *testing.T) {
	content := string(file(t, unit))
	if !regexp.MustCompile(`--grace 30s`).MatchString(content) || !strings.Contains(content, "\nTimeoutStopSec=75\n") {
		t.Error("TimeoutStopSec is not twice --grace, and 15 s")
	}
	codes := regexp.MustCompile(`(?m)^\| (12[0-9]) \|`).FindAllStringSubmatch(string(file(t, "docs/run.md")), -1)
	prevent := regexp.MustCompile(`(?m)^RestartPreventExitStatus=(.*)$`).FindStringSubmatch(content)
	if len(codes) != 7 || prevent == nil {
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
