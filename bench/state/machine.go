package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/internal/testserver"
)

// A machine is where figures come from. What the system does not tell is empty.
type machine struct {
	System  string `json:"system"` // as in "Linux 6.1.0 x86_64"
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Memory  string `json:"memory"` // as in "24612100 kB"
	Go      string `json:"go"`
	Server  string `json:"server"`       // MinIO's version
	Commit  string `json:"commit"`       // of holdfast; "+" at its end if files were changed
	MinPeak int64  `json:"min_peak_rss"` // bytes: a smaller peak cannot be told
}

func describeMachine(ctx context.Context) (machine, error) {
	least, err := measure.Run(ctx, measure.Command{Args: []string{"true"}})
	if err != nil {
		return machine{}, err
	}
	commit := output(ctx, "git", "rev-parse", "--short=12", "HEAD")
	if output(ctx, "git", "status", "--porcelain") != "" {
		commit += "+"
	}
	return machine{
		System:  output(ctx, "uname", "-srm"),
		CPU:     field("/proc/cpuinfo", "model name"),
		Cores:   runtime.NumCPU(),
		Memory:  field("/proc/meminfo", "MemTotal"),
		Go:      runtime.Version(),
		Server:  testserver.MinIO.Version,
		Commit:  commit,
		MinPeak: least.PeakRSS,
	}, nil
}

// output returns what a command prints, or "" where it fails.
func output(ctx context.Context, args ...string) string {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// field returns the first value of that name in a file of "name: value" lines.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
