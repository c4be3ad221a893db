package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// print writes a result to stdout: doc as one JSON document, or what human
// writes. A result that could not be written is a failure.
func (p *program) print(doc any, human func(*bytes.Buffer)) error {
	var b bytes.Buffer
	if p.asJSON {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(doc); err != nil {
			return err
		}
	} else {
		human(&b)
	}
	if _, err := p.stdout.Write(b.Bytes()); err != nil {
		// What to do about err is not what is to be done about the same in a store.
		return said{text: "the result could not be printed: " + err.Error()}
	}
	return nil
}

// printDone prints the result of a command that has done what it was to do. A failure to
// print says so.
func (p *program) printDone(what string, doc any, human func(*bytes.Buffer)) error {
	if err := p.print(doc, human); err != nil {
		return changed{what, err}
	}
	return nil
}

// table writes rows with their columns aligned. An empty cell shows as "-".
func table(w *bytes.Buffer, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		_, _ = fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	_ = tw.Flush() // a buffer takes everything
}

// size writes a number of bytes for people.
func size(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < 5 { // what would round to 1024.0
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[unit])
}

// clock writes a time in the local zone, to the second; "" for no time.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.RFC3339)
}

// printable returns s for a terminal: as it is if it is printable, quoted if not.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// someWidth is how many characters of a map fit into a table, roughly.
const someWidth = 40

// some writes the first few pairs of a map, and how many more there are.
func some(m map[string]string) string {
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(m)) {
		pair := printable(k + "=" + m[k])
		if i > 0 && b.Len()+len(pair) > someWidth {
			fmt.Fprintf(&b, " +%d more", len(m)-i)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(pair)
	}
	return b.String()
}

// title names a checkpoint.
func title(c *checkpoint.Checkpoint) string {
	s := fmt.Sprintf("checkpoint %d of %q", c.Seq, c.Task)
	if c.Savepoint != "" {
		s += fmt.Sprintf(" (savepoint %q)", c.Savepoint)
	}
	return s
}

func files(c *checkpoint.Checkpoint) string { return counted(c.Files, "file", "files") }

// counted writes how many there are of something.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// requests says what was asked of a store.
func requests(u backend.Stats) string {
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
