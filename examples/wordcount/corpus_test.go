package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// From each of its offsets on, a partition gives what it gave after it when it
// was read in one go.
func TestReaderGoesOnFromEveryOffset(t *testing.T) {
	for _, p := range mustFind(t, writeTexts(t)).partitions {
		var offsets, records []string
		var before []int64
		r := mustRead(t, p, "")
		for {
			offsets, before = append(offsets, r.offset()), append(before, r.before)
			record, err := r.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, string(record))
		}
		whole := ""
		for _, text := range p.texts {
			data, err := os.ReadFile(text.path)
			if err != nil {
				t.Fatal(err)
			}
			whole += string(data)
		}
		if strings.Join(records, "") != whole || r.before != p.size {
			t.Errorf("%s: the records are not the texts", p.name)
		}
		for i := 0; i < len(offsets); i += 1 + i/50 { // every one of the first 50
			r := mustRead(t, p, offsets[i])
			if r.before != before[i] {
				t.Errorf("%s from %s: %d bytes are before it; want %d", p.name, offsets[i], r.before, before[i])
			}
			for k, want := range records[i:min(i+100, len(records))] {
				got, err := r.next()
				if err != nil || string(got) != want {
					t.Fatalf("%s from %s: record %d is %q, %v; want %q", p.name, offsets[i], k, got, err, want)
				}
			}
			if err := r.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func mustRead(t *testing.T, p *partition, offset string) *reader {
	t.Helper()
	r, err := p.read(offset)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOffsetsThatNamePlacesInTheTexts(t *testing.T) {
	p := &partition{name: "words/0", texts: []text{{name: "src/a.go", size: 10}, {name: "src/b:c.go", size: 20}}, size: 30}
	for _, test := range []struct {
		offset string
		before int64 // -1 if it is refused
	}{
		{"", 0}, {"src/a.go:0", 0}, {"src/a.go:9", 9}, {"src/b:c.go:5", 15}, {"end", 30},
		{"src/a.go:10", -1}, {"src/a.go:-1", -1}, {"src/a.go:x", -1}, {"src/a.go", -1}, {"src/other.go:0", -1}, {":", -1}, {"17", -1},
	} {
		r, err := p.read(test.offset)
		switch {
		case test.before < 0 && err == nil:
			t.Errorf("offset %q is accepted", test.offset)
		case test.before >= 0 && (err != nil || r.before != test.before):
			t.Errorf("offset %q: %v; want %d bytes before it", test.offset, err, test.before)
		}
	}
}

func TestTextThatChangesIsAnError(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"shorter": func(path string) error { return os.Truncate(path, 5) },
		"longer":  func(path string) error { return os.WriteFile(path, []byte("one\ntwo\nthree and four\n"), 0o666) },
		"gone":    os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "text")
			if err := os.WriteFile(path, []byte("one\ntwo\nthree"), 0o666); err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(mustFind(t, path).partitions[:], func(p *partition) bool { return p.size > 0 })
			r := mustRead(t, mustFind(t, path).partitions[i], "")
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			var err error
			for err == nil {
				_, err = r.next()
			}
			if errors.Is(err, io.EOF) {
				t.Error("it was read to the end; want an error")
			}
			_ = r.close()
		})
	}
}

// The corpus is the same wherever it lies: another machine may go on with it.
func TestCorpusGoesByNames(t *testing.T) {
	dir := writeTexts(t)
	moved := filepath.Join(t.TempDir(), "texts")
	if err := os.CopyFS(moved, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	paths := []string{dir, moved}
	if runtime.GOOS != "windows" { // where links need a privilege
		link := filepath.Join(t.TempDir(), "texts")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, link)
	}
	want := names(mustFind(t, dir))
	for _, path := range paths {
		c := mustFind(t, path)
		if c.id != mustFind(t, dir).id || !slices.Equal(names(c), want) {
			t.Errorf("%s: corpus %s of %q; want that of %q", path, c.id, names(c), want)
		}
	}
	if got := strings.Join(want, " "); strings.Contains(got, "picture.png") || strings.Contains(got, "empty.txt") {
		t.Errorf("texts are %s; want none that is empty or no text", got)
	}
}

// names lists a corpus, partition by partition.
func names(c *corpus) (list []string) {
	for _, p := range c.partitions {
		for _, t := range p.texts {
			list = append(list, p.name+" "+t.name)
		}
	}
	return list
}
