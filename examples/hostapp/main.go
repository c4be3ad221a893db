// Command hostapp adds up the numbers in a file, one on each line, and goes on
// where it stopped when it is started again: on another machine too, if the
// URL is one that both can reach.
//
//	go run ./examples/hostapp file:///var/lib/hostapp numbers.txt
//
// README.md shows run, which is all that a host needs. For a job that commits
// while it goes on counting, see examples/wordcount.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/local" // file://; import s3 or gcs for theirs
)

// process works on the input from an offset on, keeps its state in dir, and
// returns the offset that it has reached: io.EOF at the end.
type process func(ctx context.Context, dir, offset string) (string, error)

func run(ctx context.Context, url, dir string, work process) error {
	job, err := checkpoint.Open(ctx, url, checkpoint.Options{})
	if err != nil {
		return err
	}
	defer job.Close(ctx)
	task, err := job.Task("orders/7")
	if err != nil {
		return err
	}
	owner, err := task.Claim(ctx, checkpoint.ClaimOptions{}) // from here on, no earlier process can commit
	if err != nil {
		return err
	}
	defer owner.Close(ctx)
	last, err := owner.Resume(ctx, dir) // dir is now as it was then, or empty
	if err != nil {
		return err
	}
	for offset := last.Offsets["orders/7"]; ; { // "" at the very first start
		offset, err = work(ctx, dir, offset)
		if errors.Is(err, io.EOF) {
			return owner.Release(ctx) // says that no process owns the task now
		}
		if err != nil {
			return err
		}
		offsets := map[string]string{"orders/7": offset}
		if _, err := owner.Commit(ctx, checkpoint.Snapshot{Offsets: offsets, State: checkpoint.Dir(dir)}); err != nil {
			return err
		}
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: hostapp URL FILE")
		os.Exit(2)
	}
	if err := addUp(context.Background(), os.Args[1], os.Args[2], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "hostapp:", err)
		os.Exit(1)
	}
}

// addUp prints the sum of the numbers in the file at path.
func addUp(ctx context.Context, url, path string, out io.Writer) (err error) {
	tmp, err := os.MkdirTemp("", "hostapp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	dir := filepath.Join(tmp, "state")
	err = run(ctx, url, dir, func(ctx context.Context, dir, offset string) (string, error) {
		return addSome(path, dir, offset)
	})
	if err != nil {
		return err
	}
	total, err := readTotal(dir)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, total)
	return err
}

// batch is how many numbers are added up between two checkpoints.
const batch = 1000

// addSome adds the numbers that come after offset, which counts bytes, to the
// total in dir.
func addSome(path, dir, offset string) (string, error) {
	at, err := strconv.ParseInt(cmp.Or(offset, "0"), 10, 64)
	if err != nil {
		return "", err
	}
	total, err := readTotal(dir)
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewReader(io.NewSectionReader(f, at, math.MaxInt64-at))
	for n := range batch {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) && n > 0 {
			break // a line without an end is still being written
		}
		if err != nil {
			return "", err
		}
		number, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return "", fmt.Errorf("%s, byte %d: %w", path, at, err)
		}
		total += number
		at += int64(len(line))
	}
	return strconv.FormatInt(at, 10), os.WriteFile(filepath.Join(dir, "total"), []byte(strconv.Itoa(total)), 0o600)
}

func readTotal(dir string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "total"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(data))
}
