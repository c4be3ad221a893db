package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/holdfast-io/holdfast/examples/internal/clicks"
)

// A reader gives each event once and in order, though events are lost on their way and the broker
// forgets it; and it never keeps its caller waiting, though the broker is gone.
func TestReaderGoesOn(t *testing.T) {
	ctx := t.Context()
	o := &options{dir: t.TempDir(), name: "test", partitions: 1, expiry: 4 * time.Second}
	b, err := o.openBroker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.close(ctx) }() // what goes wrong here is not what is tested
	const n = 1000
	var want []string
	p := &producer{js: b.js, stream: b.stream}
	for i, c := range clicks.All(7, n, 1) {
		want = append(want, c.Page)
		if err := p.send(ctx, i, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.flush(ctx); err != nil {
		t.Fatal(err)
	}
	r := &reader{js: b.js, stream: b.stream, subject: subjectOf(b.stream, 0), next: 1, log: slog.New(slog.DiscardHandler)}
	defer r.close()
	for i := 0; i < n; {
		msg, _, err := r.read(ctx)
		switch {
		case err != nil:
			t.Fatal(err)
		case msg == nil:
			continue // it begins anew
		case string(msg.Data()) != want[i]:
			t.Fatalf("event %d is %s; want %s", i, msg.Data(), want[i])
		}
		i++
		switch {
		case i%400 == 200:
			r.seen-- // as if the next one but one came
			if msg, _, err := r.read(ctx); msg != nil || err != nil {
				t.Fatalf("an event is missing: %v, %v; want neither an event nor an error", msg, err)
			}
		case i == 400 || i == 999:
			forget(t, b)
		}
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
	for range 2 { // the second time it begins anew
		began := time.Now()
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		msg, _, _ := r.read(short)
		cancel()
		if took := time.Since(began); msg != nil || took > 2*time.Second {
			t.Errorf("a read of a broker that is gone took %v; want 100 ms", took)
		}
		r.close()
	}
}

// forget makes the broker forget all readers.
func forget(t *testing.T, b *broker) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), b.stream)
	if err != nil {
		t.Fatal(err)
	}
	for name := range s.ConsumerNames(t.Context()).Name() {
		if err := s.DeleteConsumer(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// A reader goes on after what passes, and fails with what does not.
func TestReaderFails(t *testing.T) {
	o := &options{dir: t.TempDir(), name: "test", partitions: 1, expiry: 4 * time.Second}
	b, err := o.openBroker(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.close(context.Background()) }()
	r := &reader{js: b.js, stream: b.stream, subject: subjectOf(b.stream, 0), next: 1, log: slog.New(slog.DiscardHandler)}
	defer r.close()
	b.conn.Close()
	if _, _, err := r.read(t.Context()); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("%v; want %v", err, nats.ErrConnectionClosed)
	}
	for _, err := range []error{errGap, nats.ErrTimeout, jetstream.ErrConsumerNotFound, jetstream.ErrNoHeartbeat} {
		if stays(err) {
			t.Errorf("%v does not pass", err)
		}
	}
}
