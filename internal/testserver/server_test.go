package testserver

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/gobuild"
)

// TestMain turns a copy of the test binary that is called tiny into a server.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "tiny" {
		tiny(os.Args[1], os.Args[2])
	}
	os.Exit(m.Run())
}

// tiny is a server whose first argument says how it behaves.
func tiny(mode, address string) {
	switch mode {
	case "fails":
		fmt.Println("cannot find my configuration")
		os.Exit(1)
	case "finds its port taken":
		if _, err := os.Stat("taken"); err != nil {
			fmt.Println("listen tcp: bind: address already in use", os.WriteFile("taken", nil, 0o644))
			os.Exit(1)
		}
	}
	http.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	fmt.Println(http.ListenAndServe(address, nil))
	os.Exit(1)
}

// program returns a program that behaves like this, as if it had been built.
func program(t *testing.T, mode string) Program {
	if runtime.GOOS != "linux" {
		t.Skip("the test moves the user's cache directory, which it knows how to do on Linux")
	}
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	dir := filepath.Join(cache, "holdfast", "programs", "tiny@v1.0.0")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "tiny")); err != nil {
		t.Fatal(err)
	}
	return Program{
		Program: gobuild.Program{Name: "tiny", Package: "example.test/tiny", Version: "v1.0.0"},
		health:  "/ready",
		command: func(s *Server) ([]string, []string) { return []string{mode, s.address}, nil },
	}
}

func TestStart(t *testing.T) {
	for _, mode := range []string{"serves", "finds its port taken"} {
		t.Run(mode, func(t *testing.T) {
			s, err := Start(t.Context(), program(t, mode), Config{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.waitReady(t.Context(), "/ready"); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := s.Stop(); err != nil {
					t.Error(err)
				}
			}
			if err := s.waitReady(t.Context(), "/ready"); err == nil {
				t.Error("it serves after Stop")
			}
		})
	}
	t.Run("fails", func(t *testing.T) {
		s, err := Start(t.Context(), program(t, "fails"), Config{Dir: t.TempDir()})
		if s != nil || err == nil || !strings.Contains(err.Error(), "cannot find my configuration") {
			t.Errorf("got %v, %v, want what the server printed", s, err)
		}
	})
}

// What docker compose builds is what the tests run.
func TestDockerfilesHaveTheSameVersions(t *testing.T) {
	for file, want := range map[string]string{
		"minio":           "ARG MINIO_VERSION=" + MinIO.Version + "\n",
		"fake-gcs-server": "ARG FAKE_GCS_SERVER_VERSION=" + FakeGCS.Version + "\n",
	} {
		dockerfile, err := os.ReadFile("../../deploy/" + file + "/Dockerfile")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(dockerfile), want) {
			t.Errorf("deploy/%s/Dockerfile builds another version than the tests run: want %s", file, want)
		}
	}
}
