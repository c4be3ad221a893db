package checkpoint

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// thisProgram says which program this is, and where it runs: the default of
// Options.WrittenBy.
func thisProgram() string {
	name, version := filepath.Base(os.Args[0]), ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Path != "" {
			name = path.Base(info.Path)
		}
		version = versionOf(info)
	}
	text := name
	if version != "" {
		text += " " + version
	}
	if host, err := os.Hostname(); err == nil {
		text += " on " + host
	}
	return withProcess(text, os.Getpid())
}

// withProcess adds the process's number to a text, of which it leaves out the end if both
// are longer than they may be.
func withProcess(text string, pid int) string {
	process := fmt.Sprintf(", process %d", pid)
	text = text[:min(len(text), format.MaxWrittenBy-len(process))]
	return strings.ToValidUTF8(text, "") + process
}

// versionOf returns the version of the main module, or the revision that it was built
// from, or "".
func versionOf(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(len(s.Value), 12)]
		}
	}
	return ""
}
