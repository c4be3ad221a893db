package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend"
)

// place makes files as if they were objects, without the cost of fsync.
func place(t interface{ Fatal(...any) }, dir string, keys ...string) {
	for _, key := range keys {
		name := filepath.Join(dir, filepath.FromSlash(key))
		err := os.MkdirAll(filepath.Dir(name), 0o777)
		if err == nil {
			err = os.WriteFile(name, []byte(key), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// someKeys generates keys from a few names, so that many share directories. Some
// names sort before, some after another name that is followed by "/".
var someKeys = rapid.Map(
	rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "a-", "a-b", "a.b", "a0", "aa", "-"}), 1, 3),
	func(names []string) string { return strings.Join(names, "/") },
)

// keySets generates sets of keys, of which none is the directory part of another.
var keySets = rapid.Custom(func(t *rapid.T) []string {
	var keys []string
	for range rapid.IntRange(10, 40).Draw(t, "n") {
		key := someKeys.Draw(t, "key")
		clash := slices.ContainsFunc(keys, func(k string) bool {
			return k == key || strings.HasPrefix(k, key+"/") || strings.HasPrefix(key, k+"/")
		})
		if !clash {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
})

// A listing consists of the sorted keys that have the prefix and come after the given
// key, for all prefixes and keys, and wherever the caller stops it.
func TestListProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			r.Fatal(err)
		}
		keys := keySets.Draw(r, "keys")
		place(r, dir, keys...)
		some := rapid.Custom(func(t *rapid.T) string { // a key that may exist, or the beginning of one
			key := rapid.OneOf(rapid.SampledFrom(keys), someKeys).Draw(t, "of")
			return key[:rapid.SampledFrom([]int{0, len(key), rapid.IntRange(0, len(key)).Draw(t, "length")}).Draw(t, "cut")]
		})
		prefix, after := some.Draw(r, "prefix"), some.Draw(r, "after")
		want := slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return !strings.HasPrefix(k, prefix) || k <= after })
		stop := rapid.IntRange(1, 30).Draw(r, "stop")

		s, err := New(dir)
		if err != nil {
			r.Fatal(err)
		}
		defer s.Close()
		var got []string
		for o, err := range s.List(context.Background(), prefix, after) {
			if err != nil {
				r.Fatal(err)
			}
			if o.Size != int64(len(o.Key)) {
				r.Fatalf("size of %q: %d", o.Key, o.Size)
			}
			if got = append(got, o.Key); len(got) == stop {
				break
			}
		}
		if want = want[:min(stop, len(want))]; !slices.Equal(got, want) {
			r.Fatalf("List(%q, %q) = %q, want %q", prefix, after, got, want)
		}
	})
}

// Only regular files whose names can be keys are objects.
func TestListSkipsWhatIsNoObject(t *testing.T) {
	outside := t.TempDir()
	place(t, outside, "x")
	dir := t.TempDir()
	place(t, dir, "k", "a/k", "Capital", "a/Capital", "DIR/k", ".hidden", "a/.hidden/k", "ends.", "with space", tempDir+"/x", strings.Repeat("x", 201))
	for link, to := range map[string]string{"link": "k", "dirlink": "a", "out": outside, "fileout": outside + "/x", "a/dangling": "nothing"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, dir)
	if got := list(t, s, "", ""); !slices.Equal(got, []string{"a/k", "k"}) {
		t.Errorf("List = %q, want a/k and k", got)
	}
	for _, prefix := range []string{"link", "dirlink/", "out/", "k/", "a/k/", "x/y/", "a/dangling/"} {
		if got := list(t, s, prefix, ""); got != nil {
			t.Errorf("List(%q) = %q, want nothing", prefix, got)
		}
	}
	for _, err := range s.List(t.Context(), "../", "") {
		wantKind(t, "List(../)", err, backend.ErrInvalid)
	}
}

// A listing reads an object's attributes when it comes to it: an object that was
// deleted by then is left out, and one that was replaced is listed as it is now.
func TestListIsLazy(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "d/1", "d/2", "d/3", "e/1", "f/1")
	s := openStore(t, dir)
	var got []string
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, fmt.Sprint(o.Key, " ", o.Size)); len(got) > 1 {
			continue
		}
		err := errors.Join(
			os.Remove(filepath.Join(dir, "d/2")),
			os.WriteFile(filepath.Join(dir, "d/3"), make([]byte, 1000), 0o666),
			os.RemoveAll(filepath.Join(dir, "e")),
			os.WriteFile(filepath.Join(dir, "f/2"), nil, 0o666),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"d/1 3", "d/3 1000", "f/1 3", "f/2 0"}; !slices.Equal(got, want) {
		t.Errorf("List = %q, want %q", got, want)
	}
}

func TestListContextEnds(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a/1", "b/1", "b/2")
	s := openStore(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var keys []string
	for o, err := range s.List(ctx, "", "") {
		if err != nil {
			wantKind(t, "List", err, context.Canceled)
			keys = append(keys, "error"+o.Key)
			continue
		}
		keys = append(keys, o.Key)
		cancel()
	}
	if !slices.Equal(keys, []string{"a/1", "error"}) {
		t.Errorf("List = %q, want a/1 and an error", keys)
	}
}

// A directory is listed again and again while objects in it are created and deleted.
// Those that always exist are in every listing.
func TestListKeepsWhatIsNotDeleted(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	var stay []string
	for i := range 500 {
		stay = append(stay, fmt.Sprintf("d/%04d", 2*i))
	}
	place(t, dir, stay...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for i := 0; ; i = (i + 1) % 500 {
			key := fmt.Sprintf("d/%04d", 2*i+1)
			_, err := s.Put(ctx, key, nil)
			if err == nil && i%2 == 0 {
				err = s.Delete(ctx, key)
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range 50 {
		keys := list(t, s, "d/", "")
		if !slices.IsSorted(keys) || len(slices.Compact(keys)) != len(keys) {
			t.Fatal("keys out of order or twice")
		}
		even := slices.DeleteFunc(keys, func(k string) bool { return k[len(k)-1]%2 == 1 })
		if !slices.Equal(even, stay) {
			t.Fatalf("%d of the %d objects that always exist", len(even), len(stay))
		}
	}
	cancel()
	wantKind(t, "Put or Delete", <-done, context.Canceled)
}

// Something that is not an object has the name of an object or of its directory.
// Nothing is read or written through it, and it is not removed.
func TestForeignThings(t *testing.T) {
	outside := t.TempDir()
	place(t, outside, "x")
	for name, c := range map[string]struct {
		prepare func(dir string) error
		key     string
		create  error
		put     error
		get     error
		del     error
	}{
		"directory at the key": {
			func(dir string) error { return os.MkdirAll(dir+"/k/sub", 0o777) },
			"k", backend.ErrInvalid, backend.ErrInvalid, backend.ErrNotExist, nil,
		},
		"empty directory at the key": {
			func(dir string) error { return os.Mkdir(dir+"/k", 0o777) },
			"k", backend.ErrInvalid, backend.ErrInvalid, backend.ErrNotExist, nil,
		},
		"link to a file outside at the key": {
			func(dir string) error { return os.Symlink(outside+"/x", dir+"/k") },
			"k", backend.ErrInvalid, nil, backend.ErrNotExist, nil,
		},
		"link out in the way": {
			func(dir string) error { return os.Symlink(outside, dir+"/d") },
			"d/x", backend.ErrInvalid, backend.ErrInvalid, backend.ErrInvalid, backend.ErrInvalid,
		},
		"link out in the way, deeper": {
			func(dir string) error { return errors.Join(os.Mkdir(dir+"/a", 0o777), os.Symlink(outside, dir+"/a/d")) },
			"a/d/e/x", backend.ErrInvalid, backend.ErrInvalid, backend.ErrInvalid, backend.ErrInvalid,
		},
		"relative link out in the way": {
			func(dir string) error { return os.Symlink("..", dir+"/d") },
			"d/x", backend.ErrInvalid, backend.ErrInvalid, backend.ErrInvalid, backend.ErrInvalid,
		},
		"file in the way": {
			func(dir string) error { return os.WriteFile(dir+"/d", nil, 0o666) },
			"d/x", backend.ErrInvalid, backend.ErrInvalid, backend.ErrNotExist, nil,
		},
		"temporary directory is a link": {
			func(dir string) error { return os.Symlink(outside, filepath.Join(dir, tempDir)) },
			"k", backend.ErrInvalid, backend.ErrInvalid, backend.ErrNotExist, nil,
		},
		"temporary directory is a file": {
			func(dir string) error { return os.WriteFile(filepath.Join(dir, tempDir), nil, 0o666) },
			"k", backend.ErrInvalid, backend.ErrInvalid, backend.ErrNotExist, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := c.prepare(dir); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, dir)
			_, err := s.Get(t.Context(), c.key, 0, make([]byte, 1))
			wantKind(t, "Get", err, c.get)
			wantKind(t, "Delete", s.Delete(t.Context(), c.key), c.del)
			_, err = s.Create(t.Context(), c.key, []byte("data"))
			wantKind(t, "Create", err, c.create)
			_, err = s.Put(t.Context(), c.key, []byte("data"))
			wantKind(t, "Put", err, c.put)
			if !strings.HasPrefix(name, "temporary") && temporary(t, dir) != nil {
				t.Errorf("left: %q", temporary(t, dir))
			}
			entries, err := os.ReadDir(outside)
			x, err2 := os.ReadFile(outside + "/x")
			if err != nil || err2 != nil || len(entries) != 1 || string(x) != "x" {
				t.Errorf("outside: %v, x is %q; want x alone, which is \"x\"", entries, x)
			}
		})
	}
}

// The sweep removes only files with names that handles use, also if their lock is
// missing. It leaves what it cannot remove.
func TestSweepTakesOnlyItsOwn(t *testing.T) {
	dir := t.TempDir()
	const dead, damaged = "0123456789abcdef", "fedcba9876543210"
	keep := []string{"README", "0123456789abcdef.txt", "0123456789ABCDEF.1", ".1", "123.4"}
	gone := []string{dead + ".lock", dead + ".1", dead + ".23", damaged + ".7"}
	for _, name := range slices.Concat(keep, gone) {
		place(t, dir, path.Join(tempDir, name))
	}
	if err := os.MkdirAll(filepath.Join(dir, tempDir, dead+".99", "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, openStore(t, dir), "k", "")
	for _, name := range append(keep, dead+".99") {
		if !exists(filepath.Join(dir, tempDir, name)) {
			t.Errorf("%s was removed", name)
		}
	}
	for _, name := range gone {
		if exists(filepath.Join(dir, tempDir, name)) {
			t.Errorf("%s was not removed", name)
		}
	}
}
