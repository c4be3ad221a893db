package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// bytesOf returns n bytes that depend on a seed: noise, text that can be compressed,
// zeros, or a mixture.
func bytesOf(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, 0, n+8)
	for len(data) < n {
		k := min(n-len(data), 1+rnd.IntN(60<<10))
		switch (seed + uint64(rnd.IntN(8))/7) % 8 { // mostly of one kind
		case 0:
			data = append(data, make([]byte, k)...)
		case 1, 2:
			for end := len(data) + k; len(data) < end; {
				data = fmt.Appendf(data, `{"order":%d,"state":"open"}`+"\n", rnd.IntN(1000))
			}
		default:
			for range (k + 7) / 8 {
				v := rnd.Uint64()
				data = append(data, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
			}
		}
	}
	return data[:n]
}

// much generates content of several chunks and sometimes of several segments.
func (e *editor) much() []byte {
	size := rapid.OneOf(rapid.IntRange(0, 30<<10), rapid.IntRange(0, 200<<10)).Draw(e.T, "size")
	return bytesOf(rapid.Uint64Range(0, 1<<20).Draw(e.T, "seed"), size)
}

// update replaces a file's content in place by the result of do.
func (e *editor) update(do func(data []byte) []byte) error {
	name := e.any(0)
	data, err := e.root.ReadFile(name)
	if err != nil {
		return err
	}
	return e.root.WriteFile(name, do(data), 0o644)
}

// changes are the steps of an editor and more: those after which checkpoints differ
// only in parts.
func (e *editor) changes() map[string]func(*rapid.T) {
	actions := e.steps()
	for name, step := range map[string]func() error{
		"much": func() error { return e.root.WriteFile(e.path(), e.much(), 0o644) },
		"page": e.writePage,
		"append": func() error {
			return e.change(func(f *os.File) error {
				_, err := f.Seek(0, io.SeekEnd)
				if err == nil {
					_, err = f.Write(e.much())
				}
				return err
			})
		},
		"insert": func() error {
			return e.update(func(data []byte) []byte {
				at := rapid.IntRange(0, len(data)).Draw(e.T, "at")
				return bytes.Join([][]byte{data[:at], data[at:]}, e.data()[:])
			})
		},
		"cut out": func() error {
			return e.update(func(data []byte) []byte {
				from := rapid.IntRange(0, len(data)).Draw(e.T, "from")
				to := rapid.IntRange(from, len(data)).Draw(e.T, "to")
				return append(data[:from:from], data[to:]...)
			})
		},
		"copy": func() error {
			data, err := e.root.ReadFile(e.any(0))
			if err != nil {
				return err
			}
			return e.root.WriteFile(e.path(), data, 0o600)
		},
		"hole at the end": func() error {
			return e.change(func(f *os.File) error {
				info, err := f.Stat()
				if err != nil || info.Size() > 1<<20 {
					return err
				}
				return f.Truncate(info.Size() + int64(rapid.IntRange(1, 200<<10).Draw(e.T, "hole")))
			})
		},
		"hole in between": func() error {
			return e.change(func(f *os.File) error {
				info, err := f.Stat()
				if err != nil || info.Size() > 1<<20 {
					return err
				}
				if _, err := f.Seek(int64(rapid.IntRange(1, 200<<10).Draw(e.T, "hole")), io.SeekEnd); err != nil {
					return err
				}
				_, err = f.Write(e.data())
				return err
			})
		},
		"file becomes directory": func() error {
			name := e.any(0)
			return errors.Join(e.root.Remove(name), e.root.Mkdir(name, 0o755), e.root.WriteFile(name+"/a", e.data(), 0o644))
		},
		"directory becomes file": func() error {
			name := e.any(fs.ModeDir)
			return errors.Join(e.root.RemoveAll(name), e.root.WriteFile(name, e.data(), 0o644))
		},
		"replace": func() error { // as a program does that writes durably
			name := e.any(0)
			return errors.Join(e.root.WriteFile(name+".tmp", e.much(), 0o644), e.root.Rename(name+".tmp", name))
		},
		"put back": func() error { // other content, but the same size and time
			name := e.any(0)
			info, err := e.root.Lstat(name)
			if err != nil {
				return err
			}
			data := bytesOf(rapid.Uint64().Draw(e.T, "seed"), int(info.Size()))
			return errors.Join(e.root.WriteFile(name, data, 0o644), e.root.Chtimes(name, info.ModTime(), info.ModTime()))
		},
	} {
		actions[name] = func(t *rapid.T) {
			if err := step(); err != nil {
				t.Skip(err)
			}
		}
	}
	return actions
}

// writePage writes 16 KiB in place, as a database does.
func (e *editor) writePage() error {
	return e.change(func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		page := rapid.Int64Range(0, info.Size()>>14).Draw(e.T, "page")
		_, err = f.WriteAt(bytesOf(rapid.Uint64().Draw(e.T, "seed"), 16<<10), page<<14)
		return err
	})
}

// digest returns a line for each entry of a state, with a hash of its content.
func digest(t tester, root fs.FS) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = describeTo(&b, root, p, d)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func describeTo(b *strings.Builder, root fs.FS, p string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "%q %v", p, info.Mode())
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		target, err := fs.ReadLink(root, p)
		fmt.Fprintf(b, " %q\n", target)
		return err
	case 0:
		data, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		if int64(len(data)) != info.Size() {
			return fmt.Errorf("%s: %d bytes, not %d", p, len(data), info.Size())
		}
		fmt.Fprintf(b, " %d %s", len(data), format.Sum(data))
	}
	fmt.Fprintf(b, " %v\n", info.ModTime().UTC())
	return nil
}
