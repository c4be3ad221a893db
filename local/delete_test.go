package local

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

// Before it deletes, a handle makes durable what it has found since its last Delete:
// the caller may delete because of that. A handle that has found nothing deletes at
// once.
func TestDeleteSettlesWhatWasFound(t *testing.T) {
	dir := t.TempDir()
	writer := openStore(t, dir)
	for _, key := range []string{"a/1", "a/2", "a/3", "b/c/1", "d/1", "1"} {
		mustCreate(t, writer, key, "data")
	}
	s := openStore(t, dir)
	r := record(s)
	for _, c := range []struct {
		what string
		find func()
		key  string
		want []string
	}{
		{"nothing was found", func() {}, "a/1", nil},
		{"by Get", func() { content(t, s, "b/c/1") }, "a/2", []string{"syncdir b/c"}},
		{"nothing since then", func() {}, "a/3", nil},
		{"by List", func() { list(t, s, "d/", "") }, "b/c/1", []string{"syncdir d"}},
		{"by List of all", func() { list(t, s, "", "") }, "d/1", []string{"syncdir .", "syncdir a", "syncdir b", "syncdir b/c", "syncdir d"}},
		{"found and removed since", func() {
			list(t, s, "d/", "")
			if err := os.Remove(dir + "/d"); err != nil {
				t.Fatal(err)
			}
		}, "1", []string{"syncdir d"}},
	} {
		c.find()
		r.steps = nil
		if err := s.Delete(t.Context(), c.key); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		slices.Sort(r.steps[:len(r.steps)-1])
		if want := append(c.want, "remove "+c.key); !slices.Equal(r.steps, want) {
			t.Errorf("%s: %q, want %q", c.what, r.steps, want)
		}
	}
}

// Each step of a Delete fails once, with and without having its effect. If the fsync
// failed, nothing was deleted, and the next Delete repeats it.
func TestEveryStepOfDeleteFails(t *testing.T) {
	steps := []string{"syncdir a", "remove a/1", "remove a/2", "remove a/3"}
	kinds := map[error]error{
		syscall.EIO: nil, syscall.ENOSPC: backend.ErrNoSpace, syscall.EDQUOT: backend.ErrNoSpace,
		syscall.EROFS: backend.ErrPermission, syscall.EACCES: backend.ErrPermission, syscall.EPERM: backend.ErrPermission,
	}
	for at, step := range steps {
		for errno, kind := range kinds {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/after=%v", strings.ReplaceAll(step, "/", "_"), errno, after), func(t *testing.T) {
					dir := t.TempDir()
					s := openStore(t, dir)
					keys := []string{"a/1", "a/2", "a/3"}
					for _, key := range keys {
						mustCreate(t, s, key, "data")
					}
					list(t, s, "a/", "")
					r := record(s)
					r.intervene = fault{at, after, errno}.intervene
					err := s.Delete(t.Context(), keys...)
					if !errors.Is(err, errno) || kind != nil && !errors.Is(err, kind) || strings.Contains(err.Error(), "\n") {
						t.Errorf("Delete = %v", err)
					}
					want := keys
					if at > 0 && after {
						want = nil
					} else if at > 0 {
						want = keys[at-1 : at] // the other keys are still deleted
					}
					s.step = perform
					if got := list(t, openStore(t, dir), "", ""); !slices.Equal(got, want) { // s is to find nothing anew
						t.Errorf("left: %q, want %q", got, want)
					}
					again := record(s)
					if err := s.Delete(t.Context(), keys...); err != nil {
						t.Errorf("second attempt: %v", err)
					}
					if at == 0 && !slices.Contains(again.steps, steps[0]) {
						t.Errorf("second attempt: %q", again.steps)
					}
					if got := list(t, s, "", ""); got != nil {
						t.Errorf("left after the second attempt: %q", got)
					}
				})
			}
		}
	}
}
