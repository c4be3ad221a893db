//go:build !linux

package testserver

import "os/exec"

// endWithParent does nothing: a server may outlive a test that is killed.
func endWithParent(*exec.Cmd) {}
