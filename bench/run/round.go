package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/local" // the store
)

// A result is that of one round.
type result struct {
	said
	checkpoints uint64
	cpu         time.Duration // of run, in the window
	peak        int64         // of run's memory, in bytes
}

// one runs the program once.
func (b *bench) one(ctx context.Context, w way, name string) (_ *result, err error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cmd, err := b.command(ctx, w, dir)
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	r, err := b.watch(ctx, w, cmd.Process.Pid, dir, lines)
	if err != nil {
		_ = cmd.Process.Kill() // the program dies with it
		return nil, errors.Join(err, cmd.Wait())
	}
	_, _ = io.Copy(io.Discard, out)
	return r, cmd.Wait()
}

// command is the program, alone or under run.
func (b *bench) command(ctx context.Context, w way, dir string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	asks := "no"
	if strings.Contains(strings.Join(w.flags, " "), "--when-asked") {
		asks = "asks"
	}
	state := filepath.Join(dir, "state")
	args := []string{self, programArg, state, filepath.Join(dir, "begin"), filepath.Join(dir, "end"), strconv.Itoa(b.files), b.window.String(), asks}
	if w.flags != nil {
		under := append([]string{b.holdfast, "run", storeURL(dir), "a", "--state", state}, w.flags...)
		args = append(append(under, "--"), args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGKILL) }
	cmd.Stderr = os.Stderr
	return cmd, nil
}

func storeURL(dir string) string { return "file://" + filepath.Join(dir, "store") }

// watch begins the window when all is in a checkpoint, and takes what the program says of it.
func (b *bench) watch(ctx context.Context, w way, pid int, dir string, lines *bufio.Scanner) (*result, error) {
	if !lines.Scan() {
		return nil, errors.Join(errors.New("the program says nothing"), lines.Err())
	}
	under := w.flags != nil
	before, err := uint64(0), error(nil)
	if under {
		if before, err = b.saved(ctx, dir); err != nil {
			return nil, err
		}
	}
	cpu, _, err := uses(pid)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "begin"), nil, 0o600); err != nil {
		return nil, err
	}
	r := &result{}
	if !lines.Scan() {
		return nil, errors.Join(errors.New("the program says nothing of its window"), lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), &r.said); err != nil {
		return nil, err
	}
	if under {
		after, peak, err := uses(pid)
		if err != nil {
			return nil, err
		}
		last, err := newest(ctx, dir)
		if err != nil {
			return nil, err
		}
		r.cpu, r.peak, r.checkpoints = after-cpu, peak, last.Seq-before
	}
	return r, os.WriteFile(filepath.Join(dir, "end"), nil, 0o600)
}

// saved waits until a checkpoint has the whole state, and returns its number.
func (b *bench) saved(ctx context.Context, dir string) (uint64, error) {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		c, err := newest(ctx, dir)
		if err != nil {
			return 0, err
		}
		if c.Bytes >= int64(b.files)*fileSize {
			return c.Seq, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// newest returns the newest checkpoint, or an empty one if there is none.
func newest(ctx context.Context, dir string) (*checkpoint.Checkpoint, error) {
	job, err := checkpoint.Open(ctx, storeURL(dir), checkpoint.Options{})
	if err != nil {
		return nil, err
	}
	task, err := job.Task("a")
	if err != nil {
		return nil, errors.Join(err, job.Close(ctx))
	}
	c, err := task.Latest(ctx)
	if errors.Is(err, checkpoint.ErrNoCheckpoint) {
		c, err = &checkpoint.Checkpoint{}, nil
	}
	return c, errors.Join(err, job.Close(ctx))
}

// tick is the unit of times in /proc, which is the same on all architectures that Go runs on.
const tick = time.Second / 100

// uses returns the processor time that a process has used, without its children, and the peak
// of its memory.
func uses(pid int) (cpu time.Duration, peak int64, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, 0, err
	}
	// From the third field on: the name, in parentheses, may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0, 0, errors.New("/proc/PID/stat is not what proc(5) says")
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	status, err3 := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, err = fmt.Sscanf(value, "%d kB", &peak)
		}
	}
	return time.Duration(user+system) * tick, peak << 10, errors.Join(err1, err2, err3, err)
}
