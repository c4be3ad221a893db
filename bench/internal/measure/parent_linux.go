package measure

import (
	"os/exec"
	"syscall"
)

// endWithParent lets a child end also when this process is killed.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
