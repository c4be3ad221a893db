// Package history is the commit protocol: how a manifest becomes the next one of a
// task, exactly once, whatever the store answers or fails to answer, and how the chain
// of manifests is read. It knows nothing of files, or of what a checkpoint's data is.
//
// A [Log] is the history of one task. Its manifests have the numbers 1, 2, 3...; each
// holds one whole checkpoint and lists the earlier ones that still exist. A writer
// begins with [Log.Claim], and makes one manifest after the other with
// [Log.NewAttempt] and [Log.Append]; a save that stands alone makes its only one with
// [Log.AppendOnce]. All of that is in protocol.go. docs/protocol.md has the argument;
// the names A1... and I1... there are used here.
package history
