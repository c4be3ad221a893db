// Package docblocks keeps the code in the project's Markdown documents true.
// Its test looks at every fenced block of every document; the words after the
// opening fence say what must hold:
//
//	go               a whole program, which go vet accepts. It is compiled as a user's
//	                 would be: it cannot import internal packages
//	go in=PATH       a whole file of any package, which go vet accepts in the nested module at PATH
//	go file=PATH     lines that stand in that file of this module, at any indentation
//	sh               commands that succeed; see below
//	sh norun         commands that cannot run in a test (they need a network, or are the
//	                 tests): only their syntax and the ./paths in them are checked
//	json             one JSON value
//	jsonc            the same, with // comments
//	text             anything; nobody checks it
//
// Any other word, or none, is an error, so that no block goes unchecked by
// accident.
//
// The sh blocks of one document run in order, each by sh -eu, in one empty
// directory, which is also HOME. The holdfast command built from this module is
// first on the PATH. Blocks hold commands alone, without prompts or output.
package docblocks

import (
	"fmt"
	"strings"
)

// A Block is a fenced block of a Markdown document.
type Block struct {
	Line int    // of the opening fence, from 1
	Info string // what follows the opening fence, with single spaces
	Text string // what stands between the fences
}

// Extract returns the fenced blocks of a Markdown document.
func Extract(markdown string) ([]Block, error) {
	var blocks []Block
	var open *Block // the block that the current line is in
	var fence string
	var indent int
	number := 0
	for line := range strings.Lines(markdown) {
		number++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		body := strings.TrimLeft(line, " ")
		run := fenceOf(body)
		switch {
		case open == nil && run != "":
			fence, indent = run, len(line)-len(body)
			info := strings.Join(strings.Fields(body[len(run):]), " ")
			open = &Block{Line: number, Info: info}
		case open == nil:
		case strings.HasPrefix(run, fence) && strings.TrimSpace(body) == run:
			blocks = append(blocks, *open)
			open = nil
		default:
			// A block in a list is indented with its item.
			open.Text += line[min(indent, len(line)-len(body)):] + "\n"
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the block that opens here is never closed", open.Line)
	}
	return blocks, nil
}

// fenceOf returns the run of three or more backticks or tildes that s begins
// with, or "".
func fenceOf(s string) string {
	for _, mark := range []string{"`", "~"} {
		run := s[:len(s)-len(strings.TrimLeft(s, mark))]
		if len(run) >= 3 {
			return run
		}
	}
	return ""
}
