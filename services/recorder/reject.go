package recorder

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/topic"
)

// Reasons of rejected records.
const (
	reasonDelivery   = "unreadable_delivery"
	reasonAttempt    = "unreadable_attempt"
	reasonDeadLetter = "unreadable_dead_letter"
	reasonRefused    = "refused_by_database"
)

// A value above maxRejected is cut to rejectedBytes.
const (
	maxRejected   = 1 << 20
	rejectedBytes = 64 << 10
	detailBytes   = 1 << 10
)

// rejection is a record that, or a row of which, cannot be written.
type rejection struct {
	record *kgo.Record
	reason string
	err    error
}

// reject copies records to the rejected topic, and returns once all are there. Doing it again copies them again.
func (ss *session) reject(ctx context.Context, rejections []rejection) error {
	copies := make([]*kgo.Record, len(rejections))
	for i, r := range rejections {
		copies[i] = r.copy(ss.deps.Kafka.Topics.Rejected)
	}
	if err := ss.cl.ProduceSync(ctx, copies...).FirstErr(); err != nil {
		return fmt.Errorf("reject records: %w", err)
	}
	for _, r := range rejections {
		ss.deps.Metrics.Rejected.Add(ctx, 1, telemetry.Labels("topic", r.record.Topic, "reason", r.reason))
		ss.deps.Log.WarnContext(ctx, "record rejected", "topic", r.record.Topic, "partition", r.record.Partition,
			"offset", r.record.Offset, "reason", r.reason, "error", r.err)
	}
	return nil
}

func (r rejection) copy(to string) *kgo.Record {
	value := r.record.Value
	if len(value) > maxRejected {
		value = value[:rejectedBytes]
	}
	detail := r.err.Error()
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	return &kgo.Record{Topic: to, Key: r.record.Key, Value: value, Headers: append(r.record.Headers[:len(r.record.Headers):len(r.record.Headers)],
		header(topic.HeaderReason, r.reason),
		header(topic.HeaderDetail, detail[:min(len(detail), detailBytes)]),
		header(topic.HeaderSourceTopic, r.record.Topic),
		header(topic.HeaderSourcePartition, strconv.Itoa(int(r.record.Partition))),
		header(topic.HeaderSourceOffset, strconv.FormatInt(r.record.Offset, 10)),
	)}
}
