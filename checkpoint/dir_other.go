//go:build !unix

package checkpoint

// On these systems a directory contains no FIFOs and no terminals.
const openFlags, openDirFlags = 0, 0
