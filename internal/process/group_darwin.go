package process

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dieWithParent does nothing: macOS has no such thing.
func dieWithParent(*syscall.SysProcAttr) {}

// waitForEnd waits until a child has ended, and does not collect it.
func waitForEnd(pid int) {
	const byPID = 1 // P_PID of sys/wait.h
	var info [16]uint64
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, byPID, uintptr(pid), uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT, 0, 0)
		if errno != unix.EINTR {
			return
		}
	}
}

// The states of sys/proc.h.
const (
	sstop = 4
	szomb = 5
)

// members returns the processes of a group.
func members(group int) ([]member, error) {
	list, err := unix.SysctlKinfoProcSlice("kern.proc.pgrp", group)
	if err != nil {
		return nil, err
	}
	all := make([]member, 0, len(list))
	for i := range list {
		m := member{pid: int(list[i].Proc.P_pid)}
		switch list[i].Proc.P_stat {
		case sstop:
			m.state = stopped
		case szomb:
			m.state = dead
		}
		all = append(all, m)
	}
	return all, nil
}
