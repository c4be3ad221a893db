package conformance

import "testing"

// Run runs every case as a subtest.
//
// This function is the reason why the package imports testing. That registers no
// flags, and adds less than 0.1 MiB to a program that uses [Cases].
func Run(t *testing.T, open Open) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.RunNoting(t.Context(), open, t.Logf); err != nil {
				t.Error(err)
			}
		})
	}
}
