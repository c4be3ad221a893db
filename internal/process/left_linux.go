package process

import (
	"bytes"
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
