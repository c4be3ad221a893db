package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// printed matches a block of the manual with output: a comment that names the
// command, and the fenced block after it.
var printed = regexp.MustCompile("(?m)^<!-- (help|golden) (.*) -->\n```(.*)\n((?s:.*?))```$")

// TestManual compares the help texts and the output in docs/cli.md with what the
// commands print, and checks that the manual covers every command.
func TestManual(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "cli.md")
	manual, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]bool)
	got := printed.ReplaceAllStringFunc(string(manual), func(block string) string {
		m := printed.FindStringSubmatch(block)
		kind, what, info := m[1], m[2], m[3]
		shown[what] = true
		text := ""
		switch kind {
		case "help":
			text = ok(t, append(strings.Fields(what)[1:], "--help")...)
		case "golden":
			data, err := os.ReadFile(filepath.Join("testdata", "golden", what))
			if err != nil {
				t.Fatal(err)
			}
			text = string(data)
		}
		return "<!-- " + kind + " " + what + " -->\n```" + info + "\n" + text + "```"
	})
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != string(manual) {
		t.Errorf("%s is not what the commands print; run go test -update", path)
	}
	for _, cmd := range commands((&program{}).root()) {
		if name := cmd.CommandPath(); !shown[name] {
			t.Errorf("%s does not show the help of %q", path, name)
		}
	}
}

// commands returns all commands that this program defines itself.
func commands(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" && cmd.Name() != "help" {
			all = append(all, commands(cmd)...)
		}
	}
	return all
}
