package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Moments writes, cuts, writes on while the cut is committed, and crashes, in an order by
// chance. What is restored from a cut is the state at its moment.
func (k Kind) Moments(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := &host{Kind: k, t: t, chance: rand.New(rand.NewPCG(seed, 0)), run: t.TempDir(), model: make(map[string]string), saved: make(map[string]string)}
	h.start()
	for range 25 {
		switch h.chance.IntN(5) {
		case 0, 1:
			h.write(h.chance.IntN(200))
		case 2, 3:
			h.cut()
		case 4: // what was not committed is lost
			h.must(h.db.Close())
			h.start()
			h.model = maps.Clone(h.saved)
		}
	}
	h.cut()
	h.must(h.db.Close())
}

// A host writes to a database and to a model of it.
type host struct {
	Kind
	t      *testing.T
	chance *rand.Rand
	run    string // a directory

	db     DB
	owner  *checkpoint.Owner
	lives  int
	writes int
	model  map[string]string
	saved  map[string]string // the model at the last cut
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// start claims the task, and opens what its checkpoint holds.
func (h *host) start() {
	h.t.Helper()
	h.owner = mustClaim(h.t, "file://"+filepath.ToSlash(h.run)+"/store")
	h.lives++
	h.db = h.mustOpen(h.t, h.owner, newPlace(filepath.Join(h.run, fmt.Sprint("life-", h.lives))))
}

func (h *host) write(n int) {
	h.t.Helper()
	h.must(write(h.db, h.model, h.writes, n))
	h.writes += n
}

// cut commits a cut while the host goes on, and compares what is restored from it.
func (h *host) cut() {
	h.t.Helper()
	h.prepare()
	h.saved = maps.Clone(h.model)
	src, remove, err := h.db.Cut(h.t.Context())
	h.must(err)
	var made *checkpoint.Checkpoint
	committed := make(chan error, 1)
	go func() {
		var err error
		made, err = h.owner.Commit(context.Background(), checkpoint.Snapshot{State: src})
		committed <- errors.Join(err, remove())
	}()
	h.write(h.chance.IntN(300))
	h.must(<-committed)
	h.mustHold(h.t, made, h.saved)
}

// prepare prepares the next cut while the host writes.
func (h *host) prepare() {
	h.t.Helper()
	p, ok := h.db.(preparer)
	if !ok {
		return
	}
	prepared := make(chan error, 1)
	go func() { prepared <- p.Prepare(context.Background()) }()
	h.write(h.chance.IntN(100))
	h.must(<-prepared)
}
