// Package value takes consistent cuts of a value in memory, for checkpoints of a job that
// keeps its state in one: a map, a struct, anything that can be encoded.
//
// An [Engine] has the value, which the job reads and changes as it likes. [Engine.Cut]
// fixes it at one moment, and returns a [checkpoint.Source] that is read while the job goes
// on. With package runner, runner.Engines{"": e} is the task's state.
//
// # The pause
//
// It depends on [Codec.Freeze], which is called while the loop stands still:
//
//   - Without it, the value is encoded in the pause, into memory. That takes as long as
//     encoding does: right for a small state.
//   - One that copies the value (maps.Clone) takes as long as the copy.
//   - One that shares with the value what neither changes takes next to no time. [Map] is
//     a map that can: its Clone copies 4096 pointers, and later writes copy what they touch.
//
// What is frozen is encoded beside the loop, as the commit reads it.
//
// # What a commit reads and sends
//
// The whole value is encoded for each commit. What is sent are the chunks, of about 16 KiB,
// that changed. So an encoding must write what did not change as it was before, in the
// same order: the codec of [Map] sorts its keys. Go's own maps have an order by chance.
//
// # What a user must not do
//
// Change the value while Cut runs, from any goroutine.
//
// Change in place what a frozen value shares with the live one: with a Map, what its
// values point to. Set a new one.
package value
