//go:build unix

package checkpoint

import "syscall"

// How files and directories of a state are opened: a FIFO does not wait for a
// writer, and a terminal does not become the process's own. O_NOFOLLOW would be
// of no use: os.Root sets it anyway, and follows links itself where they lead to a
// file in the directory.
const (
	openFlags    = syscall.O_NONBLOCK | syscall.O_NOCTTY
	openDirFlags = syscall.O_DIRECTORY
)
