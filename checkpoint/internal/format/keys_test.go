package format

import (
	"errors"
	"math"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend"
)

func TestEscapeTask(t *testing.T) {
	for name, want := range map[string]string{
		"orders":                 "orders",
		"orders/7":               "orders_2f7",
		"Partition 3":            "_50artition_203",
		"a-b":                    "a-b",
		"a.b":                    "a.b",
		"a_b":                    "a_5fb",
		"A":                      "_41",
		"é":                      "_c3_a9",
		".":                      "_2e",
		"..":                     "_2e_2e",
		"...":                    "_2e._2e",
		"a.":                     "a_2e",
		".a":                     "_2ea",
		"-":                      "-",
		"../../etc":              "_2e._2f.._2fetc",
		"%41":                    "_2541",
		"_41":                    "_5f41",
		strings.Repeat("x", 200): strings.Repeat("x", 200),
	} {
		got, err := EscapeTask(name)
		if got != want || err != nil {
			t.Errorf("EscapeTask(%q) = %q, %v; want %q", name, got, err, want)
		}
		back, ok := UnescapeTask(want)
		if back != name || !ok {
			t.Errorf("UnescapeTask(%q) = %q, %v; want %q", want, back, ok, name)
		}
	}
	for _, name := range []string{"", "a\nb", "a\x00", "\x7f", "\u0085", "\xff", strings.Repeat("x", 201), strings.Repeat("/", 67)} {
		if got, err := EscapeTask(name); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("EscapeTask(%.20q) = %q, %v; want ErrInvalid", name, got, err)
		}
	}
}

func TestUnescapeTaskRefusesWhatEscapeTaskDoesNotReturn(t *testing.T) {
	for _, dir := range []string{
		"", "A", "a b", "_4", "_", "a_", "_4g", "_+4", "_4A", "_2F", "_61", "_2e.", ".a", "a.", "_00", "_ff", "_0a", "é", "a/b",
		strings.Repeat("x", 201),
	} {
		if name, ok := UnescapeTask(dir); ok {
			t.Errorf("UnescapeTask(%.20q) = %q", dir, name)
		}
	}
}

// taskNames draws names that a task may have.
func taskNames() *rapid.Generator[string] {
	awkward := []rune("aZ09-._/% \u2028é\U0001F600")
	return rapid.Map(rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(awkward), rapid.Rune()), 1, 16), func(r []rune) string {
		return strings.Map(func(c rune) rune {
			if unicode.IsControl(c) {
				return '.'
			}
			return c
		}, string(r))
	})
}

func TestTaskNamesAndDirectoriesAreOneToOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := taskNames().Draw(t, "a"), taskNames().Draw(t, "b")
		dirA, err := EscapeTask(a)
		if err != nil {
			t.Fatal(err)
		}
		dirB, err := EscapeTask(b)
		if err != nil {
			t.Fatal(err)
		}
		if (a == b) != (dirA == dirB) {
			t.Errorf("%q and %q have the directories %q and %q", a, b, dirA, dirB)
		}
		for _, key := range []string{ManifestKey(dirA, 1), SegmentKey(dirA, SegmentID{1, writerA, 1})} {
			if err := backend.CheckKey(key); err != nil {
				t.Error(err)
			}
		}
		for _, prefix := range []string{ManifestPrefix(dirA), SegmentPrefix(dirA)} {
			if err := backend.CheckPrefix(prefix); err != nil {
				t.Error(err)
			}
		}
		if back, ok := UnescapeTask(dirA); back != a || !ok {
			t.Errorf("%q is read back from %q as %q, %v", a, dirA, back, ok)
		}
	})
}

func TestManifestKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint64Range(1, maxNumber).Draw(t, "a"), rapid.Uint64Range(1, maxNumber).Draw(t, "b")
		if (a > b) != (ManifestKey("t", a) < ManifestKey("t", b)) {
			t.Errorf("%d and %d have the keys %s and %s", a, b, ManifestKey("t", a), ManifestKey("t", b))
		}
		dir, seq, ok := ParseManifestKey(ManifestKey("t_2f1", a))
		if dir != "t_2f1" || seq != a || !ok {
			t.Errorf("the key of %d is read as %q, %d, %v", a, dir, seq, ok)
		}
	})
	if key := ManifestKey("t", math.MaxUint64); key != "t/manifests/0000000000000000" {
		t.Errorf("the last key is %s", key)
	}
	for _, key := range []string{
		"", "t", "t/manifests", "t/manifests/", "t/manifests/0", "t/manifests/00000000000000000", "t/manifests/000000000000000g",
		"t/manifests/FFFFFFFFFFFFFFF0", "t/manifests/+fffffffffffffff", "t/manifests/0x00000000000000",
		"t/manifests/ffffffffffffffff",                                 // number 0
		"t/manifests/0000000000000000", "t/manifests/7fffffffffffffff", // from 2^63 on there is none
		"t/manifests/fffffffffffffffe/x", "t/segments/fffffffffffffffe", "manifests/fffffffffffffffe",
	} {
		if dir, seq, ok := ParseManifestKey(key); ok {
			t.Errorf("ParseManifestKey(%q) = %q, %d", key, dir, seq)
		}
	}
}

func TestParseSegmentID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := SegmentID{Epoch: rapid.Uint64().Draw(t, "epoch"), N: rapid.Uint32().Draw(t, "n")}
		copy(id.Writer[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "writer"))
		back, ok := ParseSegmentID(id.String())
		if back != id || ok == (id == SegmentID{}) {
			t.Errorf("%s is read back as %s, %v", id, back, ok)
		}
	})
	for _, s := range []string{
		"", "0000000000000003-9f2c61d0a8b3e457-0000000", "0000000000000003-9f2c61d0a8b3e457-000000040",
		"0000000000000003_9f2c61d0a8b3e457-00000004", "0000000000000003-9F2C61D0A8B3E457-00000004",
		"000000000000000g-9f2c61d0a8b3e457-00000004", "0000000000000000-0000000000000000-00000000",
	} {
		if id, ok := ParseSegmentID(s); ok {
			t.Errorf("ParseSegmentID(%q) = %s", s, id)
		}
	}
}
