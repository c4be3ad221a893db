package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// reconnectWait is how long a worker waits before it connects anew.
const reconnectWait = time.Second

// A broker has the stream, and the bucket with the leases.
type broker struct {
	url    string
	stream string // its name, and that of the bucket
	js     jetstream.JetStream
	conn   *nats.Conn
	server *server.Server // nil if it is not ours
}

// openBroker connects to the broker, or starts one, and makes the stream and the bucket.
func (o *options) openBroker(ctx context.Context) (_ *broker, err error) {
	b := &broker{url: o.broker, stream: "holdfast-stream-" + o.name}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close(ctx))
		}
	}()
	if b.url == "" {
		if err := b.serve(filepath.Join(o.dir, "broker"), o.expiry); err != nil {
			return nil, err
		}
	}
	if b.conn, err = nats.Connect(b.url, nats.MaxReconnects(-1), nats.Name("stream")); err != nil {
		return nil, fmt.Errorf("connecting to NATS at %s: %w", b.url, err)
	}
	if b.js, err = jetstream.New(b.conn, jetstream.WithPublishAsyncMaxPending(2*sendAtOnce)); err != nil {
		return nil, err
	}
	if _, err = b.js.CreateStream(ctx, jetstream.StreamConfig{Name: b.stream, Subjects: []string{b.stream + ".*"}}); err != nil {
		return nil, fmt.Errorf("making the stream: %w", err)
	}
	if _, err = b.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: b.stream}); err != nil {
		return nil, fmt.Errorf("making the bucket of the leases: %w", err)
	}
	return b, nil
}

// serve starts a broker in this process. It drops a client that does not answer well before
// the client's leases expire, as a broker in production would be set up to do: so a worker that
// was paused does not find the news of its leases in its connection when it goes on.
func (b *broker) serve(dir string, expiry time.Duration) (err error) {
	b.server, err = server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
		PingInterval: expiry / 5, MaxPingsOut: 1,
	})
	if err != nil {
		return err
	}
	b.server.Start()
	if !b.server.ReadyForConnections(time.Minute) {
		return errors.New("the broker does not start within a minute")
	}
	b.url = b.server.ClientURL()
	return nil
}

// last returns the last event's place in the stream, by partition; 0 for one without events.
func (b *broker) last(ctx context.Context, partitions int) ([]uint64, error) {
	s, err := b.js.Stream(ctx, b.stream)
	if err != nil {
		return nil, err
	}
	last := make([]uint64, partitions)
	for p := range last {
		msg, err := s.GetLastMsgForSubject(ctx, subjectOf(b.stream, p))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
		case err != nil:
			return nil, err
		default:
			last[p] = msg.Sequence
		}
	}
	return last, nil
}

// close removes what the run has made in the broker, and ends it if it is ours: also
// when ctx has ended.
func (b *broker) close(ctx context.Context) (err error) {
	if b.server == nil && b.js != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(b.js.DeleteStream(ctx, b.stream), b.js.DeleteKeyValue(ctx, b.stream))
	}
	if b.conn != nil {
		b.conn.Close()
	}
	if b.server != nil {
		b.server.Shutdown()
		b.server.WaitForShutdown()
	}
	return err
}
