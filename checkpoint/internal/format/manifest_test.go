package format

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// seal returns body, a manifest without its end, as one whose sum is right.
func seal(body []byte) []byte {
	return fmt.Appendf(bytes.Clone(body), ",\"sum\":\"%s\"}\n", Sum(body))
}

// body returns an encoded manifest without its end.
func body(t testing.TB, m *Manifest) []byte {
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data[:len(data)-sumLen]
}

// forge returns a manifest in which old is replaced by new, with a sum that is
// right.
func forge(t *testing.T, m *Manifest, old, new string) []byte {
	t.Helper()
	b := body(t, m)
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s is not in %s", old, b)
	}
	return seal(bytes.Replace(b, []byte(old), []byte(new), 1))
}

func TestEveryFlippedBitOfAManifestIsFound(t *testing.T) {
	m := goldenManifests["commit-segments"]
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		for bit := range 8 {
			data[i] ^= 1 << bit
			if _, err := DecodeManifest(data, m.Task, m.Seq); !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
				t.Fatalf("bit %d of byte %d flipped: %v, want ErrCorrupt", bit, i, err)
			}
			data[i] ^= 1 << bit
		}
	}
	if _, err := DecodeManifest(data, m.Task, m.Seq); err != nil {
		t.Fatalf("with every bit back in its place: %v", err)
	}
}

func TestEveryTruncationOfAManifestIsFound(t *testing.T) {
	m := goldenManifests["commit-segments"]
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if _, err := DecodeManifest(data[:n], m.Task, m.Seq); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v, want ErrCorrupt", n, err)
		}
	}
	if _, err := DecodeManifest(append(data, '\n'), m.Task, m.Seq); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with a byte more: %v, want ErrCorrupt", err)
	}
}

func TestNewerVersionIsToldFromDamage(t *testing.T) {
	m := goldenManifests["commit-segments"]
	for _, v := range []struct {
		name, version string
		want          error
	}{
		{"newer", `"holdfast":2,"surprise":[{}]`, ErrVersion},
		{"much newer", `"holdfast":2000000000`, ErrVersion},
		{"zero", `"holdfast":0`, ErrCorrupt},
		{"negative", `"holdfast":-1`, ErrCorrupt},
		{"no number", `"holdfast":"2"`, ErrCorrupt},
		{"none", `"other":2`, ErrCorrupt},
	} {
		t.Run(v.name, func(t *testing.T) {
			data := forge(t, m, `"holdfast":1`, v.version)
			if _, err := DecodeManifest(data, m.Task, m.Seq); !errors.Is(err, v.want) {
				t.Errorf("err = %v, want %v", err, v.want)
			}
			damaged := bytes.Replace(data, []byte("commit"), []byte("Commit"), 1)
			if _, err := DecodeManifest(damaged, m.Task, m.Seq); !errors.Is(err, ErrCorrupt) {
				t.Errorf("damaged: err = %v, want ErrCorrupt", err)
			}
		})
	}
}

func TestManifestOfAnotherTaskOrNumberIsRefused(t *testing.T) {
	m := goldenManifests["commit-segments"]
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		task string
		seq  uint64
	}{{"Partition 4", m.Seq}, {m.Task, m.Seq + 1}, {m.Task, m.Seq - 1}, {"", 0}} {
		if _, err := DecodeManifest(data, c.task, c.seq); !errors.Is(err, ErrCorrupt) {
			t.Errorf("as number %d of %q: %v, want ErrCorrupt", c.seq, c.task, err)
		}
	}
}

// What the engine relies on is refused although the sum is right: a manifest
// may come from a writer that is in error, or hostile.
func TestManifestThatCannotBeReliedOnIsRefused(t *testing.T) {
	segment := `{"segment":"0000010000000000-b7bc5184e1063c22-00000009","offset":0,"size":40000`
	for _, c := range []struct{ name, golden, old, new string }{
		{"kind unknown", "claim", `"kind":"claim"`, `"kind":"clam"`},
		{"commit without its checkpoint", "claim", `"kind":"claim"`, `"kind":"commit"`},
		{"deletion with a checkpoint", "claim", `"kind":"claim"`, `"kind":"deleted"`},
		{"no epoch", "claim-first", `"epoch":1`, `"epoch":0`},
		{"negative epoch", "claim-first", `"epoch":1`, `"epoch":-1`},
		{"epoch too large", "claim-first", `"epoch":1`, `"epoch":18446744073709551616`},
		{"epoch near the end", "claim-first", `"epoch":1`, `"epoch":18446744073709551615`},
		{"epoch 2^63", "claim-first", `"epoch":1`, `"epoch":9223372036854775808`},
		{"writer too short", "claim-first", `"writer":"9f`, `"writer":"`},
		{"token no hex", "claim-first", `"token":"01`, `"token":"zz`},
		{"checkpoint from the future", "claim", `"checkpoint":{"seq":12`, `"checkpoint":{"seq":15`},
		{"checkpoint number 0", "claim", `"checkpoint":{"seq":12`, `"checkpoint":{"seq":0`},
		{"checkpoint of a later epoch", "claim", `"seq":12,"epoch":3`, `"seq":12,"epoch":5`},
		{"checkpoint of no epoch", "claim", `"seq":12,"epoch":3`, `"seq":12,"epoch":0`},
		{"checkpoint without time", "claim", `"time":"2026-11-22T10:00:01.123456789Z",`, ``},
		{"time that is none", "claim", `"time":"2026-11-22T10`, `"time":"2026-11-22T25`},
		{"negative files", "claim", `"files":2`, `"files":-2`},
		{"negative bytes", "claim", `"bytes":73400320`, `"bytes":-1`},
		{"negative new bytes", "claim", `"new_bytes":73400913`, `"new_bytes":-1`},
		{"neither content", "commit-inline", `"content":`, `"malcontent":`},
		{"both contents", "commit-spilled", `"content_at":`, `"content":{},"content_at":`},
		{"spilled nowhere", "commit-spilled", segment, `{"offset":0,"size":40000`},
		{"spilled at a negative offset", "commit-spilled", `"offset":0,`, `"offset":-1,`},
		{"spilled past any segment", "commit-spilled", `"offset":0,`, `"offset":67108864,`},
		{"spilled in no bytes", "commit-spilled", `"size":40000`, `"size":0`},
		{"spilled in negative bytes", "commit-spilled", `"size":40000`, `"size":-40000`},
		{"spilled in endless bytes", "commit-spilled", `"size":40000`, `"size":4000000000000`},
		{"spilled in too many stored bytes", "commit-spilled", `"size":40000`, `"size":40000,"stored":40001`},
		{"spilled in an unknown encoding", "commit-spilled", `"size":40000`, `"size":40000,"stored":10,"encoding":2`},
		{"spilled in a negative encoding", "commit-spilled", `"size":40000`, `"size":40000,"stored":10,"encoding":-1`},
		{"spilled, compressed to nothing", "commit-spilled", `"size":40000`, `"size":40000,"encoding":1`},
		{"spilled, compressed to as much", "commit-spilled", `"size":40000`, `"size":40000,"stored":40000,"encoding":1`},
		{"spilled, stored in fewer bytes as it is", "commit-spilled", `"size":40000`, `"size":40000,"stored":10`},
		{"spilled in a segment of epoch 2^63", "commit-spilled", `"segment":"0`, `"segment":"8`},
		{"spilled without hash", "commit-spilled", `"hash":"3f`, `"hash":"`},
		{"segment without name", "claim", `"id":"0000000000000003-9f2c61d0a8b3e457-00000004"`, `"id":""`},
		{"segment of epoch 2^63", "claim", `"id":"0`, `"id":"8`},
		{"segment with a strange name", "claim", `"id":"0`, `"id":"/`},
		{"retained from the future", "commit-segments", `"retained":[{"seq":11`, `"retained":[{"seq":13`},
		{"retained is the manifest itself", "claim", `"retained":[{"seq":11`, `"retained":[{"seq":14`},
		{"retained twice", "commit-segments", `"retained":[{"seq":11`, `"retained":[{"seq":4`},
		{"retained is the checkpoint", "claim", `"retained":[{"seq":11`, `"retained":[{"seq":12`},
		{"retained number 0", "commit-segments", `{"seq":4,`, `{"seq":0,`},
		{"retained without time", "claim", `"retained":[{"seq":11,"time":"2026-11-22T10:00:00.123456789Z"`, `"retained":[{"seq":11`},
		{"expired before it was made", "savepoint-expiring", `"expires_after":86400`, `"expires_after":-1`},
		{"expires beyond all time", "savepoint-expiring", `"expires_after":86400`, `"expires_after":9223372037`},
		{"expires without a name", "savepoint-expiring", `"savepoint":"tonight",`, ``},
		{"retained expires before it was made", "savepoint-expiring", `"expires_after":9223372036`, `"expires_after":-1`},
		{"retained expires without a name", "savepoint-expiring", `"savepoint":"for long",`, ``},
		{"retained by nothing", "claim-first", `"kind"`, `"retained":[{"seq":0,"time":"2026-11-22T10:00:00Z"}],"kind"`},
		{"no JSON", "claim", `"kind":`, `"kind"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := goldenManifests[c.golden]
			_, err := DecodeManifest(forge(t, m, c.old, c.new), m.Task, m.Seq)
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("err = %v, want ErrCorrupt", err)
			}
		})
	}
}

// Numbers end at 2^63-1, for who reads and for who writes: one step later there
// would be no manifest that anyone could read.
func TestNumbersEnd(t *testing.T) {
	for _, c := range []struct {
		seq uint64
		ok  bool
	}{{1 << 62, true}, {1<<63 - 1, true}, {1 << 63, false}, {1<<64 - 1, false}} {
		first := *goldenManifests["claim-first"]
		number := fmt.Sprintf(`"seq":%d`, c.seq)
		read := forge(t, &first, `"seq":1`, number)
		if _, err := DecodeManifest(read, first.Task, c.seq); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("manifest %d is read: %v", c.seq, err)
		}
		first.Seq = c.seq
		wantWritten(t, fmt.Sprintf("manifest %d", c.seq), c.ok)(first.Encode())
		first.Seq, first.Epoch = 1, c.seq
		wantWritten(t, fmt.Sprintf("epoch %d", c.seq), c.ok)(first.Encode())
		wantWritten(t, fmt.Sprintf("list of %d", c.seq), c.ok)(EncodeRetained([]Retained{{Seq: c.seq, Time: moment}}))
		segments := []Segment{{ID: SegmentID{Epoch: c.seq}, Size: 1}}
		wantWritten(t, fmt.Sprintf("segment of epoch %d", c.seq), c.ok)(EncodeContent(&Content{Segments: segments}))
		wantWritten(t, fmt.Sprintf("proof of %d", c.seq), c.ok)((&Proof{Task: "t", Seq: c.seq, Time: moment}).Encode())
	}
}

func wantWritten(t *testing.T, what string, ok bool) func([]byte, error) {
	return func(data []byte, err error) {
		t.Helper()
		if (err == nil) != ok || errors.Is(err, ErrCorrupt) || (data != nil) != ok {
			t.Errorf("%s is written: %.100s, %v", what, data, err)
		}
	}
}

// What a reader refuses, a writer does not write.
func TestWhatIsWrittenCanBeRead(t *testing.T) {
	spoil := map[string]func(*Manifest, *Checkpoint){
		"no epoch":                func(m *Manifest, _ *Checkpoint) { m.Epoch = 0 },
		"no number":               func(m *Manifest, _ *Checkpoint) { m.Seq = 0 },
		"another's checkpoint":    func(_ *Manifest, c *Checkpoint) { c.Seq++ },
		"a later epoch":           func(m *Manifest, c *Checkpoint) { c.Epoch = m.Epoch + 1 },
		"no content":              func(_ *Manifest, c *Checkpoint) { c.Content = nil },
		"a list that names it":    func(m *Manifest, c *Checkpoint) { m.Retained = []Retained{{Seq: c.Seq, Time: moment}} },
		"a list with a later one": func(m *Manifest, _ *Checkpoint) { m.Retained = []Retained{{Seq: m.Seq + 1, Time: moment}} },
		"a segment twice": func(_ *Manifest, c *Checkpoint) {
			c.Content.Segments = append(c.Content.Segments, c.Content.Segments[0])
		},
		"files past the segment's end": func(_ *Manifest, c *Checkpoint) {
			c.Content.TreeAt = []Chunk{chunkOf(c.Content.Segments[0].ID, c.Content.Segments[0].Size, "x")}
		},
	}
	for name, f := range spoil {
		m := *goldenManifests["commit-segments"]
		c, content := *m.Checkpoint, *m.Checkpoint.Content
		m.Checkpoint, c.Content = &c, &content
		wantWritten(t, "what is whole", true)(m.Encode())
		f(&m, &c)
		wantWritten(t, name, false)(m.Encode())
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	m := goldenManifests["commit-segments"]
	data := forge(t, m, `"checkpoint":{`, `"novelty":{"a":[1]},"checkpoint":{"b":null,`)
	got, err := DecodeManifest(data, m.Task, m.Seq)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, got, m)
}

func TestManifestThatIsTooLargeIsNotWritten(t *testing.T) {
	m := *goldenManifests["commit-inline"]
	c := *m.Checkpoint
	c.Content = &Content{Inline: make([]byte, MaxManifest)}
	m.Checkpoint = &c
	if _, err := m.Encode(); err == nil {
		t.Error("a manifest that no reader takes was encoded")
	}
	if _, err := DecodeManifest(seal(bytes.Repeat([]byte(" "), MaxManifest)), m.Task, m.Seq); !errors.Is(err, ErrCorrupt) {
		t.Errorf("decoded: %v, want ErrCorrupt", err)
	}
}

// The three parts that grow, each as large as it may be, fit into a manifest
// together with the longest names.
func TestLargestPartsFitIntoAManifest(t *testing.T) {
	m := &Manifest{
		Kind: KindCommit, Task: strings.Repeat("x", 200), Seq: maxNumber, Epoch: maxNumber, Released: true,
		Checkpoint: &Checkpoint{
			Seq: maxNumber, Epoch: maxNumber, Time: time.Now(), Savepoint: strings.Repeat("\u2028", 128/3),
			Files: 1 << 62, Bytes: 1 << 62, NewBytes: 1 << 62,
			Content: &Content{Inline: make([]byte, MaxPart), Labels: map[string]string{"l": ""}},
		},
	}
	size := func(v any) int {
		data, err := marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return len(data)
	}
	bare := *m.Checkpoint.Content
	bare.Inline = nil
	m.Checkpoint.Content.Labels["l"] = strings.Repeat("x", MaxPart-size(bare))
	for seq := uint64(1 << 62); size(m.Retained) < MaxPart-100; seq-- {
		m.Retained = append(m.Retained, Retained{Seq: seq, Time: time.Now()})
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeManifest(data, m.Task, m.Seq); err != nil {
		t.Error(err)
	}
}
