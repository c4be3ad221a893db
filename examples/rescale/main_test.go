package main

import (
	"fmt"
	"io"
	"strings"
	"testing"

	_ "github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

func TestRescale(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"mem://" + t.Name()}, &out); err != nil {
		t.Fatal(err)
	}
	words := 0
	for p := range partitions {
		words += middle(p)
	}
	for _, want := range []string{
		fmt.Sprintf("4 tasks have counted %d words, each exactly once", words),
		"6 tasks have counted 60000 words, each exactly once",
		"task words/4 of 6 came from words/0 of 4 @ ", // its partitions are 4 and 10
		", words/2 of 4 @ ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if err := run(t.Context(), []string{"mem://" + t.Name()}, &out); err == nil || !strings.Contains(err.Error(), "has tasks already") {
		t.Errorf("a second run: %v; want an error that says why", err)
	}
}

// A task that dies before its first checkpoint starts from the old ones again. One that has
// a checkpoint of its own does not read them: they may be deleted.
func TestRescaleInTwoAttempts(t *testing.T) {
	job, err := checkpoint.Open(t.Context(), "mem://"+t.Name(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = job.Close(t.Context()) }()
	s := story{job: job, dir: t.TempDir(), out: &strings.Builder{}}
	old, l := layout{tasks: 4}, layout{tasks: 6, from: 4}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.work(t.Context(), old, middle))
	must(fence(t.Context(), job, 4))
	must(s.work(t.Context(), l, middle)) // nothing is new: the tasks only take over
	must(s.compare(t.Context(), 6, middle))
	for _, name := range old.names() {
		task, err := job.Task(name)
		must(err)
		_, err = task.Delete(t.Context(), checkpoint.DeleteOptions{})
		must(err)
	}
	must(s.work(t.Context(), l, end))
	must(s.compare(t.Context(), 6, end))
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		name, stderr string
		args         []string
		code         int
	}{
		{"help", "usage: rescale [", []string{"-h"}, 0},
		{"a flag that there is not", "rescale: flag provided but not defined: -x; see -h\n", []string{"-x"}, 2},
		{"two URLs", "rescale: too many arguments; want the job's URL, or nothing\n", []string{"mem://a", "mem://b"}, 1},
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
