package recipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// PageSize is the unit of change, in bytes: what databases write at a time, to
// places all over their files.
const PageSize = 16 << 10

// a file of a state that is changed in place.
type file struct {
	path string // below the state's directory
	size int64
	kind kind
}

// Files makes n files of the given size in dir, which must not exist. Every
// other one is of random bytes, every other one of JSON lines. Change gives
// new content to one page in a hundred.
func Files(ctx context.Context, dir string, n int, size int64) (*State, error) {
	files := make([]file, n)
	for i := range files {
		files[i] = file{fmt.Sprintf("file-%03d", i), size, kind(i) % kinds}
	}
	return makeFiles(ctx, "files", dir, files)
}

// Small makes n small files in dir, which must not exist: of 102 bytes to
// 16 KiB, all sizes being as likely, a hundred in a directory, ten directories
// in a directory. They are of random bytes and of JSON lines by turns. Change
// gives new content to one in a hundred.
func Small(ctx context.Context, dir string, n int) (*State, error) {
	sizes := rand.New(rand.NewPCG(1, 1))
	files := make([]file, n)
	for i := range files {
		files[i] = file{
			path: fmt.Sprintf("%03d/%d/%02d", i/1000, i/100%10, i%100),
			size: 102 + sizes.Int64N(PageSize-102+1),
			kind: kind(i) % kinds,
		}
	}
	return makeFiles(ctx, "small", dir, files)
}

// Many makes n very small files in dir, which must not exist: of 40 to 100 bytes, a hundred in a
// directory, a hundred directories in a directory. They are of JSON lines. Change gives new
// content to one of them.
func Many(ctx context.Context, dir string, n int) (*State, error) {
	sizes := rand.New(rand.NewPCG(3, 3))
	files := make([]file, n)
	for i := range files {
		files[i] = file{path: fmt.Sprintf("%03d/%02d/%02d", i/10_000, i/100%100, i%100), size: 40 + sizes.Int64N(61), kind: lines}
	}
	e := edits{name: "many", dir: dir, files: files, pages: []page{{file: n / 2, size: files[n/2].size}}}
	return e.make(ctx)
}

// One makes a single file of the given size in dir, which must not exist. It is
// of random bytes. Change gives new content to one page in a hundred.
func One(ctx context.Context, dir string, size int64) (*State, error) {
	return makeFiles(ctx, "one", dir, []file{{"one", size, random}})
}

func makeFiles(ctx context.Context, name, dir string, files []file) (*State, error) {
	e := edits{name: name, dir: dir, files: files}
	e.choose()
	return e.make(ctx)
}

// make makes the files.
func (e *edits) make(ctx context.Context) (*State, error) {
	if err := os.Mkdir(e.dir, 0o755); err != nil {
		return nil, err
	}
	for _, f := range e.files {
		if err := f.write(ctx, e.name, e.dir); err != nil {
			return nil, err
		}
	}
	s := &State{Dir: e.dir}
	if err := s.count(); err != nil {
		return nil, err
	}
	s.Changed, s.Change, s.Rewind = e.bytes(), e.change, e.rewind
	return s, nil
}

// pieceSize bounds one write. Linux 6.18 spends ten times the processor time on
// one write of 32 MiB to ext4 when memory is fragmented, because it looks for
// folios as large.
const pieceSize = 1 << 20

func (f file) write(ctx context.Context, name, dir string) error {
	path := filepath.Join(dir, filepath.FromSlash(f.path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	w, err := os.Create(path)
	if err != nil {
		return err
	}
	r := content(f.kind, name+" "+f.path)
	piece := make([]byte, min(pieceSize, f.size))
	for left := f.size; left > 0 && err == nil; left -= int64(len(piece)) {
		piece = piece[:min(int64(len(piece)), left)]
		if _, err = io.ReadFull(r, piece); err == nil {
			_, err = w.Write(piece)
		}
		err = errors.Join(err, ctx.Err())
	}
	return errors.Join(err, w.Close())
}

// edits change pages in place.
type edits struct {
	name, dir string
	files     []file
	pages     []page // to change, in order
	undo      []byte // what was in them, one after the other; nil unless they are changed
}

// a page is where a change is made: PageSize bytes, or fewer at a file's end.
type page struct {
	file   int
	offset int64
	size   int64
}

// choose picks one page in a hundred, but one at least.
func (e *edits) choose() {
	var all []page
	for i, f := range e.files {
		for at := int64(0); at < f.size; at += PageSize {
			all = append(all, page{i, at, min(PageSize, f.size-at)})
		}
	}
	chosen := rand.New(rand.NewPCG(2, 2)).Perm(len(all))[:max(1, len(all)/100)]
	slices.Sort(chosen)
	for _, i := range chosen {
		e.pages = append(e.pages, all[i])
	}
}

func (e *edits) bytes() (n int64) {
	for _, p := range e.pages {
		n += p.size
	}
	return n
}

func (e *edits) change() error {
	if e.undo != nil {
		return errors.New("it is changed already")
	}
	undo := make([]byte, e.bytes())
	rest := undo
	err := e.each(func(w *os.File, p page) error {
		if _, err := w.ReadAt(rest[:p.size], p.offset); err != nil {
			return err
		}
		rest = rest[p.size:]
		f := e.files[p.file]
		data := make([]byte, p.size)
		if _, err := io.ReadFull(content(f.kind, fmt.Sprintf("%s %s, changed at %d", e.name, f.path, p.offset)), data); err != nil {
			return err
		}
		_, err := w.WriteAt(data, p.offset)
		return err
	})
	if err == nil {
		e.undo = undo
	}
	return err
}

func (e *edits) rewind() error {
	if e.undo == nil {
		return nil
	}
	rest := e.undo
	err := e.each(func(w *os.File, p page) error {
		_, err := w.WriteAt(rest[:p.size], p.offset)
		rest = rest[p.size:]
		return err
	})
	if err == nil {
		e.undo = nil
	}
	return err
}

// each calls do with each page to change, and the file that it is in.
func (e *edits) each(do func(*os.File, page) error) error {
	for at := 0; at < len(e.pages); {
		in := e.pages[at].file
		end := at + 1
		for end < len(e.pages) && e.pages[end].file == in {
			end++
		}
		if err := e.eachOf(in, e.pages[at:end], do); err != nil {
			return err
		}
		at = end
	}
	return nil
}

func (e *edits) eachOf(in int, pages []page, do func(*os.File, page) error) error {
	w, err := os.OpenFile(filepath.Join(e.dir, filepath.FromSlash(e.files[in].path)), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for _, p := range pages {
		if err := do(w, p); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	return w.Close()
}
