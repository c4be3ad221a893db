package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/filetimes"
)

// checkAdopted refuses to adopt a directory that is known as another task's state: both would go on
// from it. The same task may have moved to another store.
func (o *runFlags) checkAdopted() error {
	if !o.adopt {
		return nil
	}
	var known struct { // of the runner's file in the run directory
		Task  string `json:"task"`
		Path  string `json:"path"`
		State struct {
			Inode uint64 `json:"inode"`
		} `json:"state"`
	}
	data, err := os.ReadFile(filepath.Join(o.runDir, "place.json"))
	if err != nil || json.Unmarshal(data, &known) != nil {
		return nil // if there is something wrong with it, the runner says so
	}
	info, err := os.Lstat(o.stateDir)
	if err != nil || known.Task == o.task || known.Path != o.stateDir {
		return nil //nolint:nilerr // what is absent is nobody's
	}
	if _, inode := filetimes.Identity(info); inode != known.State.Inode {
		return nil // it is another one than that task had
	}
	return backend.Invalidf("--state %s is the state of task %q, so task %q cannot adopt it; give a copy of it", o.state, known.Task, o.task)
}
