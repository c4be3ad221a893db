package main

import (
	"cmp"
	"regexp"
	"strings"
)

// A failure is what a test said that went red.
type failure struct{ test, said string }

var (
	failed  = regexp.MustCompile(`^ *--- FAIL: (\S+) `)
	message = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)
	broken  = regexp.MustCompile(`^(panic|fatal error): (.*)`)
	where   = regexp.MustCompile(`^(?:\t\t|\S+\.)(Test\w+)[ .(/]`) // when time is up, or in a panic's stack
)

// firstFailure finds in the output of tests what went red first: the innermost
// of its subtests, and the first line that it wrote.
func firstFailure(output string) *failure {
	var f failure
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\r\n")
		if m := failed.FindStringSubmatch(line); m != nil {
			if f.said != "" {
				break // another one
			}
			f.test = m[1]
		} else if m := broken.FindStringSubmatch(line); m != nil {
			f.said = cmp.Or(f.said, m[0])
		} else if m := where.FindStringSubmatch(line); m != nil {
			f.test = cmp.Or(f.test, m[1])
		} else if m := message.FindStringSubmatch(line); m != nil && f.test != "" {
			f.said = cmp.Or(f.said, m[1])
		}
	}
	return &failure{cmp.Or(f.test, "all"), cmp.Or(f.said, strings.TrimSpace(output))}
}
