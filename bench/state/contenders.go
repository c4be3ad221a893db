package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/bench/internal/rival"
	"github.com/holdfast-io/holdfast/internal/gobuild"
)

// A verb is what a contender is told to do with a directory.
type verb int

const (
	prepare   verb = iota // what it needs once, before the first save
	firstSave             // to an empty place
	nextSave              // where a save is already
	restore               // the newest save, into an empty directory
	update                // likewise, into a directory that holds an earlier state, from which only the state's files may remain
)

// A contender is a program that saves directories and restores them.
type contender struct {
	name, version string
	local         bool // it saves to a directory, and talks to no server
	// command returns what carries out v. It has no Args if the program has
	// nothing for it.
	command func(v verb, s *site, dir string) measure.Command
}

func (c *contender) can(v verb) bool { return len(c.command(v, new(site), "").Args) > 0 }

// contenderNames are those that there are, in the order of the tables.
var contenderNames = []string{"holdfast", "holdfast-off", "restic", "rclone", "s5cmd", "mc", "holdfast-file", "cp", "find"}

// bucket holds everything, below place.
const (
	bucket = "bench"
	place  = "state"
)

// open returns a contender that is ready to run.
func open(ctx context.Context, name, holdfast string) (contender, error) {
	switch name {
	case "holdfast", "holdfast-file":
		return contender{name, "", name == "holdfast-file", holdfastCommand(holdfast)}, nil
	case "holdfast-off":
		return contender{name, "", false, holdfastCommand(holdfast, "--compression", "off")}, nil
	case "restic":
		return openRestic(ctx)
	case "rclone":
		return build(ctx, rival.Rclone, rcloneArgs)
	case "s5cmd":
		return build(ctx, rival.S5cmd, s5cmdArgs)
	case "mc":
		return build(ctx, rival.MC, mcArgs)
	}
	if name == "find" {
		return contender{"find", "", true, findCommand}, nil
	}
	return contender{"cp", "", true, cpCommand}, nil
}

// buildHoldfast builds the command from the module in the working directory.
func buildHoldfast(ctx context.Context, dir string) (executable string, err error) {
	executable = filepath.Join(dir, "holdfast")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", executable, "github.com/holdfast-io/holdfast/cmd/holdfast")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building holdfast, which must be done in its source tree: %w\n%s", err, out)
	}
	return executable, nil
}

// holdfastCommand is the command, which saves with some flags.
func holdfastCommand(executable string, saving ...string) func(verb, *site, string) measure.Command {
	return func(v verb, s *site, dir string) measure.Command {
		args := []string{executable}
		switch v {
		case firstSave, nextSave:
			args = slices.Concat(args, []string{"save"}, saving, []string{s.url(), "bench", dir})
		case restore:
			args = append(args, "restore", s.url(), "bench", dir)
		case update:
			args = append(args, "restore", "--force", s.url(), "bench", dir)
		default:
			return measure.Command{}
		}
		return measure.Command{Args: args}
	}
}

// build returns a contender that gobuild makes.
func build(ctx context.Context, p gobuild.Program, args func(v verb, s *site, dir string) []string) (contender, error) {
	executable, err := p.Build(ctx)
	return contender{name: p.Name, version: p.Version, command: func(v verb, s *site, dir string) measure.Command {
		c := measure.Command{Args: args(v, s, dir), Env: []string{s.server.MCEnv("bench")}}
		if len(c.Args) > 0 {
			c.Args = slices.Insert(c.Args, 0, executable)
		}
		return c
	}}, err
}

func rcloneArgs(v verb, s *site, dir string) []string {
	remote := ":s3:" + bucket + "/" + place
	switch v {
	case firstSave, nextSave:
		return append(s.server.RcloneArgs(), "sync", dir, remote)
	case restore, update:
		return append(s.server.RcloneArgs(), "sync", remote, dir)
	}
	return nil
}

func s5cmdArgs(v verb, s *site, dir string) []string {
	remote := "s3://" + bucket + "/" + place + "/"
	switch v {
	case firstSave:
		return append(s.server.S5cmdArgs(), "cp", dir+"/", remote)
	case nextSave:
		return append(s.server.S5cmdArgs(), "sync", "--delete", dir+"/", remote)
	case restore:
		return append(s.server.S5cmdArgs(), "cp", remote+"*", dir+"/")
	case update:
		return append(s.server.S5cmdArgs(), "sync", "--delete", remote+"*", dir+"/")
	}
	return nil
}

func mcArgs(v verb, s *site, dir string) []string {
	args, remote := s.server.MCArgs(filepath.Join(s.dir, "mc")), "bench/"+bucket+"/"+place+"/"
	switch v {
	case firstSave:
		return append(args, "cp", "--recursive", dir+"/", remote)
	case nextSave:
		return append(args, "mirror", "--overwrite", "--remove", dir+"/", remote)
	case restore:
		return append(args, "cp", "--recursive", remote, dir+"/")
	case update:
		return append(args, "mirror", "--overwrite", "--remove", remote, dir+"/")
	}
	return nil
}

// openRestic returns restic if it is installed: it cannot be built like the
// others everywhere, and is in every distribution.
func openRestic(ctx context.Context) (contender, error) {
	executable, err := exec.LookPath("restic")
	if err != nil {
		return contender{}, errors.New("it is not on the PATH")
	}
	said, err := exec.CommandContext(ctx, executable, "version").Output()
	if err != nil {
		return contender{}, fmt.Errorf("restic version: %w", err)
	}
	help, err := exec.CommandContext(ctx, executable, "restore", "--help").Output()
	if err != nil {
		return contender{}, fmt.Errorf("restic restore --help: %w", err)
	}
	overwrites := strings.Contains(string(help), "--overwrite ") // from 0.17 on
	version := ""
	if words := strings.Fields(string(said)); len(words) > 1 {
		version = words[1]
	}
	return contender{"restic", version, false, func(v verb, s *site, dir string) measure.Command {
		c := measure.Command{
			Args: []string{executable, "--quiet"},
			Env: []string{
				"RESTIC_REPOSITORY=s3:" + s.server.Endpoint + "/" + bucket + "/" + place,
				"RESTIC_PASSWORD=bench",
				"RESTIC_CACHE_DIR=" + filepath.Join(s.dir, "restic"),
			},
		}
		switch {
		case v == prepare:
			c.Args = append(c.Args, "init")
		case v == firstSave || v == nextSave:
			c.Args, c.Dir = append(c.Args, "backup", "."), dir // so that the snapshot begins with what is in dir
		case v == restore:
			c.Args = append(c.Args, "restore", "latest", "--target", dir)
		case v == update && overwrites:
			c.Args = append(c.Args, "restore", "latest", "--target", dir, "--overwrite", "if-changed", "--delete")
		default:
			return measure.Command{}
		}
		return c
	}}, nil
}

// cpCommand is cp -r and sync, one after the other.
func cpCommand(v verb, s *site, dir string) measure.Command {
	from, to := dir, filepath.Join(s.dir, "store")
	switch v {
	case firstSave:
	case restore:
		from, to = to, dir
	default:
		return measure.Command{}
	}
	return measure.Command{Args: []string{"sh", "-c", `mkdir -p "$2" && cp -r "$1/." "$2" && sync`, "sh", from, to}}
}

// findCommand lists what a save has to look at to find out that nothing has changed: GNU find
// with the attributes of all files.
func findCommand(v verb, _ *site, dir string) measure.Command {
	if v != nextSave {
		return measure.Command{}
	}
	return measure.Command{Args: []string{"sh", "-c", `find "$1" -printf '%p %y %m %s %T@ %C@ %i %l\n' >/dev/null`, "sh", dir}}
}
