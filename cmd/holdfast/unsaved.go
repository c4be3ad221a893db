package main

import (
	"os"
	"path/filepath"
)

// A program whose state is not consistent at any moment may be killed before it has a checkpoint.
// What it has left then is nothing to go on from. A file in the run directory says that there is
// such a program, from before its start until it has ended well.

// anyMoment reports whether the state may be what it is at any moment: then the program goes on
// from what it has left.
func (o *runFlags) anyMoment() bool { return !o.whenAsked && o.pre == "" && o.post == "" }

// asideDir is where what a program has left before its first checkpoint is moved to: here, or
// beside it with a number, if something is here already.
func (o *runFlags) asideDir() string { return filepath.Join(o.runDir, "unsaved") }

func (o *runFlags) unsavedFile() string { return filepath.Join(o.runDir, "unsaved.mark") }

// noteUnsaved records that the program is about to start without a checkpoint.
func (s *supervisor) noteUnsaved() error {
	if s.o.anyMoment() || s.owned.Restored().Checkpoint != nil {
		s.forgetUnsaved()
		return nil
	}
	return os.WriteFile(s.o.unsavedFile(), nil, 0o600)
}

// wasUnsaved reports whether a program has ended before its first checkpoint, and not well.
func (s *supervisor) wasUnsaved() bool {
	_, err := os.Lstat(s.o.unsavedFile())
	return err == nil
}

// forgetUnsaved removes the record. If that fails, a state that is whole is moved aside, and
// not lost.
func (s *supervisor) forgetUnsaved() { _ = os.Remove(s.o.unsavedFile()) }
