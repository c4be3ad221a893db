// Package gobuild builds other people's programs, which tests and benchmarks
// run, with the Go command, at pinned versions, once.
package gobuild

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// A Program is the main package of a module.
type Program struct {
	Name    string // of the executable: the last part of Package that is no version
	Package string // import path
	Version string // of its module
}

// Build returns the path of p's executable in the user's cache directory, and
// makes it first if it is not there: by "go install package@version", which
// ignores this module, so that no program's dependencies mix with another's or
// with ours. Processes that ask at the same time wait for one of them to build,
// which says so on the standard error.
func (p Program) Build(ctx context.Context) (executable string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "holdfast", "programs", p.Name+"@"+p.Version)
	executable = filepath.Join(dir, p.file())
	if _, err := os.Stat(executable); err == nil {
		return executable, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, err := os.Stat(executable); err == nil {
		return executable, nil // another process built it meanwhile
	}
	return executable, p.install(ctx, dir)
}

func (p Program) file() string {
	if runtime.GOOS == "windows" {
		return p.Name + ".exe"
	}
	return p.Name
}

// lock waits until this process is the only one to work in dir.
func lock(ctx context.Context, dir string) (unlock func() error, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := filelock.TryLock(root, "lock", 0o666)
		if err == nil {
			return func() error { return errors.Join(l.Unlock(), root.Close()) }, nil
		}
		if !errors.Is(err, filelock.ErrHeld) {
			return nil, errors.Join(err, root.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), root.Close())
		case <-tick.C:
		}
	}
}

// install builds in a directory of its own, and moves the result into dir when
// it is whole.
func (p Program) install(ctx context.Context, dir string) (err error) {
	fmt.Fprintf(os.Stderr, "building %s %s into %s; it takes some minutes, once\n", p.Name, p.Version, dir)
	began := time.Now()
	bin, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	cmd := exec.CommandContext(ctx, "go", "install", p.Package+"@"+p.Version)
	cmd.Dir = bin
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go install %s@%s: %w\n%s", p.Package, p.Version, err, out)
	}
	fmt.Fprintf(os.Stderr, "built %s in %v\n", p.Name, time.Since(began).Round(time.Second))
	return os.Rename(filepath.Join(bin, p.file()), filepath.Join(dir, p.file()))
}
