package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// A stop says when a command is interrupted: at its nth request.
type stop struct {
	how string // "before" it is sent, while it is "under way", or "after" it
	at  int
}

// A stopped is the outcome of a command that was interrupted.
type stopped struct {
	result
	reached bool // it has sent so many requests
	wrote   bool // one of them was to change something
}

// runStopped runs a command and interrupts it.
func (h *hook) runStopped(t *testing.T, s stop, args ...string) stopped {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex // some requests are sent in parallel
	n, out := 0, stopped{}
	h.do = func(ctx context.Context, op, key string, perform func() error) error {
		fail := &backend.Error{Op: op, Key: key, Err: context.Canceled}
		writes := op != "get" && op != "list"
		mu.Lock()
		n++
		here := n == s.at
		out.reached = out.reached || here
		out.wrote = out.wrote || writes
		mu.Unlock()
		if here && s.how == "before" {
			cancel()
		}
		if ctx.Err() != nil {
			return fail
		}
		err := perform()
		if here {
			cancel()
		}
		if here && s.how == "under way" && writes && err == nil {
			err = fail
		}
		return err
	}
	out.result = holdfastWith(t, ctx, args...)
	h.do = perform
	return out
}

// everyStop calls try with every stop, until try says that the command has fewer requests.
func everyStop(try func(stop) (reached bool)) {
	for _, how := range []string{"before", "under way", "after"} {
		for at := 1; try(stop{how, at}); at++ {
			continue
		}
	}
}

// TestChangeIsStoppedAnywhere interrupts commands that change something at each of their
// requests. What they say then must be true. They may say that the outcome is unknown only if
// they have sent a change, and must say that it was made if they fail after it.
func TestChangeIsStoppedAnywhere(t *testing.T) {
	shows := func(what, command string, tasks ...string) func(*testing.T, string) bool {
		return func(t *testing.T, url string) bool {
			r := holdfast(t, slices.Concat(strings.Fields(command), []string{url}, tasks)...)
			return strings.Contains(r.stdout+r.stderr, what)
		}
	}
	not := func(is func(*testing.T, string) bool) func(*testing.T, string) bool {
		return func(t *testing.T, url string) bool { return !is(t, url) }
	}
	for _, c := range []struct {
		name   string
		before []string // what is done before it
		args   []string
		done   func(t *testing.T, url string) bool
		says   string // after the change; empty if it sends no request after that
		look   string // where to look if the outcome is unknown
	}{
		{"rm", nil, []string{"rm", "URL", "orders"}, shows("was deleted", "show", "orders"), `; task "orders" was deleted; 'holdfast gc' deletes what is left of it`, "holdfast ls"},
		{"rm of a fork", []string{"fork", "URL", "orders", "try"}, []string{"rm", "URL", "try"}, shows("was deleted", "show", "try"), `; task "try" was deleted; `, "holdfast ls"},
		{"note", nil, []string{"note", "URL", "orders", "a word"}, shows("a word", "show", "orders"), "; checkpoint 1 was changed\n", "holdfast ls"},
		{"savepoint add", nil, []string{"savepoint", "add", "URL", "orders", "good"}, shows("good", "ls", "orders"), "; checkpoint 1 was changed\n", "holdfast ls"},
		{"savepoint rm", []string{"savepoint", "add", "URL", "orders", "good"}, []string{"savepoint", "rm", "URL", "orders", "good"},
			not(shows("good", "ls", "orders")), "; checkpoint 1 was changed\n", "holdfast ls"},
		{"fork", nil, []string{"fork", "URL", "orders", "try"}, shows("try", "ls"), "", "holdfast ls --json"},
		{"fork --detach", []string{"fork", "URL", "orders", "try"}, []string{"fork", "--detach", "URL", "try"}, shows("\n2 ", "ls", "try"),
			"", "holdfast ls"},
		{"startpoint set", nil, []string{"startpoint", "set", "URL", "orders", "p", "--at", "7"}, shows("offset 7", "startpoint ls", "orders"), "", "holdfast startpoint ls"},
		{"startpoint rm", []string{"startpoint", "set", "URL", "orders", "p", "--at", "7"}, []string{"startpoint", "rm", "URL", "orders", "p"},
			not(shows("offset 7", "startpoint ls", "orders")), "", "holdfast startpoint ls"},
		{"rollback", []string{"save", "URL", "orders", "STATE"}, []string{"rollback", "URL", "orders", "1"}, shows("(newest)", "ls", "orders"), "", "holdfast ls"},
	} {
		t.Run(c.name, func(t *testing.T) {
			state, said := makeState(t, "state "), false
			everyStop(func(s stop) bool {
				h, url := newHook(t, time.Now)
				ok(t, "save", url, "orders", state)
				replace := strings.NewReplacer("URL", url, "STATE", state)
				if c.before != nil {
					ok(t, each(c.before, replace.Replace)...)
				}
				r := h.runStopped(t, s, each(c.args, replace.Replace)...)
				done, unknown := c.done(t, url), strings.Contains(r.stderr, "it may have been done")
				tells := c.says != "" && strings.Contains(r.stderr, c.says)
				said = said || tells
				if r.code == 0 && !done || tells && !done || done && strings.Contains(r.stderr, "nothing was") || unknown && !r.wrote {
					t.Errorf("stopped %s request %d: done %v; exit code %d, %s", s.how, s.at, done, r.code, r.stderr)
				}
				if unknown && !strings.Contains(r.stderr, "look with '"+c.look+"'") {
					t.Errorf("stopped %s request %d: %s does not say %s", s.how, s.at, r.stderr, c.look)
				}
				if r.code != 0 && r.code != exitFailed {
					t.Errorf("stopped %s request %d: exit code %d, %s", s.how, s.at, r.code, r.stderr)
				}
				return r.reached
			})
			if !said && c.says != "" {
				t.Errorf("wherever it is stopped, it never says %q", c.says)
			}
		})
	}
}

// each returns a list with f applied to each text.
func each(list []string, f func(string) string) (out []string) {
	for _, s := range list {
		out = append(out, f(s))
	}
	return out
}

// A deletion of all tasks that is interrupted says how many it has deleted.
func TestDeletionOfAllIsStoppedAnywhere(t *testing.T) {
	state := makeState(t, "state ")
	counts := regexp.MustCompile(`\); ([0-9]+) of 2 tasks were deleted(?:, and of ([0-9]+) it is not known)?; the same command goes on with the rest\n$`)
	found := map[string]bool{}
	everyStop(func(s stop) bool {
		h, url := newHook(t, time.Now)
		ok(t, "save", url, "orders", state)
		ok(t, "fork", url, "orders", "try")
		r := h.runStopped(t, s, "rm", url, "--all-tasks")
		left := len(okJSON[[]map[string]any](t, "ls", url))
		m := counts.FindStringSubmatch(r.stderr)
		switch {
		case r.code == 0 && left == 0:
		case r.code == exitFailed && m == nil && strings.HasSuffix(r.stderr, "; nothing was saved or replaced\n") && left == 2 && !r.wrote:
		case r.code == exitFailed && m != nil:
			deleted, _ := strconv.Atoi(m[1])
			unknown, _ := strconv.Atoi(m[2])
			if 2-left < deleted || 2-left > deleted+unknown {
				t.Errorf("stopped %s request %d: %d are left, and it says %s", s.how, s.at, left, r.stderr)
			}
			found[m[1]+m[2]] = true
		default:
			t.Errorf("stopped %s request %d: %d are left; exit code %d, %s", s.how, s.at, left, r.code, r.stderr)
		}
		return r.reached
	})
	for _, want := range []string{"0", "1", "01"} {
		if !found[want] {
			t.Errorf("it was never stopped in such a way that it says %q: %v", want, found)
		}
	}
}

// A disk that cannot be written to is told, and not what follows from that for the task that a
// fork needs.
func TestDeletionTellsTheRootCause(t *testing.T) {
	h, url := newHook(t, time.Now)
	state := makeState(t, "state ")
	ok(t, "save", url, "a source", state)
	ok(t, "fork", url, "a source", "the fork")
	h.do = func(_ context.Context, op, key string, perform func() error) error {
		if op == "create" || op == "put" || op == "delete" {
			return &backend.Error{Op: op, Store: url, Key: key, Err: fmt.Errorf("%w: %w", backend.ErrPermission, syscall.EROFS)}
		}
		return perform()
	}
	r := holdfast(t, "rm", url, "--all-tasks")
	if r.code != exitFailed || !strings.Contains(r.stderr, "holdfast: create hook") || !strings.Contains(r.stderr, "read-only file system") {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
}
