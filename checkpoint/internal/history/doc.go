// Package history is the commit protocol: how a manifest becomes the next one of a
// task, exactly once, whatever the store answers or fails to answer, and how the chain
// of manifests is read. It knows nothing of files, or of what a checkpoint's data is.
//
// A [Log] is the history of one task. Its manifests have the numbers 1, 2, 3...; each
// holds one complete checkpoint and lists the earlier ones that still exist. An owner
// begins with [Log.Claim], and then makes one manifest after another with
// [Log.NewAttempt] and [Log.Append]. A one-off save makes its only manifest with
// [Log.AppendOnce]. All of that is in protocol.go. docs/protocol.md argues why it is
// correct. Comments here use its names: A1 to A4 is what is asked of a store, I1 to I7 are
// the invariants.
package history
