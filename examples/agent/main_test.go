package main

import (
	"strings"
	"testing"
	"time"

	_ "github.com/holdfast-io/holdfast/backend/mem"
)

func TestAgent(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), 500*time.Millisecond, []string{"mem://" + t.Name()}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		"The agent makes a plan.",
		"is forked for a second attempt",
		"The first attempt is rolled back to checkpoint",
		"Both attempts are what they must be",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if n := strings.Count(out.String(), "Nothing was written for 500ms: saved as checkpoint"); n != 5 {
		t.Errorf("%d checkpoints; want one for each of 5 steps\n%s", n, &out)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, want string
		quiet      time.Duration
		args       []string
	}{
		{"two URLs", "too many arguments", time.Second, []string{"mem://a", "mem://b"}},
		{"no time at all", "-quiet 0s is too short", 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := run(t.Context(), c.quiet, c.args, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}
