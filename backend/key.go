package backend

import (
	"fmt"
	"strings"
)

// Limits on keys. S3 and GCS allow 1,024 bytes, which include the prefix in the URL;
// file systems allow 255 bytes for one name.
const (
	MaxKeyLen  = 512 // bytes in a whole key
	MaxNameLen = 200 // bytes between two slashes
)

// CheckKey returns nil if every store can hold the key, and otherwise an error that
// wraps ErrInvalid. A key consists of names joined by single slashes. A name consists
// of characters [a-z0-9._-]; it is not empty, not longer than [MaxNameLen], and
// neither begins nor ends with a dot.
//
// Capitals are refused because some file systems ignore case. Names that begin with a
// dot are refused because drivers keep their own files there (and because of "." and
// ".."), and names that end with one because Windows drops the dot.
func CheckKey(key string) error {
	if len(key) > MaxKeyLen {
		return Invalidf("key of %d bytes, longer than %d", len(key), MaxKeyLen)
	}
	for name := range strings.SplitSeq(key, "/") {
		if err := checkName(name); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return nil
}

// CheckPrefix returns nil if prefix is empty or the beginning of some valid key, and
// otherwise an error that wraps ErrInvalid.
func CheckPrefix(prefix string) error {
	if prefix == "" || CheckKey(prefix) == nil || CheckKey(prefix+"x") == nil {
		return nil
	}
	return Invalidf("prefix %q is not the beginning of a key", prefix)
}

func checkName(name string) error {
	switch {
	case name == "":
		return Invalidf("empty name")
	case len(name) > MaxNameLen:
		return Invalidf("name of %d bytes, longer than %d", len(name), MaxNameLen)
	case name[0] == '.' || name[len(name)-1] == '.':
		return Invalidf("name %q begins or ends with a dot", name)
	}
	for i := range len(name) {
		if !keyByte(name[i]) {
			return Invalidf("character %q is not one of a-z 0-9 . _ -", name[i:i+1])
		}
	}
	return nil
}

func keyByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		return true
	}
	return false
}
