package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
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

// TestRefusal: what is told of a commit that has failed. Only 503 means that the one before stands.
func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
		says string
	}{
		{"wrong", backend.Invalidf("no"), http.StatusBadRequest, "no"},
		{"a name that is taken", checkpoint.ErrConflict, http.StatusBadRequest, ""},
		{"fenced", checkpoint.ErrFenced, http.StatusConflict, ""},
		{"lost", checkpoint.ErrLost, http.StatusConflict, ""},
		{"in doubt", errors.Join(checkpoint.ErrUnknown, context.DeadlineExceeded), http.StatusGatewayTimeout, "it is not known whether the checkpoint was saved"},
		{"in doubt, and fenced since", errors.Join(checkpoint.ErrUnknown, checkpoint.ErrFenced), http.StatusConflict, ""},
		{"an earlier one in doubt", checkpoint.ErrUnsettled, http.StatusGatewayTimeout, "nothing was saved"},
		{"failed", errors.New("the disk"), http.StatusServiceUnavailable, "the disk"},
	} {
		if code, text := refusal(fmt.Errorf("task: %w", c.err)); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d, %q; want %d, and %q", c.name, code, text, c.code, c.says)
		}
	}
}

// TestExplainLast: what is told when the end of a run has failed is no more than what is known.
func TestExplainLast(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		saved bool
		code  int
		says  []string
	}{
		{"there is none", errors.New("the disk"), false, 121, []string{"was not given back", "needs --take-over"}},
		{"failed", errors.New("the disk"), false, 120, []string{"was not saved", "'holdfast save' before", "--take-over"}},
		{"in doubt", checkpoint.ErrUnknown, false, 120, []string{"it is not known whether", "'holdfast ls'", "--take-over"}},
		{"fenced", checkpoint.ErrFenced, false, 124, []string{"was not saved", "in work alone"}},
		{"lost", checkpoint.ErrLost, false, 125, []string{"was not saved", "in work alone"}},
		{"saved, and not released", checkpoint.ErrUnknown, true, 121, []string{"is saved", "not given back"}},
	} {
		s := &supervisor{o: &runFlags{state: "work"}, voice: &voice{ended: c.saved}}
		s.last.Store(c.name != "there is none")
		text, code := explain(t.Context(), ownCode{s.explainLast(0, c.err)})
		if code != c.code {
			t.Errorf("%s: exit code %d; want %d", c.name, code, c.code)
		}
		for _, says := range c.says {
			if !strings.Contains(text, says) {
				t.Errorf("%s: %q; want %q", c.name, text, says)
			}
		}
	}
}

// TestPasses: a standby follows again after what may be over soon, and after nothing else.
func TestPasses(t *testing.T) {
	ofStore := func(err error) error {
		return fmt.Errorf("task: %w", &backend.Error{Op: "get", Store: "store", Key: "key", Err: err})
	}
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"the store is slow", ofStore(backend.ErrThrottled), true},
		{"the store cannot be reached", ofStore(errors.New("no route")), true},
		{"corrupt", ofStore(checkpoint.ErrCorrupt), false},
		{"lost", errors.Join(checkpoint.ErrLost, ofStore(backend.ErrNotExist)), false},
		{"a directory of another task", runner.ErrNotState, false},
		{"the disk here", errors.New("no space"), false},
		{"asked to end", early{os.Interrupt, ofStore(context.Canceled)}, false},
		{"nothing", nil, false},
	} {
		if got := passes(c.err); got != c.want {
			t.Errorf("%s: %v; want %v", c.name, got, c.want)
		}
	}
}
