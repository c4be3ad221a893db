package checkpoint_test

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A crawler is a store that takes 10 s for each operation, once it is slow, and notes them.
type crawler struct {
	backend.Store

	mu   sync.Mutex
	slow bool
	log  []string // verb and key
}

func (c *crawler) crawl(verb, key string) {
	c.mu.Lock()
	slow := c.slow
	if slow {
		c.log = append(c.log, verb+" "+key)
	}
	c.mu.Unlock()
	if slow {
		time.Sleep(10 * time.Second)
	}
}

func (c *crawler) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	c.crawl("create", key)
	return c.Store.Create(ctx, key, data)
}

func (c *crawler) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	c.crawl("put", key)
	return c.Store.Put(ctx, key, data)
}

func (c *crawler) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	c.crawl("get", key)
	return c.Store.Get(ctx, key, offset, p)
}

func (c *crawler) Delete(ctx context.Context, keys ...string) error {
	c.crawl("delete", keys[0])
	return c.Store.Delete(ctx, keys...)
}

// When requests wait for each other, those of a restore come first, and those of a
// clean-up last.
func TestRestoreBeforeCommitBeforeCleanUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := &crawler{Store: mem.NewBucket(time.Now).Open()}
		job, err := checkpoint.New(store, checkpoint.Options{Requests: 1, Retention: checkpoint.Retention{Last: 1}})
		if err != nil {
			t.Fatal(err)
		}
		commit := func(o *checkpoint.Owner) {
			state := make([]byte, 50_000)
			_, _ = rand.Read(state)
			if _, err := o.Commit(ctx, checkpoint.Snapshot{State: checkpoint.Stream("s", strings.NewReader(string(state)))}); err != nil {
				t.Error(err)
			}
		}
		owners := make(map[string]*checkpoint.Owner)
		for _, name := range []string{"cleaned", "held", "restored", "committed"} {
			task, err := job.Task(name)
			if err != nil {
				t.Fatal(err)
			}
			if owners[name], err = task.Claim(ctx, checkpoint.ClaimOptions{}); err != nil {
				t.Fatal(err)
			}
			commit(owners[name])
		}
		dir := t.TempDir()
		synctest.Wait() // for their clean-ups
		store.mu.Lock()
		store.slow = true
		store.mu.Unlock()

		var wg sync.WaitGroup
		wg.Go(func() { commit(owners["cleaned"]) }) // until 20 s: a segment and a manifest
		time.Sleep(15 * time.Second)
		wg.Go(func() { commit(owners["held"]) }) // from 20 s on; the clean-up after the first waits
		time.Sleep(10 * time.Second)
		wg.Go(func() { commit(owners["committed"]) })
		synctest.Wait()
		wg.Go(func() {
			c, err := owners["restored"].Checkpoint(ctx)
			if err == nil {
				err = c.Restore(ctx, dir+"/state", checkpoint.RestoreOptions{})
			}
			if err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if err := job.Close(ctx); err != nil {
			t.Error(err)
		}
		for _, o := range owners {
			_ = o.Close(context.WithoutCancel(ctx))
		}
		at := func(what string) int {
			return slices.IndexFunc(store.log, func(s string) bool { return strings.HasPrefix(s, what) })
		}
		order := []int{at("put cleaned"), at("put held"), at("get restored"), at("put committed"), at("create committed"), at("delete")}
		if slices.Min(order) < 0 || !slices.IsSorted(order) {
			t.Errorf("%q", store.log)
		}
	})
}
