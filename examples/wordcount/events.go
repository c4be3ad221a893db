package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"sync"

	"github.com/holdfast-io/holdfast/backend"
)

// An event is what the job announces to its parent, which kills it by it. A
// host of your own needs nothing like it.
type event struct {
	Op   op     `json:"op"`
	End  bool   `json:"end,omitempty"`  // of op; otherwise it begins
	Task string `json:"task,omitempty"` // "" if op is a request to the store
	Seq  uint64 `json:"seq,omitempty"`  // of the checkpoint that was restored or committed
	At   int64  `json:"at,omitempty"`   // bytes that the task has counted
}

// An op is something that the job can be killed in the midst of.
type op string

const (
	resume   op = "resume" // from the start of the job: claim, restore and open
	count    op = "count"  // has no end: it tells how far a task has come
	cut      op = "cut"
	commit   op = "commit"
	segment  op = "segment"  // is written
	manifest op = "manifest" // is written
	cleanUp  op = "clean-up" // of what no checkpoint needs any more
)

// ops are those that have an end.
var ops = []op{resume, cut, commit, segment, manifest, cleanUp}

// announce tells the parent of an event.
type announce func(event)

// announceOn returns an announce that writes JSON to w, one event at a time.
// When nobody reads it any more, the process ends: it has been orphaned.
func announceOn(w io.Writer) announce {
	var mu sync.Mutex
	enc := json.NewEncoder(w)
	return func(e event) {
		mu.Lock()
		defer mu.Unlock()
		if enc.Encode(e) != nil {
			os.Exit(jobFailed)
		}
	}
}

// observed is a store that announces the requests that change it. The engine
// writes segments with Put and manifests with Create.
type observed struct {
	backend.Store
	announce announce
}

func (s observed) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.announce(event{Op: segment})
	defer s.announce(event{Op: segment, End: true})
	return s.Store.Put(ctx, key, data)
}

func (s observed) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.announce(event{Op: manifest})
	defer s.announce(event{Op: manifest, End: true})
	return s.Store.Create(ctx, key, data)
}

func (s observed) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	s.announce(event{Op: cleanUp})
	defer s.announce(event{Op: cleanUp, End: true})
	return s.Store.Delete(ctx, keys...)
}
