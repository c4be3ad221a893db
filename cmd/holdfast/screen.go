package main

import (
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// A screen is where messages go. If it is a terminal, its last line may be a
// status, which is redrawn in its place and gives way to whatever is written.
// It may be used by many goroutines at once.
type screen struct {
	out   io.Writer
	width func() int // in columns, now; nil if it is no terminal

	mu     sync.Mutex
	status string // what is shown
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return s
	}
	s.width = func() int {
		columns, _, err := term.GetSize(int(f.Fd()))
		if err != nil || columns <= 0 {
			return 80 // a terminal that does not know
		}
		return columns
	}
	return s
}

func (s *screen) isTerminal() bool { return s.width != nil }

// Write writes a message.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	return s.out.Write(p)
}

// show makes text, which is ASCII, the status. What does not fit on the line is
// left out.
func (s *screen) show(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text = text[:min(len(text), s.columns())]
	if text == s.status {
		return
	}
	gap := max(len(s.status)-len(text), 0)
	s.status = text
	_, _ = io.WriteString(s.out, "\r"+text+strings.Repeat(" ", gap))
}

// hide removes the status.
func (s *screen) hide() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

// clear blanks the whole line: the terminal may have added a ^C to the status.
// Blanks and \r are understood by every terminal, and by Windows' consoles.
func (s *screen) clear() {
	if s.status == "" {
		return
	}
	s.status = ""
	_, _ = io.WriteString(s.out, "\r"+strings.Repeat(" ", s.columns())+"\r")
}

// columns returns how many can be used: a character in the last one would make
// some terminals go on to the next line.
func (s *screen) columns() int { return max(s.width()-1, 0) }
