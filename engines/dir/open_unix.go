//go:build unix

package dir

import "syscall"

// openFlags open a file so that a FIFO which has taken its place does not block.
const openFlags = syscall.O_NONBLOCK | syscall.O_NOCTTY
