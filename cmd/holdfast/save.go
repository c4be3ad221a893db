package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) saveCommand() *cobra.Command {
	s := checkpoint.Snapshot{Offsets: map[string]string{}, Labels: map[string]string{}}
	var keep checkpoint.Retention
	var from source
	var opts checkpoint.SaveOptions
	cmd := &cobra.Command{
		Use:   "save URL TASK DIR",
		Short: "Save a directory as a task's next checkpoint",
		Long: `Save the files below DIR, with offsets and labels, as the next checkpoint of
TASK. The task need not exist. A task that is claimed is refused, because its owner
may still run. With --take-over it is saved all the same, and the owner is fenced: it
cannot commit any more, and has to be started again.

DIR holds regular files, directories and symbolic links. If anything in it changes
while it is saved, nothing is saved.

Only what is new is sent. A file whose size, times and inode are what they were
for the checkpoint before is not opened. The others are read and cut into chunks;
those chunks that the checkpoint before does not have are sent, compressed where
that pays. If files were removed or rewritten, some unchanged data that was stored
beside theirs may be sent again, so that theirs can be deleted.

Earlier checkpoints are kept, unless --keep flags say which are to stay: those
that any of them keeps, and savepoints that have not expired. ("run", and programs that
use the library, keep the newest ten unless they are told otherwise.)`,
		Example: `  holdfast save file:///var/lib/orders orders/7 ./state --offset orders/7=4711
  holdfast save orders/7 ./state --savepoint before-upgrade --label version=2.3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK", "DIR")
			if err != nil {
				return err
			}
			if keep == (checkpoint.Retention{}) {
				keep.Last = checkpoint.KeepAll
			}
			from.dir = args[1]
			return p.save(cmd.Context(), url, args[0], from, s, keep, opts)
		},
	}
	f := cmd.Flags()
	f.Func("offset", "the position reached in an input, as `KEY=VALUE`; may be repeated", pairs(s.Offsets))
	f.Func("label", "a note to keep with the checkpoint, as `KEY=VALUE`; may be repeated", pairs(s.Labels))
	f.Func("savepoint", "make it the savepoint `NAME`, which retention does not remove", savepointName(&s.Savepoint))
	f.Func("savepoint-expires", "let retention remove the savepoint when it is `D` old: 36h, 7d, 2w (default: never)", duration(&s.SavepointExpiresAfter))
	f.Func("immutable", "files with names like `PATTERN`, such as '*.sst', are never written again: do not open those saved before; may be repeated", patterns(&from.immutable))
	f.BoolVar(&from.full, "full", false, "store everything anew, and share nothing with earlier checkpoints: after damage in the store")
	f.BoolVar(&from.owners, "owners", false, "save who owns each file, and its group, by number")
	f.BoolVar(&from.reread, "reread", false, "open and compare every file, whatever its times and name say")
	f.BoolVar(&opts.Fence, "take-over", false, "save although the task is claimed: its owner is fenced")
	keepFlags(cmd, &keep)
	f.Func("compression", "compress data by `MODE`: auto, where that pays; off, never; zstd, wherever it saves anything (default: auto)", func(v string) error {
		p.compression = checkpoint.Compression(v)
		return nonEmpty(new(string))(v)
	})
	p.memoryFlag(cmd)
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

// savepointName returns a flag's function that takes the name of a new savepoint.
func savepointName(dst *string) func(string) error {
	take := nonEmpty(dst)
	return func(v string) error { return cmp.Or(take(v), checkpoint.CheckSavepointName(v)) }
}

// patterns returns a flag's function that collects patterns of file names.
func patterns(dst *[]string) func(string) error {
	return func(v string) error {
		if v == "" {
			return errors.New("it must not be empty")
		}
		if strings.Contains(v, "/") {
			return errors.New("it must match a file's name alone, so it can hold no /")
		}
		if _, err := path.Match(v, ""); err != nil {
			return errors.New("it must be a pattern such as '*.sst' or 'table-[0-9]*'")
		}
		*dst = append(*dst, v)
		return nil
	}
}

// A source is what to save, and how to read it.
type source struct {
	dir       string
	immutable []string // patterns
	reread    bool
	full      bool
	owners    bool
}

func (f *source) state() checkpoint.Source {
	s := checkpoint.Dir(f.dir).Immutable(f.immutable...)
	if f.reread {
		s = s.Reread()
	}
	if f.full {
		s = s.Full()
	}
	if f.owners {
		s = s.FileOwners()
	}
	return s
}

func (p *program) save(ctx context.Context, url, name string, from source, s checkpoint.Snapshot, keep checkpoint.Retention, opts checkpoint.SaveOptions) error {
	if err := checkSource(from.dir); err != nil {
		return err
	}
	if err := checkApart(url, from.dir); err != nil {
		return err
	}
	s.State = from.state()
	return p.withTask(ctx, url, name, keep, func(task *checkpoint.Task) error {
		report, stop := p.follow("saving", "sent")
		s.Progress = report
		c, err := task.Save(ctx, s, opts)
		stop()
		if err != nil {
			return err
		}
		return p.printDone(fmt.Sprintf("checkpoint %d was saved", c.Seq), c, func(w *bytes.Buffer) {
			fmt.Fprintf(w, "saved %s: %s, %s; %s\n", title(c), files(c), size(c.Bytes), stored(c))
		})
	})
}

// checkSource refuses what cannot be saved before anything is done.
func checkSource(dir string) error {
	info, err := os.Stat(dir)
	pe := (*fs.PathError)(nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no directory %s to save; make it, or correct the name", dir)
	case errors.As(err, &pe):
		return fmt.Errorf("directory %s cannot be read: %w", dir, pe.Err)
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s is not a directory; give the directory that it is in", dir)
	}
	return err
}

// stored says what a save had to store. Data that can be compressed takes less
// than it was in the files; the names and times of files are stored with it.
func stored(c *checkpoint.Checkpoint) string {
	if c.NewBytes == 0 {
		return "nothing new to store"
	}
	return "stored " + size(c.NewBytes)
}
