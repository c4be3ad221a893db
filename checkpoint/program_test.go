package checkpoint_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A task says who has it, and a checkpoint who committed it, whatever claims, amendments
// and rollbacks have repeated it since.
func TestWrittenBy(t *testing.T) {
	inWorld(t, func(w *world) {
		as := func(name string) *checkpoint.Task {
			task, _, _ := w.open(checkpoint.Options{WrittenBy: name, Retention: keepAll.Retention})
			return task
		}
		want := func(when, owner, latest string) {
			w.Helper()
			status, err := as("reader").Status(w.Context())
			if err != nil || status.WrittenBy != owner || status.Latest.WrittenBy != latest {
				w.Errorf("%s: the task is %q's, its latest checkpoint %q's, %v; want %q and %q",
					when, status.WrittenBy, status.Latest.WrittenBy, err, owner, latest)
			}
		}
		a := claim(w, as("a"))
		first := commit(w, a, with(1, 20<<10))
		if first.WrittenBy != "a" {
			w.Errorf("it was committed by %q", first.WrittenBy)
		}
		want("committed", "a", "a")
		mustDo(t, second(as("b").AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{})))
		want("amended", "a", "a")
		c := claim(w, as("c"))
		want("claimed", "c", "a")
		commit(w, c, with(2, 20<<10))
		want("committed again", "c", "c")
		_, err := a.Commit(w.Context(), at(3))
		if !errors.Is(err, checkpoint.ErrFenced) || !strings.Contains(err.Error(), "(c)") {
			w.Errorf("%v; want the name of who has fenced it", err)
		}
		mustDo(t, second(as("d").Rollback(w.Context(), checkpoint.Savepoint("x"), checkpoint.RollbackOptions{Fence: true})))
		want("rolled back", "d", "a")
		if got, err := as("e").Get(w.Context(), checkpoint.Seq(5)); err != nil || got.WrittenBy != "c" {
			w.Errorf("%+v, %v; want c's", got, err)
		}
	})
}

// Without a name of its own, a program is known by its file, its host and its number.
func TestWrittenByDefault(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		if by := commit(w, o, at(1)).WrittenBy; !strings.Contains(by, "checkpoint") || !strings.Contains(by, ", process ") {
			w.Errorf("%q", by)
		}
	})
}

func TestWrittenByIsRefused(t *testing.T) {
	for _, by := range []string{strings.Repeat("x", 257), "\xff"} {
		_, err := checkpoint.New(mem.NewBucket(nil).Open(), checkpoint.Options{WrittenBy: by})
		if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), "Options.WrittenBy") {
			t.Errorf("%.20q: %v", by, err)
		}
	}
}

// However long the name of a program and its host are, the process is named.
func TestWrittenByNamesTheProcess(t *testing.T) {
	for _, text := range []string{"orders v1 on web-7", strings.Repeat("x", 300), strings.Repeat("é", 150)} {
		got := checkpoint.WithProcess(text, 4711)
		if !strings.HasSuffix(got, ", process 4711") || len(got) > format.MaxWrittenBy || !utf8.ValidString(got) {
			t.Errorf("%.20q: %q, of %d bytes", text, got, len(got))
		}
	}
}

// What would fence an owner is refused unless it is asked for, and says whose the task is.
func TestClaimedTaskIsNotTakenOverUnasked(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(checkpoint.Options{WrittenBy: "orders on web-7"})
		commit(w, o, at(1))
		task, _, _ := w.process()
		for name, do := range map[string]func() error{
			"save": func() error {
				return second(task.Save(w.Context(), with(2, 20<<10), checkpoint.SaveOptions{}))
			},
			"rollback": func() error {
				return second(task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{}))
			},
		} {
			before := len(w.objects(""))
			err := do()
			for _, want := range []string{"orders on web-7", "its last commit was at 2000-01-01T00:00:00Z"} {
				if !errors.Is(err, checkpoint.ErrClaimed) || !strings.Contains(err.Error(), want) {
					w.Errorf("%s: %v, want ErrClaimed, %s", name, err, want)
				}
			}
			if n := len(w.objects("")) - before; n != 0 {
				w.Errorf("%s: %d objects more", name, n)
			}
		}
		commit(w, o, at(3)) // nobody was fenced
	})
}
