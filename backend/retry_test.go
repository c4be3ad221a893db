package backend_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

func TestRetryAttempts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fails  []error // the errors of the attempts, in order
		calls  int
		want   error
		saying string
	}{
		{"first attempt succeeds", nil, 1, nil, ""},
		{"third attempt succeeds", []error{errFlaky, errFlaky}, 3, nil, ""},
		{"no attempt succeeds", []error{errFlaky, errFlaky, errFlaky, errFlaky}, 3, errFlaky, "tried 3 times"},
		{"final error at once", []error{errFinal}, 1, errFinal, ""},
		{"final error later", []error{errFlaky, errFinal}, 2, errFinal, ""},
	} {
		for _, op := range []string{"put", "get", "list", "delete"} {
			t.Run(tt.name+"/"+op, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					calls := 0
					store := newHooked(func(c call) error {
						if c.op == "list" && c.key != "" {
							return nil
						}
						if calls++; calls <= len(tt.fails) {
							return tt.fails[calls-1]
						}
						return nil
					})
					store.put(t, "a")
					err := operations[op](t.Context(), backend.Retry(store, backend.Backoff{Attempts: 3}))
					if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.saying) {
						t.Errorf("error %v, want %v saying %q", err, tt.want, tt.saying)
					}
					if calls != tt.calls {
						t.Errorf("%d calls, want %d", calls, tt.calls)
					}
				})
			})
		}
	}
}

func TestRetryNeverRepeatsCreate(t *testing.T) {
	calls := 0
	store := newHooked(func(call) error { calls++; return errFlaky })
	_, err := backend.Retry(store, backend.Backoff{}).Create(t.Context(), "a", nil)
	if !errors.Is(err, errFlaky) || strings.Contains(err.Error(), "tried") || calls != 1 {
		t.Errorf("%d calls, error %v", calls, err)
	}
}

func TestRetryGoesOnWithList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := []string{"a", "b", "c", "d", "e"}
		var began []string
		store := newHooked(func(c call) error {
			if c.key == "" {
				began = append(began, c.after)
				return nil
			}
			if slices.Index(keys, c.key)-slices.Index(keys, c.after) > 2 { // each listing yields two keys and then fails
				return errFlaky
			}
			return nil
		})
		store.put(t, keys...)
		// Two attempts are enough for three listings, because each listing makes
		// progress.
		seq := backend.Retry(store, backend.Backoff{Attempts: 2}).List(t.Context(), "", "")
		for range 2 {
			began = nil
			var got []string
			for o, err := range seq {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, o.Key)
			}
			if !slices.Equal(got, keys) {
				t.Errorf("keys %q, want %q", got, keys)
			}
			if want := []string{"", "b", "d"}; !slices.Equal(began, want) {
				t.Errorf("listings began after %q, want %q", began, want)
			}
		}
	})
}

func TestRetryGivesListUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := 0
		store := newHooked(func(c call) error {
			if c.key == "" {
				began++
			}
			if c.key == "b" {
				return errFlaky
			}
			return nil
		})
		store.put(t, "a", "b")
		got, err := listed(t.Context(), backend.Retry(store, backend.Backoff{Attempts: 3}))
		if !slices.Equal(got, []string{"a"}) || !errors.Is(err, errFlaky) || began != 3 {
			t.Errorf("%d listings yielded %q, %v", began, got, err)
		}
	})
}

func TestRetryStopsWithContext(t *testing.T) {
	for _, op := range []string{"put", "get", "list", "delete"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const soon = 330 * time.Millisecond
				ctx, cancel := context.WithTimeoutCause(t.Context(), soon, errors.New("the test's own cause"))
				defer cancel()
				start := time.Now()
				store := newHooked(func(call) error { return errFlaky })
				err := operations[op](ctx, backend.Retry(store, backend.Backoff{}))
				if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errFlaky) {
					t.Errorf("error %v does not wrap both the context's and the store's", err)
				}
				if backend.Retryable(err) {
					t.Errorf("%v: is retryable, but the context has ended", err)
				}
				if took := time.Since(start); took != soon {
					t.Errorf("returned after %v, want %v", took, soon)
				}
			})
		})
	}
}

func TestBackoffWait(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name string
		b    backend.Backoff
		n    int
		most time.Duration
	}{
		{"default first", backend.Backoff{}, 1, 100 * time.Millisecond},
		{"default second", backend.Backoff{}, 2, 200 * time.Millisecond},
		{"default seventh", backend.Backoff{}, 7, 6400 * time.Millisecond},
		{"default eighth", backend.Backoff{}, 8, 10 * time.Second},
		{"default hundredth", backend.Backoff{}, 100, 10 * time.Second},
		{"first beyond max", backend.Backoff{First: day, Max: time.Second}, 1, time.Second},
		{"doubling would overflow", backend.Backoff{First: 10 * time.Second, Max: 1000 * day}, 32, 1000 * day},
		{"shortest", backend.Backoff{First: 1, Max: 1}, 5, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for range 50 {
					start := time.Now()
					if err := tt.b.Wait(t.Context(), tt.n); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(start); took < tt.most/2 || took > tt.most {
						t.Fatalf("waited %v, want %v to %v", took, tt.most/2, tt.most)
					}
				}
			})
		})
	}
}
