package conformance

import "testing"

// Run runs every case as a subtest.
//
// For this function the package imports testing, as testing/slogtest does: it
// registers no flags, and adds less than 0.1 MiB to a program that uses
// [Cases].
func Run(t *testing.T, open Open) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.Run(t.Context(), open); err != nil {
				t.Error(err)
			}
		})
	}
}
