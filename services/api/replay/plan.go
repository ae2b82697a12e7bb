package replay

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/filter"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// FilterError says that a filter was saved by a process that knows more.
type FilterError struct{ err error }

func (e *FilterError) Error() string { return "a filter is not understood: " + e.err.Error() }

// EventStore is what a chunk is planned from.
type EventStore interface {
	Events(ctx context.Context, tenant string, f store.EventFilter, limit int) ([]webhook.Event, error)
	DeliveriesByID(ctx context.Context, tenant string, ids ...uuid.UUID) (map[uuid.UUID]store.Delivery, error)
}

// Chunk is what comes next of a replay.
type Chunk struct {
	Plan   store.ReplayPlan
	Events []webhook.Event
}

// Next looks at the next events up to a moment, and decides which of them are delivered and as which generation. It is nil
// where there are none. It ends early where the rate allows no more in a second.
func Next(ctx context.Context, db EventStore, r *store.Replay, sub *webhook.Subscription, until time.Time) (*Chunk, error) {
	if until.IsZero() {
		return nil, nil
	}
	own, err := filter.Select(sub.EventTypes, sub.Filter)
	if err != nil {
		return nil, &FilterError{err}
	}
	asked, err := filter.Select(r.Spec.EventTypes, r.Spec.Filter)
	if err != nil {
		return nil, &FilterError{err}
	}
	from := Events(r, sub)
	from.To = until
	quota := max(int(r.Rate), 1)
	events, err := db.Events(ctx, r.Tenant, from, min(max(4*quota, 50), MostEvents))
	if err != nil || len(events) == 0 {
		return nil, err
	}
	ids := make([]uuid.UUID, 0, len(events)) // of the events that are wanted
	wanted := make([]bool, len(events))
	for i := range events {
		if wanted[i] = own.Wants(&events[i]) && asked.Wants(&events[i]); wanted[i] {
			ids = append(ids, webhook.DeliveryID(r.Tenant, events[i].ID, sub.ID))
		}
	}
	rows, err := db.DeliveriesByID(ctx, r.Tenant, ids...)
	if err != nil {
		return nil, err
	}
	c := &Chunk{Plan: store.ReplayPlan{Generations: map[string]uint32{}}}
	for i := range events {
		e := &events[i]
		c.Plan.Until, c.Plan.Events = store.PlaceOf(e), int64(i+1)
		row, known := rows[webhook.DeliveryID(r.Tenant, e.ID, sub.ID)]
		if wanted[i] && repeats(r.Spec.Statuses, row.Status, known) {
			c.Plan.Generations[e.ID] = row.Generation + 1
		}
		if len(c.Plan.Generations) >= quota {
			break
		}
	}
	c.Events = events[:c.Plan.Events]
	return c, nil
}

// repeats reports whether a delivery of this status is made again. One that is under way is left alone unless asked for.
func repeats(statuses []webhook.Status, status webhook.Status, known bool) bool {
	if !known {
		status = store.NoDelivery
	}
	if len(statuses) == 0 {
		return status != webhook.Pending
	}
	return slices.Contains(statuses, status)
}

// Events are the events that a replay still has to look at; sub may be nil.
func Events(r *store.Replay, sub *webhook.Subscription) store.EventFilter {
	f := store.EventFilter{From: r.Spec.From, To: r.Spec.To, Offsets: r.Spec.Offsets, Types: r.Spec.EventTypes, After: r.Cursor}
	if len(f.Types) == 0 && sub != nil {
		f.Types = sub.EventTypes
	}
	return f
}
