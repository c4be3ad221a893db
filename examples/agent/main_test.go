package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
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
		"releases and rollbacks take numbers too",
		"Both attempts are what they must be",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if n := strings.Count(out.String(), "Nothing was written for 500ms: saved as checkpoint"); n != 5 {
		t.Errorf("%d checkpoints; want one for each of 5 steps\n%s", n, &out)
	}
	if err := run(t.Context(), 500*time.Millisecond, []string{"mem://" + t.Name()}, &out); err == nil || !strings.Contains(err.Error(), "has tasks already") {
		t.Errorf("a second run: %v; want an error that says why", err)
	}
}

// A commit that fails is made again, and the keeping does not wait for anyone who asks for what
// was saved.
func TestKeepingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		ended, commits := make(chan struct{}), 0
		away := errors.New("the store is away")
		k := &keeper{path: t.TempDir(), log: slog.New(slog.DiscardHandler), ended: ended, saved: make(chan *checkpoint.Checkpoint, 1)}
		k.commit = func(context.Context) (*checkpoint.Checkpoint, error) {
			commits++
			if commits == 1 || commits == 5 {
				return nil, away
			}
			return &checkpoint.Checkpoint{Seq: uint64(commits)}, nil
		}
		before, err := look(k.path)
		if err != nil {
			t.Fatal(err)
		}
		change := func(text string) {
			if err := os.WriteFile(filepath.Join(k.path, "file"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		watched := make(chan error, 1)
		go func() { watched <- k.watch(ctx, before, time.Second) }()
		change("1")
		if c := <-k.saved; c.Seq != 2 {
			t.Errorf("checkpoint %d; want the second attempt", c.Seq)
		}
		for _, text := range []string{"12", "123"} {
			change(text)
			time.Sleep(3 * time.Second) // of this test's own clock
		}
		if c := <-k.saved; c.Seq != 4 {
			t.Errorf("checkpoint %d; want the newest, 4", c.Seq)
		}
		close(ended)
		change("1234")
		if err := <-watched; !errors.Is(err, away) {
			t.Errorf("the task has ended: %v; want %v", err, away)
		}
		stop()
	})
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

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		name, stderr string
		args         []string
		code         int
	}{
		{"help", "usage: agent [", []string{"-h"}, 0},
		{"a flag that there is not", "agent: flag provided but not defined: -x; see -h\n", []string{"-x"}, 2},
		{"two URLs", "agent: too many arguments; want the job's URL, or nothing\n", []string{"mem://a", "mem://b"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stderr strings.Builder
			code := command(c.args, io.Discard, &stderr)
			if code != c.code || !strings.HasPrefix(stderr.String(), c.stderr) {
				t.Errorf("status %d, %q; want %d, %q", code, &stderr, c.code, c.stderr)
			}
			if c.code == 0 && !strings.Contains(stderr.String(), "The URL is that of a store") {
				t.Errorf("%q does not tell of the URL", &stderr)
			}
		})
	}
}
