package recorder

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/telemetry"
)

// Reasons of rejected records.
const (
	reasonDelivery   = "unreadable_delivery"
	reasonAttempt    = "unreadable_attempt"
	reasonDeadLetter = "unreadable_dead_letter"
	reasonRefused    = "refused_by_database"
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
		copies[i] = ss.deps.Kafka.Rejected(r.record, r.reason, r.err.Error())
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
