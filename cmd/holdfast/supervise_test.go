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
