package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) showCommand() *cobra.Command {
	at := ""
	cmd := &cobra.Command{
		Use:   "show URL TASK",
		Short: "Show one checkpoint and the files in it",
		Long: `Show the newest checkpoint of TASK, or the one that --at names: its offsets, its
labels, and every file, directory and symbolic link in it.`,
		Example: `  holdfast show file:///var/lib/orders orders/7
  holdfast show orders/7 --at 12 --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK")
			if err != nil {
				return err
			}
			return p.show(cmd.Context(), url, args[0], at)
		},
	}
	atFlag(cmd, &at)
	p.output(cmd)
	return cmd
}

// A shown is a checkpoint with what is in it.
type shown struct {
	*checkpoint.Checkpoint
	Entries []entry `json:"entries"`
}

// An entry is a file, directory or symbolic link as JSON shows it.
type entry struct {
	Path   string     `json:"path"`
	Type   string     `json:"type"`          // "file", "dir" or "symlink"
	Mode   string     `json:"mode"`          // permissions in octal, as chmod takes them
	Size   int64      `json:"size"`          // of a file, in bytes
	MTime  *time.Time `json:"mtime"`         // nil if it is not known, or RFC 3339 cannot write it
	Target string     `json:"target"`        // of a symlink
	UID    *int64     `json:"uid,omitempty"` // nil if it was saved without owners
	GID    *int64     `json:"gid,omitempty"` // nil likewise
}

func (p *program) show(ctx context.Context, url, name, at string) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		c, err := lookUp(ctx, task, at)
		if err != nil {
			return err
		}
		entries, err := c.Entries(ctx)
		if err != nil {
			return err
		}
		doc := shown{c, make([]entry, len(entries))}
		for i, e := range entries {
			doc.Entries[i] = describe(e)
		}
		return p.print(doc, func(w *bytes.Buffer) { describeCheckpoint(w, c, entries) })
	})
}

func describe(e checkpoint.Entry) entry {
	d := entry{Path: e.Path, Type: "file", Mode: octal(e.Mode), Size: e.Size, Target: e.Target}
	switch {
	case e.Mode.IsDir():
		d.Type = "dir"
	case e.Mode.Type() == fs.ModeSymlink:
		d.Type = "symlink"
	}
	if year := e.ModTime.Year(); !e.ModTime.IsZero() && year >= 0 && year <= 9999 {
		d.MTime = &e.ModTime
	}
	if e.UID >= 0 {
		d.UID, d.GID = &e.UID, &e.GID
	}
	return d
}

// octal returns permissions as chmod takes them: "0644", "4755".
func octal(m fs.FileMode) string {
	bits := m.Perm()
	if m&fs.ModeSetuid != 0 {
		bits |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		bits |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return fmt.Sprintf("%04o", uint32(bits))
}

func describeCheckpoint(w *bytes.Buffer, c *checkpoint.Checkpoint, entries []checkpoint.Entry) {
	rows := [][]string{
		{"Task:", printable(c.Task)},
		{"Checkpoint:", strconv.FormatUint(c.Seq, 10)},
		{"Savepoint:", savepoint(c)},
		{"Time:", clock(c.Time)},
		{"Written by:", printable(c.WrittenBy)},
		{"Epoch:", strconv.FormatUint(c.Epoch, 10)},
		{"Files:", strconv.Itoa(c.Files)},
		{"Size:", size(c.Bytes)},
		{"New:", size(c.NewBytes)},
	}
	offsets := "Offsets (next to read):"
	if c.OffsetsAre == checkpoint.LastDone {
		offsets = "Offsets (last done):"
	}
	if c.Note != (checkpoint.Note{}) {
		rows = append(rows, []string{"Note:", noteText(c.Note)})
	}
	table(w, rows)
	mapTable(w, offsets, c.Offsets)
	mapTable(w, "Labels:", c.Labels)
	if len(entries) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows = [][]string{{"MODE", "SIZE", "MODIFIED", "PATH"}}
	for _, e := range entries {
		rows = append(rows, entryRow(e))
	}
	if entries[0].UID >= 0 { // of all, or of none
		rows[0] = slices.Insert(rows[0], 1, "OWNER")
		for i, e := range entries {
			rows[i+1] = slices.Insert(rows[i+1], 1, fmt.Sprintf("%d:%d", e.UID, e.GID))
		}
	}
	table(w, rows)
}

func mapTable(w *bytes.Buffer, title string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	fmt.Fprintln(w, title)
	var rows [][]string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := printable(m[k])
		if v == "" {
			v = `""`
		}
		rows = append(rows, []string{"  " + printable(k), v})
	}
	table(w, rows)
}

func entryRow(e checkpoint.Entry) []string {
	path, bytes := printable(e.Path), ""
	if e.Mode.Type() == fs.ModeSymlink {
		path += " -> " + printable(e.Target)
	}
	if e.Mode.IsRegular() {
		bytes = size(e.Size)
	}
	return []string{permissions(e.Mode), bytes, clock(e.ModTime), path}
}

// permissions shows a mode as ls -l does: "drwxr-x---", "-rwsr-xr-x".
func permissions(m fs.FileMode) string {
	text := []byte("-rwxrwxrwx")
	switch m.Type() {
	case fs.ModeDir:
		text[0] = 'd'
	case fs.ModeSymlink:
		text[0] = 'l'
	}
	for i := range 9 {
		if m&(1<<(8-i)) == 0 {
			text[1+i] = '-'
		}
	}
	special := func(bit fs.FileMode, at int, letter byte) {
		switch {
		case m&bit == 0:
		case text[at] == 'x':
			text[at] = letter
		default: // the bit is set, and nobody may execute the file
			text[at] = letter - 'a' + 'A'
		}
	}
	special(fs.ModeSetuid, 3, 's')
	special(fs.ModeSetgid, 6, 's')
	special(fs.ModeSticky, 9, 't')
	return string(text)
}
