package main

import (
	"context"
	"fmt"
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

// read returns the events of a partition from a place in the stream on. What the broker has
// delivered to anyone before plays no part: an ordered consumer acknowledges nothing.
func read(ctx context.Context, js jetstream.JetStream, stream string, partition int, from uint64) (jetstream.MessagesContext, error) {
	in, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		FilterSubjects:    []string{subjectOf(stream, partition)},
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       from,
		InactiveThreshold: time.Minute, // then the broker forgets a reader that was killed
	})
	if err != nil {
		return nil, err
	}
	return in.Messages(jetstream.PullMaxMessages(1000))
}
