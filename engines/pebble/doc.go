// Package pebble takes consistent cuts of a Pebble database, for checkpoints of
// a job that keeps its state in one.
//
// An [Engine] is an open database. [Engine.Cut] fixes its state at one moment,
// between two records that the job processes, and returns a [checkpoint.Source]
// to commit together with the offsets of that moment:
//
//	src, remove, err := e.Cut(ctx)    // the loop stands still: this is the pause
//	go func() {                       // the loop goes on, and writes
//		c, err := owner.Commit(ctx, checkpoint.Snapshot{Offsets: offsets, State: src})
//		err = errors.Join(err, remove())
//	}()
//
// With package runner none of that is to be written: runner.Engines{"": e} is the
// task's state.
//
// # What a cut holds
//
// All that was written before Cut was called, and nothing that was written after
// it returned. That needs the job's loop to stand still in between: what another
// goroutine writes during the call may be in the cut or not, though no batch is
// ever in it in part.
//
// # The pause
//
// Cut replaces the memtable by an empty one and waits until the flush of the
// full one has begun. The flush itself, and the directory of hard links that
// Pebble's Checkpoint makes, come beside the loop. Until both are done, a flush
// of what was written since is held back, so that it does not get into the cut.
// docs/engines.md says how long the pause is, and what makes it long.
//
// # What a commit reads and sends
//
// Pebble never changes a table (*.sst) or a blob file (*.blob) once it is there,
// and the source says so ([checkpoint.Source.WriteOnce]): a commit opens none that
// the checkpoint before has, be it linked or restored. It reads the new ones, the
// MANIFEST, of which it sends what is new, and a few small files.
//
// # Durability
//
// Pebble's write-ahead log is off, whatever the options say. A process that died
// goes back to its newest checkpoint ([checkpoint.Owner.Resume]) and never to what
// the working directory holds, so nobody would read the log. What no committed
// checkpoint holds is lost when the process dies or the engine is closed. A write
// with pebble.Sync fails; use pebble.NoSync.
//
// For the same reason no file of the database or of a cut is synced. A machine that
// loses its power may leave damaged tables in the directory; Resume reads all that is
// there, and replaces what is not as the checkpoint has it.
//
// # What a user must not do
//
// Commit the database of a directory that does not come from the owner's Resume:
// it is stored as it is, but does not go on from the checkpoint before.
//
// Write to the database while Cut runs, or close it by any other way than
// [Engine.Close].
//
// Ingest or excise while a cut is being made, which is until its commit returns:
// that changes tables without a flush. A commit of a cut that an ingestion ran
// into fails; an excision is not always noticed.
//
// Declare the tables immutable ([checkpoint.Source.Immutable]) in a source of
// one's own. Pebble numbers its tables, and two databases that went apart give one
// number to different tables. If they also have one size, a commit would take the
// table of the checkpoint before for the other one.
package pebble
