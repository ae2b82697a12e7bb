package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// BenchmarkRecord writes what the recorder reads at full speed: a batch of new deliveries with their events, then a batch with
// the attempts that end them.
func BenchmarkRecord(b *testing.B) {
	ctx := context.Background()
	s, _ := migrated(b)
	const size = 2500
	data := []byte(`{"amount":"12.30","account":"acct-7","note":"` + string(make([]byte, 0)) + `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}`)
	response := []byte(`{"ok":true}`)
	b.ResetTimer()
	start := time.Now()
	for range b.N {
		first, second := &store.Batch{}, &store.Batch{}
		for i := range size {
			now := time.Now().Truncate(time.Millisecond)
			event := webhook.Event{ID: uuid.NewString(), Type: "balance.extracted", Tenant: "default", RecordedAt: now, Timestamp: now, Data: data}
			sub := "sub-" + string(rune('a'+i%26))
			id := webhook.DeliveryID("default", event.ID, sub)
			row := store.Delivery{ID: id, Tenant: "default", EventID: event.ID, EventType: event.Type, SubscriptionID: sub, Profile: "fynapse", ProfileVersion: 1,
				Trigger: webhook.TriggerEvent, Status: webhook.Pending, CreatedAt: now, UpdatedAt: now}
			first.Deliveries = append(first.Deliveries, row)
			first.Events = append(first.Events, event)
			row.Status, row.AttemptCount, row.LastAttempt, row.LastTry, row.LastStatusCode = webhook.Delivered, 1, 1, 1, 200
			second.Deliveries = append(second.Deliveries, row)
			second.Attempts = append(second.Attempts, webhook.Attempt{ID: uuid.Must(uuid.NewV7()), DeliveryID: id, Tenant: "default", EventID: event.ID, EventType: event.Type,
				SubscriptionID: sub, Profile: "fynapse", ProfileVersion: 1, Trigger: webhook.TriggerEvent, DeliveryCreatedAt: now, Number: 1, Try: 1, StartedAt: now,
				Duration: 20 * time.Millisecond, StatusCode: 200, Response: response, RequestBytes: 700, ResponseBytes: 11, Outcome: webhook.Outcome{Status: webhook.Delivered},
				TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
		}
		for _, batch := range []*store.Batch{first, second} {
			if err := s.Record(ctx, batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N*size)/time.Since(start).Seconds(), "deliveries/s")
}
