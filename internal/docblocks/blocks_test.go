package docblocks

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestExtract(t *testing.T) {
	for _, c := range []struct {
		name, markdown string
		want           []Block
	}{
		{"none", "# Title\n\nwords with `code`\n\n    indented\n", nil},
		{"two", "```go\na\n\nb\n```\ntext\n```sh  norun \nc\n```", []Block{{1, "go", "a\n\nb\n"}, {7, "sh norun", "c\n"}}},
		{"empty", "```\n```\n", []Block{{1, "", ""}}},
		{"in a list", "- item\n\n  ```sh\n  a\n    b\n c\n  ```\n", []Block{{3, "sh", "a\n  b\nc\n"}}},
		{"fences inside a longer one", "````text\n```go\nx\n```\n````\n", []Block{{1, "text", "```go\nx\n```\n"}}},
		{"backticks inside tildes", "~~~text\n```\n~~~\n", []Block{{1, "text", "```\n"}}},
		{"line ends of Windows", "```go\r\na\r\n```\r\n", []Block{{1, "go", "a\n"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Extract(c.markdown)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
	for _, unclosed := range []string{"```go\na\n", "```go\na\n``` go\n", "````\n```\n", "```\n~~~\n"} {
		if got, err := Extract(unclosed); err == nil {
			t.Errorf("Extract(%q) = %+v, want an error", unclosed, got)
		}
	}
}

const (
	program = `package main

import "github.com/holdfast-io/holdfast/backend"

func main() {
	println(backend.Schemes())
}
`
	hostapp = `package main

func main() {
	if true {
		one()

		two()
	}
}
`
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "host.go"), []byte(hostapp), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, info, text string
		fault            string // part of the error; "" for none
	}{
		{"no kind", "", "", "unknown kind"},
		{"unknown kind", "golang", "", "unknown kind"},
		{"text", "text", "}{", ""},

		{"whole file", "go file=host.go", hostapp, ""},
		{"excerpt", "go file=host.go", "one()\n\ntwo()\n", ""},
		{"excerpt with depth", "go file=host.go", "if true {\n\tone()\n", ""},
		{"excerpt with a gap", "go file=host.go", "one()\ntwo()\n", "not an excerpt"},
		{"excerpt with other depth", "go file=host.go", "if true {\none()\n", "not an excerpt"},
		{"excerpt of half a line", "go file=host.go", "true {\n", "not an excerpt"},
		{"excerpt of another text", "go file=host.go", "three()\n", "not an excerpt"},
		{"excerpt longer than the file", "go file=host.go", hostapp + hostapp, "not an excerpt"},
		{"excerpt of no file", "go file=gone.go", "one()\n", "gone.go"},

		{"fragment", "go", "one()\n", "no whole program"},
		{"library", "go", "package one\n", "no whole program"},

		{"shell", "sh norun", "go test ./... && ls ./host.go\n", ""},
		{"shell syntax", "sh norun", "if true\n", "yntax error"},
		{"shell syntax in a block to run", "sh", "if true\n", "yntax error"},
		{"path that is gone", "sh norun", "go test ./gone/...\n", "./gone/..."},

		{"JSON", "json", `{"a": 1}`, ""},
		{"bad JSON", "json", `{"a": }`, "invalid character"},
		{"two JSON values", "json", `{} {}`, "invalid character"},
		{"JSON with a comment", "json", "{} // none", "invalid character"},
		{"commented JSON", "jsonc", "{ // one\n\"a\": \"s3://b\\\"//\" // two\n}", ""},
		{"bad commented JSON", "jsonc", "{ // one\n,}", "invalid character"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantFault(t, check(t.Context(), dir, Block{Info: c.info, Text: c.text}), c.fault)
		})
	}
}

func TestCheckProgram(t *testing.T) {
	const nested = "go in=engines/sqlite"
	library := "package job\n\nimport _ \"github.com/holdfast-io/holdfast/engines/sqlite\"\n"
	for _, c := range []struct{ name, info, text, fault string }{
		{"good", "go", program, ""},
		{"unused import", "go", strings.Replace(program, "println(backend.Schemes())", "", 1), "imported and not used"},
		{"no such function", "go", strings.Replace(program, "Schemes", "Schemata", 1), "Schemata"},
		{"internal package", "go", strings.Replace(program, "holdfast/backend", "holdfast/internal/testreq", 1), "internal package"},
		{"nested module", nested, library, ""},
		{"no such package in it", nested, strings.Replace(library, "sqlite", "oracle", 1), "engines/oracle"},
		{"module that is gone", "go in=engines/oracle", library, "engines/oracle"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantFault(t, check(t.Context(), root, Block{Info: c.info, Text: c.text}), c.fault)
		})
	}
}

func TestShell(t *testing.T) {
	sh := shell{bin: t.TempDir(), home: t.TempDir()}
	command := filepath.Join(sh.bin, "holdfast")
	if err := os.WriteFile(command, []byte("#!/bin/sh\necho \"$HOME $*\" >>log\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	// In order, one after another, in one place.
	for _, c := range []struct{ name, script, fault string }{
		{"runs the command", "holdfast save $HOME/x\n", ""},
		{"sees earlier blocks", "grep -q \"^$HOME save $HOME/x\" ./log\n", ""},
		{"fails in the middle", "false\ntrue\n", "exit status 1"},
		{"unset variable", "echo $NOWHERE\n", "NOWHERE"},
		{"failing command's words", "echo broken >&2; exit 3\n", "broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantFault(t, sh.run(t.Context(), c.script), c.fault)
		})
	}
}

func wantFault(t *testing.T, err error, fault string) {
	t.Helper()
	switch {
	case fault == "" && err != nil:
		t.Error(err)
	case fault != "" && err == nil:
		t.Errorf("no error, want one with %q", fault)
	case fault != "" && !strings.Contains(err.Error(), fault):
		t.Errorf("error %q, want one with %q", err, fault)
	}
}
