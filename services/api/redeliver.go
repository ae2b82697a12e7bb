package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/services/api/replay"
)

// redeliver puts a new generation of a delivery on the retries topic, due at once. It answers only after Kafka has it.
// Asking twice before the first is recorded makes the same generation and the same trip, which are delivered once.
func (s *Service) redeliver(ctx context.Context, who caller, in *IDInput) (*deliveryOutput, error) {
	row, err := s.delivery(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	if row.Status == webhook.Pending {
		return nil, problem(http.StatusConflict, "delivery_pending", "the delivery is under way: it can be repeated when it has ended")
	}
	if row.Trigger == webhook.TriggerTest {
		return nil, problem(http.StatusConflict, "delivery_is_test", "a test has no event to deliver again: send another one")
	}
	event, err := s.deps.Store.Event(ctx, who.Tenant, row.EventID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, problem(http.StatusConflict, "event_gone", "the event is no longer kept, so there is nothing to deliver")
	}
	if err != nil {
		return nil, err
	}
	again := nextGeneration(&row, event)
	if _, err := s.journal.Write(ctx, replay.Record(s.deps.Kafka.Topics.Retries, &webhook.Retry{Delivery: *again, Reason: webhook.ReasonManual})); err != nil {
		s.log.WarnContext(ctx, "redelivery is not accepted", "delivery", row.ID, "error", err)
		return nil, unavailable("kafka_unavailable", "Kafka did not acknowledge the redelivery; ask again")
	}
	s.log.InfoContext(ctx, "redelivery", "tenant", row.Tenant, "delivery", row.ID, "generation", again.Generation, "api_key", who.KeyID)

	row.Generation, row.Trigger, row.Status, row.Reason = again.Generation, again.Trigger, webhook.Pending, webhook.ReasonManual
	row.UpdatedAt, row.NextAttemptAt, row.AttemptCount = again.CreatedAt, again.CreatedAt, 0
	return s.detail(ctx, &row)
}

// nextGeneration is the same delivery from the beginning: a new retry window, no attempts, the same identity.
func nextGeneration(row *store.Delivery, event webhook.Event) *webhook.Delivery {
	return &webhook.Delivery{
		ID: row.ID, Generation: row.Generation + 1, Trip: 1, SubscriptionID: row.SubscriptionID,
		Profile: row.Profile, ProfileVersion: row.ProfileVersion, CreatedAt: now(), Trigger: webhook.TriggerManual, Event: event,
	}
}
