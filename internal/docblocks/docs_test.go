package docblocks

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

const root = "../.."

func TestDocuments(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the documents' commands are for a POSIX shell")
	}
	bin := t.TempDir()
	holdfast := sync.OnceValue(func() error {
		return run(exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/holdfast"), root)
	})
	for _, doc := range documents(t) {
		t.Run(doc, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(root, doc))
			if err != nil {
				t.Fatal(err)
			}
			blocks, err := Extract(string(text))
			if err != nil {
				t.Fatalf("%s: %v", doc, err)
			}
			sh := shell{bin: bin, home: t.TempDir()}
			for _, b := range blocks {
				if err := check(t.Context(), root, b); err != nil {
					t.Errorf("%s:%d: %v", doc, b.Line, err)
				}
				if b.Info != "sh" {
					continue
				}
				if err := holdfast(); err != nil {
					t.Fatal(err)
				}
				if err := sh.run(t.Context(), b.Text); err != nil {
					t.Fatalf("%s:%d: %v", doc, b.Line, err)
				}
			}
		})
	}
}

// documents returns the module's Markdown files, relative to its root. That it
// reads every directory on the way keeps go test from answering from its cache
// after a source file has changed: it cannot know what the go command reads
// on behalf of a test.
func documents(t *testing.T) (docs []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata"):
			return fs.SkipDir
		case strings.HasSuffix(path, ".md"):
			docs = append(docs, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return docs
}
