//go:build !unix

package dir

const openFlags = 0
