package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/holdfast-io/holdfast/backend/mem"
)

// A second run adds to the first one's total what has come since, and does not
// read again what the first has read.
func TestGoesOnWhereItStopped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "numbers.txt")
	var numbers strings.Builder
	for i := range 2500 {
		fmt.Fprintln(&numbers, i)
	}
	for _, step := range []struct{ input, total string }{
		{numbers.String(), "3123750"},
		{numbers.String(), "3123750"},                                         // nothing new
		{strings.Repeat("\n", numbers.Len()-1) + "\n7\n3\n", "3123760"},       // what was read is not read again
		{strings.Repeat("\n", numbers.Len()-1) + "\n7\n3\n100\n4", "3123860"}, // the 4 may become a 42
	} {
		if err := os.WriteFile(path, []byte(step.input), 0o600); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := addUp(t.Context(), "mem://hostapp/jobs", path, &out); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(out.String()); got != step.total {
			t.Errorf("total %s; want %s", got, step.total)
		}
	}
}
