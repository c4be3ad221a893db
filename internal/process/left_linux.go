package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Left returns the number of a process that was started with a variable in its environment,
// NAME=VALUE, or has inherited it; 0 if there is none that this one may read about. So what a
// program has left running is found, also if it has left its group and closed its files.
func Left(variable string) (pid int, err error) {
	pids, err := numbersIn("/proc")
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}
		// Of what has ended meanwhile, or is another user's, there is nothing to read.
		env, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
		for _, entry := range bytes.Split(env, []byte{0}) {
			if string(entry) == variable {
				return pid, nil
			}
		}
	}
	return 0, nil
}

// Holder returns the number of a process that has a file open which it has locked, or has
// inherited so; 0 if there is none that this one may look into.
func Holder(file os.FileInfo) (pid int) {
	pids, err := numbersIn("/proc")
	if err != nil {
		return 0
	}
	for _, pid := range pids {
		if pid != os.Getpid() && holds(filepath.Join("/proc", strconv.Itoa(pid)), file) {
			return pid
		}
	}
	return 0
}

// holds reports whether the process that a directory of /proc is about holds a lock on a file.
func holds(dir string, file os.FileInfo) bool {
	open, _ := numbersIn(filepath.Join(dir, "fd")) // none of a process that is another user's
	for _, fd := range open {
		info, err := os.Stat(filepath.Join(dir, "fd", strconv.Itoa(fd)))
		if err != nil || !os.SameFile(info, file) {
			continue
		}
		// To have it open is not enough: so has whoever waits for the lock.
		about, _ := os.ReadFile(filepath.Join(dir, "fdinfo", strconv.Itoa(fd)))
		if bytes.Contains(about, []byte("\nlock:")) {
			return true
		}
	}
	return false
}

// Describe returns what people know a process by. The name is that of its program alone: command
// lines have secrets in them.
func Describe(pid int) string {
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%s)", pid, bytes.TrimSpace(name))
}
