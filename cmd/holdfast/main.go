// Command holdfast saves, restores and lists the checkpoints of stateful jobs.
// docs/cli.md is its manual.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal asks to stop, a second one kills
	useLittleMemory()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.Getenv))
}

// useLittleMemory makes the heap grow by half, and not to twice its size, before
// garbage is collected. Nearly all of it is a few large buffers that are used
// again and again, so this took no time that could be measured; the resident
// memory of a save of 1 GiB to S3 peaked at 147 MiB instead of 158, to a
// directory at 142 instead of 152. A limit (GOMEMLIMIT) would not do: what a
// state of many files needs may exceed it, and then the collector never rests.
// What the user has set stays.
func useLittleMemory() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(50)
	}
}
