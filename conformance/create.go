package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

func create(ctx context.Context, e *env) error {
	first := []byte("the first")
	o, err := e.a.Create(ctx, "object", first)
	if errors.Is(err, backend.ErrExist) {
		return violation("Create returns ErrExist only if a durable object stands at key", "ErrExist for a new key")
	}
	if err != nil {
		return err
	}
	if o.Key != "object" || o.Size != int64(len(first)) {
		return violation("Create describes the object", "%+v for object of %d bytes", o, len(first))
	}
	if err := taken(ctx, e, "object", first); err != nil {
		return err
	}

	if _, err := e.a.Put(ctx, "by-put", first); err != nil {
		return err
	}
	if err := taken(ctx, e, "by-put", first); err != nil {
		return err
	}

	if err := e.b.Delete(ctx, "object"); err != nil {
		return err
	}
	if _, err := e.a.Create(ctx, "object", []byte("the second")); err != nil {
		return violation("Create is exclusive for as long as the object exists", "after its deletion %q", err)
	}
	return wantContent(ctx, e.b, "object", []byte("the second"), "Create makes an object that holds data")
}

// taken checks that Create fails at a key with an object, whose content is want.
func taken(ctx context.Context, e *env, key string, want []byte) error {
	for _, s := range []backend.Store{e.a, e.b} {
		for _, data := range [][]byte{want, nil, []byte("another, and a longer one")} {
			_, err := s.Create(ctx, key, data)
			err = wantKind(err, backend.ErrExist, "Create returns ErrExist if a durable object stands at key", "Create")
			if err != nil {
				return err
			}
			if err := wantContent(ctx, e.b, key, want, "Create does not change an object that exists"); err != nil {
				return err
			}
		}
	}
	return nil
}

// The size of the race. It is large enough to detect, almost certainly, a store that
// checks before it writes and takes some time for either.
const (
	raceRounds  = 50
	raceHandles = 4
	racers      = 16
)

// The race ends early on a store that is very slow at it, such as SeaweedFS (5 to 7 s a
// round): after raceTime, but not before raceEnough rounds. Stores
// that have a race showed it in almost half of the rounds, or in more.
const (
	raceTime   = time.Minute
	raceEnough = 10
)

func createRace(ctx context.Context, e *env) error {
	handles := []backend.Store{e.a, e.b}
	for len(handles) < raceHandles {
		s, err := e.handle(ctx, e.namespace)
		if err != nil {
			return err
		}
		handles = append(handles, s)
	}
	began := time.Now()
	for round := range raceRounds {
		if passed := time.Since(began); passed > raceTime && round >= raceEnough {
			e.note("the race was ended after %d of %d rounds and %v: this store is slow where many writers want one key; "+
				"it kept the contract so far", round, raceRounds, passed.Round(time.Second))
			return nil
		}
		if err := raceRound(ctx, handles, fmt.Sprintf("round-%02d", round)); err != nil {
			return err
		}
	}
	return nil
}

// A racer is one of several callers that create the same object at once.
type racer struct {
	data   []byte
	err    error // of its last Create
	unsure bool  // an earlier one may have taken effect
}

func raceRound(ctx context.Context, handles []backend.Store, key string) error {
	all := make([]racer, racers)
	start := make(chan struct{})
	var ready, done sync.WaitGroup
	for i := range all {
		r := &all[i]
		r.data = fmt.Appendf(nil, "racer %2d%s", i, bytes.Repeat([]byte{'.'}, 100*i))
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			r.run(ctx, handles[i%len(handles)], key)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	return judge(ctx, handles[0], key, all)
}

// run repeats a Create whose outcome is unknown, as the commit protocol does: some
// services answer "conflict, try again" to those who lose.
func (r *racer) run(ctx context.Context, s backend.Store, key string) {
	const attempts = 10
	for n := 1; ; n++ {
		_, r.err = s.Create(ctx, key, r.data)
		if !backend.Retryable(r.err) || n == attempts {
			return
		}
		r.unsure = true
		if (backend.Backoff{First: 10 * time.Millisecond}).Wait(ctx, n) != nil {
			return
		}
	}
}

func judge(ctx context.Context, s backend.Store, key string, all []racer) error {
	const contract = "of all calls of Create with one key, on all handles, at most one succeeds; the others get ErrExist"
	winner, won := -1, 0
	for i, r := range all {
		if r.err == nil {
			winner, won = i, won+1
			continue
		}
		if err := wantKind(r.err, backend.ErrExist, contract, "one of several Creates at once"); err != nil {
			return err
		}
	}
	if won > 1 {
		return violation(contract, "%d of %d succeeded for %s", won, len(all), key)
	}

	p := make([]byte, len(all)*100+100)
	n, err := s.Get(ctx, key, 0, p)
	if err != nil {
		return violation("Create returns ErrExist only if a durable object stands at key", "then Get returned %q", err)
	}
	for i, r := range all {
		if bytes.Equal(r.data, p[:n]) && (i == winner || won == 0 && r.unsure) {
			return nil
		}
	}
	return violation("the object holds the data of the one Create that succeeded",
		"%d succeeded (last: racer %d), and %s holds %s", won, winner, key, brief(p[:n]))
}
