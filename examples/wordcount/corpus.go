package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A corpus is the input: text files, dealt out to partitions.
type corpus struct {
	partitions [4]*partition
	texts      int
	size       int64  // in bytes
	id         string // changes with the names and sizes of the texts
}

// A partition is what one task reads: its texts, end to end.
type partition struct {
	name  string // "words/0"; also the task's
	texts []text // in the order of their names; none is empty
	size  int64  // in bytes
}

// A text is one file.
type text struct {
	name string // by which partitions and offsets go: the same on every machine
	path string // where it is on this one
	size int64  // in bytes
}

// textPaths returns the paths to read: those given or, if there are none, the
// sources of the Go standard library.
func textPaths(args []string) ([]string, error) {
	if len(args) > 0 {
		return args, nil
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w; name a directory of text files to count instead", err)
	}
	return []string{filepath.Join(strings.TrimSpace(string(out)), "src")}, nil
}

// isText says which files below a directory are read. A file that is named
// itself is read whatever its name.
func isText(path string) bool {
	switch filepath.Ext(path) {
	case ".go", ".md", ".txt":
		return true
	}
	return false
}

func findTexts(paths []string) (*corpus, error) {
	var texts []text
	for _, path := range paths {
		found, err := textsBelow(path)
		if err != nil {
			return nil, err
		}
		texts = append(texts, found...)
	}
	slices.SortFunc(texts, func(a, b text) int { return cmp.Compare(a.name, b.name) })
	for i := 1; i < len(texts); i++ {
		if texts[i].name == texts[i-1].name {
			return nil, fmt.Errorf("%s and %s would both be known as %s; name a directory above both instead", texts[i-1].path, texts[i].path, texts[i].name)
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("no text files (.go, .md, .txt) below %s", strings.Join(paths, ", "))
	}
	return deal(texts), nil
}

func textsBelow(root string) ([]text, error) {
	real, err := filepath.EvalSymlinks(root) // GOROOT/src is a link on some systems
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	var texts []text
	err = filepath.WalkDir(real, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || path != real && !isText(path) {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() == 0 {
			return err
		}
		rel, err := filepath.Rel(real, path)
		name := filepath.ToSlash(filepath.Join(filepath.Base(abs), rel))
		texts = append(texts, text{name, path, info.Size()})
		return err
	})
	return texts, err
}

// deal gives each text to a partition, by a hash of its name: the same one
// wherever and whenever the job runs.
func deal(texts []text) *corpus {
	c := &corpus{texts: len(texts)}
	for i := range c.partitions {
		c.partitions[i] = &partition{name: fmt.Sprintf("words/%d", i)}
	}
	id := sha256.New()
	for _, t := range texts {
		h := fnv.New32a()
		h.Write([]byte(t.name))
		p := c.partitions[h.Sum32()%uint32(len(c.partitions))]
		p.texts = append(p.texts, t)
		p.size += t.size
		c.size += t.size
		id.Write(fmt.Appendf(nil, "%s %d\n", t.name, t.size))
	}
	c.id = fmt.Sprintf("%x", id.Sum(nil)[:8])
	return c
}

// words yields the words of a text: runs of letters.
func words(text []byte) iter.Seq[[]byte] {
	return bytes.FieldsFuncSeq(text, func(r rune) bool { return !unicode.IsLetter(r) })
}

// A reader reads a partition from some position on, record by record. A record
// is a line.
type reader struct {
	*partition
	at     position // of the next record
	before int64    // bytes of the partition that come before it
	file   *os.File // texts[at.text], once it is open
	lines  *bufio.Reader
}

// A position is a place in a partition where a record begins. At the end of
// it, text is len(texts).
type position struct {
	text   int
	offset int64 // in the text; less than its size
}

// end is the offset that names a partition's end.
const end = "end"

// offset names the reader's position: what a checkpoint keeps. It goes by the
// name of the file, not its index, so that a person can read it.
func (r *reader) offset() string {
	if r.at.text == len(r.texts) {
		return end
	}
	return r.texts[r.at.text].name + ":" + strconv.FormatInt(r.at.offset, 10)
}

// read returns a reader that begins at an offset, or at the partition's
// beginning if that is "".
func (p *partition) read(offset string) (*reader, error) {
	r := &reader{partition: p, lines: bufio.NewReader(nil)}
	switch offset {
	case "":
		return r, nil
	case end:
		r.at.text, r.before = len(p.texts), p.size
		return r, nil
	}
	colon := max(0, strings.LastIndexByte(offset, ':'))
	n, err := strconv.ParseInt(strings.TrimPrefix(offset[colon:], ":"), 10, 64)
	i := slices.IndexFunc(p.texts, func(t text) bool { return t.name == offset[:colon] })
	if err != nil || i < 0 || n < 0 || n >= p.texts[i].size {
		return nil, fmt.Errorf("offset %q of %s names no place in the texts", offset, p.name)
	}
	for _, t := range p.texts[:i] {
		r.before += t.size
	}
	r.at, r.before = position{i, n}, r.before+n
	return r, nil
}

// next returns the next record, or io.EOF after the last.
func (r *reader) next() ([]byte, error) {
	if r.at.text == len(r.texts) {
		return nil, io.EOF
	}
	t := &r.texts[r.at.text]
	if err := r.open(t); err != nil {
		return nil, err
	}
	record, err := r.lines.ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	last := r.at.offset+int64(len(record)) == t.size
	if errors.Is(err, io.EOF) && !last || r.at.offset+int64(len(record)) > t.size {
		return nil, fmt.Errorf("%s changed while it was read", t.path)
	}
	r.before += int64(len(record))
	r.at.offset += int64(len(record))
	if last {
		r.at = position{text: r.at.text + 1}
		err = r.close()
	} else {
		err = nil
	}
	return record, err
}

func (r *reader) open(t *text) error {
	if r.file != nil {
		return nil
	}
	f, err := os.Open(t.path)
	if err != nil {
		return err
	}
	if _, err := f.Seek(r.at.offset, io.SeekStart); err != nil {
		return errors.Join(err, f.Close())
	}
	r.file = f
	r.lines.Reset(f)
	return nil
}

func (r *reader) close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// burst is how much more than the next record arrives at once.
const burst = 10 * time.Millisecond

// await returns when the next record has arrived or, at the end, when it is
// time to look for more. The texts are on disk, but the job takes them for a
// stream, which does not come all at once: each partition's bytes arrive evenly
// between start and start+over. A job that restarts has a backlog, which it
// reads as fast as it can.
func (r *reader) await(ctx context.Context, start time.Time, over time.Duration) error {
	if r.before < r.size {
		arrives := start.Add(time.Duration(float64(over) * float64(r.before) / float64(r.size)))
		if arrives.Before(time.Now()) {
			return nil
		}
		return sleep(ctx, time.Until(arrives)+burst)
	}
	return sleep(ctx, burst)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
