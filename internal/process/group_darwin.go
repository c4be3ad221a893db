package process

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dieWithParent does nothing: macOS has no such thing.
func dieWithParent(*syscall.SysProcAttr) {}

// waitFor is waitid(2) for a child. It returns what has happened to it, as si_code says it.
func waitFor(pid, options int) (code int32) {
	const byPID = 1 // P_PID of sys/wait.h
	for {
		var info [32]int32 // si_signo, si_errno, si_code and more
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, byPID, uintptr(pid), uintptr(unsafe.Pointer(&info)), uintptr(options), 0, 0)
		if errno != unix.EINTR {
			return info[2]
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
