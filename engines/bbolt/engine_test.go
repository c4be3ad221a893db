package bbolt

import (
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/internal/enginetest"
)

var killN = flag.Int("kill.n", 12, "how often TestKill kills a process")

func TestMain(m *testing.M) {
	if kind.Child() {
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestKill(t *testing.T)    { kind.Kill(t, *killN) }
func TestMoments(t *testing.T) { kind.Moments(t) }
func TestRules(t *testing.T)   { kind.Rules(t) }

var kind = enginetest.Kind{
	Open:    func(dir, _ string) (enginetest.DB, error) { return open(dir) },
	Read:    read,
	ErrBusy: ErrBusy, ErrClosed: ErrClosed,
}

// A keyed engine has all keys in one bucket.
type keyed struct{ *Engine }

var bucket = []byte("all")

func open(dir string) (keyed, error) {
	e, err := Open(dir, nil)
	if err != nil {
		return keyed{}, err
	}
	return keyed{e}, e.DB.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
}

func (k keyed) Get(key string) (value string, err error) {
	err = k.DB.View(func(tx *bolt.Tx) error {
		value = string(tx.Bucket(bucket).Get([]byte(key)))
		return nil
	})
	return value, err
}

func (k keyed) Write(set map[string]string, remove []string) error {
	return k.DB.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		for _, key := range slices.Sorted(maps.Keys(set)) {
			if err := b.Put([]byte(key), []byte(set[key])); err != nil {
				return err
			}
		}
		for _, key := range remove {
			if err := b.Delete([]byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
}

// read returns all that a database holds, which bbolt has checked.
func read(dir string) (got map[string]string, err error) {
	e, err := Open(dir, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	got = make(map[string]string)
	return got, e.DB.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return tx.Bucket(bucket).ForEach(func(key, value []byte) error {
			got[string(key)] = string(value)
			return nil
		})
	})
}

func TestRefused(t *testing.T) {
	dir, other := filepath.Join(t.TempDir(), "state"), t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "state.sqlite"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, dir string
		opts      *bolt.Options
		want      string
	}{
		{"no directory", "", nil, "has no name"},
		{"the state of another engine", other, nil, "not of this engine"},
		{"read only", dir, &bolt.Options{ReadOnly: true}, "bbolt.Options.ReadOnly is set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Open(c.dir, c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v; want nothing", dir, err)
			}
		})
	}
}

func TestDatabaseThatIsOpen(t *testing.T) {
	dir := t.TempDir()
	k, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	opts := &bolt.Options{Timeout: time.Millisecond}
	if _, err := Open(dir, opts); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, File)+": someone has it open") {
		t.Errorf("%v; want an error that names the file", err)
	}
	if opts.NoSync || opts.InitialMmapSize != 0 {
		t.Error("the host's own options were changed")
	}
}

// A database that grows by more than bbolt maps at first does not wait for a cut to be
// removed. This would never end if it did.
func TestDatabaseGrowsWhileACutIsOpen(t *testing.T) {
	k, err := open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	_, remove, err := k.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Split("abcdefgh", "") {
		if err := k.Write(map[string]string{key: strings.Repeat(key, 1<<20)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
}
