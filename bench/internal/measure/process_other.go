//go:build !unix

package measure

import (
	"os"
	"os/exec"
	"time"
)

// peakRSS is not known here.
func peakRSS(*os.ProcessState) int64 { return 0 }

// endTogether does nothing: what the launcher runs may outlive it.
func endTogether(*exec.Cmd) {}

// Self is not known here.
func Self() time.Duration { return 0 }
