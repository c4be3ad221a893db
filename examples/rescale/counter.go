package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// A part is the state of one partition: a file of its own, so that a task can be given some.
type part struct {
	Next   int            `json:"next"`
	Counts map[string]int `json:"counts"`
}

func fileOf(partition int) string { return fmt.Sprintf("partition-%02d.json", partition) }

// readPartition reads a partition's state from a checkpoint, and nothing else of that.
func readPartition(ctx context.Context, c *checkpoint.Checkpoint, partition int) (*part, error) {
	state, err := c.FS(ctx)
	if err != nil {
		return nil, err
	}
	return readPart(state, partition)
}

func readPart(state fs.FS, partition int) (*part, error) {
	data, err := fs.ReadFile(state, fileOf(partition))
	if err != nil {
		return nil, err
	}
	p := &part{}
	return p, json.Unmarshal(data, p)
}

// A counter is the worker of one task.
type counter struct {
	mine   []int // partitions
	parts  map[int]*part
	to     func(partition int) int
	origin string // until a checkpoint says so
}

// open opens a task: from its own checkpoint; if it has none, from those of the tasks that
// had its partitions; and if there were none, from the beginning.
func open(ctx context.Context, job *checkpoint.Job, l layout, task string, restored *runner.Restored, to func(int) int) (*counter, error) {
	c := &counter{mine: l.partitionsOf(task), parts: make(map[int]*part), to: to}
	if restored.Checkpoint != nil {
		return c, c.read(os.DirFS(restored.Dir("")), restored.Checkpoint)
	}
	if l.from == 0 {
		for _, p := range c.mine {
			c.parts[p] = &part{Counts: make(map[string]int)}
		}
		return c, nil
	}
	sources, err := l.sources(ctx, job, task)
	if err != nil {
		return nil, err
	}
	c.origin = describe(sources)
	for p, source := range sources {
		if c.parts[p], err = readPartition(ctx, source, p); err != nil {
			return nil, err
		}
		if err := c.check(p, source); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *counter) read(state fs.FS, from *checkpoint.Checkpoint) (err error) {
	for _, p := range c.mine {
		if c.parts[p], err = readPart(state, p); err != nil {
			return err
		}
		if err := c.check(p, from); err != nil {
			return err
		}
	}
	return nil
}

// check compares a partition's state with the offset that was committed with it.
func (c *counter) check(partition int, from *checkpoint.Checkpoint) error {
	if got, want := strconv.Itoa(c.parts[partition].Next), from.Offsets[strconv.Itoa(partition)]; got != want {
		return fmt.Errorf("partition %d: the state is of offset %s, and the checkpoint's offset is %q", partition, got, want)
	}
	return nil
}

// Process counts one word of each partition.
func (c *counter) Process(context.Context) error {
	done := true
	for _, p := range c.mine {
		at := c.parts[p]
		if at.Next == c.to(p) {
			continue
		}
		at.Counts[word(p, at.Next)]++
		at.Next++
		done = false
	}
	if done {
		return io.EOF
	}
	return nil
}

// Cut writes a file for each partition. The first checkpoint of a task that came from others
// says from which; the offsets come along.
func (c *counter) Cut(_ context.Context, dir string) (runner.Cut, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return runner.Cut{}, err
	}
	cut := runner.Cut{Offsets: make(map[string]string), Stores: map[string]checkpoint.Source{"": checkpoint.Dir(dir)}}
	for p, at := range c.parts {
		data, err := json.Marshal(at)
		if err != nil {
			return cut, err
		}
		if err := os.WriteFile(filepath.Join(dir, fileOf(p)), data, 0o600); err != nil {
			return cut, err
		}
		cut.Offsets[strconv.Itoa(p)] = strconv.Itoa(at.Next)
	}
	if c.origin != "" {
		cut.Labels = map[string]string{originLabel: c.origin}
		cut.Done = func(_ *checkpoint.Checkpoint, err error) {
			if err == nil {
				c.origin = "" // the next ones follow from it
			}
		}
	}
	return cut, nil
}

func (c *counter) Close() error { return nil }

// The input: what the word at an offset of a partition is, and how many there are.

func word(partition, offset int) string {
	mixed := uint64(partition*1_000_003+offset) * 0x9e3779b97f4a7c15
	return fmt.Sprint("word-", mixed>>40%500)
}

func middle(partition int) int { return 2000 + 37*partition }

func end(int) int { return 5000 }

func truth(partition, to int) map[string]int {
	counts := make(map[string]int)
	for offset := range to {
		counts[word(partition, offset)]++
	}
	return counts
}
