package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/holdfast-io/holdfast/bench/internal/recipe"
)

// A scale says how large the states are.
type scale struct {
	files    int
	fileSize int64
	records  int // in the database; 4.75 million of them take about 1 GiB
	small    int // files
	one      int64
	many     int // files
	history  int // checkpoints
}

var scales = map[string]scale{
	"small": {files: 16, fileSize: 4 << 20, records: 300_000, small: 3_000, one: 256 << 20, many: 10_000, history: 1_000},
	"full":  {files: 32, fileSize: 32 << 20, records: 4_750_000, small: 50_000, one: 10 << 30, many: 200_000, history: 100_000},
}

// A kind of state, and how to make it.
type kind struct {
	make func(ctx context.Context, s scale, dir string) (*recipe.State, error)
	size func(s scale) int64 // about what it takes of the disk, in bytes
	over bool                // whether it is also restored over the state before the change
}

var recipes = map[string]kind{
	"files": {
		func(ctx context.Context, s scale, dir string) (*recipe.State, error) {
			return recipe.Files(ctx, filepath.Join(dir, "source"), s.files, s.fileSize)
		},
		func(s scale) int64 { return int64(s.files) * s.fileSize }, true,
	},
	"pebble": {
		func(ctx context.Context, s scale, dir string) (*recipe.State, error) {
			return recipe.Pebble(ctx, filepath.Join(dir, "source"), filepath.Join(dir, "work"), s.records)
		},
		func(s scale) int64 { return int64(s.records) * 226 }, true,
	},
	"small": {
		func(ctx context.Context, s scale, dir string) (*recipe.State, error) {
			return recipe.Small(ctx, filepath.Join(dir, "source"), s.small)
		},
		func(s scale) int64 { return int64(s.small) * (12 << 10) }, true, // 8 KiB each, in whole blocks
	},
	"one": {
		func(ctx context.Context, s scale, dir string) (*recipe.State, error) {
			return recipe.One(ctx, filepath.Join(dir, "source"), s.one)
		},
		func(s scale) int64 { return s.one }, false, // which would take a third more of the disk
	},
	"many": {
		func(ctx context.Context, s scale, dir string) (*recipe.State, error) {
			return recipe.Many(ctx, filepath.Join(dir, "source"), s.many)
		},
		func(s scale) int64 { return int64(s.many) * (5 << 10) }, false, // a block each, and an inode
	},
}

// spare is how much of the disk stays free, in bytes.
const spare = 1 << 30

// checkRoom refuses a state for which the disk has no room: for itself, for a
// save and for a restored copy, and for the state before the change if that is
// wanted.
func (c *config) checkRoom(name, dir string) error {
	copies := int64(3)
	if recipes[name].over {
		copies++
	}
	need := copies*recipes[name].size(c.scale) + spare
	if free, known := freeSpace(dir); known && free < need {
		return fmt.Errorf("state %s needs %s in %s, where %s are free; name another place with -dir, or leave the state out of -states",
			name, gib(need), dir, gib(free))
	}
	return nil
}

// checkStep refuses a step when the disk could become full in it. One step
// writes the whole state, at most; but a server keeps what was replaced for
// some minutes, and how much a contender keeps is its own affair.
func (c *config) checkStep(name, dir string) error {
	need := recipes[name].size(c.scale) + spare
	if free, known := freeSpace(dir); known && free < need {
		return fmt.Errorf("the step may need %s in %s, where %s are free", gib(need), dir, gib(free))
	}
	return nil
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
