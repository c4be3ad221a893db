package backend_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

var (
	name200 = strings.Repeat("n", 200)
	key512  = strings.Repeat("/"+strings.Repeat("k", 18), 27)[1:]
)

func TestCheckKey(t *testing.T) {
	for _, tt := range []struct {
		key             string
		isKey, isPrefix bool
	}{
		{"", false, true},
		{"a", true, true},
		{"0", true, true},
		{"-", true, true},
		{"_", true, true},
		{"a.b-c_d/0", true, true},
		{"a..b", true, true},
		{"a/", false, true},
		{"a.", false, true},
		{"a..", false, true},
		{"a/b.", false, true},
		{"/", false, false},
		{"/a", false, false},
		{"a//b", false, false},
		{"a//", false, false},
		{".", false, false},
		{"..", false, false},
		{".a", false, false},
		{"a/.b", false, false},
		{"a./b", false, false},
		{"a/../b", false, false},
		{"A", false, false},
		{"a b", false, false},
		{"a\x00", false, false},
		{"a\\b", false, false},
		{"\u00e9", false, false},
		{"\xff", false, false},
		{"a:b", false, false},
		{name200, true, true},
		{name200 + "n", false, false},
		{name200[1:] + ".", false, false}, // not even a prefix: a longer name would be too long
		{name200[2:] + ".", false, true},
		{name200 + "/" + name200, true, true},
		{name200 + "/", false, true},
		{key512, true, true},
		{key512 + "k", false, false},
		{key512[1:] + "/", false, false},
		{key512[2:] + "/", false, true},
	} {
		if err := backend.CheckKey(tt.key); (err == nil) != tt.isKey || err != nil && !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("CheckKey(%q) = %v", tt.key, err)
		}
		if err := backend.CheckPrefix(tt.key); (err == nil) != tt.isPrefix || err != nil && !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("CheckPrefix(%q) = %v", tt.key, err)
		}
	}
}

// rule expresses what CheckKey checks in another way.
var rule = func() *regexp.Regexp {
	const name = `[a-z0-9_-](?:[a-z0-9._-]{0,198}[a-z0-9_-])?`
	return regexp.MustCompile(`\A` + name + `(?:/` + name + `)*\z`)
}()

func FuzzCheckKey(f *testing.F) {
	for _, seed := range []string{"a", "a/b-c.d_e", "a//b", "a..b/.c", name200, key512, "a/", "/", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		valid := backend.CheckKey(key) == nil
		want := len(key) <= backend.MaxKeyLen && rule.MatchString(key)
		if valid != want {
			t.Fatalf("CheckKey(%q) allows it: %t, want %t", key, valid, want)
		}
		if !valid {
			return
		}
		for i := range len(key) + 1 {
			if err := backend.CheckPrefix(key[:i]); err != nil {
				t.Errorf("key %q is valid, but its beginning is not: %v", key, err)
			}
		}
	})
}
