// Package testreq makes silence in the test suites an error.
//
// A suite that needs a server skips on a machine that has none. In CI a suite
// that skips, or that is gone, is a suite that nobody runs. So CI sets two
// variables, and a suite calls the two functions:
//
//	HOLDFAST_TEST_REQUIRE  suites that must run, separated by commas: Skip fails them
//	HOLDFAST_TEST_RAN      a file that collects the names of the suites that passed
//
// The suite of a driver goes by the name of the driver's package:
//
//	func TestConformance(t *testing.T) {
//		testreq.Suite(t, "s3")
//		if testing.Short() {
//			testreq.Skip(t, "s3", "-short: no servers")
//		}
//		...
//
// Package testserver builds and runs servers for such suites, and skips them
// where it cannot. Two more variables name a place on any other server:
//
//	HOLDFAST_TEST_S3_URL   as in s3://bucket/try?region=eu-west-1
//	HOLDFAST_TEST_GCS_URL  as in gs://bucket/try
package testreq

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

const (
	requireVar = "HOLDFAST_TEST_REQUIRE"
	ranVar     = "HOLDFAST_TEST_RAN"
)

// Skip skips t, which belongs to suite, and says why; it fails t instead if
// the suite is required.
func Skip(t testing.TB, suite, reason string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv(requireVar), ","), suite) {
		t.Fatalf("suite %s may not skip (%s): %s", suite, requireVar, reason)
	}
	t.Skipf("suite %s: %s", suite, reason)
}

// Suite declares that t is the whole of suite. It notes that the suite ran
// when t has ended, neither failed nor skipped.
func Suite(t testing.TB, suite string) {
	file := os.Getenv(ranVar)
	if file == "" {
		return
	}
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return
		}
		if err := note(file, suite); err != nil {
			t.Errorf("noting that suite %s ran: %v", suite, err)
		}
	})
}

// note appends a line. Test binaries run side by side: one small write to a
// file opened for appending stays in one piece.
func note(file, suite string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(suite + "\n")
	return errors.Join(err, f.Close())
}
