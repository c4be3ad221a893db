package docblocks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// check returns an error unless what b's info string promises holds in the
// module whose root is dir. It leaves it to [shell] to run commands.
func check(ctx context.Context, dir string, b Block) error {
	path, isExcerpt := strings.CutPrefix(b.Info, "go file=")
	module, isNested := strings.CutPrefix(b.Info, "go in=")
	switch {
	case isExcerpt:
		return checkExcerpt(filepath.Join(dir, filepath.FromSlash(path)), b.Text)
	case isNested:
		return vet(ctx, filepath.Join(dir, filepath.FromSlash(module)), b.Text)
	case b.Info == "go":
		return checkProgram(ctx, dir, b.Text)
	case b.Info == "sh":
		return checkSyntax(ctx, b.Text)
	case b.Info == "sh norun":
		return errors.Join(checkSyntax(ctx, b.Text), checkPaths(dir, b.Text))
	case b.Info == "json":
		return checkJSON(b.Text)
	case b.Info == "jsonc":
		return checkJSON(withoutComments(b.Text))
	case b.Info == "text":
		return nil
	}
	return fmt.Errorf("block of unknown kind %q; the known ones are go, go in=PATH, go file=PATH, sh, sh norun, json, jsonc and text", b.Info)
}

// checkProgram vets a whole program.
func checkProgram(ctx context.Context, dir, text string) error {
	f, err := parser.ParseFile(token.NewFileSet(), "", text, parser.PackageClauseOnly)
	if err != nil || f.Name.Name != "main" {
		return errors.New("go block that is no whole program; name the file that it stands in: go file=PATH")
	}
	return vet(ctx, dir, text)
}

// vet vets a whole file, by the go.mod in dir. It is given to the go command as a file
// outside the module, so that it sees what a user's program sees.
func vet(ctx context.Context, dir, text string) error {
	tmp, err := os.MkdirTemp("", "docblocks-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // what is left of it is in the way of nothing
	file := filepath.Join(tmp, "main.go")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	return run(exec.CommandContext(ctx, "go", "vet", file), dir)
}

// checkExcerpt returns an error unless the lines of text follow each other in
// the file, all of them indented further by the same amount or none.
func checkExcerpt(file, text string) error {
	source, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	want := strings.Split(strings.TrimSpace(text), "\n")
	lines := strings.Split(string(source), "\n")
	for i := range len(lines) - len(want) + 1 {
		if sameLines(lines[i:i+len(want)], want) {
			return nil
		}
	}
	return fmt.Errorf("not an excerpt of %s: copy it again", file)
}

func sameLines(lines, want []string) bool {
	indent, ok := strings.CutSuffix(lines[0], want[0])
	if !ok || strings.Trim(indent, "\t") != "" {
		return false
	}
	for i, line := range lines {
		if line != indent+want[i] && (line != "" || want[i] != "") {
			return false
		}
	}
	return true
}

func checkJSON(text string) error {
	var v any
	return json.Unmarshal([]byte(text), &v)
}

// withoutComments removes // comments, but not those inside strings.
func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		inString := false
		for i := 0; i < len(line); i++ {
			switch {
			case line[i] == '"':
				inString = !inString
			case inString && line[i] == '\\':
				i++
			case !inString && strings.HasPrefix(line[i:], "//"):
				line = line[:i] + "\n"
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

func checkSyntax(ctx context.Context, script string) error {
	return run(exec.CommandContext(ctx, "sh", "-n", "-c", script), "")
}

// checkPaths returns an error if a word of the script that begins with ./ does
// not exist in dir, with or without a /... behind it.
func checkPaths(dir, script string) error {
	var missing []error
	for _, word := range strings.Fields(script) {
		if !strings.HasPrefix(word, "./") {
			continue
		}
		path := strings.TrimSuffix(word, "...")
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(path))); err != nil {
			missing = append(missing, fmt.Errorf("%s: %w", word, err))
		}
	}
	return errors.Join(missing...)
}

// A shell runs the sh blocks of one document.
type shell struct {
	bin  string // directory of the holdfast command
	home string // working directory and HOME
}

func (s shell) run(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", script)
	cmd.Env = []string{
		"HOME=" + s.home,
		"PATH=" + s.bin + string(filepath.ListSeparator) + os.Getenv("PATH"),
	}
	return run(cmd, s.home)
}

// run runs cmd in dir. Its error holds what cmd printed.
func run(cmd *exec.Cmd, dir string) error {
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
