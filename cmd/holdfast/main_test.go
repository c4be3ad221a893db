package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain makes the test binary behave as the command holdfast if it is run under
// that name, because scripts and tests run real processes.
func TestMain(m *testing.M) {
	// A process with the race detector sleeps for a second before it ends.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"holdfast": func() {
		if uid := os.Getenv("HOLDFAST_TEST_UID"); uid != "" {
			if err := becomeUser(uid); err != nil {
				panic(err)
			}
		}
		main()
	}})
}

// A result is the outcome of a command line.
type result struct {
	code           int
	stdout, stderr string
}

// holdfast runs a command line in this process and checks the rules for all output.
func holdfast(t *testing.T, args ...string) result {
	t.Helper()
	return holdfastWith(t, t.Context(), args...)
}

func holdfastWith(t *testing.T, ctx context.Context, args ...string) result {
	t.Helper()
	r := runQuietly(ctx, args...)
	goleak.VerifyNone(t)
	if what := misfit(r); what != "" {
		t.Fatalf("holdfast %q: %s\nexit code %d\nstdout: %s\nstderr: %s", args, what, r.code, r.stdout, r.stderr)
	}
	return r
}

func runQuietly(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, &stdout, &stderr, func(string) string { return "" })
	return result{code, stdout.String(), stderr.String()}
}

// misfit says how r breaks the rules for output; "" if it does not.
func misfit(r result) string {
	messages := 0
	for line := range strings.Lines(r.stderr) {
		switch {
		case !strings.HasPrefix(line, "holdfast: ") || !strings.HasSuffix(line, "\n"):
			return "a line on stderr that does not begin with its name"
		case !strings.HasPrefix(line, "holdfast: note: "):
			messages++
		}
	}
	switch {
	case r.code == 0 && messages > 0:
		return "a message of failure after success"
	case r.code != 0 && messages != 1:
		return "a failure that is not told in one line"
	}
	return ""
}

// ok runs a command line that must succeed, and returns its stdout.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := holdfast(t, args...)
	if r.code != 0 {
		t.Fatalf("holdfast %q: exit code %d\n%s", args, r.code, r.stderr)
	}
	return r.stdout
}

// okJSON runs a command line with --json, and decodes the single document on stdout.
func okJSON[T any](t *testing.T, args ...string) T {
	t.Helper()
	return decode[T](t, ok(t, append(args, "--json")...))
}

func decode[T any](t *testing.T, out string) T {
	t.Helper()
	var doc T
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("more than one JSON document: %s", out)
	}
	return doc
}

// checkpointDoc is the documented JSON form of a checkpoint.
type checkpointDoc struct {
	Task       string            `json:"task"`
	Seq        uint64            `json:"seq"`
	Epoch      uint64            `json:"epoch"`
	Time       string            `json:"time"`
	WrittenBy  string            `json:"written_by"`
	Offsets    map[string]string `json:"offsets"`
	OffsetsAre string            `json:"offsets_are"`
	Labels     map[string]string `json:"labels"`
	Savepoint  string            `json:"savepoint"`
	Expires    string            `json:"savepoint_expires"`
	Files      int               `json:"files"`
	Bytes      int64             `json:"bytes"`
	NewBytes   int64             `json:"new_bytes"`
}

// wait runs do, which waits for a holdfast process, and checks the rules for all
// output.
func wait(t *testing.T, cmd *exec.Cmd, do func() error) result {
	t.Helper()
	if cmd.Stdout == nil {
		cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
	}
	if err := do(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	r := result{cmd.ProcessState.ExitCode(), cmd.Stdout.(*bytes.Buffer).String(), cmd.Stderr.(*bytes.Buffer).String()}
	if what := misfit(r); what != "" && r.code >= 0 {
		t.Fatalf("%q: %s\nexit code %d\nstdout: %s\nstderr: %s", cmd.Args, what, r.code, r.stdout, r.stderr)
	}
	return r
}

func mustWrite(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}
