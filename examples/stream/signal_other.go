//go:build !unix

package main

import (
	"errors"
	"os"
)

// canPause says whether a process can be made to stand still.
const canPause = false

func stopProcess(*os.Process) error     { return errors.ErrUnsupported }
func continueProcess(*os.Process) error { return errors.ErrUnsupported }

// askToEnd kills the process: there is no signal that asks it.
func askToEnd(p *os.Process) error { return p.Kill() }
