//go:build unix

package main

import (
	"os"
	"syscall"
)

// canPause says whether a process can be made to stand still.
const canPause = true

func stopProcess(p *os.Process) error     { return p.Signal(syscall.SIGSTOP) }
func continueProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
func askToEnd(p *os.Process) error        { return p.Signal(syscall.SIGTERM) }
