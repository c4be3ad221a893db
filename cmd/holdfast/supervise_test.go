package main

import (
	"testing"
	"time"
)

// TestRunGivesACommitItsTime: a large first checkpoint over a slow line takes hours. It ends when
// its program's end ends it, and not before.
func TestRunGivesACommitItsTime(t *testing.T) {
	s := &supervisor{p: &program{}, o: &runFlags{every: time.Minute}}
	if got := s.options().CommitTimeout; got < 365*24*time.Hour {
		t.Errorf("a commit is given up after %v", got)
	}
}

// TestRunHeartbeat: every run gives signs of life, whatever its flags: only by them does one whose
// cuts fail find out that it was fenced.
func TestRunHeartbeat(t *testing.T) {
	for _, c := range []struct {
		name string
		o    runFlags
		want time.Duration
	}{
		{"by time", runFlags{every: time.Minute}, 90 * time.Second},
		{"by time, with pauses", runFlags{every: time.Minute, pause: true}, 90 * time.Second},
		{"when asked", runFlags{every: time.Minute, whenAsked: true}, time.Minute},
		{"often", runFlags{every: time.Millisecond, whenAsked: true}, time.Second},
		{"a short silence", runFlags{every: time.Minute, silence: 20 * time.Second}, 5 * time.Second},
		{"a long silence", runFlags{every: time.Minute, silence: time.Hour}, 90 * time.Second},
	} {
		if got := (&supervisor{o: &c.o}).heartbeat(); got != c.want {
			t.Errorf("%s: every %v; want %v", c.name, got, c.want)
		}
	}
}
