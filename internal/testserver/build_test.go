package testserver

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

// tiny is a server whose first argument says how it behaves.
const tiny = `package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	mode, address := os.Args[1], os.Args[2]
	switch mode {
	case "fails":
		fmt.Println("can not find my configuration")
		os.Exit(1)
	case "finds its port taken":
		if _, err := os.Stat("taken"); err != nil {
			os.WriteFile("taken", nil, 0o644)
			fmt.Println("listen tcp: bind: address already in use")
			os.Exit(1)
		}
	}
	http.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	http.ListenAndServe(address, nil)
}
`

// tinyProgram is a program that is built from a module proxy of the test's own.
func tinyProgram(t *testing.T, mode string) Program {
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
		"example.test/tiny@v1.0.0/main.go": tiny,
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
	return Program{
		Name: "tiny", pkg: "example.test/tiny", version: "v1.0.0", health: "/ready",
		command: func(s *Server) ([]string, []string) { return []string{mode, s.address}, nil },
	}
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
	p := tinyProgram(t, "serves")
	said := captureStderr(t, func() {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				executable, err := p.build(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(executable); err != nil {
					t.Error(err)
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
	p := tinyProgram(t, "serves")
	p.version = "v9.9.9"
	captureStderr(t, func() {
		if _, err := p.build(t.Context()); err == nil || !strings.Contains(err.Error(), "example.test/tiny@v9.9.9") {
			t.Errorf("got %v", err)
		}
	})
}

func TestStart(t *testing.T) {
	for _, mode := range []string{"serves", "finds its port taken"} {
		t.Run(mode, func(t *testing.T) {
			var s *Server
			captureStderr(t, func() { s = Run(t, "tiny", tinyProgram(t, mode), false) })
			if err := s.waitReady(t.Context(), "/ready"); err != nil {
				t.Fatal(err)
			}
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := s.waitReady(t.Context(), "/ready"); err == nil {
				t.Error("it serves after Stop")
			}
		})
	}
	t.Run("fails", func(t *testing.T) {
		p := tinyProgram(t, "fails")
		captureStderr(t, func() {
			s, err := Start(t.Context(), p, Config{Dir: t.TempDir()})
			if s != nil || err == nil || !strings.Contains(err.Error(), "can not find my configuration") {
				t.Errorf("got %v, %v, want what the server printed", s, err)
			}
		})
	})
}
