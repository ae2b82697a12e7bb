package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitions = 6
	eventSize  = 500
	eventType  = "bench.measured"
)

// producer writes events to one topic as an upstream system would, and notes when each was acknowledged.
type producer struct {
	client *kgo.Client
	topic  string
	name   string // of the run, part of the event ids
	filler string

	// acked are Unix times in nanoseconds by sequence number less first.
	first int
	acked []atomic.Int64

	mu  sync.Mutex
	err error
}

func newProducer(brokers []string, topic, name string) (*producer, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	noise := make([]byte, 64<<10)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(noise) // it never fails
	return &producer{client: client, topic: topic, name: name, filler: base64.StdEncoding.EncodeToString(noise)}, nil
}

func (p *producer) close() { p.client.Close() }

func (p *producer) createTopic(ctx context.Context) error {
	_, err := kadm.NewClient(p.client).CreateTopic(ctx, partitions, -1, nil, p.topic)
	return err
}

// expect prepares for count events from a sequence number on.
func (p *producer) expect(first, count int) { p.first, p.acked = first, make([]atomic.Int64, count) }

// event is native JSON of eventSize bytes, with text that compresses as badly as identifiers do.
func (p *producer) event(sequence int) []byte {
	const end = `"}}`
	head := fmt.Appendf(make([]byte, 0, eventSize), `{"event_id":"%s-%0*d","event_type":"%s","event_timestamp":"%s","data":{%s%0*d","note":"`,
		p.name, sequenceDigits, sequence, eventType, time.Now().UTC().Format(time.RFC3339Nano), sequenceMark, sequenceDigits, sequence)
	missing := eventSize - len(head) - len(end)
	at := sequence * 97 % (len(p.filler) - eventSize)
	return append(append(head, p.filler[at:at+missing]...), end...)
}

// produce sends one event without waiting for its acknowledgement.
func (p *producer) produce(ctx context.Context, sequence int) {
	r := &kgo.Record{Topic: p.topic, Partition: int32(sequence % partitions), Value: p.event(sequence)}
	p.client.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err == nil {
			p.acked[sequence-p.first].Store(time.Now().UnixNano())
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = err
	})
}

// flush returns when everything produced is acknowledged.
func (p *producer) flush(ctx context.Context) error {
	if err := p.client.Flush(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// preload produces everything that is expected.
func (p *producer) preload(ctx context.Context) error {
	for i := range p.acked {
		p.produce(ctx, p.first+i)
	}
	return p.flush(ctx)
}

// pace produces everything that is expected, one by one at a rate.
func (p *producer) pace(ctx context.Context, perSecond int) error {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for i := range p.acked {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			p.produce(ctx, p.first+i)
		}
	}
	return p.flush(ctx)
}

// saturate produces for as long as given and keeps a number of events under way that have not arrived; it returns how many
// it produced, at most as many as are expected.
func (p *producer) saturate(ctx context.Context, underway int, long time.Duration, arrived func() (int, error)) (int, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	sent := 0
	for end := time.Now().Add(long); time.Now().Before(end); {
		n, err := arrived()
		if err != nil {
			return sent, err
		}
		for ; sent < min(n+underway, len(p.acked)); sent++ {
			p.produce(ctx, p.first+sent)
		}
		select {
		case <-ctx.Done():
			return sent, ctx.Err()
		case <-tick.C:
		}
	}
	return sent, p.flush(ctx)
}

// deleteTopics removes what a stage has left in Kafka, also after the run was interrupted.
func (p *producer) deleteTopics(prefix string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	admin := kadm.NewClient(p.client)
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	var ours []string
	for _, name := range topics.Names() {
		if strings.HasPrefix(name, prefix) {
			ours = append(ours, name)
		}
	}
	if len(ours) == 0 {
		return nil
	}
	_, err = admin.DeleteTopics(ctx, ours...)
	return err
}
