package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) saveCommand() *cobra.Command {
	s := checkpoint.Snapshot{Offsets: map[string]string{}, Labels: map[string]string{}}
	keep := checkpoint.Retention{Last: checkpoint.KeepAll}
	cmd := &cobra.Command{
		Use:   "save URL TASK DIR",
		Short: "Save a directory as a task's next checkpoint",
		Long: `Save the files below DIR, with offsets and labels, as the next checkpoint of
TASK. The task need not exist. Whoever owned the task is fenced: a job that
still runs can not commit any more, and has to be started again.

DIR holds regular files, directories and symbolic links. If a file changes while
it is read, nothing is saved.

Earlier checkpoints are kept, unless --keep-last says how many are to stay.`,
		Example: `  holdfast save file:///var/lib/orders orders/7 ./state --offset orders/7=4711
  holdfast save orders/7 ./state --savepoint before-upgrade --label version=2.3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK", "DIR")
			if err != nil {
				return err
			}
			return p.save(cmd.Context(), url, args[0], args[1], s, keep)
		},
	}
	f := cmd.Flags()
	f.Func("offset", "the position reached in an input, as `KEY=VALUE`; may be repeated", pairs(s.Offsets))
	f.Func("label", "a note to keep with the checkpoint, as `KEY=VALUE`; may be repeated", pairs(s.Labels))
	f.Func("savepoint", "make it the savepoint `NAME`, which retention never removes", nonEmpty(&s.Savepoint))
	f.Func("keep-last", "keep the last `N` checkpoints, this one included, and savepoints (default: keep all)", func(v string) (err error) {
		keep.Last, err = strconv.Atoi(v)
		if err != nil || keep.Last < 1 {
			return errors.New("it must be a whole number of at least 1")
		}
		return nil
	})
	p.output(cmd)
	return cmd
}

// pairs returns a flag's function that collects KEY=VALUE in m.
func pairs(m map[string]string) func(string) error {
	return func(v string) error {
		key, value, ok := strings.Cut(v, "=")
		if !ok || key == "" {
			return errors.New("it must be KEY=VALUE")
		}
		if old, twice := m[key]; twice {
			return fmt.Errorf("%q is %q already", key, old)
		}
		m[key] = value
		return nil
	}
}

// nonEmpty returns a flag's function that refuses the empty string: in a
// script that is a variable that was not set.
func nonEmpty(dst *string) func(string) error {
	return func(v string) error {
		if v == "" {
			return errors.New("it must not be empty")
		}
		*dst = v
		return nil
	}
}

func (p *program) save(ctx context.Context, url, name, dir string, s checkpoint.Snapshot, keep checkpoint.Retention) error {
	if err := checkSource(dir); err != nil {
		return err
	}
	if err := checkApart(url, dir); err != nil {
		return err
	}
	s.State = checkpoint.Dir(dir)
	return p.withTask(ctx, url, name, keep, func(task *checkpoint.Task) error {
		c, err := task.Save(ctx, s)
		if err != nil {
			return err
		}
		err = p.print(c, func(w *bytes.Buffer) {
			fmt.Fprintf(w, "saved %s: %s, %s; %s\n", title(c), files(c), size(c.Bytes), stored(c))
		})
		if err != nil {
			return fmt.Errorf("checkpoint %d was saved, but %w", c.Seq, err)
		}
		return nil
	})
}

// checkSource refuses what can not be saved before anything is done.
func checkSource(dir string) error {
	info, err := os.Stat(dir)
	pe := (*fs.PathError)(nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no directory %s to save; make it, or correct the name", dir)
	case errors.As(err, &pe):
		return fmt.Errorf("directory %s can not be read: %w", dir, pe.Err)
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s is not a directory; give the directory that it is in", dir)
	}
	return err
}

// title names a checkpoint.
func title(c *checkpoint.Checkpoint) string {
	s := fmt.Sprintf("checkpoint %d of %q", c.Seq, c.Task)
	if c.Savepoint != "" {
		s += fmt.Sprintf(" (savepoint %q)", c.Savepoint)
	}
	return s
}

func files(c *checkpoint.Checkpoint) string {
	if c.Files == 1 {
		return "1 file"
	}
	return strconv.Itoa(c.Files) + " files"
}

// stored says what a save had to store. Data that can be compressed takes less
// than it was in the files; the names and times of files are stored with it.
func stored(c *checkpoint.Checkpoint) string {
	if c.NewBytes == 0 {
		return "nothing new to store"
	}
	return "stored " + size(c.NewBytes)
}

// requests says what was asked of a store.
func requests(u backend.Usage) string {
	var parts []string
	for _, v := range []struct {
		verb string
		backend.Count
	}{{"create", u.Create}, {"put", u.Put}, {"get", u.Get}, {"list", u.List}, {"delete", u.Delete}} {
		part := fmt.Sprintf("%s %d", v.verb, v.Calls)
		if v.Bytes > 0 {
			part += " (" + size(v.Bytes) + ")"
		}
		parts = append(parts, part)
	}
	return "requests: " + strings.Join(parts, ", ")
}
