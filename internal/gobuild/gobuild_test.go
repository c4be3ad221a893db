package gobuild

import (
	"archive/zip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// tiny is a program that is built from a module proxy of the test's own.
func tiny(t *testing.T) Program {
	if runtime.GOOS != "linux" {
		t.Skip("the test moves the user's cache directory, which it knows how to do on Linux")
	}
	proxy := t.TempDir()
	dir := filepath.Join(proxy, "example.test", "tiny", "@v")
	const gomod = "module example.test/tiny\n\ngo 1.24\n"
	writeFile(t, filepath.Join(dir, "list"), "v1.0.0\n")
	writeFile(t, filepath.Join(dir, "v1.0.0.info"), `{"Version":"v1.0.0"}`)
	writeFile(t, filepath.Join(dir, "v1.0.0.mod"), gomod)
	writeZip(t, filepath.Join(dir, "v1.0.0.zip"), map[string]string{
		"example.test/tiny@v1.0.0/go.mod":  gomod,
		"example.test/tiny@v1.0.0/main.go": "package main\n\nfunc main() {}\n",
	})
	compiled, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOCACHE", strings.TrimSpace(string(compiled)))
	t.Setenv("GOMODCACHE", t.TempDir())
	t.Setenv("GOPROXY", "file://"+proxy)
	t.Setenv("GONOSUMDB", "example.test")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Cleanup(func() { // its files are read-only
		if out, err := exec.Command("go", "clean", "-modcache").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return Program{Name: "tiny", Package: "example.test/tiny", Version: "v1.0.0"}
}

func writeFile(t *testing.T, file, content string) {
	t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

func writeZip(t *testing.T, file string, content map[string]string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for name, text := range content {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// captureStderr returns what is printed while f runs.
func captureStderr(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = old }()
	f()
	out, err := os.ReadFile(file.Name())
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestBuildOnce(t *testing.T) {
	p := tiny(t)
	said := captureStderr(t, func() {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				executable, err := p.Build(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if out, err := exec.Command(executable).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
		wg.Wait()
	})
	if n := strings.Count(said, "building tiny v1.0.0"); n != 1 {
		t.Errorf("built %d times:\n%s", n, said)
	}
}

func TestBuildFails(t *testing.T) {
	p := tiny(t)
	p.Version = "v9.9.9"
	captureStderr(t, func() {
		if _, err := p.Build(t.Context()); err == nil || !strings.Contains(err.Error(), "example.test/tiny@v9.9.9") {
			t.Errorf("got %v", err)
		}
	})
}
