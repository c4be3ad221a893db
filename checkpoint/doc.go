// Package checkpoint keeps the checkpoints of stateful jobs in an object store.
//
// A [Job] is everything under one URL. Each of its tasks has one history of
// checkpoints. A long-running program calls [Task.Claim] to become a task's
// [Owner], goes on from the [Checkpoint] that the owner holds, and calls
// [Owner.Commit] now and then. A program that saves once calls [Task.Save].
// Anyone may read: [Task.Latest], [Task.At], [Checkpoint.Restore],
// [Checkpoint.FS].
//
// A checkpoint is either whole and visible or not there at all. When a task
// is claimed, its earlier owner cannot commit any more. docs/protocol.md
// argues both; package internal/history is the code.
package checkpoint
