package checkpoint

import "github.com/holdfast-io/holdfast/internal/filetimes"

// writeAhead makes the kernel begin to write the dirty pages of files that are about to be
// protected, in the background. Otherwise filetimes.Catch would wait for the disk once
// for each of thousands of files. stop ends that.
func (d dirFS) writeAhead(names []string) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for _, name := range names {
			select {
			case <-quit:
				return
			default:
				if !d.startWriting(name) {
					return
				}
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// startWriting begins to write one file's dirty pages. It reports whether that is useful
// on this file system. It ignores errors: they occur again when the file is read.
func (d dirFS) startWriting(name string) bool {
	f, err := d.open(name, openFlags)
	if err != nil {
		return true
	}
	defer f.Close()
	if !filetimes.Known(int(f.Fd())) {
		return false
	}
	startWriteback(f, 0, 0) // all of it
	return true
}
