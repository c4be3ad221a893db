package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/examples/internal/clicks"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Each partition is a subject of the stream, and a task of the job.
func subjectOf(stream string, partition int) string { return stream + "." + strconv.Itoa(partition) }

const taskPrefix = "clicks/"

func taskOf(partition int) string { return taskPrefix + strconv.Itoa(partition) }

func partitionOf(task string) (int, error) {
	p, err := strconv.Atoi(strings.TrimPrefix(task, taskPrefix))
	if err != nil {
		return 0, fmt.Errorf("%q is no partition of the clicks: %w", task, err)
	}
	return p, nil
}

// A producer sends clicks to the stream.
type producer struct {
	js     jetstream.JetStream
	stream string
	sent   []jetstream.PubAckFuture // what the broker has not acknowledged yet
}

// sendAtOnce bounds how many clicks are sent before the broker has acknowledged the first of
// them.
const sendAtOnce = 1000

// send sends a click, the ith. One that the broker gets twice, because its reply was lost,
// it stores once.
func (p *producer) send(ctx context.Context, i int, c clicks.Click) error {
	msg := nats.NewMsg(subjectOf(p.stream, c.Partition))
	msg.Data = []byte(c.Page)
	ack, err := p.js.PublishMsgAsync(msg, jetstream.WithMsgID(strconv.Itoa(i)))
	if err != nil {
		return fmt.Errorf("sending event %d: %w", i, err)
	}
	p.sent = append(p.sent, ack)
	if len(p.sent) < sendAtOnce {
		return nil
	}
	return p.flush(ctx)
}

// flush waits until the broker has acknowledged all that was sent.
func (p *producer) flush(ctx context.Context) error {
	for _, ack := range p.sent {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return fmt.Errorf("sending an event to %s: %w", ack.Msg().Subject, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	p.sent = p.sent[:0]
	return nil
}

// A reader reads a partition from a place in the stream on. What the broker has delivered to
// anyone before plays no part, and nothing is acknowledged. It does what an ordered consumer of
// package jetstream does, but each call ends with its context: an ordered consumer that begins
// anew while the connection breaks holds its caller up for 10 s, and a checkpoint with it.
type reader struct {
	js      jetstream.JetStream
	stream  string
	subject string
	next    uint64 // where to read on: a place in the stream
	log     *slog.Logger

	in   jetstream.MessagesContext // nil if it is to begin anew
	seen uint64                    // messages that in has delivered
}

// open begins to read at r.next.
func (r *reader) open(ctx context.Context) error {
	consumer, err := r.js.CreateConsumer(ctx, r.stream, jetstream.ConsumerConfig{
		FilterSubject:     r.subject,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       r.next,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		InactiveThreshold: time.Minute, // then the broker forgets a reader that was killed
	})
	if err != nil {
		return err
	}
	r.seen = 0
	r.in, err = consumer.Messages(jetstream.PullMaxMessages(1000))
	return err
}

// again is how long a reader waits before it begins anew.
const again = 250 * time.Millisecond

// read waits for the next event. It returns no event and no error if the caller is to try again:
// the broker was not there, or an event was lost on its way.
func (r *reader) read(ctx context.Context) (jetstream.Msg, *jetstream.MsgMetadata, error) {
	msg, at, err := r.receive(ctx)
	switch {
	case err == nil:
		r.seen, r.next = at.Sequence.Consumer, at.Sequence.Stream+1
		return msg, at, nil
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case stays(err):
		return nil, nil, fmt.Errorf("reading %s at %d: %w", r.subject, r.next, err)
	}
	r.log.Warn("reading an event has failed; the reader begins anew", "subject", r.subject, "at", r.next, "err", err)
	r.close()
	return nil, nil, wait(ctx, again)
}

// stays reports whether an error will be the same at the next attempt.
func stays(err error) bool {
	return slices.ContainsFunc([]error{
		jetstream.ErrStreamNotFound, jetstream.ErrJetStreamNotEnabledForAccount,
		nats.ErrAuthorization, nats.ErrPermissionViolation,
		nats.ErrConnectionClosed, // by this process: the client connects anew for ever
	}, func(e error) bool { return errors.Is(err, e) })
}

var errGap = errors.New("events were lost on their way")

func (r *reader) receive(ctx context.Context) (jetstream.Msg, *jetstream.MsgMetadata, error) {
	if r.in == nil {
		if err := r.open(ctx); err != nil {
			return nil, nil, err
		}
	}
	msg, err := r.in.Next(jetstream.NextContext(ctx))
	if err != nil {
		return nil, nil, err
	}
	at, err := msg.Metadata()
	if err == nil && at.Sequence.Consumer != r.seen+1 {
		err = errGap
	}
	return msg, at, err
}

func (r *reader) close() {
	if r.in != nil {
		r.in.Stop()
		r.in = nil
	}
}
