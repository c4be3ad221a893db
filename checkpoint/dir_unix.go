//go:build unix

package checkpoint

import "syscall"

// The flags with which files and directories of a state are opened. Opening a FIFO does not
// block, and a terminal does not become the process's controlling terminal. O_NOFOLLOW
// would be useless: os.Root sets it anyway, and itself follows links that stay inside the
// directory.
const (
	openFlags    = syscall.O_NONBLOCK | syscall.O_NOCTTY
	openDirFlags = syscall.O_DIRECTORY
)
