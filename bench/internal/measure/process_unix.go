//go:build unix

package measure

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// peakRSS returns the largest resident set, in bytes: getrusage gives KiB,
// except on macOS.
func peakRSS(p *os.ProcessState) int64 {
	u, ok := p.SysUsage().(*syscall.Rusage)
	switch {
	case !ok:
		return 0
	case runtime.GOOS == "darwin" || runtime.GOOS == "ios":
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) << 10
}

// endTogether lets the launcher and what it runs be killed together. It also
// keeps an interrupt at the terminal from them: this process gets it, and ends
// them.
func endTogether(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// Self returns the processor time that this process has used; its children do
// not count.
func Self() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no reason to
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
