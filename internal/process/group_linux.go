package process

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// waitFor is waitid(2) for a child. It returns what has happened to it, as si_code says it.
func waitFor(pid, options int) (code int32) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, options, nil)
		if !errors.Is(err, unix.EINTR) {
			return info.Code
		}
	}
}

// members returns the processes of a group. A process is stopped when all of its threads
// are.
func members(group int) ([]member, error) {
	pids, err := numbersIn("/proc")
	if err != nil {
		return nil, err
	}
	var all []member
	for _, pid := range pids {
		// Asked first, because a /proc that is mounted with hidepid does not let everybody read
		// about other users' processes.
		if pgrp, err := unix.Getpgid(pid); err != nil || pgrp != group {
			continue
		}
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		state, pgrp, err := status(filepath.Join(dir, "stat"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || err == nil && pgrp != group {
			continue
		}
		if err == nil && state == stopped {
			state, err = ofThreads(filepath.Join(dir, "task"))
		}
		if err != nil {
			return nil, err
		}
		all = append(all, member{pid, state})
	}
	return all, nil
}

// ofThreads returns stopped if all threads are that, or have ended.
func ofThreads(dir string) (processState, error) {
	threads, err := numbersIn(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return dead, nil
	}
	for _, thread := range threads {
		state, _, err := status(filepath.Join(dir, strconv.Itoa(thread), "stat"))
		if err == nil && state == alive {
			return alive, nil
		}
	}
	return stopped, err
}

// numbersIn returns the names in a directory that are numbers.
func numbersIn(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	var numbers []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, err
}

// status reads a file as proc(5) describes /proc/PID/stat.
func status(path string) (processState, int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return alive, 0, err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 3 {
		return alive, 0, errors.New(path + " is not what proc(5) says")
	}
	group, err := strconv.Atoi(fields[2])
	switch fields[0] {
	case "T", "t":
		return stopped, group, err
	case "Z", "X", "x":
		return dead, group, err
	}
	return alive, group, err
}
