package runner

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// Where to begin to read each input, by its rule.
func TestInputRules(t *testing.T) {
	inputs := map[string]Input{
		"ignored":         {Ignore: true},
		"ignored, newest": {Ignore: true, Missing: Newest},
		"newest":          {Missing: Newest, OutOfRange: Newest},
		"oldest":          {Missing: Oldest, OutOfRange: Oldest},
		"refused":         {Missing: Refuse, OutOfRange: Refuse},
	}
	at := func(offset string) Start { return Start{At: Checkpointed, Offset: offset} }
	oldest, newest, refused := Start{At: Oldest}, Start{At: Newest}, Start{}
	for _, c := range []struct {
		partition          string
		has, missing, gone Start
	}{
		{"unnamed", at("5"), oldest, refused},
		{"ignored", oldest, oldest, refused},
		{"ignored, newest", newest, newest, refused},
		{"newest", at("5"), newest, newest},
		{"oldest", at("5"), oldest, oldest},
		{"refused", at("5"), refused, refused},
	} {
		has := newStarts("a", inputs, map[string]string{c.partition: "5"}, nil)
		none := newStarts("a", inputs, nil, nil)
		want := func(what string, want Start, get func(string) (Start, error)) {
			got, err := get(c.partition)
			if got != want || (err != nil) != (want == refused) {
				t.Errorf("%s, %s: %+v, %v; expected %+v", c.partition, what, got, err, want)
			}
		}
		want("with an offset", c.has, has.start)
		want("without", c.missing, none.start)
		want("out of range", c.gone, has.outOfRange)
	}
}

// An offset that is ignored is not committed again, and one of an input that is not
// read any more is: the state has that input.
func TestOffsetsThatAreCarriedOn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, _ := w.own(r, "a")
		err := task.Step(t.Context(), func(p *Position) error {
			p.Advance("x", "1")
			p.Advance("y", "2")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		task, _ = w.own(r, "a", func(s *Spec) { s.Inputs = map[string]Input{"x": {Ignore: true}} })
		c, err := task.Commit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Offsets["x"]; ok || c.Offsets["y"] != "2" {
			t.Errorf("%v", c.Offsets)
		}
	})
}

func TestBadOptionsAndSpecs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		job := w.job()
		for name, o := range map[string]Options{
			"Interval":      {Interval: -2},
			"MinPause":      {MinPause: -1},
			"MaxDelay":      {MaxDelay: -1},
			"CommitTimeout": {CommitTimeout: -1},
			"FailAfter":     {FailAfter: -1},
			"MaxShare":      {MaxShare: 1},
			"Commits":       {Commits: -1},
			"Restores":      {Restores: -1},
		} {
			_, err := New(job, o)
			if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), name) && name != "Interval" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := New(nil, Options{}); !errors.Is(err, backend.ErrInvalid) {
			t.Error(err)
		}
		r := w.runner(job, Options{})
		for name, edit := range map[string]func(*Spec){
			"no directory":    func(s *Spec) { s.Dir = "" },
			"no Open":         func(s *Spec) { s.Open = nil },
			"a path":          func(s *Spec) { s.Stores = []string{"a/b"} },
			"a dot":           func(s *Spec) { s.Stores = []string{".a"} },
			"no name":         func(s *Spec) { s.Stores = []string{""} },
			"twice":           func(s *Spec) { s.Stores = []string{"a", "a"} },
			"kept, dropped":   func(s *Spec) { s.Stores, s.Dropped = []string{"a"}, []string{"a"} },
			"unknown rule":    func(s *Spec) { s.Inputs = map[string]Input{"in": {Missing: "middle"}} },
			"impossible rule": func(s *Spec) { s.Inputs = map[string]Input{"in": {OutOfRange: Checkpointed}} },
		} {
			if _, _, err := w.tryOwn(r, "a", edit); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, _, err := w.tryOwn(r, "a\n"); err == nil {
			t.Error("a bad name is accepted")
		}
		if seq := w.status("a").Manifest; seq != 0 {
			t.Error("the task was claimed")
		}
	})
}
