package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"time"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// build returns the path of p's executable in the user's cache, and makes it
// first if it is not there: by "go install pkg@version", which ignores this
// module, so that no server's dependencies mix with another's or with ours.
// Test binaries that run side by side wait for one of them to build.
func (p Program) build(ctx context.Context) (executable string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "holdfast", "servers", p.Name+"@"+p.version)
	executable = filepath.Join(dir, p.executable())
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

// lock waits until this process is the only one to work in dir.
func lock(ctx context.Context, dir string) (unlock func() error, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := filelock.TryLock(root, "lock")
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

func (p Program) executable() string {
	name := path.Base(p.pkg)
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return name
}

// install builds in a directory of its own, and moves the result into dir when
// it is whole.
func (p Program) install(ctx context.Context, dir string) (err error) {
	fmt.Fprintf(os.Stderr, "building %s %s into %s; it takes some minutes, once\n", p.Name, p.version, dir)
	began := time.Now()
	bin, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	cmd := exec.CommandContext(ctx, "go", "install", p.pkg+"@"+p.version)
	cmd.Dir = bin
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go install %s@%s: %w\n%s", p.pkg, p.version, err, tail(out))
	}
	fmt.Fprintf(os.Stderr, "built %s in %v\n", p.Name, time.Since(began).Round(time.Second))
	return os.Rename(filepath.Join(bin, p.executable()), filepath.Join(dir, p.executable()))
}

// tail returns the end of a program's output, where the reason stands.
func tail(out []byte) []byte {
	return out[max(0, len(out)-4<<10):]
}
