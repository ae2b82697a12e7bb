package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// Retries is what the audit knows of deliveries that wait for their next attempt.
type Retries interface {
	Retries(ctx context.Context, tenant string, f store.RetryFilter, p store.Page) (items []store.Delivery, next string, err error)
	CountRetries(ctx context.Context, tenant string, f store.RetryFilter, due ...time.Time) (store.RetryCounts, error)
	CountRetriesUpTo(ctx context.Context, tenant string, f store.RetryFilter, most int64, due ...time.Time) (store.RetryCounts, error)
}

// RetryFilterInput selects deliveries that wait for their next attempt.
type RetryFilterInput struct {
	SubscriptionID string    `query:"subscriptionId" maxLength:"64"`
	EventType      string    `query:"eventType" maxLength:"255"`
	Reason         string    `query:"reason" maxLength:"64" doc:"Why the last attempt did not succeed, as a stable code."`
	From           time.Time `query:"from" doc:"Next attempt at this time or later."`
	To             time.Time `query:"to" doc:"Next attempt before this time."`
}

func (f *RetryFilterInput) filter() store.RetryFilter {
	return store.RetryFilter{SubscriptionID: f.SubscriptionID, EventType: f.EventType, Reason: webhook.Reason(f.Reason), From: f.From, To: f.To}
}

type listRetriesInput struct {
	RetryFilterInput
	PageInput
}

type retryCountsOutput struct {
	Body struct {
		Waiting        int64            `json:"waiting"`
		AtLeast        bool             `json:"atLeast" doc:"true where counting them all would have taken more than 3 seconds: all the numbers are of 100,000 of them."`
		Overdue        int64            `json:"overdue" doc:"Of them, those whose next attempt should have been made by now."`
		OverdueSeconds float64          `json:"overdueSeconds" doc:"How long the oldest of those has been overdue."`
		Subscriptions  map[string]int64 `json:"subscriptions" doc:"By subscription, at most the 1,000 with most."`
		Reasons        map[string]int64 `json:"reasons"`
		Due            []dueCountView   `json:"due" doc:"By the time until the next attempt; each is counted once."`
	} `nameHint:"RetryCounts"`
}

type dueCountView struct {
	Within *string `json:"within" doc:"Due within this time from now, as a Go duration, and not within the one before. null: later."`
	Count  int64   `json:"count"`
}

type commandInput struct {
	Body struct {
		DeliveryIDs    []string  `json:"deliveryIds,omitempty" nullable:"true" maxItems:"1000" maxLength:"64" doc:"These deliveries. Otherwise those that the filter selects."`
		SubscriptionID string    `json:"subscriptionId,omitempty" maxLength:"64"`
		EventType      string    `json:"eventType,omitempty" maxLength:"255"`
		Reason         string    `json:"reason,omitempty" maxLength:"64"`
		From           time.Time `json:"from,omitzero" doc:"Next attempt at this time or later."`
		To             time.Time `json:"to,omitzero" doc:"Next attempt before this time."`
		DryRun         bool      `json:"dryRun,omitempty" doc:"Only count."`
		Cursor         string    `json:"cursor,omitempty" maxLength:"512" doc:"The nextCursor of the answer before, to go on."`
	} `nameHint:"RetryCommand"`
}

type commandOutput struct {
	Body struct {
		Count      int64   `json:"count" doc:"How many deliveries it was asked of, or would be."`
		AtLeast    bool    `json:"atLeast" doc:"Of a dry run: true where counting them all would have taken more than 3 seconds."`
		DryRun     bool    `json:"dryRun"`
		NextCursor *string `json:"nextCursor" doc:"There are more: send the same again with this as cursor. null at the end."`
	} `nameHint:"RetryCommandResult"`
}

// commandMost is how many deliveries one request may be about.
const commandMost = 5000

// dueWithin are the bounds of the histogram.
var dueWithin = []time.Duration{0, time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}

func (s *Service) registerRetries(a huma.API) {
	tags := []string{"Retries"}
	const command = "Answered when Kafka has it. It is about deliveries that wait for an attempt when the scheduler reads it, usually at once; what is " +
		"already on its way goes on. Asking twice changes nothing more. One of deliveryIds, subscriptionId, eventType, reason, from and to is needed."
	route(s, a, huma.Operation{OperationID: "list-retries", Method: http.MethodGet, Path: "/retries", Tags: tags,
		Summary: "List deliveries that wait for their next attempt, newest first"}, webhook.PermissionAuditRead, s.listRetries)
	route(s, a, huma.Operation{OperationID: "count-retries", Method: http.MethodGet, Path: "/retries/count", Tags: tags,
		Summary: "Count what waits, by subscription, reason and due time"}, webhook.PermissionAuditRead, s.countRetries)
	route(s, a, huma.Operation{OperationID: "retry-now", Method: http.MethodPost, Path: "/retries/now", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Make the next attempt now", Description: command}, webhook.PermissionSubscriptionEdit, s.retryNow)
	route(s, a, huma.Operation{OperationID: "cancel-retries", Method: http.MethodPost, Path: "/retries/cancel", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Cancel deliveries that wait", Description: command + " They end as CANCELLED, and can be delivered again."},
		webhook.PermissionSubscriptionEdit, s.cancelRetries)
}

func (s *Service) listRetries(ctx context.Context, who caller, in *listRetriesInput) (*pageOutput[DeliveryView], error) {
	rows, next, err := s.deps.Store.Retries(ctx, who.Tenant, in.filter(), in.page())
	if err != nil {
		return nil, err
	}
	return paged(rows, next, viewDelivery), nil
}

func (s *Service) countRetries(ctx context.Context, who caller, in *RetryFilterInput) (*retryCountsOutput, error) {
	at := now()
	due := make([]time.Time, len(dueWithin))
	for i, within := range dueWithin {
		due[i] = at.Add(within)
	}
	counts, all, err := s.countWaiting(ctx, who, in.filter(), due...)
	if err != nil {
		return nil, err
	}
	out := &retryCountsOutput{}
	out.Body.AtLeast, out.Body.Waiting, out.Body.Overdue, out.Body.Subscriptions = !all, counts.Waiting, counts.Due[0], counts.Subscriptions
	if counts.Due[0] > 0 {
		out.Body.OverdueSeconds = at.Sub(counts.Oldest).Seconds()
	}
	out.Body.Reasons = map[string]int64{}
	for reason, n := range counts.Reasons {
		out.Body.Reasons[string(reason)] = n
	}
	for i, n := range counts.Due {
		view := dueCountView{Count: n}
		if i < len(dueWithin) {
			view.Within = new(dueWithin[i].String())
		}
		out.Body.Due = append(out.Body.Due, view)
	}
	return out, nil
}

func (s *Service) countWaiting(ctx context.Context, who caller, f store.RetryFilter, due ...time.Time) (counts store.RetryCounts, all bool, err error) {
	return inTime(ctx,
		func(ctx context.Context) (store.RetryCounts, error) {
			return s.deps.Store.CountRetries(ctx, who.Tenant, f, due...)
		},
		func() (store.RetryCounts, error) {
			return s.deps.Store.CountRetriesUpTo(ctx, who.Tenant, f, mostCounted, due...)
		})
}

func (s *Service) retryNow(ctx context.Context, who caller, in *commandInput) (*commandOutput, error) {
	return s.command(ctx, who, in, webhook.ReasonManual)
}

func (s *Service) cancelRetries(ctx context.Context, who caller, in *commandInput) (*commandOutput, error) {
	return s.command(ctx, who, in, webhook.ReasonCancelled)
}

// command puts a command for each selected delivery on the retries topic, where the scheduler carries it out in its order
// among the retries themselves: only it knows which trip waits.
func (s *Service) command(ctx context.Context, who caller, in *commandInput, what webhook.Reason) (*commandOutput, error) {
	out := &commandOutput{}
	out.Body.DryRun = in.Body.DryRun
	f, err := in.selection()
	if err != nil {
		return nil, err
	}
	if in.Body.DryRun && len(in.Body.DeliveryIDs) == 0 {
		counts, all, err := s.countWaiting(ctx, who, f)
		out.Body.Count, out.Body.AtLeast = counts.Waiting, !all
		return out, err
	}
	rows, next, err := s.selected(ctx, who, in, f)
	if err != nil {
		return nil, err
	}
	if out.Body.Count = int64(len(rows)); in.Body.DryRun {
		return out, nil
	}
	records := make([]*kgo.Record, len(rows))
	for i := range rows {
		records[i] = commandRecord(s.deps.Kafka.Topics.Retries, &rows[i], what)
	}
	if len(records) > 0 {
		if _, err := s.journal.Write(ctx, records...); err != nil {
			s.log.WarnContext(ctx, "a command about retries is not accepted", "command", what, "deliveries", len(records), "error", err)
			return nil, unavailable("kafka_unavailable", "Kafka did not acknowledge everything; ask again, twice is harmless")
		}
	}
	s.log.InfoContext(ctx, "command about retries", "tenant", who.Tenant, "command", what, "deliveries", len(records), "api_key", who.KeyID)
	out.Body.NextCursor = orNull(next)
	return out, nil
}

// selection is the filter of a command that names no deliveries.
func (in *commandInput) selection() (store.RetryFilter, error) {
	b := &in.Body
	f := store.RetryFilter{SubscriptionID: b.SubscriptionID, EventType: b.EventType, Reason: webhook.Reason(b.Reason), From: b.From, To: b.To}
	named, filtered := len(b.DeliveryIDs) > 0, f != (store.RetryFilter{})
	switch {
	case named && filtered:
		return f, problem(http.StatusUnprocessableEntity, "selection_ambiguous", "give deliveryIds or a filter, not both")
	case !named && !filtered:
		return f, problem(http.StatusUnprocessableEntity, "selection_missing", "say which: deliveryIds, subscriptionId, eventType, reason, from or to")
	}
	return f, nil
}

// selected finds the deliveries that a command is about, and where the next ones begin.
func (s *Service) selected(ctx context.Context, who caller, in *commandInput, f store.RetryFilter) (rows []store.Delivery, next string, err error) {
	if len(in.Body.DeliveryIDs) > 0 {
		rows, err = s.named(ctx, who, in.Body.DeliveryIDs)
		return rows, "", err
	}
	next = in.Body.Cursor
	for len(rows) < commandMost {
		var part []store.Delivery
		if part, next, err = s.deps.Store.Retries(ctx, who.Tenant, f, store.Page{Cursor: next, Limit: 1000}); err != nil {
			return nil, "", err
		}
		if rows = append(rows, part...); next == "" {
			break
		}
	}
	return rows, next, nil
}

// named finds deliveries by id. All must be PENDING.
func (s *Service) named(ctx context.Context, who caller, texts []string) ([]store.Delivery, error) {
	ids := make([]uuid.UUID, len(texts))
	for i, text := range texts {
		var ok bool
		if ids[i], ok = deliveryID(text); !ok {
			return nil, store.ErrNotFound
		}
	}
	found, err := s.deps.Store.DeliveriesByID(ctx, who.Tenant, ids...)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(ids, func(id uuid.UUID) bool { _, ok := found[id]; return !ok }) {
		return nil, store.ErrNotFound
	}
	var ended []string
	for id, row := range found {
		if row.Status != webhook.Pending {
			ended = append(ended, id.String())
		}
	}
	if len(ended) > 0 {
		return nil, problem(http.StatusConflict, "delivery_ended", "no attempt is waited for: %s", strings.Join(slices.Sorted(slices.Values(ended)), ", "))
	}
	return slices.Collect(maps.Values(found)), nil
}

func commandRecord(topic string, row *store.Delivery, what webhook.Reason) *kgo.Record {
	key := webhook.Command(row.ID, row.Generation)
	return &kgo.Record{Topic: topic, Key: []byte(key.String()), Value: wire.EncodeRetry(&webhook.Retry{Reason: what, Delivery: webhook.Delivery{
		ID: row.ID, Generation: row.Generation, Trip: key.Number, Attempts: row.AttemptCount, SubscriptionID: row.SubscriptionID,
		Profile: row.Profile, ProfileVersion: row.ProfileVersion, CreatedAt: row.CreatedAt, Trigger: row.Trigger,
		Event: webhook.Event{ID: row.EventID, Type: row.EventType, Tenant: row.Tenant},
	}})}
}
