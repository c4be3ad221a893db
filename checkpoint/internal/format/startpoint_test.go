package format

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var goldenStartpoint = Startpoint{Task: "orders/7", Partition: "orders/7", At: "offset", Offset: "4711", SetBy: "ops"}

func TestStartpoint(t *testing.T) {
	s := goldenStartpoint
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"holdfast":1,"task":"orders/7","partition":"orders/7","at":"offset","offset":"4711","set_by":"ops"`
	if got := string(data[:len(data)-sumLen]); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got, err := DecodeStartpoint(data, "orders/7")
	if err != nil || *got != s {
		t.Errorf("%+v, %v; want %+v", got, err, s)
	}
	if _, err := DecodeStartpoint(data, "orders/8"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another task's: %v, want ErrCorrupt", err)
	}
	damaged(t, data, func(data []byte) error { _, err := DecodeStartpoint(data, "orders/7"); return err })
	for body, want := range map[string]error{
		`{"holdfast":2,"task":"orders/7"`:                                            ErrVersion,
		`{"holdfast":1,"task":"orders/7","partition":"a","at":"oldest"`:              nil,
		`{"holdfast":1,"task":"orders/7","partition":"a","at":"oldest","x":1`:        nil,
		`{"holdfast":1,"task":"orders/7","partition":"a","at":"middle"`:              ErrCorrupt,
		`{"holdfast":1,"task":"orders/7","partition":"a","at":"time"`:                ErrCorrupt,
		`{"holdfast":1,"task":"orders/7","partition":"a","at":"newest","offset":"1"`: ErrCorrupt,
		`[1`: ErrCorrupt,
	} {
		if _, err := DecodeStartpoint(seal([]byte(body)), "orders/7"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", body, err, want)
		}
	}
	for name, s := range map[string]Startpoint{
		"at nothing": {Task: "orders/7", Partition: "a"},
		"too large":  {Task: "orders/7", Partition: strings.Repeat("a", MaxRecord), At: "oldest"},
	} {
		if _, err := s.Encode(); err == nil {
			t.Errorf("%s: a startpoint that nobody could read was written", name)
		}
	}
	at := Startpoint{Task: "orders/7", Partition: "a", At: "time", Time: time.Date(2026, 11, 22, 10, 0, 1, 0, time.UTC)}
	if data, err = at.Encode(); err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeStartpoint(data, "orders/7"); err != nil || !got.Time.Equal(at.Time) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestStartpointIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := StartpointID{rapid.Uint64Range(1, maxNumber).Draw(t, "n"), rapid.Uint64().Draw(t, "random")}
		if back, ok := ParseStartpointKey("t_2f1", StartpointKey("t_2f1", id)); back != id || !ok {
			t.Errorf("%s is read back as %s, %v", id, back, ok)
		}
		if next := StartpointAfter(id.N - 1); next.N != id.N {
			t.Errorf("%d comes after %d", next.N, id.N-1)
		}
	})
	for _, key := range []string{
		"", "t/startpoints/", "t/startpoints/0000000000000000-0000000000000001", "t/startpoints/8000000000000000-0000000000000001",
		"t/startpoints/0000000000000001_0000000000000001", "t/startpoints/0000000000000001-000000000000000A",
		"t/startpoints/+000000000000001-0000000000000001", "u/startpoints/0000000000000001-0000000000000001",
	} {
		if id, ok := ParseStartpointKey("t", key); ok {
			t.Errorf("%q is the key of startpoint %s", key, id)
		}
	}
}

func FuzzDecodeStartpoint(f *testing.F) {
	s := goldenStartpoint
	data, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:len(data)-sumLen])
	f.Fuzz(func(t *testing.T, body []byte) {
		data := seal(body) // otherwise the sum would refuse it all
		var err error
		bounded(t, len(data), func() { _, err = DecodeStartpoint(data, "orders/7") })
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Errorf("err = %v", err)
		}
	})
}
