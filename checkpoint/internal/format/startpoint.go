package format

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// A Startpoint says where one input partition is to be read from, in place of the offset
// in the checkpoint. It is written once.
type Startpoint struct {
	Version   int    `json:"holdfast"`
	Task      string `json:"task"`
	Partition string `json:"partition"`

	// At is "oldest", "newest", "offset" or "time".
	At     string    `json:"at"`
	Offset string    `json:"offset,omitempty"`
	Time   time.Time `json:"time,omitzero"`

	SetBy string `json:"set_by,omitempty"` // what its writer says of itself
}

// Encode returns s's bytes: one JSON object with a sum, as a manifest is.
func (s *Startpoint) Encode() ([]byte, error) {
	s.Version = Version
	if err := s.check(s.Task); err != nil {
		return nil, unreadable("startpoint", err)
	}
	data, err := encodeRecord(s)
	if err == nil && len(data) > MaxRecord {
		err = backend.Invalidf("a startpoint of %d bytes: a partition and an offset may have %d together", len(data), MaxRecord)
	}
	return data, err
}

// DecodeStartpoint decodes the bytes of a startpoint of a task, and checks them. Its error
// wraps ErrCorrupt or ErrVersion.
func DecodeStartpoint(data []byte, task string) (*Startpoint, error) {
	return decodeRecord[Startpoint](data, task)
}

func (s *Startpoint) check(task string) error {
	ok := false
	switch s.At {
	case "oldest", "newest":
		ok = s.Offset == "" && s.Time.IsZero()
	case "offset":
		ok = s.Time.IsZero()
	case "time":
		ok = s.Offset == "" && !s.Time.IsZero()
	}
	if !ok || s.Version != Version || s.Task != task || len(s.SetBy) > MaxWrittenBy {
		return corruptf("format %d, startpoint at %q of partition %q of task %q; expected task %q", s.Version, s.At, s.Partition, s.Task, task)
	}
	return nil
}

// A StartpointID names a startpoint within its task. No two have the same.
type StartpointID struct {
	N      uint64 // a later one has a higher number
	Random uint64 // so that no name is used twice, also when all were removed
}

// StartpointAfter returns the id of a startpoint that is set after one with number n.
func StartpointAfter(n uint64) StartpointID {
	var random [8]byte
	rand.Read(random[:])
	return StartpointID{n + 1, binary.BigEndian.Uint64(random[:])}
}

func (id StartpointID) String() string { return fmt.Sprintf("%016x-%016x", id.N, id.Random) }

// ParseStartpointID reads what String returns.
func ParseStartpointID(s string) (id StartpointID, ok bool) {
	if len(s) != 33 {
		return id, false
	}
	var errN, errR error
	id.N, errN = strconv.ParseUint(s[:16], 16, 64)
	id.Random, errR = strconv.ParseUint(s[17:], 16, 64)
	return id, errN == nil && errR == nil && id.N > 0 && id.N <= maxNumber && id.String() == s
}

// StartpointPrefix is what the keys of a task's startpoints begin with.
func StartpointPrefix(dir string) string { return dir + startpointsDir }

// StartpointKey is the key of a task's startpoint.
func StartpointKey(dir string, id StartpointID) string { return dir + startpointsDir + id.String() }

// ParseStartpointKey returns the startpoint whose key it is, in a task's directory.
func ParseStartpointKey(dir, key string) (StartpointID, bool) {
	name, ok := strings.CutPrefix(key, dir+startpointsDir)
	if !ok {
		return StartpointID{}, false
	}
	return ParseStartpointID(name)
}
