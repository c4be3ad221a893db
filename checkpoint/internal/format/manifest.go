package format

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"
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

// maxNumber bounds the numbers of manifests and epochs. Each manifest adds one to them, so
// no number comes near the bound unless a writer is faulty or hostile; and after 2^64-1
// the next number would be 0. A signed integer of 64 bits, which is all that many
// languages have, can hold every number up to it.
const maxNumber = 1<<63 - 1

// MaxWrittenBy bounds what a writer says of itself, in bytes.
const MaxWrittenBy = 256

// Kind says what a manifest is for.
type Kind string

// The kinds of manifest.
const (
	KindClaim   Kind = "claim"   // a writer took the task over; the checkpoint is its base's
	KindCommit  Kind = "commit"  // a new checkpoint
	KindRelease Kind = "release" // a writer gave the task up; the checkpoint is its base's
	KindAmend   Kind = "amend"   // by anyone: other names, or fewer other checkpoints; the writer goes on
	KindDeleted Kind = "deleted" // the task was deleted; there is no checkpoint
)

var kinds = []Kind{KindClaim, KindCommit, KindRelease, KindAmend, KindDeleted}

// A Manifest is one entry of a task's history. It describes the task completely: its
// current checkpoint, and which others exist. Creating it is the commit.
type Manifest struct {
	Version int      `json:"holdfast"`
	Kind    Kind     `json:"kind"`
	Task    string   `json:"task"`
	Seq     uint64   `json:"seq"`    // its number, from 1
	Epoch   uint64   `json:"epoch"`  // grows by one with each writer
	Writer  WriterID `json:"writer"` // who made it

	// WrittenBy is what the writer says of itself, for people: nothing depends on it. (An
	// amendment repeats what the task's writer said.)
	WrittenBy string `json:"written_by,omitempty"`

	Token Token `json:"token"` // this attempt to make it, and no other

	// Base is the manifest that this one follows; nil if it is the first.
	Base *Base `json:"base,omitempty"`

	// Released says that its writer will make no further manifest. A claim may be
	// released at once: a rollback, for example, needs only one manifest.
	Released bool `json:"released,omitempty"`

	// Checkpoint is the current checkpoint, nil when there is none.
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`

	// Retained lists the other checkpoints that exist, ordered by when each was
	// last the current one, latest first. After a rollback, the checkpoints that came
	// after the current one are first in the list, so their numbers need not descend.
	// When the list is large, its end lies in pieces, and RetainedAt is the chunk that has
	// the index of these. Edits says what has changed in the pieces since.
	Retained   []Retained `json:"retained,omitempty"`
	RetainedAt *Chunk     `json:"retained_at,omitempty"`
	Edits      Edits      `json:"edits,omitzero"`

	// Held says which checkpoints must be kept for forks of this task. Source says from
	// which task this one was forked, if it still needs that one's segments.
	Held   Holds   `json:"held,omitempty"`
	Source *Source `json:"source,omitempty"`

	// Pieces are what RetainedAt has: whoever reads or writes the index sets them. They are
	// not in the manifest's bytes.
	Pieces []Piece `json:"-"`
}

// Who names m's writer to people.
func (m *Manifest) Who() string {
	if m.WrittenBy == "" {
		return fmt.Sprintf("writer %s", m.Writer)
	}
	return fmt.Sprintf("writer %s (%s)", m.Writer, m.WrittenBy)
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

	// Time is when manifest Seq was made, by the store's clock. That manifest itself
	// does not have it: there it is the time of the object.
	Time time.Time `json:"time,omitzero"`

	// WrittenBy is what manifest Seq says of its writer. That manifest itself says it only
	// once, for the writer.
	WrittenBy string `json:"written_by,omitempty"`

	CountsFrom time.Time `json:"counts_from,omitzero"` // see [Retained]

	Savepoint    string `json:"savepoint,omitempty"`
	ExpiresAfter int64  `json:"expires_after,omitempty"` // likewise
	Note         Note   `json:"note,omitzero"`           // likewise
	Files        int    `json:"files"`                   // regular files
	Bytes        int64  `json:"bytes"`                   // in them
	NewBytes     int64  `json:"new_bytes"`               // stored for this checkpoint

	// Foreign says that the checkpoint needs segments of other tasks: it is a fork, or has
	// data in common with one. Of is set in the first checkpoint of a fork, which repeats
	// a checkpoint of another task: the content, and its segments that do not say whose
	// they are, are task Of's.
	Foreign bool   `json:"foreign,omitempty"`
	Of      string `json:"of,omitempty"`

	// Content is set, or, if it is large, ContentAt: the chunk that has it, as a JSON
	// object.
	Content   *Content `json:"content,omitempty"`
	ContentAt *Chunk   `json:"content_at,omitempty"`
}

// Retained names a checkpoint that still exists. Its manifest says the rest.
type Retained struct {
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"` // as in Checkpoint
	Savepoint string    `json:"savepoint,omitempty"`

	// ExpiresAfter is for how many seconds retention must not drop a savepoint. Zero is
	// for ever.
	ExpiresAfter int64 `json:"expires_after,omitempty"`

	// CountsFrom stands for Time in what retention decides, if Time has turned out
	// to be wrong. Zero if it has not.
	CountsFrom time.Time `json:"counts_from,omitzero"`

	Note Note `json:"note,omitzero"`

	Foreign bool `json:"foreign,omitempty"` // as in Checkpoint
}

// From returns the time from which the checkpoint's age counts.
func (r Retained) From() time.Time {
	if r.CountsFrom.IsZero() {
		return r.Time
	}
	return r.CountsFrom
}

// Expires returns the time from which on retention may drop a savepoint, or zero if it
// never expires.
func (r Retained) Expires() time.Time {
	if r.ExpiresAfter == 0 {
		return time.Time{}
	}
	return r.From().Add(time.Duration(r.ExpiresAfter) * time.Second)
}

// Retained returns how c, which has a time, is listed once it is not the
// current checkpoint any more.
func (c *Checkpoint) Retained() Retained {
	return Retained{Seq: c.Seq, Time: c.Time, Savepoint: c.Savepoint, ExpiresAfter: c.ExpiresAfter, CountsFrom: c.CountsFrom, Note: c.Note, Foreign: c.Foreign}
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

// Segments returns all segments of m's own task that m's checkpoint needs; content is its
// content, nil if there is none. The list of the others is not among them, because only that
// of the newest manifest is ever needed: see ListSegments.
func (m *Manifest) Segments(content *Content) []SegmentID {
	var ids []SegmentID
	if content != nil {
		for _, s := range content.Segments {
			if s.Task == "" {
				ids = append(ids, s.ID)
			}
		}
	}
	if c := m.Checkpoint; c != nil && c.ContentAt != nil && c.Of == "" {
		ids = append(ids, c.ContentAt.Segment)
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
// the hash of all the bytes before that field. That is so in every version of the format,
// so that a reader can tell a damaged manifest from one of a newer version. Encode refuses
// what DecodeManifest would refuse: a manifest that nobody can read would stop all
// writers.
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
	if most := m.maxSize(); len(data) > most {
		return nil, fmt.Errorf("manifest of %d bytes, more than %d", len(data), most)
	}
	return data, nil
}

// maxSize returns how many bytes m may take. A claim or a release repeats an amendment,
// and its writer says more of itself: it must fit, or nobody could claim the task.
func (m *Manifest) maxSize() int {
	if m.Kind == KindAmend {
		return MaxManifest - 4<<10
	}
	return MaxManifest
}

// unreadable is the error for something that cannot be encoded because no decoder would
// accept it. It is not an ErrCorrupt, which is about what the store holds.
func unreadable(what string, err error) error {
	return fmt.Errorf("%s that could not be read, and is not written: %s", what, err.Error())
}

// appendSum makes the sum of a JSON object its last field.
func appendSum(object []byte) []byte {
	data := object[:len(object)-1] // the closing brace
	return fmt.Appendf(data, ",\"sum\":\"%s\"}\n", Sum(data))
}

// DecodeManifest decodes the bytes of manifest number seq of a task. It checks them
// completely. Its error wraps ErrCorrupt or ErrVersion.
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

// check checks everything that the engine relies on.
func (m *Manifest) check(task string, seq uint64) error {
	c := m.Checkpoint
	switch {
	case m.Version != Version:
		return corruptf("format %d", m.Version)
	case m.Task != task || m.Seq != seq:
		return corruptf("it is number %d of task %q; expected number %d of %q", m.Seq, m.Task, seq, task)
	case m.Epoch == 0:
		return corruptf("it has no epoch")
	case !validWriter(m.WrittenBy) || c != nil && !validWriter(c.WrittenBy):
		return corruptf("what it says of its writer is more than %d bytes, or no text", MaxWrittenBy)
	case m.Seq > maxNumber || m.Epoch > maxNumber:
		return corruptf("it is number %d, of epoch %d; both end at %d", m.Seq, m.Epoch, uint64(maxNumber))
	case m.Kind == KindCommit && (c == nil || c.Seq != seq):
		return corruptf("a commit without its checkpoint")
	case m.Kind == KindDeleted && c != nil:
		return corruptf("a deletion with a checkpoint")
	case !slices.Contains(kinds, m.Kind):
		return corruptf("unknown kind %q", m.Kind)
	case c == nil && (m.Retained != nil || m.RetainedAt != nil):
		return corruptf("earlier checkpoints, and no newest one")
	}
	if err := cmp.Or(m.checkAmendment(), m.checkForks()); err != nil || c == nil {
		return err
	}
	for _, at := range m.Spilled() {
		if err := at.checkSpilled(); err != nil {
			return err
		}
	}
	if err := cmp.Or(c.check(m), c.checkForeign(m)); err != nil {
		return err
	}
	if err := m.checkEdits(); err != nil {
		return err
	}
	return m.checkRetained(m.Retained)
}

func validWriter(s string) bool { return len(s) <= MaxWrittenBy && utf8.ValidString(s) }

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
	if err := cmp.Or(checkExpiry(c.Seq, c.Savepoint, c.ExpiresAfter), c.Note.check(c.Seq)); err != nil || c.Content == nil {
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
		return cmp.Or(checkExpiry(r.Seq, r.Savepoint, r.ExpiresAfter), r.Note.check(r.Seq))
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
