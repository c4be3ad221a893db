package value

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/enginetest"
)

var killN = flag.Int("kill.n", 12, "how often TestKill kills a process")

func TestMain(m *testing.M) {
	if ofMap.Child() {
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestKill(t *testing.T) { ofMap.Kill(t, *killN) }

func TestMoments(t *testing.T) {
	t.Run("map", ofMap.Moments)
	t.Run("encoded in the pause", ofGo(nil).Moments)
	t.Run("copied in the pause", ofGo(maps.Clone[map[string]string]).Moments)
}

func TestRules(t *testing.T) {
	t.Run("map", ofMap.Rules)
	t.Run("encoded in the pause", ofGo(nil).Rules)
}

// ofMap is of a Map.
var ofMap = enginetest.Kind{
	Open: func(dir, _ string) (enginetest.DB, error) {
		e, err := Open(dir, MapCodec[string, string]())
		return mapped{e}, err
	},
	Read: func(dir string) (map[string]string, error) {
		e, err := Open(dir, MapCodec[string, string]())
		if err != nil {
			return nil, err
		}
		got := maps.Collect(e.Value.All())
		if len(got) != e.Value.Len() {
			return nil, fmt.Errorf("%d entries, but a length of %d", len(got), e.Value.Len())
		}
		return got, e.Close()
	},
	ErrBusy: ErrBusy, ErrClosed: ErrClosed,
}

type mapped struct{ *Engine[*Map[string, string]] }

func (m mapped) Get(key string) (string, error) {
	value, _ := m.Value.Get(key)
	return value, nil
}

func (m mapped) Write(set map[string]string, remove []string) error {
	for key, value := range set {
		m.Value.Set(key, value)
	}
	for _, key := range remove {
		m.Value.Delete(key)
	}
	return nil
}

// ofGo is of one of Go's maps, by gob.
func ofGo(freeze func(map[string]string) map[string]string) enginetest.Kind {
	codec := Codec[map[string]string]{
		New:    func() map[string]string { return make(map[string]string) },
		Encode: func(w io.Writer, v map[string]string) error { return gob.NewEncoder(w).Encode(v) },
		Decode: func(r io.Reader) (v map[string]string, err error) {
			err = gob.NewDecoder(r).Decode(&v)
			return v, err
		},
		Freeze: freeze,
	}
	return enginetest.Kind{
		Open: func(dir, _ string) (enginetest.DB, error) {
			e, err := Open(dir, codec)
			return plain{e}, err
		},
		Read: func(dir string) (map[string]string, error) {
			e, err := Open(dir, codec)
			if err != nil {
				return nil, err
			}
			return e.Value, e.Close()
		},
		ErrBusy: ErrBusy, ErrClosed: ErrClosed,
	}
}

type plain struct{ *Engine[map[string]string] }

func (p plain) Get(key string) (string, error) { return p.Value[key], nil }

func (p plain) Write(set map[string]string, remove []string) error {
	maps.Copy(p.Value, set)
	for _, key := range remove {
		delete(p.Value, key)
	}
	return nil
}

func TestCloneIsApart(t *testing.T) {
	m := NewMap[int, int]()
	for i := range 10_000 {
		m.Set(i, i)
	}
	clone := m.Clone()
	for i := range 5_000 {
		m.Set(i, -1)
		clone.Delete(i + 5_000)
	}
	m.Set(20_000, 1)
	for i := range 10_000 {
		in, ok := clone.Get(i)
		if ok != (i < 5_000) || ok && in != i {
			t.Fatalf("the clone has %d, %t for %d", in, ok, i)
		}
		if got, _ := m.Get(i); i < 5_000 && got != -1 || i >= 5_000 && got != i {
			t.Fatalf("the map has %d for %d", got, i)
		}
	}
	if m.Len() != 10_001 || clone.Len() != 5_000 {
		t.Errorf("%d and %d entries", m.Len(), clone.Len())
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		file, want string
		codec      Codec[*Map[string, string]]
	}{
		"no codec":        {"", "set all three", Codec[*Map[string, string]]{}},
		"another codec":   {"[1]", "decoding the value in", MapCodec[string, string]()},
		"a cut-off file":  {`{"k":"a","v":"b"}` + "\n" + `{"k"`, "decoding the value in", MapCodec[string, string]()},
		"a struct's JSON": {`{"name":"a"}`, "unknown field", MapCodec[string, string]()},
		"an empty object": {`{}`, "has no key or no value", MapCodec[string, string]()},
		"null":            {"null", "has no key or no value", MapCodec[string, string]()},
		"no value":        {`{"k":"a"}`, "has no key or no value", MapCodec[string, string]()},
		"a key twice":     {strings.Repeat(`{"k":"a","v":"b"}`+"\n", 2), "is there twice", MapCodec[string, string]()},
		"more after the value": {"x", "it goes on after its end", Codec[*Map[string, string]]{
			New: NewMap[string, string], Encode: encodeMap[string, string],
			Decode: func(io.Reader) (*Map[string, string], error) { return nil, nil },
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, File), []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, c.codec); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// A value whose JSON is null is one, and a field that a program has dropped is no error.
func TestValuesOfOtherVersions(t *testing.T) {
	dir := t.TempDir()
	lines := `{"k":"a","v":null}` + "\n" + `{"k":"b","v":{"N":1,"Old":2}}` + "\n"
	if err := os.WriteFile(filepath.Join(dir, File), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Open(dir, MapCodec[string, tombstone]())
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]tombstone{"a": {N: -1}, "b": {N: 1}} {
		if got, ok := e.Value.Get(key); got != want || !ok {
			t.Errorf("%s: %v, %v; want %v", key, got, ok, want)
		}
	}
}

// A tombstone gives null a meaning of its own.
type tombstone struct{ N int }

func (v *tombstone) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		v.N = -1
		return nil
	}
	type plain tombstone
	return json.Unmarshal(text, (*plain)(v))
}

// A panic of a codec beside the loop fails the commit, and does not end the process.
func TestCodecPanics(t *testing.T) {
	job, err := checkpoint.Open(t.Context(), "mem://"+t.Name(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = job.Close(context.Background()) }()
	task, err := job.Task("a")
	if err != nil {
		t.Fatal(err)
	}
	owner, err := task.Claim(t.Context(), checkpoint.ClaimOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(t.TempDir(), Codec[int]{
		New:    func() int { return 1 },
		Encode: func(io.Writer, int) error { panic("no words for it") },
		Decode: func(io.Reader) (int, error) { return 0, nil },
		Freeze: func(v int) int { return v },
	})
	if err != nil {
		t.Fatal(err)
	}
	src, remove, err := e.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{State: src}); err == nil || !strings.Contains(err.Error(), "panic: no words for it") {
		t.Errorf("%v; want the panic", err)
	}
	if err := errors.Join(remove(), e.Close()); err != nil {
		t.Error(err)
	}
}

func TestRefusedPlaces(t *testing.T) {
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "state.bolt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"": "has no name", other: "not of this engine"} {
		if _, err := Open(dir, MapCodec[string, string]()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// A json.Decoder leaves the end of the line that a json.Encoder writes after a list or an object,
// if it has not read it along with what comes before.
func TestJSONOfAnyLength(t *testing.T) {
	codec := Codec[[]string]{
		New:    func() []string { return nil },
		Encode: func(w io.Writer, v []string) error { return json.NewEncoder(w).Encode(v) },
		Decode: func(r io.Reader) (v []string, err error) {
			err = json.NewDecoder(r).Decode(&v)
			return v, err
		},
	}
	dir := t.TempDir()
	for n := 500; n <= 5000; n++ {
		want := []string{strings.Repeat("x", n)}
		var encoded bytes.Buffer
		if err := codec.Encode(&encoded, want); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, File), encoded.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := Open(dir, codec)
		if err != nil {
			t.Fatalf("%d bytes: %v", encoded.Len(), err)
		}
		if !slices.Equal(e.Value, want) {
			t.Fatalf("%d bytes are another value after they were decoded", encoded.Len())
		}
	}
}

// JSON writes every byte that is not UTF-8 as the same sign, so two keys would become one.
func TestKeysThatAreNotUTF8(t *testing.T) {
	type name string // a kind of text has the same rule
	m := NewMap[name, int]()
	m.Set("caf\xe9", 1)
	m.Set("caf\xe8", 2)
	if err := encodeMap(io.Discard, m); err == nil || !strings.Contains(err.Error(), `"caf\xe8" is not UTF-8`) {
		t.Errorf("%v; want an error that names the key", err)
	}
}

// What cannot be encoded fails the cut, if it is encoded in the pause.
func TestEncodingFails(t *testing.T) {
	broken := errors.New("no words for it")
	e, err := Open(t.TempDir(), Codec[int]{
		New:    func() int { return 1 },
		Encode: func(io.Writer, int) error { return broken },
		Decode: func(io.Reader) (int, error) { return 0, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.Cut(t.Context()); !errors.Is(err, broken) {
		t.Errorf("%v; want %v", err, broken)
	}
}
