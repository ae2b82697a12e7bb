package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// soon is how far ahead of its due time a record may be kept in memory.
const soon = 2 * time.Minute

// batch is what a number of records do.
type batch struct {
	ops  []retryqueue.Op
	last int64
	// tombstones are the trips that have fired; earliest is the earliest due time, or zero.
	tombstones []webhook.Trip
	earliest   time.Time
	soon       []soonDue
}

type soonDue struct {
	trip   webhook.Trip
	offset int64
	value  []byte
}

// decode reads records in their order. Those that cannot be read have been written to the rejected topic when it
// returns; an error means that they could not be.
func (s *Service) decode(ctx context.Context, sh *shard, from position, records []*kgo.Record) (batch, error) {
	b := batch{ops: make([]retryqueue.Op, 0, len(records)), last: from.next - 1}
	now := time.Now()
	for _, record := range records {
		if !from.takes(record.Offset) {
			continue
		}
		b.last = record.Offset
		op, reason, err := readRetry(record, s.longest, now)
		if err != nil {
			if err := s.reject(ctx, sh, record, err); err != nil {
				return b, err
			}
			continue
		}
		if now.Sub(record.Timestamp) < stale { // not what a rebuild reads
			s.path.deferred(op.Trip, op.Lane, reason, now)
		}
		b.add(op, record, now)
	}
	return b, nil
}

func (b *batch) add(op retryqueue.Op, record *kgo.Record, now time.Time) {
	b.ops = append(b.ops, op)
	if op.Remove {
		b.tombstones = append(b.tombstones, op.Trip)
		return
	}
	if b.earliest.IsZero() || op.Due.Before(b.earliest) {
		b.earliest = op.Due
	}
	if op.Due.Sub(now) <= soon {
		b.soon = append(b.soon, soonDue{trip: op.Trip, offset: record.Offset, value: record.Value})
	}
}

// brokerTime is the timestamp type of records that have the time at which the broker appended them.
const brokerTime = 1

// unreadable is why a record is rejected.
type unreadable struct {
	reason string
	err    error
}

func (u unreadable) Error() string { return u.reason + ": " + u.err.Error() }

// Reasons of rejected records.
const (
	reasonKey      = "bad_key"
	reasonValue    = "bad_value"
	reasonMismatch = "key_mismatch"
	reasonMissing  = "body_missing"
)

// readRetry reads what a record of the retries topic does to the index, and why the retry waits. now bounds a timestamp
// that is not the broker's: a topic that was not set up by us, or an embedded broker, has the writer's.
func readRetry(record *kgo.Record, longest time.Duration, now time.Time) (retryqueue.Op, webhook.Reason, error) {
	trip, err := webhook.ParseTrip(string(record.Key))
	if err != nil {
		return retryqueue.Op{}, "", unreadable{reasonKey, err}
	}
	if record.Value == nil {
		return retryqueue.Op{Trip: trip, Remove: true, Offset: record.Offset}, "", nil
	}
	retry, err := wire.DecodeRetry(record.Value)
	if err != nil {
		return retryqueue.Op{}, "", unreadable{reasonValue, err}
	}
	if retry.Delivery.Key() != trip {
		return retryqueue.Op{}, "", unreadable{reasonMismatch, fmt.Errorf("the value is of %s", retry.Delivery.Key())}
	}
	appended := record.Timestamp
	if record.Attrs.TimestampType() != brokerTime && appended.After(now) {
		appended = now
	}
	due := dueAt(appended, retry.Delay, longest)
	if noRoom(retry.Reason) {
		due = onGrid(due)
	}
	return retryqueue.Op{
		Trip: trip, Due: due, Offset: record.Offset, Lane: retryqueue.LaneOf(retry.Delivery.SubscriptionID),
	}, retry.Reason, nil
}

// reject moves a record to the rejected topic, and returns once it is there. A rebuild does not move it again.
func (s *Service) reject(ctx context.Context, sh *shard, record *kgo.Record, why error) error {
	if record.Offset <= sh.rejected {
		return nil
	}
	if err := s.writeRejected(ctx, record, why); err != nil {
		return err
	}
	sh.rejected = record.Offset
	return nil
}

func (s *Service) writeRejected(ctx context.Context, record *kgo.Record, why error) error {
	cause := unreadable{reason: reasonValue, err: why}
	errors.As(why, &cause)
	moved := s.deps.Kafka.Rejected(record, cause.reason, cause.err.Error())
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	if err := s.producer.ProduceSync(ctx, moved).FirstErr(); err != nil {
		return fmt.Errorf("reject %s/%d at %d: %w", record.Topic, record.Partition, record.Offset, err)
	}
	s.deps.Metrics.Rejected.Add(ctx, 1, telemetry.Labels("topic", record.Topic, "reason", cause.reason))
	s.log.ErrorContext(ctx, "a record of the retries topic was rejected",
		"topic", record.Topic, "partition", record.Partition, "offset", record.Offset, "reason", cause.reason)
	return nil
}

func rewindLabel(reason string) metric.MeasurementOption { return telemetry.Label("reason", reason) }
