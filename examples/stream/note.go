package main

import (
	"encoding/json"
	"io"
	"os"
	"sync"
	"time"
)

// A note is what a worker tells the process that started it, which kills it by that and draws
// a picture of it. A job of your own needs nothing like it.
type note struct {
	Op      op            `json:"op"`
	Task    string        `json:"task"`
	Seq     uint64        `json:"seq,omitempty"`     // of the checkpoint that was restored or committed
	Epoch   uint64        `json:"epoch,omitempty"`   // of the commit
	Counted int           `json:"counted,omitempty"` // events of the partition
	Next    uint64        `json:"next,omitempty"`    // the offset that was committed
	Took    time.Duration `json:"took,omitempty"`
}

// An op is what happened to a task.
type op string

const (
	open   op = "open"   // it was restored, and is worked on
	count  op = "count"  // it has come so far
	cut    op = "cut"    // a commit has begun
	pause  op = "pause"  // the cut was made, and the loop goes on
	commit op = "commit" // it is durable
	fenced op = "fenced" // a commit was refused, because another worker has the task
	closed op = "closed" // it is worked on no more
)

// tell tells of a note.
type tell func(note)

// tellOn returns a tell that writes JSON to w, one note at a time. When nobody reads it any
// more, the process ends: it has been orphaned.
func tellOn(w io.Writer) tell {
	var mu sync.Mutex
	enc := json.NewEncoder(w)
	return func(n note) {
		mu.Lock()
		defer mu.Unlock()
		if enc.Encode(n) != nil {
			os.Exit(failed)
		}
	}
}
