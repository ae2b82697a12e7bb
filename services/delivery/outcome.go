package delivery

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"

	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

var groupLabel = telemetry.Label("group", "delivery")

// conclude writes what follows for an item whose work had begun.
func (ss *session) conclude(it *item, next step) {
	if next.abandoned {
		it.part.endWork()
		return
	}
	if next.attempt != nil {
		ss.observe(next.attempt)
	}
	it.deferred = next.retry != nil && next.attempt == nil
	records := ss.records(it.delivery, next)
	if next.again > 0 {
		// The next try's records follow these in the same partition, so their acknowledgement covers these.
		ss.write(records, func() {})
		it.try++
		time.AfterFunc(next.again, func() { ss.lanes.resume(it, time.Now()) })
		return
	}
	ss.write(records, func() {
		ss.finish(it)
		it.part.endWork()
	})
}

// putBack defers an item that has got no slot, unless its partition has been handed over. value is its record's, or nil
// where it is no longer at hand.
func (ss *session) putBack(p putBack, value []byte) {
	if !ss.beginWork(p.it) {
		return
	}
	next := deferred(p.it.delivery, p.delay, p.reason)
	if value != nil {
		next.value, _ = wire.RetryOfDelivery(value, next.retry.Delivery.Trip, p.delay, p.reason) // or else it is encoded anew
	}
	ss.conclude(p.it, next)
}

// reject moves a record that cannot be read out of the way, with its reason.
func (ss *session) reject(it *item, r *kgo.Record, cause error) {
	if !ss.beginWork(it) {
		return
	}
	ss.deps.Log.WarnContext(ss.work, "delivery record rejected", "partition", r.Partition, "offset", r.Offset, "error", cause)
	ss.deps.Metrics.Rejected.Add(ss.work, 1, ss.outcomes.rejected)
	ss.write([]*kgo.Record{ss.deps.Kafka.Rejected(r, "unreadable_delivery", cause.Error())}, func() {
		ss.finish(it)
		it.part.endWork()
	})
}

// records are what Kafka must acknowledge before the item is finished.
func (ss *session) records(d *webhook.Delivery, next step) []*kgo.Record {
	records := make([]*kgo.Record, 0, 2)
	if a := next.attempt; a != nil {
		records = append(records, &kgo.Record{Topic: ss.topics.Attempts, Key: []byte(a.SubscriptionID), Value: wire.EncodeAttempt(a)})
	}
	if r := next.retry; r != nil {
		if next.attempt == nil {
			ss.deps.Metrics.Deferred.Add(ss.work, 1, ss.outcomes.deferred[r.Reason])
		}
		value := next.value
		if value == nil {
			value = wire.EncodeRetry(r)
		}
		records = append(records, &kgo.Record{Topic: ss.topics.Retries, Key: []byte(r.Delivery.Key().String()), Value: value})
	}
	if next.dead != nil {
		records = append(records, &kgo.Record{Topic: ss.topics.DeadLetters, Key: []byte(d.SubscriptionID), Value: wire.EncodeDeadLetter(next.dead)})
	}
	if d.Event.Trace.Parent != "" {
		for _, r := range records {
			telemetry.SetRecordTrace(r, d.Event.Trace)
		}
	}
	return records
}

// write produces records and calls done when Kafka has acknowledged all of them. While Kafka is away it waits, for as
// long as that takes; an error means that the client cannot go on, and ends the session.
func (ss *session) write(records []*kgo.Record, done func()) {
	var waiting atomic.Int32
	waiting.Store(int32(len(records)))
	for _, r := range records {
		ss.producer.Produce(ss.lasting, r, func(r *kgo.Record, err error) {
			if err != nil {
				ss.fail(err)
				return
			}
			if waiting.Add(-1) == 0 {
				done()
			}
		})
	}
}

// observe counts an attempt and writes its one log line.
func (ss *session) observe(a *webhook.Attempt) {
	ctx := ss.work
	ss.deps.Metrics.Attempts.Add(ctx, 1, ss.outcomes.byStatus[a.Outcome.Status])
	if a.Number > 0 {
		ss.deps.Metrics.AttemptDuration.Record(ctx, a.Duration.Seconds())
	}
	if !ss.deps.Log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	// Made by hand: the place in the source that a logger looks for is always this one, and nobody reads it.
	line := slog.NewRecord(time.Now(), slog.LevelInfo, "attempt", 0)
	line.AddAttrs(
		slog.String("delivery", a.DeliveryID.String()), slog.Uint64("generation", uint64(a.Generation)),
		slog.String("event", a.EventID), slog.String("event_type", a.EventType), slog.String("tenant", a.Tenant),
		slog.String("subscription", a.SubscriptionID), slog.Uint64("attempt", uint64(a.Number)), slog.Uint64("try", uint64(a.Try)),
		slog.Int("status_code", a.StatusCode), slog.String("error", string(a.Error)), slog.Duration("duration", a.Duration),
		slog.String("status", string(a.Outcome.Status)), slog.String("reason", string(a.Outcome.Reason)),
		slog.String("traceparent", a.TraceParent))
	_ = ss.deps.Log.Handler().Handle(ctx, line) // as a logger does: there is nowhere to say it
}

// outcomeLabels are the label sets of the attempts counter, made once.
type outcomeLabels struct {
	byStatus map[webhook.Status]metric.MeasurementOption
	deferred map[webhook.Reason]metric.MeasurementOption
	rejected metric.MeasurementOption
}

// deferralReasons are why deliveries are put back without an attempt.
var deferralReasons = []webhook.Reason{
	webhook.ReasonConcurrency, webhook.ReasonRate, webhook.ReasonBreaker, webhook.ReasonPaused, webhook.ReasonConfig, webhook.ReasonSecret,
}

func newOutcomeLabels() outcomeLabels {
	deferred := map[webhook.Reason]metric.MeasurementOption{}
	for _, reason := range deferralReasons {
		deferred[reason] = telemetry.Label("reason", string(reason))
	}
	return outcomeLabels{
		deferred: deferred,
		byStatus: map[webhook.Status]metric.MeasurementOption{
			webhook.Pending:    telemetry.Label("outcome", "retry"),
			webhook.Delivered:  telemetry.Label("outcome", "delivered"),
			webhook.DeadLetter: telemetry.Label("outcome", "dead_letter"),
			webhook.Cancelled:  telemetry.Label("outcome", "cancelled"),
		},
		rejected: telemetry.Labels("topic", "deliveries", "reason", "unreadable_delivery"),
	}
}
