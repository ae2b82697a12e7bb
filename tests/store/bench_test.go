package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// BenchmarkRecord writes what the recorder reads: new deliveries with their events, and the attempts that end them. At best both
// come in one batch, at worst every delivery is inserted by one and brought to its end by another.
func BenchmarkRecord(b *testing.B) {
	const size = 5000 // deliveries
	for _, c := range []struct {
		name  string
		split int // so many of the deliveries end in a later batch
	}{{"together", 0}, {"fifth_apart", size / 5}, {"apart", size}} {
		b.Run(c.name, func(b *testing.B) {
			s, _ := migrated(b)
			ctx := context.Background()
			var late store.Batch
			start := time.Now()
			for b.Loop() {
				now, next := traffic(size, c.split)
				now.Deliveries, now.Attempts = append(now.Deliveries, late.Deliveries...), append(now.Attempts, late.Attempts...)
				late = next
				if err := s.Record(ctx, &now); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Record(ctx, &late); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N*size)/time.Since(start).Seconds(), "deliveries/s")
		})
	}
}

// traffic makes deliveries of 700 bytes each; so many of them end later.
func traffic(size, split int) (now, later store.Batch) {
	payload := []byte(`{"amount":"12.30","note":"` + strings.Repeat("a", 670) + `"}`)
	for i := range size {
		at := time.Now().Truncate(time.Millisecond)
		event := webhook.Event{ID: uuid.NewString(), Type: "balance.extracted", Tenant: "default", RecordedAt: at, Timestamp: at, Data: payload}
		sub := "subscription-" + string(rune('a'+i%26))
		row := store.Delivery{
			ID: webhook.DeliveryID("default", event.ID, sub), Tenant: "default", EventID: event.ID, EventType: event.Type, SubscriptionID: sub,
			Profile: "fynapse", ProfileVersion: 1, Trigger: webhook.TriggerEvent, Status: webhook.Pending, CreatedAt: at, UpdatedAt: at,
		}
		now.Deliveries, now.Events = append(now.Deliveries, row), append(now.Events, event)
		row.Status, row.AttemptCount, row.LastAttempt, row.LastTry, row.LastStatusCode = webhook.Delivered, 1, 1, 1, 200
		attempt := webhook.Attempt{
			ID: uuid.Must(uuid.NewV7()), DeliveryID: row.ID, Tenant: "default", EventID: event.ID, EventType: event.Type, SubscriptionID: sub,
			Profile: "fynapse", ProfileVersion: 1, Trigger: webhook.TriggerEvent, DeliveryCreatedAt: at, Number: 1, Try: 1, StartedAt: at,
			Duration: 20 * time.Millisecond, StatusCode: 200, Response: []byte(`{"ok":true}`), RequestBytes: 700, ResponseBytes: 11,
			Outcome: webhook.Outcome{Status: webhook.Delivered}, TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		}
		end := &now
		if i < split {
			end = &later
		}
		end.Deliveries, end.Attempts = append(end.Deliveries, row), append(end.Attempts, attempt)
	}
	return now, later
}
