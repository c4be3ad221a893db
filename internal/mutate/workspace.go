package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A workspace is a copy of the module to make mistakes in.
type workspace struct {
	temp   string
	module string            // in temp: the copy's root
	built  map[string]string // by package: the program of its tests, in temp
}

// copyModule copies the tracked files of the module in dir, as they are in the
// working tree.
func copyModule(ctx context.Context, dir string) (*workspace, error) {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	list, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tracked files: %w", err)
	}
	temp, err := os.MkdirTemp("", "holdfast-mutate-")
	if err != nil {
		return nil, err
	}
	w := &workspace{temp: temp, module: filepath.Join(temp, "module"), built: make(map[string]string)}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if err := w.copyFile(dir, name); err != nil {
			return nil, errors.Join(err, w.remove())
		}
	}
	return w, nil
}

func (w *workspace) copyFile(dir, name string) error {
	name = filepath.FromSlash(name)
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed, and not from the index yet
	}
	if err != nil {
		return err
	}
	to := filepath.Join(w.module, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o666)
}

func (w *workspace) remove() error { return os.RemoveAll(w.temp) }

// make makes a mistake, and returns what takes it back.
func (w *workspace) make(m mistake) (undo func() error, err error) {
	clear(w.built)
	name := filepath.Join(w.module, filepath.FromSlash(m.file))
	source, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	wrong, err := m.apply(string(source))
	if err != nil {
		return nil, err
	}
	return func() error { return os.WriteFile(name, source, 0o666) }, os.WriteFile(name, []byte(wrong), 0o666)
}

// build compiles the package that a file is in.
func (w *workspace) build(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "./"+filepath.ToSlash(filepath.Dir(filepath.FromSlash(file))))
	cmd.Dir = w.module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("it does not compile: %w\n%s", err, out)
	}
	return nil
}

// timeout is how long the tests of one finder may take, before they are taken for
// hung. They take seconds. greenTimeout is the same for all tests of a package together.
const (
	timeout      = 3 * time.Minute
	greenTimeout = time.Hour
)

// test runs some tests with the mistake of a number, or without one, and returns what went
// red first, or nil. They are built and run by one command each: what does not compile finds
// nothing, and whoever gives up has one process to end.
func (w *workspace) test(ctx context.Context, f finder, n int, within time.Duration) (*failure, error) {
	binary, err := w.buildTests(ctx, f.pkg)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	run := exec.CommandContext(ctx, binary, "-test.failfast", "-test.run", "^("+strings.Join(f.names, "|")+")$",
		"-test.timeout", within.String())
	run.Dir = filepath.Join(w.module, filepath.FromSlash(f.pkg))
	run.Env = append(os.Environ(), fmt.Sprintf("%s=%d", numberEnv, n))
	run.Stdout, run.Stderr = &out, &out
	run.WaitDelay = time.Second // for what the tests have started
	err = run.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	exit := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	if strings.Contains(out.String(), "testing: warning: no tests to run") {
		return nil, fmt.Errorf("%s has no test %s", f.pkg, strings.Join(f.names, ", "))
	}
	if err == nil {
		return nil, nil
	}
	return firstFailure(out.String()), nil
}

// buildTests returns the program of a package's tests.
func (w *workspace) buildTests(ctx context.Context, pkg string) (binary string, err error) {
	if binary := w.built[pkg]; binary != "" {
		return binary, nil
	}
	binary = filepath.Join(w.temp, strings.ReplaceAll(pkg, "/", "_")+".test.exe")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-o", binary, "./"+pkg)
	build.Dir = w.module
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(ctx.Err(), fmt.Errorf("it does not compile: %w\n%s", err, out))
	}
	w.built[pkg] = binary
	return binary, nil
}
