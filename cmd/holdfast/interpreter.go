package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// checkInterpreter refuses a script whose first line names an interpreter that is not there. The
// system says of it that the script does not exist.
func checkInterpreter(path string) error {
	interpreter, err := interpreterOf(path)
	if err != nil || !filepath.IsAbs(interpreter) {
		return nil // starting it says what is wrong with it, if anything is
	}
	if _, err := os.Stat(interpreter); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("the first line of %s names the interpreter %q, which is not there; install it, or correct that line", path, interpreter)
}

// longestFirstLine is more than any system reads of it.
const longestFirstLine = 4096

// interpreterOf returns what the first line of a script names; "" for what is no script.
func interpreterOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, longestFirstLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "#!")
	if !ok {
		return "", nil
	}
	// A carriage return, as Windows ends a line, is a part of the name.
	name, _, _ := strings.Cut(strings.TrimLeft(rest, " \t"), " ")
	name, _, _ = strings.Cut(name, "\t")
	return name, nil
}

// explainStart says of a program that could not be started what the system does not.
func explainStart(command string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return advice{
			fmt.Errorf("command %q cannot be run: %w", command, err),
			fmt.Sprintf("a script begins with a line such as #!/bin/sh, and a program must be one for %s/%s", runtime.GOOS, runtime.GOARCH),
		}
	case errors.Is(err, fs.ErrNotExist):
		return advice{
			fmt.Errorf("command %q cannot be run: %w", command, err),
			"if it is there, its interpreter or its loader is not: install that, or take a program that was built for this system",
		}
	}
	return err
}
