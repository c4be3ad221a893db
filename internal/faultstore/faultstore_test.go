package faultstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/conformance"
	"github.com/holdfast-io/holdfast/internal/faultstore"
	"github.com/holdfast-io/holdfast/internal/testreq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Without faults it is a store like any other.
func TestConformance(t *testing.T) {
	testreq.Suite(t, "faultstore")
	var buckets sync.Map // by namespace
	conformance.Run(t, func(_ context.Context, namespace string) (backend.Store, error) {
		b, _ := buckets.LoadOrStore(namespace, mem.NewBucket(time.Now))
		return faultstore.New(b.(*mem.Bucket).Open()), nil
	})
}

// old is what each test's store holds.
var old = map[string]string{"a": "aaaa", "b": "bbbb", "c": "cccc", "d": "dddd"}

// calls are one call of each verb, which returns what the caller sees.
var calls = map[string]func(context.Context, backend.Store) (string, error){
	"create": func(ctx context.Context, s backend.Store) (string, error) {
		o, err := s.Create(ctx, "new", []byte("nnnn"))
		return fmt.Sprint(o.Key, o.Size), err
	},
	"put": func(ctx context.Context, s backend.Store) (string, error) {
		o, err := s.Put(ctx, "a", []byte("nnnn"))
		return fmt.Sprint(o.Key, o.Size), err
	},
	"get": func(ctx context.Context, s backend.Store) (string, error) {
		p := make([]byte, 9)
		n, err := s.Get(ctx, "a", 0, p)
		return string(p[:n]), err
	},
	"list": func(ctx context.Context, s backend.Store) (string, error) { return list(ctx, s) },
	"delete": func(ctx context.Context, s backend.Store) (string, error) {
		return "", s.Delete(ctx, "a", "b", "c")
	},
}

func list(ctx context.Context, s backend.Store) (keys string, err error) {
	for o, err := range s.List(ctx, "", "") {
		if err != nil {
			return keys, err
		}
		keys += o.Key
	}
	return keys, nil
}

// content returns what a store holds, as in "a=aaaa b=bbbb".
func content(t *testing.T, s backend.Store) string {
	t.Helper()
	var all []string
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 9)
		n, err := s.Get(t.Context(), o.Key, 0, p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o.Key+"="+string(p[:n]))
	}
	return strings.Join(all, " ")
}

func fill(t *testing.T) backend.Store {
	s := mem.NewBucket(time.Now).Open()
	for key, data := range old {
		if _, err := s.Create(t.Context(), key, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Each kind of fault at each verb: what the caller sees, what the store holds
// then, and what it holds once late requests have landed.
func TestKinds(t *testing.T) {
	const (
		before  = "a=aaaa b=bbbb c=cccc d=dddd"
		created = "a=aaaa b=bbbb c=cccc d=dddd new=nnnn"
		put     = "a=nnnn b=bbbb c=cccc d=dddd"
		deleted = "d=dddd"
	)
	after := map[string]string{"create": created, "put": put, "delete": deleted, "get": before, "list": before}
	injected, crashed := faultstore.ErrInjected, faultstore.ErrCrashed
	type row struct {
		kind         faultstore.Kind
		verb         string
		sees         string
		err          error
		holds, later string
	}
	var rows []row
	for verb := range calls {
		rows = append(rows,
			row{faultstore.FailBefore, verb, "", injected, before, before},
			row{faultstore.LoseReply, verb, "", injected, after[verb], after[verb]},
			row{faultstore.Zombie, verb, "", injected, before, after[verb]},
			row{faultstore.CrashFirst, verb, "", crashed, before, before},
			row{faultstore.CrashAfter, verb, "", crashed, after[verb], after[verb]},
			row{faultstore.CrashZombie, verb, "", crashed, before, after[verb]},
		)
	}
	for verb, sees := range map[string]string{"create": "new4", "put": "a4", "get": "aaaa", "list": "abcd", "delete": ""} {
		rows = append(rows, row{faultstore.Delay, verb, sees, nil, after[verb], after[verb]})
	}
	rows = append(rows,
		row{faultstore.Truncate, "create", "new4", nil, before + " new=nn", before + " new=nn"},
		row{faultstore.Truncate, "put", "a4", nil, "a=nn b=bbbb c=cccc d=dddd", "a=nn b=bbbb c=cccc d=dddd"},
		row{faultstore.Truncate, "get", "aa", nil, before, before},
		row{faultstore.Truncate, "list", "ab", injected, before, before},
		row{faultstore.Truncate, "delete", "", injected, "b=bbbb c=cccc d=dddd", "b=bbbb c=cccc d=dddd"},
	)
	for _, r := range rows {
		t.Run(fmt.Sprint(r.kind, " ", r.verb), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := fill(t)
				s := faultstore.Wrap(t, inner, faultstore.Fault{Kind: r.kind, Verb: r.verb, On: 1, For: time.Hour})
				start := time.Now()
				sees, err := calls[r.verb](t.Context(), s)
				if r.err != nil && r.verb != "list" {
					sees = ""
				}
				if sees != r.sees || !errors.Is(err, r.err) {
					t.Errorf("the caller sees %q, %v; want %q, %v", sees, err, r.sees, r.err)
				}
				var e *backend.Error
				if err != nil && (!errors.As(err, &e) || e.Op != r.verb) {
					t.Errorf("%v is no error of %s", err, r.verb)
				}
				if got := content(t, inner); got != r.holds {
					t.Errorf("the store holds %q, want %q", got, r.holds)
				}
				s.Land()
				if got := content(t, inner); got != r.later || s.Land() != 0 {
					t.Errorf("later the store holds %q, want %q", got, r.later)
				}
				if took := time.Since(start); (took == time.Hour) != (r.kind == faultstore.Delay) {
					t.Errorf("it took %v", took)
				}
				_, err = list(t.Context(), s)
				if s.Crashed() != errors.Is(r.err, crashed) || errors.Is(err, crashed) != s.Crashed() {
					t.Errorf("crashed is %v; the next call: %v", s.Crashed(), err)
				}
			})
		})
	}
}

func TestCorruptChangesOneBit(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 100)
	bits := func(a, b []byte) (n int) {
		for i := range a {
			for d := a[i] ^ b[i]; d != 0; d &= d - 1 {
				n++
			}
		}
		return n
	}
	seen := map[string]bool{}
	for seed := range uint64(5) {
		for _, verb := range []string{"create", "put", "get"} {
			inner := mem.NewBucket(time.Now).Open()
			s := faultstore.Wrap(t, inner, faultstore.Fault{Kind: faultstore.Corrupt, Verb: verb, On: 1, Seed: seed})
			write := s.Create
			if verb == "put" {
				write = s.Put
			}
			if _, err := write(t.Context(), "k", data); err != nil {
				t.Fatal(err)
			}
			p, stored := make([]byte, 100), make([]byte, 100)
			for from, p := range map[backend.Store][]byte{s: p, inner: stored} {
				if n, err := from.Get(t.Context(), "k", 0, p); n != 100 || err != nil {
					t.Fatal(n, err)
				}
			}
			if bits(p, data) != 1 || (verb != "get") != !bytes.Equal(stored, data) {
				t.Errorf("%s: %d bits are other ones, %d in the store", verb, bits(p, data), bits(stored, data))
			}
			seen[string(p)] = true
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d places for 5 seeds", len(seen))
	}
	if !bytes.Equal(data, bytes.Repeat([]byte("x"), 100)) {
		t.Error("the caller's data was changed")
	}
}

// Which calls a fault strikes.
func TestStrikes(t *testing.T) {
	for name, c := range map[string]struct {
		fault faultstore.Fault
		want  string // of calls: get a, get b, list, get a, get b, list
	}{
		"every call":     {faultstore.Fault{}, "xxxxxx"},
		"by number":      {faultstore.Fault{On: 3}, "..x..."},
		"by verb":        {faultstore.Fault{Verb: "list"}, "..x..x"},
		"by key":         {faultstore.Fault{Key: "b"}, ".x..x."},
		"of those":       {faultstore.Fault{Verb: "get", Key: "a", On: 2}, "...x.."},
		"never":          {faultstore.Fault{Verb: "put"}, "......"},
		"no data":        {faultstore.Fault{Verb: "list", Kind: faultstore.Corrupt}, "......"},
		"every so often": {faultstore.Fault{OneIn: 1}, "xxxxxx"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.fault.Kind == "" {
				c.fault.Kind = faultstore.FailBefore
			}
			s := faultstore.New(fill(t), c.fault)
			got := ""
			for range 2 {
				for _, key := range []string{"a", "b"} {
					_, err := s.Get(t.Context(), key, 0, make([]byte, 1))
					got += mark(err)
				}
				_, err := list(t.Context(), s)
				got += mark(err)
			}
			if got != c.want {
				t.Errorf("%v strikes %s, want %s", c.fault, got, c.want)
			}
			if (len(s.Unfired()) == 0) != strings.Contains(c.want, "x") || s.Calls() != 6 {
				t.Errorf("unfired: %v of %d calls", s.Unfired(), s.Calls())
			}
		})
	}
}

func mark(err error) string {
	if err != nil {
		return "x"
	}
	return "."
}

// A seed draws the same calls each time, and another one others.
func TestSeed(t *testing.T) {
	struck := func(seed uint64) (marks string) {
		s := faultstore.New(fill(t), faultstore.Fault{Kind: faultstore.FailBefore, OneIn: 4, Seed: seed})
		for range 400 {
			_, err := list(t.Context(), s)
			marks += mark(err)
		}
		return marks
	}
	if n := strings.Count(struck(1), "x"); n < 50 || n > 150 {
		t.Errorf("one in four strikes %d of 400 calls", n)
	}
	if struck(1) != struck(1) || struck(1) == struck(2) {
		t.Error("a seed does not say which calls are struck")
	}
}

// A call is struck by one fault, and is not counted by those armed after it.
func TestFaultsStrikeOneAfterTheOther(t *testing.T) {
	once := faultstore.Fault{Kind: faultstore.FailBefore, On: 1}
	refused := once
	refused.Err = backend.ErrPermission
	s := faultstore.Wrap(t, fill(t), once, refused)
	for n, want := range []error{faultstore.ErrInjected, backend.ErrPermission, nil} {
		if _, err := list(t.Context(), s); !errors.Is(err, want) {
			t.Errorf("call %d: %v, want %v", n+1, err, want)
		}
	}
	s.Arm(once, faultstore.Fault{Kind: faultstore.FailBefore})
	for range 3 {
		if _, err := list(t.Context(), s); !errors.Is(err, faultstore.ErrInjected) {
			t.Errorf("armed later: %v", err)
		}
	}
	s.Heal()
	if _, err := list(t.Context(), s); err != nil {
		t.Errorf("healed: %v", err)
	}
}

// The end of the context ends a delay, and the request is not applied.
func TestDelayEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := fill(t)
		s := faultstore.Wrap(t, inner, faultstore.Fault{Kind: faultstore.Delay, For: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Delete(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
		time.Sleep(2 * time.Hour)
		if got, err := list(t.Context(), inner); got != "abcd" || err != nil {
			t.Errorf("the store holds %s, %v", got, err)
		}
	})
}

// A request that is slow when its process dies is not applied any more.
func TestCrashEndsWhatIsDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := fill(t)
		s := faultstore.Wrap(t, inner, faultstore.Fault{Kind: faultstore.Delay, Verb: "delete", For: time.Hour},
			faultstore.Fault{Kind: faultstore.CrashFirst, Verb: "list"})
		done := make(chan error)
		go func() { done <- s.Delete(t.Context(), "a") }()
		synctest.Wait()
		_, err := list(t.Context(), s)
		if slow := <-done; !errors.Is(err, faultstore.ErrCrashed) || !errors.Is(slow, faultstore.ErrCrashed) {
			t.Errorf("errors are %v, %v", err, slow)
		}
		if got, err := list(t.Context(), inner); got != "abcd" || err != nil {
			t.Errorf("the store holds %s, %v", got, err)
		}
	})
}

// A late request has data of its own, and no context.
func TestLateRequestsOutliveTheirCall(t *testing.T) {
	inner := fill(t)
	s := faultstore.Wrap(t, inner, faultstore.Fault{Kind: faultstore.Zombie})
	ctx, cancel := context.WithCancel(t.Context())
	data, keys := []byte("nnnn"), []string{"a", "b"}
	_, created := s.Create(ctx, "new", data)
	deleted := s.Delete(ctx, keys...)
	if created == nil || deleted == nil {
		t.Fatal("they succeeded")
	}
	cancel()
	copy(data, "xxxx")
	keys[0] = "c"
	if n := s.Land(); n != 2 {
		t.Errorf("%d requests landed", n)
	}
	if got := content(t, inner); got != "c=cccc d=dddd new=nnnn" {
		t.Errorf("the store holds %q", got)
	}
}

// recorder is a test that fails quietly.
type recorder struct {
	testing.TB
	cleanups []func()
	failed   []string
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(f string, args ...any) {
	r.failed = append(r.failed, fmt.Sprintf(f, args...))
}

// A fault that never fires fails the test that armed it, healed or not.
func TestUnfiredFaultsFailTheTest(t *testing.T) {
	r := &recorder{TB: t}
	s := faultstore.Wrap(r, fill(t), faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", Key: "k", On: 3})
	s.Heal()
	s.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "get"})
	s.Disarm()
	s.Arm(faultstore.Fault{Kind: faultstore.Corrupt, OneIn: 7, Seed: 5}, faultstore.Fault{Kind: faultstore.LoseReply})
	if _, err := list(t.Context(), s); err == nil {
		t.Error("the third did not fire")
	}
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
	want := []string{
		`this fault never fired: fail before: call 3 of put on "k"`,
		`this fault never fired: corrupt: one call in 7 by seed 5 of any verb`,
	}
	if !slices.Equal(r.failed, want) {
		t.Errorf("it says %q, want %q", r.failed, want)
	}
}
