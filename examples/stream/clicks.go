package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A click is an event: somebody has looked at a page.
type click struct {
	partition int
	page      string
}

// pages is how many pages there are. Some are looked at much more often than others.
const pages = 20_000

// clicks yields the first n clicks that follow from a seed. They are the same ones each time:
// whoever wants to know the truth counts them here.
func clicks(seed uint64, n, partitions int) iter.Seq2[int, click] {
	return func(yield func(int, click) bool) {
		chance := rand.NewZipf(rand.New(rand.NewPCG(seed, 1)), 1.05, 20, pages-1)
		for i := range n {
			page := "/page/" + strconv.FormatUint(chance.Uint64(), 10)
			h := fnv.New32a()
			_, _ = h.Write([]byte(page)) // never fails
			if !yield(i, click{int(h.Sum32() % uint32(partitions)), page}) {
				return
			}
		}
	}
}

// truth counts the clicks on each page of each partition: no stream, no database, no
// checkpoints.
func truth(seed uint64, n, partitions int) []map[string]uint64 {
	counts := make([]map[string]uint64, partitions)
	for p := range counts {
		counts[p] = make(map[string]uint64)
	}
	for _, c := range clicks(seed, n, partitions) {
		counts[c.partition][c.page]++
	}
	return counts
}

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
func (p *producer) send(ctx context.Context, i int, c click) error {
	msg := nats.NewMsg(subjectOf(p.stream, c.partition))
	msg.Data = []byte(c.page)
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
