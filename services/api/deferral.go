package api

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// Waiting is where trips wait: a *retryqueue.Index.
type Waiting interface {
	Find(ctx context.Context, partition int32, delivery uuid.UUID, generation uint32) (found []retryqueue.Waiting, now time.Time, err error)
}

const (
	// deferralTime bounds the question why deliveries wait, however many of them there are.
	deferralTime = 2 * time.Second
	// mostDeferrals bounds of how many deliveries an answer tells it.
	mostDeferrals = 20
)

// deferralView is that a delivery was put back without an attempt.
type deferralView struct {
	Reason string    `json:"reason" enum:"rate,concurrency,breaker,paused,config,secret,shutdown" doc:"What held it back."`
	Until  time.Time `json:"until" doc:"It is looked at again then, and may be put back again."`
}

// WaitView is what a pending delivery waits for.
type WaitView struct {
	WaitsFor *string       `json:"waitsFor" doc:"While PENDING, in one sentence."`
	Deferral *deferralView `json:"deferral" doc:"Where it was put back without an attempt; null where it was not, or where it cannot be told at the moment."`
}

// held says why a trip was put back without an attempt.
var held = map[webhook.Reason]string{
	webhook.ReasonRate:        "the subscription's rate",
	webhook.ReasonConcurrency: "a free slot: its endpoint has as many requests under way as it may have",
	webhook.ReasonBreaker:     "its endpoint, which does not answer or asked for a pause: the circuit breaker holds everything to it back",
	webhook.ReasonPaused:      "the subscription, which is paused, to be enabled",
	webhook.ReasonConfig:      "the workers to learn of its subscription",
	webhook.ReasonSecret:      "its secret, which cannot be read",
	webhook.ReasonShutdown:    "another worker: the one that had it has stopped",
}

// waiting finds the retry under which each of some pending deliveries waits. What cannot be told in time is left out: neither the timer
// index nor Kafka is needed for the rest of the answer.
func (s *Service) waiting(ctx context.Context, rows ...store.Delivery) map[uuid.UUID]waitingTrip {
	found := map[uuid.UUID]waitingTrip{}
	if s.deps.Waiting == nil {
		return found
	}
	ctx, cancel := context.WithTimeout(ctx, deferralTime)
	defer cancel()
	rows = slices.DeleteFunc(rows, func(d store.Delivery) bool { return d.Status != webhook.Pending })
	if len(rows) == 0 {
		return found
	}
	ends, err := s.journal.Ends(ctx, s.deps.Kafka.Topics.Retries)
	if err != nil || len(ends) == 0 {
		return found
	}
	for i := range rows {
		if row := &rows[i]; len(found) < mostDeferrals && ctx.Err() == nil {
			if trip, ok := s.trip(ctx, row, kafka.PartitionOf(row.ID.String(), len(ends))); ok {
				found[row.ID] = trip
			}
		}
	}
	return found
}

// waitingTrip is a pass through the retries topic that has not fired.
type waitingTrip struct {
	reason webhook.Reason
	due    time.Time
}

func (s *Service) trip(ctx context.Context, row *store.Delivery, partition int32) (waitingTrip, bool) {
	trips, _, err := s.deps.Waiting.Find(ctx, partition, row.ID, row.Generation)
	if err != nil {
		return waitingTrip{}, false
	}
	for _, waits := range trips {
		if waits.Trip.IsCommand() {
			continue
		}
		record, err := s.journal.Record(ctx, webhook.Position{Topic: s.deps.Kafka.Topics.Retries, Partition: partition, Offset: waits.Offset})
		if err != nil || record == nil || string(record.Key) != waits.Trip.String() {
			continue
		}
		if retry, err := wire.DecodeRetry(record.Value); err == nil { // what cannot be read is the scheduler's to reject
			return waitingTrip{reason: retry.Reason, due: waits.Due}, true
		}
	}
	return waitingTrip{}, false
}

// waitOf says what a delivery waits for, as far as the audit and its trip tell. Where the trip is known, it is the row's next attempt.
func waitOf(row *store.Delivery, sub *webhook.Subscription, trip waitingTrip) (v WaitView) {
	if row.Status != webhook.Pending {
		return v
	}
	if !trip.due.IsZero() {
		row.NextAttemptAt = trip.due
	}
	if _, deferred := held[trip.reason]; deferred {
		v.Deferral = &deferralView{Reason: string(trip.reason), Until: trip.due.UTC()}
	}
	v.WaitsFor = new(waitsFor(row, sub, trip.reason))
	return v
}

func waitsFor(row *store.Delivery, sub *webhook.Subscription, reason webhook.Reason) string {
	why, deferred := held[reason]
	switch due := row.NextAttemptAt; {
	case deferred:
		return why + "; put back without an attempt until " + due.UTC().Format(time.RFC3339Nano)
	case sub != nil && sub.Status == webhook.SubscriptionPaused:
		return "the subscription is paused: the delivery is put back without an attempt until it is enabled"
	case due.After(time.Now()):
		return "its next attempt is due at " + due.UTC().Format(time.RFC3339)
	default:
		return "a worker: it is in the queue, or its attempt is under way"
	}
}
