package format

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/backend"
)

// A job's keys, below its prefix:
//
//	<task>/manifests/<2^64-1-seq>              16 hex digits: newest sorts first
//	<task>/segments/<epoch>-<writer>-<n>       16, 16 and 8 hex digits
//	<task>/startpoints/<n>-<random>            16 and 16 hex digits
//
// Below <task> every name of one kind has one width and no slash, because some
// servers order names oddly where "/" mixes with other characters.
const (
	manifestsDir   = "/manifests/"
	segmentsDir    = "/segments/"
	startpointsDir = "/startpoints/"
)

// EscapeTask returns the key name for a task's name: lower-case letters, digits,
// "-" and inner dots stand for themselves, every other byte is "_" and two
// hex digits. Capitals are escaped too, because some file systems fold them.
func EscapeTask(name string) (string, error) {
	if err := checkText("task name", name); err != nil {
		return "", err
	}
	if name == "" {
		return "", backend.Invalidf("a task needs a name")
	}
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		inner := i > 0 && i < len(name)-1
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' && inner {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "_%02x", c)
	}
	if b.Len() > backend.MaxNameLen {
		return "", backend.Invalidf("task name %.40q... takes %d bytes in a key, more than %d; use a shorter one", name, b.Len(), backend.MaxNameLen)
	}
	return b.String(), nil
}

// UnescapeTask reverses EscapeTask. It reports whether dir is a name that
// EscapeTask returns.
func UnescapeTask(dir string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(dir); i++ {
		if dir[i] != '_' {
			b.WriteByte(dir[i])
			continue
		}
		if i+3 > len(dir) {
			return "", false
		}
		c, err := strconv.ParseUint(dir[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	name := b.String()
	again, err := EscapeTask(name)
	return name, err == nil && again == dir
}

// checkText refuses what JSON cannot carry unchanged and what would break
// the line that it is printed on.
func checkText(what, s string) error {
	if !utf8.ValidString(s) {
		return backend.Invalidf("%s %q is not valid UTF-8", what, s)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return backend.Invalidf("%s %q holds a control character", what, s)
	}
	return nil
}

// ManifestPrefix is what the keys of a task's manifests begin with.
func ManifestPrefix(dir string) string { return dir + manifestsDir }

// ManifestKey is the key of a task's manifest number seq.
func ManifestKey(dir string, seq uint64) string {
	return fmt.Sprintf("%s%s%016x", dir, manifestsDir, ^seq)
}

// ParseManifestKey returns the task directory and the number in a manifest's
// key.
func ParseManifestKey(key string) (dir string, seq uint64, ok bool) {
	dir, digits, ok := strings.Cut(key, manifestsDir)
	if !ok || len(digits) != 16 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	seq = ^n
	if err != nil || seq == 0 || seq > maxNumber || ManifestKey(dir, seq) != key {
		return "", 0, false
	}
	return dir, seq, true
}

// AnnouncedKey is the key by which someone who keeps losing against a quick owner asks it
// to pause.
func AnnouncedKey(dir string) string { return dir + "/announced" }

// RestoreTestKey is the key of the record of the last restore test that succeeded.
func RestoreTestKey(dir string) string { return dir + "/restore-test" }

// HeartbeatKey is the key of the last heartbeat of the task's owner. It sorts after the
// manifests: who lists the tasks of a job looks at the first key of each.
func HeartbeatKey(dir string) string { return dir + "/owner-heartbeat" }

// SegmentPrefix is what the keys of a task's segments begin with.
func SegmentPrefix(dir string) string { return dir + segmentsDir }

// SegmentKey is the key of a task's segment.
func SegmentKey(dir string, id SegmentID) string { return dir + segmentsDir + id.String() }

// ParseSegmentKey returns the segment whose key it is, in a task's directory. It
// takes no key for one that no manifest could name.
func ParseSegmentKey(dir, key string) (SegmentID, bool) {
	name, ok := strings.CutPrefix(key, dir+segmentsDir)
	if !ok {
		return SegmentID{}, false
	}
	id, ok := ParseSegmentID(name)
	return id, ok && id.Epoch <= maxNumber
}

// WriterPrefix is what the keys of one writer's segments begin with.
func WriterPrefix(dir string, epoch uint64, w WriterID) string {
	return fmt.Sprintf("%s%s%016x-%s-", dir, segmentsDir, epoch, w)
}

// WriterID identifies one claim, and one-off save, among all. It is random, but for
// its last bit: see ClaimsFirst.
type WriterID [8]byte

// claimsFirst is the last bit of the last byte.
const claimsFirst = 1

// ClaimsFirst reports whether the writer claims the task before it sends a segment, as
// owners do. If so, each of its segments proves that its claim existed. One-off saves and
// rollbacks may send segments first.
func (w WriterID) ClaimsFirst() bool { return w[len(w)-1]&claimsFirst != 0 }

// WithClaimsFirst returns w as the id of a writer that does so, or does not.
func (w WriterID) WithClaimsFirst(first bool) WriterID {
	w[len(w)-1] &^= claimsFirst
	if first {
		w[len(w)-1] |= claimsFirst
	}
	return w
}

func (w WriterID) String() string { return fmt.Sprintf("%x", w[:]) }

// MarshalText returns w in hexadecimal.
func (w WriterID) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText reads what MarshalText returns.
func (w *WriterID) UnmarshalText(text []byte) error { return decodeHex(w[:], text) }

// SegmentID names a segment within its task. The zero value stands for the
// bytes that a checkpoint carries inside its own content.
type SegmentID struct {
	Epoch  uint64
	Writer WriterID
	N      uint32 // counts a writer's segments
}

const segmentIDLen = 8 + 8 + 4

func (id SegmentID) String() string {
	return fmt.Sprintf("%016x-%s-%08x", id.Epoch, id.Writer, id.N)
}

// ParseSegmentID reads what String returns for a segment: not the zero value.
func ParseSegmentID(s string) (SegmentID, bool) {
	if len(s) != 16+1+16+1+8 {
		return SegmentID{}, false
	}
	var raw [segmentIDLen]byte
	if decodeHex(raw[:], []byte(s[:16]+s[17:33]+s[34:])) != nil {
		return SegmentID{}, false
	}
	id := decodeSegmentID(raw[:])
	return id, id != SegmentID{} && id.String() == s
}

// Compare orders segments by epoch, writer and number.
func (id SegmentID) Compare(other SegmentID) int {
	return cmp.Or(cmp.Compare(id.Epoch, other.Epoch), bytes.Compare(id.Writer[:], other.Writer[:]), cmp.Compare(id.N, other.N))
}

// MarshalText returns the name, or nothing for the zero value.
func (id SegmentID) MarshalText() ([]byte, error) {
	if id == (SegmentID{}) {
		return nil, nil
	}
	return []byte(id.String()), nil
}

// UnmarshalText reads what MarshalText returns.
func (id *SegmentID) UnmarshalText(text []byte) error {
	*id = SegmentID{}
	if len(text) == 0 {
		return nil
	}
	parsed, ok := ParseSegmentID(string(text))
	if !ok {
		return fmt.Errorf("%q is not the name of a segment", text)
	}
	*id = parsed
	return nil
}

func (id SegmentID) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, id.Epoch)
	b = append(b, id.Writer[:]...)
	return binary.BigEndian.AppendUint32(b, id.N)
}

func decodeSegmentID(b []byte) SegmentID {
	return SegmentID{
		Epoch:  binary.BigEndian.Uint64(b),
		Writer: WriterID(b[8:16]),
		N:      binary.BigEndian.Uint32(b[16:]),
	}
}
