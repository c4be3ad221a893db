//go:build !linux && !darwin

package process

import (
	"errors"
	"fmt"
	"syscall"
)

const sigStop, sigCont = syscall.Signal(0), syscall.Signal(0)

// Start says that this system has no process groups.
func Start(Command) (*Group, error) {
	return nil, fmt.Errorf("a program can be run on Linux and macOS alone: %w", errors.ErrUnsupported)
}

func kill(int, syscall.Signal) error { return errors.ErrUnsupported }

func waitForEnd(int) {}

func members(int) ([]member, error) { return nil, errors.ErrUnsupported }

// SignalByName knows no signals here.
func SignalByName(string) (syscall.Signal, bool) { return 0, false }
