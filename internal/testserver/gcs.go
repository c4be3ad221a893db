package testserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/gobuild"
)

// FakeGCS is an emulator of Google Cloud Storage, the only one that checks
// conditions on writes. It keeps objects in memory. It differs from the service
// in that it knows no access control, no limits on rates, no conditions on
// anything but writes, no retention or soft delete, and says "Not Found" of
// objects and buckets alike.
var FakeGCS = Program{
	Program: gobuild.Program{
		Name:    "fake-gcs-server",
		Package: "github.com/fsouza/fake-gcs-server",
		Version: "v1.56.1",
	},
	health: "/_internal/healthcheck",
	command: func(s *Server) ([]string, []string) {
		host, port, err := net.SplitHostPort(s.address)
		if err != nil {
			panic(err) // choosePort made it
		}
		args := []string{
			"-backend", "memory", "-log-level", "error", "-host", host, "-port", port,
			// Its own default makes clients that read by the XML API, as Google's
			// Go SDK does unless told otherwise, see no object at all.
			"-public-host", s.address, "-external-url", s.Endpoint,
		}
		if s.CAFile == "" {
			return append(args, "-scheme", "http"), nil
		}
		return append(args, "-scheme", "https",
			"-cert-location", filepath.Join(s.certs(), certFile), "-private-key-location", filepath.Join(s.certs(), keyFile)), nil
	},
}

// MakeGCSBucket makes a bucket on a [FakeGCS].
func (s *Server) MakeGCSBucket(ctx context.Context, bucket string) error {
	body := strings.NewReader(fmt.Sprintf(`{"name": %q}`, bucket))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Endpoint+"/storage/v1/b?project=test", body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	transport, err := s.Transport()
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("making bucket %s: %s", bucket, resp.Status)
	}
	return nil
}

// GCSURL returns the URL of a place on a [FakeGCS] without TLS. It takes no
// credentials.
func (s *Server) GCSURL(bucket, path string) string {
	return "gs://" + bucket + "/" + strings.TrimPrefix(path, "/") + "?endpoint=" + s.Endpoint
}

// GCS returns the URL of a bucket, or of a place in one, for tests of the given
// suite that need no more of it: the one that HOLDFAST_TEST_GCS_URL names, with
// the credentials of the environment, and otherwise one on a FakeGCS that runs
// as long as t. Others may be using the former, so a test works below a path of
// its own.
func GCS(t testing.TB, suite string) string {
	t.Helper()
	if url := os.Getenv("HOLDFAST_TEST_GCS_URL"); url != "" {
		return url
	}
	s := Run(t, suite, FakeGCS, false)
	if err := s.MakeGCSBucket(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	return s.GCSURL("test", "")
}
