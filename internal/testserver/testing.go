package testserver

import (
	"os"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/testreq"
)

// Run starts p for t, a part of the given suite, and ends it with t. Where
// servers cannot be had (-short, no Go command, no module proxy) it skips t,
// which fails when the suite is required.
func Run(t testing.TB, suite string, p Program, useTLS bool) *Server {
	t.Helper()
	if testing.Short() {
		testreq.Skip(t, suite, "-short: no servers")
	}
	if _, err := p.Build(t.Context()); err != nil {
		testreq.Skip(t, suite, err.Error())
	}
	s, err := Start(t.Context(), p, Config{Dir: t.TempDir(), TLS: useTLS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.Name, s.Output())
		}
		if err := s.Stop(); err != nil {
			t.Errorf("stopping %s: %v", p.Name, err)
		}
	})
	return s
}

// Setenv puts this process into the environment of [Server.Env] until t ends.
func (s *Server) Setenv(t testing.TB) {
	for _, pair := range s.Env() {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
}

// S3 returns the URL of a bucket, or of a place in one, for tests of the given
// suite that need no more of it: the one that HOLDFAST_TEST_S3_URL names, with
// the credentials of the environment, and otherwise one on a MinIO that runs
// as long as t, whose credentials it puts into the environment. Others may be
// using the former, so a test works below a path of its own.
func S3(t testing.TB, suite string) string {
	t.Helper()
	if url := os.Getenv("HOLDFAST_TEST_S3_URL"); url != "" {
		return url
	}
	s := Run(t, suite, MinIO, false)
	s.Setenv(t)
	if err := s.MakeBucket(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	return s.URL("test", "")
}
