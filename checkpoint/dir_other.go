//go:build !unix

package checkpoint

// Here, no name in a directory is one of a FIFO or a terminal.
const openFlags, openDirFlags = 0, 0
