package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/zeebo/blake3"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// TestScripts runs the scripts in testdata/script. Beside testscript's own
// commands they have
//
//	code N holdfast...   the command ends with exit code N, and what it prints keeps the rules
//	damage FILE          change one byte of a file; FILE may be a pattern that one file matches
//	newer FILE           make a manifest one of a newer version
//	deleted FILE         make a manifest say that its task was deleted
//	socket FILE          make a Unix socket
//	claim TASK           claim a task of the store, as an owner that then dies
//	noise FILE SEED      make a file too large for a manifest: 100,000 bytes that cannot be compressed
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("URL", "file://"+filepath.ToSlash(e.WorkDir)+"/store")
			e.Setenv("TZ", "UTC")
			e.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":    cmdCode,
			"damage":  cmdDamage,
			"newer":   cmdNewer,
			"deleted": cmdDeleted,
			"socket":  cmdSocket,
			"claim":   cmdClaim,
			"noise":   cmdNoise,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || args[1] != "holdfast" {
		ts.Fatalf("usage: code N holdfast...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	r := result{got, ts.ReadFile("stdout"), ts.ReadFile("stderr")}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	if what := misfit(r); what != "" {
		ts.Fatalf("%s", what)
	}
}

// rewrite replaces the content of the one file that matches a pattern.
func rewrite(ts *testscript.TestScript, args []string, change func([]byte) []byte) {
	if len(args) != 1 {
		ts.Fatalf("one file is needed")
	}
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) != 1 {
		ts.Fatalf("%s matches %q", args[0], files)
	}
	data, err := os.ReadFile(files[0])
	ts.Check(err)
	ts.Check(os.WriteFile(files[0], change(data), 0o666))
}

func cmdDamage(ts *testscript.TestScript, _ bool, args []string) {
	rewrite(ts, args, func(data []byte) []byte {
		data[len(data)/2] ^= 1
		return data
	})
}

func cmdNewer(ts *testscript.TestScript, _ bool, args []string) {
	rewrite(ts, args, func(data []byte) []byte {
		return reseal(ts, data, `"holdfast":1,`, `"holdfast":2,"what":"no one knows yet",`)
	})
}

func cmdDeleted(ts *testscript.TestScript, _ bool, args []string) {
	rewrite(ts, args, func(data []byte) []byte {
		data = reseal(ts, data, `"kind":"commit"`, `"kind":"deleted"`)
		checkpoint, _, _ := bytes.Cut(data[bytes.Index(data, []byte(`,"checkpoint"`)):], []byte(`,"sum"`))
		return reseal(ts, data, string(checkpoint), "")
	})
}

// reseal replaces a part of a manifest and corrects its checksum.
func reseal(ts *testscript.TestScript, data []byte, old, new string) []byte {
	body, _, found := bytes.Cut(data, []byte(`,"sum":`))
	if !found || !bytes.Contains(body, []byte(old)) {
		ts.Fatalf("%q is not in %s", old, data)
	}
	body = bytes.Replace(body, []byte(old), []byte(new), 1)
	return fmt.Appendf(body, ",\"sum\":\"%x\"}\n", blake3.Sum256(body))
}

func cmdSocket(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: socket FILE")
	}
	// The path of a socket must be short when it is made.
	dir, err := os.MkdirTemp("", "s")
	ts.Check(err)
	defer os.RemoveAll(dir) //nolint:errcheck // a directory of the test's in the system's
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	ts.Check(err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	ts.Check(l.Close())
	ts.Check(os.Rename(filepath.Join(dir, "s"), ts.MkAbs(args[0])))
}

func cmdClaim(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: claim TASK")
	}
	ctx := context.Background()
	job, err := checkpoint.Open(ctx, ts.Getenv("URL"), checkpoint.Options{})
	ts.Check(err)
	defer job.Close(ctx) //nolint:errcheck // nothing hangs on it
	task, err := job.Task(args[0])
	ts.Check(err)
	_, err = task.Claim(ctx, checkpoint.ClaimOptions{})
	ts.Check(err)
}

func cmdNoise(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: noise FILE SEED")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(noise(args[1], 100_000)), 0o666))
}
