package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// MaxManifest bounds a manifest, in bytes. A losing conditional write with a
// larger body often looks like a network error, because servers answer before
// they have read it; at 64 KiB none of those measured did
// (docs/decisions/0005-manifest-size.md).
const MaxManifest = 64 << 10

// MaxPart bounds each part of a manifest that grows with the state, in bytes:
// one that is larger goes into a segment. There are three: the content, the
// inline data (a third more in base64) and the retained list, 54 KiB together.
const MaxPart = 16 << 10

// maxNumber bounds the numbers of manifests and epochs. Each step adds one to
// them, so none comes near it; a larger one is from a writer that is in error, or
// hostile, and near 2^64 the next would be 0. A signed integer of 64 bits, all
// that many languages have, holds every number up to it.
const maxNumber = 1<<63 - 1

// Kind says what a manifest is for.
type Kind string

// The kinds of manifest.
const (
	KindClaim   Kind = "claim"   // a writer took the task over; the checkpoint is its base's
	KindCommit  Kind = "commit"  // a new checkpoint
	KindRelease Kind = "release" // a writer gave the task up; the checkpoint is its base's
	KindDeleted Kind = "deleted" // the task was deleted; there is no checkpoint
)

// A Manifest is one step in a task's history, and a whole account of the task
// as of that step. Creating it is what makes the step.
type Manifest struct {
	Version int      `json:"holdfast"`
	Kind    Kind     `json:"kind"`
	Task    string   `json:"task"`
	Seq     uint64   `json:"seq"`    // its number, from 1
	Epoch   uint64   `json:"epoch"`  // grows by one with each writer
	Writer  WriterID `json:"writer"` // who made it
	Token   Token    `json:"token"`  // this attempt to make it, and no other

	// Released says that its writer will make no further manifest. A claim may
	// be released at once: to go back to an older checkpoint takes no more.
	Released bool `json:"released,omitempty"`

	// Checkpoint is the current checkpoint, nil when there is none.
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`

	// Retained lists the other checkpoints that exist, ordered by when each was
	// last the current one, latest first. A task that goes back to an older
	// checkpoint puts those that it leaves behind first, so that numbers need
	// not descend. When it is large, RetainedAt says where it lies instead, as a
	// JSON array.
	Retained   []Retained `json:"retained,omitempty"`
	RetainedAt *Chunk     `json:"retained_at,omitempty"`
}

// Token tells one attempt to write a manifest from every other. It is random.
type Token [16]byte

// MarshalText returns t in hexadecimal.
func (t Token) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", t[:]), nil }

// UnmarshalText reads what MarshalText returns.
func (t *Token) UnmarshalText(text []byte) error { return decodeHex(t[:], text) }

// Checkpoint is a committed snapshot.
type Checkpoint struct {
	Seq   uint64 `json:"seq"`   // of the manifest that committed it
	Epoch uint64 `json:"epoch"` // likewise

	// Time is when manifest Seq was made, by the store's clock. It is absent
	// from that manifest, which cannot know it: the object's own time says so.
	Time time.Time `json:"time,omitzero"`

	CountsFrom time.Time `json:"counts_from,omitzero"` // see [Retained]

	Savepoint    string `json:"savepoint,omitempty"`
	ExpiresAfter int64  `json:"expires_after,omitempty"` // likewise
	Files        int    `json:"files"`                   // regular files
	Bytes        int64  `json:"bytes"`                   // in them
	NewBytes     int64  `json:"new_bytes"`               // stored for this checkpoint

	// Content, or, when that is large, where it lies as a JSON object.
	Content   *Content `json:"content,omitempty"`
	ContentAt *Chunk   `json:"content_at,omitempty"`
}

// Retained names a checkpoint that still exists. Its manifest says the rest.
type Retained struct {
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"` // as in Checkpoint
	Savepoint string    `json:"savepoint,omitempty"`

	// ExpiresAfter is for how many seconds a savepoint is one that retention must
	// not drop. Zero is for ever.
	ExpiresAfter int64 `json:"expires_after,omitempty"`

	// CountsFrom stands for Time in what retention decides, if Time has turned out
	// to be wrong. Zero if it has not.
	CountsFrom time.Time `json:"counts_from,omitzero"`
}

// From returns the time from which the checkpoint's age counts.
func (r Retained) From() time.Time {
	if r.CountsFrom.IsZero() {
		return r.Time
	}
	return r.CountsFrom
}

// Expires returns the time from which on a savepoint is a checkpoint like
// others, or zero if it is to stay.
func (r Retained) Expires() time.Time {
	if r.ExpiresAfter == 0 {
		return time.Time{}
	}
	return r.From().Add(time.Duration(r.ExpiresAfter) * time.Second)
}

// Retained returns how c, which has a time, is listed once it is not the
// current checkpoint any more.
func (c *Checkpoint) Retained() Retained {
	return Retained{Seq: c.Seq, Time: c.Time, Savepoint: c.Savepoint, ExpiresAfter: c.ExpiresAfter, CountsFrom: c.CountsFrom}
}

// MaxExpiry bounds ExpiresAfter: the most seconds that a time.Duration can hold.
const MaxExpiry = int64(math.MaxInt64 / time.Second)

// checkExpiry checks what a checkpoint says of its savepoint.
func checkExpiry(seq uint64, savepoint string, after int64) error {
	if after < 0 || after > MaxExpiry || after != 0 && savepoint == "" {
		return corruptf("checkpoint %d, savepoint %q, expires after %d seconds", seq, savepoint, after)
	}
	return nil
}

// Spilled returns the parts of m that lie in segments.
func (m *Manifest) Spilled() []*Chunk {
	var at []*Chunk
	if m.RetainedAt != nil {
		at = append(at, m.RetainedAt)
	}
	if m.Checkpoint != nil && m.Checkpoint.ContentAt != nil {
		at = append(at, m.Checkpoint.ContentAt)
	}
	return at
}

// Segments returns all segments that m names; content is its checkpoint's, nil if it
// has none.
func (m *Manifest) Segments(content *Content) []SegmentID {
	var ids []SegmentID
	if content != nil {
		for _, s := range content.Segments {
			ids = append(ids, s.ID)
		}
	}
	for _, at := range m.Spilled() {
		ids = append(ids, at.Segment)
	}
	return ids
}

// Others returns all without m's own checkpoint.
func (m *Manifest) Others(all []Retained) []Retained {
	return slices.DeleteFunc(slices.Clone(all), func(r Retained) bool {
		return m.Checkpoint != nil && r.Seq == m.Checkpoint.Seq
	})
}

// sumLen is the length of what follows a manifest's fields: ,"sum":"..."}\n
const sumLen = len(`,"sum":"`) + 2*len(Hash{}) + len("\"}\n")

// Encode returns m's bytes: one JSON object on one line, whose last field is
// the hash of all the bytes before that field. This holds for every version,
// so that damage can be told from novelty. What DecodeManifest would refuse is
// not encoded: it would stand in everybody's way.
func (m *Manifest) Encode() ([]byte, error) {
	m.Version = Version
	if err := m.check(m.Task, m.Seq); err != nil {
		return nil, unreadable("manifest", err)
	}
	data, err := marshal(m)
	if err != nil {
		return nil, err
	}
	data = appendSum(data)
	if len(data) > MaxManifest {
		return nil, fmt.Errorf("manifest of %d bytes, more than %d", len(data), MaxManifest)
	}
	return data, nil
}

// unreadable is the error of an encoder whose bytes no decoder would take. It is
// no ErrCorrupt, which is about what the store holds.
func unreadable(what string, err error) error {
	return fmt.Errorf("%s that could not be read, and is not written: %s", what, err.Error())
}

// appendSum makes the sum of a JSON object its last field.
func appendSum(object []byte) []byte {
	data := object[:len(object)-1] // the closing brace
	return fmt.Appendf(data, ",\"sum\":\"%s\"}\n", Sum(data))
}

// DecodeManifest reads the bytes of manifest number seq of a task. It returns
// an error that wraps ErrCorrupt or ErrVersion if it cannot vouch for them.
func DecodeManifest(data []byte, task string, seq uint64) (*Manifest, error) {
	if len(data) > MaxManifest {
		return nil, corruptf("more than %d bytes", MaxManifest)
	}
	if err := checkSum(data); err != nil {
		return nil, err
	}
	if err := checkVersion(data); err != nil {
		return nil, err
	}
	m := new(Manifest)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, corruptf("%v", err)
	}
	if err := m.check(task, seq); err != nil {
		return nil, err
	}
	return m, nil
}

func checkVersion(data []byte) error {
	var v struct {
		Version int `json:"holdfast"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return corruptf("%v", err)
	}
	if v.Version > Version {
		return fmt.Errorf("%w (%d; this program reads %d): use a newer holdfast", ErrVersion, v.Version, Version)
	}
	return nil
}

func checkSum(data []byte) error {
	if len(data) < sumLen {
		return corruptf("%d bytes, too short to hold a checksum", len(data))
	}
	body, tail := data[:len(data)-sumLen], data[len(data)-sumLen:]
	want := fmt.Appendf(nil, ",\"sum\":\"%s\"}\n", Sum(body))
	if bytes.Equal(tail, want) {
		return nil
	}
	if !bytes.HasPrefix(tail, []byte(`,"sum":"`)) {
		return corruptf("it does not end with a checksum: truncated, or not a manifest")
	}
	return corruptf("its checksum does not match its content")
}

// check holds what the engine relies on against what was read.
func (m *Manifest) check(task string, seq uint64) error {
	c := m.Checkpoint
	switch {
	case m.Version != Version:
		return corruptf("format %d", m.Version)
	case m.Task != task || m.Seq != seq:
		return corruptf("it is number %d of task %q; expected number %d of %q", m.Seq, m.Task, seq, task)
	case m.Epoch == 0:
		return corruptf("it has no epoch")
	case m.Seq > maxNumber || m.Epoch > maxNumber:
		return corruptf("it is number %d, of epoch %d; both end at %d", m.Seq, m.Epoch, uint64(maxNumber))
	case m.Kind == KindCommit && (c == nil || c.Seq != seq):
		return corruptf("a commit without its checkpoint")
	case m.Kind == KindDeleted && c != nil:
		return corruptf("a deletion with a checkpoint")
	case m.Kind != KindCommit && m.Kind != KindClaim && m.Kind != KindRelease && m.Kind != KindDeleted:
		return corruptf("unknown kind %q", m.Kind)
	case c == nil && (m.Retained != nil || m.RetainedAt != nil):
		return corruptf("earlier checkpoints, and no newest one")
	case m.Retained != nil && m.RetainedAt != nil:
		return corruptf("two retained lists")
	case c == nil:
		return nil
	}
	for _, at := range m.Spilled() {
		if err := at.checkSpilled(); err != nil {
			return err
		}
	}
	if err := c.check(m); err != nil {
		return err
	}
	return m.checkRetained(m.Retained)
}

// check reports what is wrong with a checkpoint in manifest m.
func (c *Checkpoint) check(m *Manifest) error {
	switch {
	case c.Seq == 0 || c.Seq > m.Seq || c.Epoch == 0 || c.Epoch > m.Epoch:
		return corruptf("checkpoint %d of epoch %d in manifest %d of epoch %d", c.Seq, c.Epoch, m.Seq, m.Epoch)
	case c.Seq != m.Seq && c.Time.IsZero():
		return corruptf("checkpoint %d has no time", c.Seq)
	case c.Files < 0 || c.Bytes < 0 || c.NewBytes < 0:
		return corruptf("checkpoint %d has %d files, %d bytes, %d of them new", c.Seq, c.Files, c.Bytes, c.NewBytes)
	case (c.Content == nil) == (c.ContentAt == nil):
		return corruptf("checkpoint %d is not complete", c.Seq)
	}
	if err := checkExpiry(c.Seq, c.Savepoint, c.ExpiresAfter); err != nil || c.Content == nil {
		return err
	}
	return c.Content.check()
}

// checkRetained checks the list of the checkpoints beside m's own.
func (m *Manifest) checkRetained(list []Retained) error { return checkEach(list, m.retainedChecker()) }

// retainedChecker returns what checks such a list, one after the other.
func (m *Manifest) retainedChecker() func(*Retained) error {
	check := retainedChecker()
	return func(r *Retained) error {
		switch {
		case r.Seq >= m.Seq:
			return corruptf("retained checkpoint %d in manifest %d", r.Seq, m.Seq)
		case r.Seq == m.Checkpoint.Seq:
			return corruptf("retained checkpoint %d is the current one", r.Seq)
		}
		return check(r)
	}
}

// retainedChecker returns what checks what holds of a retained list in any
// manifest. The order of the checkpoints cannot be told from their numbers.
func retainedChecker() func(*Retained) error {
	seen := make(map[uint64]bool)
	return func(r *Retained) error {
		switch {
		case r.Seq == 0 || r.Seq > maxNumber:
			return corruptf("retained checkpoint %d", r.Seq)
		case seen[r.Seq]:
			return corruptf("retained checkpoint %d twice", r.Seq)
		case r.Time.IsZero():
			return corruptf("retained checkpoint %d has no time", r.Seq)
		}
		seen[r.Seq] = true
		return checkExpiry(r.Seq, r.Savepoint, r.ExpiresAfter)
	}
}

func checkEach[T any](list []T, check func(*T) error) error {
	for i := range list {
		if err := check(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// EncodeRetained returns a retained list as JSON, which may be stored in a
// segment.
func EncodeRetained(list []Retained) ([]byte, error) {
	if err := checkEach(list, retainedChecker()); err != nil {
		return nil, unreadable("list of retained checkpoints", err)
	}
	return marshal(list)
}

// DecodeRetained reads what EncodeRetained returned for m. It returns an error
// that wraps ErrCorrupt if it cannot vouch for it.
func (m *Manifest) DecodeRetained(data []byte) ([]Retained, error) {
	list, err := decodeList(data, m.retainedChecker())
	if err != nil && !errors.Is(err, ErrCorrupt) {
		err = corruptf("retained list: %w", err)
	}
	return list, err
}

// marshal is json.Marshal that leaves <, > and & readable.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
