package cli

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name   string
		args   []string
		err    string // its text; "" for none
		stderr string // how it begins; "" for nothing
	}{
		{"good", []string{"-n", "3", "rest"}, "", ""},
		{"help", []string{"-h"}, flag.ErrHelp.Error(), "usage: tool [-n 3]\n  -n"},
		{"unknown flag", []string{"-m"}, "flag provided but not defined: -m; see -h", ""},
		{"bad value", []string{"-n", "x"}, `invalid value "x" for flag -n: parse error; see -h`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stderr strings.Builder
			f := flag.NewFlagSet("tool", flag.ContinueOnError)
			f.Int("n", 1, "a number")
			err := Parse(f, test.args, &stderr, "tool [-n 3]")
			if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
				t.Errorf("%v; want %q", err, test.err)
			}
			if got := stderr.String(); !strings.HasPrefix(got, test.stderr) || (got == "") != (test.stderr == "") {
				t.Errorf("%q is printed; want %q", got, test.stderr)
			}
		})
	}
}

// A pipe whose reader has gone ends the context, and not the process.
func TestOutput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	ctx, out, stop := Output(t.Context(), w)
	defer stop()
	if _, err := io.WriteString(out, "heard"); err != nil || ctx.Err() != nil {
		t.Fatalf("%v, %v; want that it is written", err, ctx.Err())
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(out, "unheard"); err == nil || ctx.Err() == nil {
		t.Errorf("%v, %v; want errors of both", err, ctx.Err())
	}
	if err := Ended(ctx, errors.New("waiting: canceled")); !errors.Is(err, errOutput) {
		t.Errorf("%v; want %v", err, errOutput)
	}
}

func TestEnded(t *testing.T) {
	failed := errors.New("the disk is full")
	live, dead := t.Context(), func() context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return ctx
	}()
	for _, test := range []struct {
		name string
		ctx  context.Context
		err  error
		want string
	}{
		{"all is well", live, nil, ""},
		{"it fails", live, failed, "the disk is full"},
		{"a signal", dead, failed, "interrupted"},
		{"a signal at the end", dead, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := Ended(test.ctx, test.err)
			if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
}

func TestNumber(t *testing.T) {
	for _, test := range []struct {
		n        int
		of, want string
	}{
		{0, "file", "0 files"},
		{1, "file", "1 file"},
		{2, "file", "2 files"},
	} {
		t.Run(test.want, func(t *testing.T) {
			if got := Number(test.n, test.of); got != test.want {
				t.Errorf("%q; want %q", got, test.want)
			}
		})
	}
}
