package format

import (
	"errors"
	"testing"
	"time"
)

var goldenHeartbeat = Heartbeat{Task: "orders/7", Epoch: 3, Writer: writerA, N: 12, Time: time.Date(2026, 11, 22, 10, 0, 1, 0, time.UTC)}

func TestHeartbeat(t *testing.T) {
	h := goldenHeartbeat
	data, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"holdfast":1,"task":"orders/7","epoch":3,"writer":"9f2c61d0a8b3e457","n":12,"time":"2026-11-22T10:00:01Z"`
	if got := string(data[:len(data)-sumLen]); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got, err := DecodeHeartbeat(data, "orders/7")
	if err != nil || *got != h {
		t.Errorf("%+v, %v; want %+v", got, err, h)
	}
	if _, err := DecodeHeartbeat(data, "orders/8"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another task's: %v, want ErrCorrupt", err)
	}
	damaged(t, data, func(data []byte) error { _, err := DecodeHeartbeat(data, "orders/7"); return err })
	for body, want := range map[string]error{
		`{"holdfast":2,"task":"orders/7"`: ErrVersion,
		`{"holdfast":1,"task":"orders/7","epoch":0,"writer":"9f2c61d0a8b3e457","n":12,"time":"2026-11-22T10:00:01Z"`: ErrCorrupt,
		`{"holdfast":1,"task":"orders/7","epoch":3,"writer":"9f2c61d0a8b3e457","n":0,"time":"2026-11-22T10:00:01Z"`:  ErrCorrupt,
		`{"holdfast":1,"task":"orders/7","epoch":3,"writer":"9f2c","n":12,"time":"2026-11-22T10:00:01Z"`:             ErrCorrupt,
		`{"holdfast":1,"task":"orders/7","epoch":3,"writer":"9f2c61d0a8b3e457","n":12`:                               ErrCorrupt,
		`[1`: ErrCorrupt,
	} {
		if _, err := DecodeHeartbeat(seal([]byte(body)), "orders/7"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", body, err, want)
		}
	}
	if _, err := (&Heartbeat{Task: "orders/7"}).Encode(); err == nil {
		t.Error("a heartbeat that nobody could read was written")
	}
}

func FuzzDecodeHeartbeat(f *testing.F) {
	h := goldenHeartbeat
	data, err := h.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:len(data)-sumLen])
	f.Fuzz(func(t *testing.T, body []byte) {
		data := seal(body) // otherwise the sum would refuse it all
		var err error
		bounded(t, len(data), func() { _, err = DecodeHeartbeat(data, "orders/7") })
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Errorf("err = %v", err)
		}
	})
}
