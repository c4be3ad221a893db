package format

import (
	"errors"
	"testing"
	"time"
)

var goldenProof = Proof{Task: "orders/7", Seq: 12, Time: time.Date(2026, 11, 22, 10, 0, 1, 0, time.UTC)}

func TestProof(t *testing.T) {
	p := goldenProof
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"holdfast":1,"task":"orders/7","seq":12,"time":"2026-11-22T10:00:01Z"`
	if got := string(data[:len(data)-sumLen]); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got, err := DecodeProof(data, "orders/7")
	if err != nil || *got != p {
		t.Errorf("%+v, %v; want %+v", got, err, p)
	}
	if _, err := DecodeProof(data, "orders/8"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another task's: %v, want ErrCorrupt", err)
	}
	damaged(t, data, func(data []byte) error { _, err := DecodeProof(data, "orders/7"); return err })
	for body, want := range map[string]error{
		`{"holdfast":2,"task":"orders/7"`:                                       ErrVersion,
		`{"holdfast":1,"task":"orders/7","seq":0,"time":"2026-11-22T10:00:01Z"`: ErrCorrupt,
		`{"holdfast":1,"task":"orders/7","seq":1`:                               ErrCorrupt,
		`{"holdfast":1,"task":"orders/7","seq":-1`:                              ErrCorrupt,
		`[1`: ErrCorrupt,
	} {
		if _, err := DecodeProof(seal([]byte(body)), "orders/7"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", body, err, want)
		}
	}
}

// damaged flips each byte of a record, and cuts it off there, which must be found.
func damaged(t *testing.T, data []byte, decode func([]byte) error) {
	t.Helper()
	for i := range data {
		data[i] ^= 1
		if err := decode(data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("with byte %d flipped: %v, want ErrCorrupt", i, err)
		}
		if err := decode(data[:i]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v, want ErrCorrupt", i, err)
		}
		data[i] ^= 1
	}
}

func FuzzDecodeProof(f *testing.F) {
	p := goldenProof
	data, err := p.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:len(data)-sumLen])
	f.Fuzz(func(t *testing.T, body []byte) {
		data := seal(body) // otherwise the sum would refuse it all
		var err error
		bounded(t, len(data), func() { _, err = DecodeProof(data, "orders/7") })
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Errorf("err = %v", err)
		}
	})
}
