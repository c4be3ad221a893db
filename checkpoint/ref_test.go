package checkpoint_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

func TestParseRef(t *testing.T) {
	for _, c := range []struct {
		text string
		want checkpoint.Ref
	}{
		{"12", checkpoint.Seq(12)},
		{"0", checkpoint.Seq(0)},
		{"before 2.0", checkpoint.Savepoint("before 2.0")},
		{"latest", checkpoint.Ref{}},
		{"12a", checkpoint.Savepoint("12a")},
		{"-1", checkpoint.Savepoint("-1")},
	} {
		got, err := checkpoint.ParseRef(c.text)
		if err != nil || got != c.want || got.String() != c.text {
			t.Errorf("%q: %v, %v; want %v", c.text, got, err, c.want)
		}
	}
	if s := (checkpoint.Ref{}).String(); s != "latest" {
		t.Errorf("the zero Ref is %q", s)
	}
	if checkpoint.Seq(0) == (checkpoint.Ref{}) {
		t.Error("number 0 is the latest")
	}
	for text, want := range map[string]string{
		"":                        "give its number, or the name of a savepoint",
		"18446744073709551616":    "no number is as large",
		strings.Repeat("9", 5000): "no number is as large",
	} {
		_, err := checkpoint.ParseRef(text)
		if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("%.30q: %v; want ErrInvalid: %s", text, err, want)
		}
	}
}

// An invalid Ref is refused before any request.
func TestGetOfNoSavepoint(t *testing.T) {
	inWorld(t, func(w *world) {
		w.saved(2)
		task, _, store := w.process()
		_, got := task.Get(w.Context(), checkpoint.Savepoint(""))
		_, rolledBack := task.Rollback(w.Context(), checkpoint.Savepoint(""), checkpoint.RollbackOptions{})
		_, claimed := task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Savepoint("")})
		for what, err := range map[string]error{"get": got, "rollback": rolledBack, "claim": claimed} {
			if !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%s: %v, want ErrInvalid", what, err)
			}
		}
		if n := store.Calls(); n > 0 {
			t.Errorf("%d requests", n)
		}
	})
}

// The latest checkpoint can be named by a Ref, and a task can be rolled back to it.
func TestRefOfTheLatest(t *testing.T) {
	inWorld(t, func(w *world) {
		empty, _, _ := w.process()
		if _, err := empty.Rollback(w.Context(), checkpoint.Ref{}, checkpoint.RollbackOptions{}); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("%v, want ErrNoCheckpoint", err)
		}
		task := w.saved(2)
		c, err := task.Get(w.Context(), checkpoint.Ref{})
		if err != nil || c.Offsets["in"] != "2" {
			t.Errorf("%+v, %v", c, err)
		}
		back, err := task.Rollback(w.Context(), checkpoint.Ref{}, checkpoint.RollbackOptions{})
		if err != nil || back.Seq != c.Seq {
			t.Errorf("%+v, %v", back, err)
		}
	})
}
