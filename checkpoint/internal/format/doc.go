// Package format defines the bytes that a checkpoint consists of in the store:
// keys, manifests and the tree of entries. It reads and writes them and knows
// nothing of stores; docs/format.md describes the same for people.
package format

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// Version is the format that this package writes, and the only one it reads.
const Version = 1

var (
	// ErrCorrupt means that bytes are not what was once written.
	ErrCorrupt = errors.New("corrupt")
	// ErrVersion means that bytes were written by a newer version.
	ErrVersion = errors.New("written in a newer format")
)

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// Hash is a BLAKE3-256 hash. It identifies and checks every piece of data.
type Hash [32]byte

// Sum returns the hash of data.
func Sum(data []byte) Hash { return blake3.Sum256(data) }

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns h in hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText returns.
func (h *Hash) UnmarshalText(text []byte) error { return decodeHex(h[:], text) }

func decodeHex(dst, text []byte) error {
	if hex.DecodedLen(len(text)) != len(dst) || len(text)%2 != 0 {
		return fmt.Errorf("%d hex digits where %d were expected", len(text), hex.EncodedLen(len(dst)))
	}
	_, err := hex.Decode(dst, text)
	return err
}
