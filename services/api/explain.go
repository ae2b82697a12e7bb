package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/filter"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/webhook"
)

// What became of an event for one subscription.
const (
	becameDelivery     = "delivery"      // there is a delivery, which says how it stands
	becameOtherType    = "event_type"    // its types do not cover the event's
	becameFiltered     = "filter"        // its filter does not match
	becameInactive     = "inactive"      // it is disabled
	becameCreatedLater = "created_later" // it did not exist when the event came
	becameChanged      = "changed_since" // it would match now; it has been changed since the event came
	becameUnrecorded   = "not_recorded"  // it matches, and no delivery is recorded yet
)

// duplicateWindow is for how long a second record of an event is taken for the first one, where the worker remembers it.
const duplicateWindow = 10 * time.Minute

type explanationView struct {
	Event *explainedEventView `json:"event" doc:"null for a record that was rejected."`
	// Rejected is set where the record is no event.
	Rejected      *rejectedView       `json:"rejected" doc:"Why the record at this place is no event; null where it is one."`
	Subscriptions []explainedSubView  `json:"subscriptions"`
	NextCursor    *string             `json:"nextCursor" doc:"There are more subscriptions: send it as cursor. null at the end."`
	Deleted       []deletedTargetView `json:"deleted" doc:"Deliveries of subscriptions that are gone; with the first part only."`
}

type explainedEventView struct {
	ID         string       `json:"id"`
	EventType  string       `json:"eventType"`
	RecordedAt time.Time    `json:"recordedAt"`
	Source     positionView `json:"source"`
	Recorded   bool         `json:"recorded" doc:"false while only Kafka has it: what it leads to may not be recorded either."`
	Copies     []copyView   `json:"copies" doc:"Every record of this event, oldest first."`
	// The chain of a profile's callback, in both directions.
	Follows    *followsView   `json:"follows" doc:"The delivery that was called back, and made this event follow; null where none was."`
	FollowedBy []followedView `json:"followedBy" doc:"The events that followed once deliveries of this one were called back."`
}

type copyView struct {
	Source     positionView `json:"source"`
	RecordedAt time.Time    `json:"recordedAt"`
	Duplicate  bool         `json:"duplicate" doc:"It came within 10 minutes of one before, and is delivered once with it."`
}

type rejectedView struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

type explainedSubView struct {
	SubscriptionID string            `json:"subscriptionId"`
	Name           string            `json:"name"`
	Status         string            `json:"status" enum:"active,disabled,paused"`
	Outcome        string            `json:"outcome" enum:"delivery,event_type,filter,inactive,created_later,changed_since,not_recorded"`
	Detail         string            `json:"detail" doc:"The outcome in one sentence."`
	Clauses        []clauseView      `json:"clauses" doc:"What the event does not meet of the subscription as it is now."`
	Delivery       *explainedDelView `json:"delivery"`
}

type explainedDelView struct {
	DeliveryView
	WaitView
	Generation int           `json:"generation"`
	Attempts   []AttemptView `json:"attempts"`
}

type deletedTargetView struct {
	SubscriptionID string           `json:"subscriptionId"`
	Delivery       explainedDelView `json:"delivery"`
}

type explanationOutput struct{ Body explanationView }

func (s *Service) registerExplain(a huma.API) {
	tags := []string{"Events"}
	const description = "For every subscription of the tenant: its delivery, or why there is none."
	route(s, a, huma.Operation{OperationID: "explain-event", Method: http.MethodGet, Path: "/events/{id}/explain", Tags: tags,
		Summary: "Tell what became of an event", Description: description}, webhook.PermissionAuditRead, s.explainEvent)
	route(s, a, huma.Operation{OperationID: "explain", Method: http.MethodGet, Path: "/explain", Tags: tags,
		Summary: "Tell what became of an event, or of a record of the events topic",
		Description: description + " By eventId it answers as /events/{id}/explain does, for ids of which a client or proxy would make another path. " +
			"By place it also explains what is not recorded yet, while Kafka keeps it, and what was rejected: to the tenant that the record names, " +
			"and where it cannot be read as far as that, to an admin of the tenant default."},
		webhook.PermissionAuditRead, s.explainAny)
}

func (s *Service) explainEvent(ctx context.Context, who caller, in *struct {
	EventIDInput
	PageInput
}) (*explanationOutput, error) {
	return s.explainID(ctx, who, in.ID, in.page())
}

type explainInput struct {
	EventID string `query:"eventId" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f]*$" patternDescription:"text without control characters"`
	At      string `query:"at" maxLength:"280" pattern:"^(([A-Za-z0-9._-]+:)?[0-9]+:[0-9]+)?$" patternDescription:"topic:partition:offset" example:"3:1207" doc:"partition:offset, or topic:partition:offset, of the events topic, which is the only one."`
	PageInput
}

func (s *Service) explainAny(ctx context.Context, who caller, in *explainInput) (*explanationOutput, error) {
	switch {
	case (in.EventID == "") == (in.At == ""):
		return nil, problem(http.StatusUnprocessableEntity, "selection_missing", "say which: eventId, or at")
	case in.EventID != "":
		return s.explainID(ctx, who, in.EventID, in.page())
	}
	at, ok := s.placeOf(in.At)
	if !ok {
		return nil, noRecord(in.At)
	}
	e, err := s.deps.Store.EventAt(ctx, who.Tenant, at)
	switch {
	case err == nil:
		return s.explain(ctx, &e, true, in.page())
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	return s.explainRecord(ctx, who, at, in.page())
}

func (s *Service) explainID(ctx context.Context, who caller, id string, page store.Page) (*explanationOutput, error) {
	e, err := s.deps.Store.Event(ctx, who.Tenant, id)
	if err != nil {
		return nil, err
	}
	return s.explain(ctx, &e, true, page)
}

// placeOf reads a place of the events topic. What is beyond any number is no place.
func (s *Service) placeOf(text string) (webhook.Position, bool) {
	parts := strings.Split(text, ":")
	n := len(parts)
	partition, badPartition := strconv.ParseInt(parts[n-2], 10, 32)
	offset, badOffset := strconv.ParseInt(parts[n-1], 10, 64)
	topic := s.deps.Kafka.Topics.Events
	return webhook.Position{Topic: topic, Partition: int32(partition), Offset: offset},
		badPartition == nil && badOffset == nil && (n == 2 || parts[0] == topic)
}

// noRecord is the answer to everybody who may not see a record, whether or not there is one.
func noRecord(at string) error {
	return problem(http.StatusNotFound, "not_found", "neither the audit nor Kafka has a record of this tenant at %s", at)
}

// explainRecord explains what Kafka has at a place and the audit has not.
func (s *Service) explainRecord(ctx context.Context, who caller, at webhook.Position, page store.Page) (*explanationOutput, error) {
	const patience = 5 * time.Second
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	record, err := s.journal.Record(bounded, at)
	if err != nil {
		return nil, noKafka()
	}
	if record == nil {
		return nil, noRecord(at.String())
	}
	decoded, err := event.FromRecord(record)
	var refused *event.Error
	switch {
	case errors.As(err, &refused):
		if tenant, known := tenantNamed(record); !who.operator() && (!known || tenant != who.Tenant) {
			return nil, noRecord(at.String())
		}
		return rejected(string(refused.Code), refused.Detail), nil
	case err != nil:
		return nil, err
	case decoded.Tenant == who.Tenant:
		return s.explain(ctx, &decoded.Event, false, page)
	case !who.operator():
		return nil, noRecord(at.String())
	}
	_, err = s.deps.Store.Tenant(ctx, decoded.Tenant)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return rejected("unknown_tenant", "there is no such tenant"), nil
	case err != nil:
		return nil, err
	}
	return nil, noRecord(at.String())
}

func rejected(code, detail string) *explanationOutput {
	return &explanationOutput{Body: explanationView{
		Rejected: &rejectedView{Code: code, Detail: detail}, Subscriptions: []explainedSubView{}, Deleted: []deletedTargetView{},
	}}
}

// tenantNamed is whose a record is that is no event, where its bytes say so without doubt.
func tenantNamed(r *kgo.Record) (tenant string, known bool) {
	tenant = webhook.DefaultTenant
	for _, h := range r.Headers {
		if h.Key == "ce_tenant" {
			return string(h.Value), true
		}
	}
	err := strictjson.Members(r.Value, func(key, value []byte) (err error) {
		if string(key) == "tenant" && string(value) != "null" {
			tenant, err = strictjson.String(value)
		}
		return err
	})
	return tenant, err == nil
}

func (s *Service) explain(ctx context.Context, e *webhook.Event, recorded bool, page store.Page) (*explanationOutput, error) {
	subs, next, err := s.deps.Store.Subscriptions(ctx, e.Tenant, page)
	if err != nil {
		return nil, err
	}
	deliveries, err := s.deliveriesOf(ctx, e, subs, page.Cursor == "")
	if err != nil {
		return nil, err
	}
	copies, err := s.deps.Store.Copies(ctx, e.Tenant, e.ID)
	if err != nil {
		return nil, err
	}
	contracts := map[string]string{}
	for _, row := range deliveries.rows {
		contracts[row.SubscriptionID] = row.Profile
	}
	followed, err := s.followedBy(ctx, e, contracts)
	if err != nil {
		return nil, err
	}
	view := explanationView{
		Event: &explainedEventView{
			Follows: viewFollows(e), FollowedBy: followed,
			ID: e.ID, EventType: e.Type, RecordedAt: e.RecordedAt.UTC(), Source: viewPosition(e.Source), Recorded: recorded, Copies: viewCopies(copies),
		},
		Subscriptions: make([]explainedSubView, len(subs)), NextCursor: orNull(next), Deleted: []deletedTargetView{},
	}
	for i := range subs {
		id := webhook.DeliveryID(e.Tenant, e.ID, subs[i].ID)
		view.Subscriptions[i] = explainSubscription(e, &subs[i], deliveries.view(id, &subs[i]))
		delete(deliveries.rows, id)
	}
	for id, row := range deliveries.rows {
		_, err := s.deps.Store.Subscription(ctx, e.Tenant, row.SubscriptionID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			view.Deleted = append(view.Deleted, deletedTargetView{SubscriptionID: row.SubscriptionID, Delivery: *deliveries.view(id, nil)})
		case err != nil:
			return nil, err
		}
	}
	return &explanationOutput{Body: view}, nil
}

// deliveriesOfEvent are the rows of an event's deliveries, and their attempts.
type deliveriesOfEvent struct {
	rows     map[uuid.UUID]store.Delivery
	attempts map[uuid.UUID][]webhook.Attempt
	waiting  map[uuid.UUID]waitingTrip
}

// deliveriesOf finds the deliveries to these subscriptions, and some of those to others where all is set.
func (s *Service) deliveriesOf(ctx context.Context, e *webhook.Event, subs []webhook.Subscription, all bool) (*deliveriesOfEvent, error) {
	const others = 100
	ids := make([]uuid.UUID, len(subs))
	for i := range subs {
		ids[i] = webhook.DeliveryID(e.Tenant, e.ID, subs[i].ID)
	}
	rows, err := s.deps.Store.DeliveriesByID(ctx, e.Tenant, ids...)
	if err != nil {
		return nil, err
	}
	if all {
		more, _, err := s.deps.Store.Deliveries(ctx, e.Tenant, store.DeliveryFilter{EventID: e.ID}, store.Page{Limit: others})
		if err != nil {
			return nil, err
		}
		for _, row := range more {
			if _, known := rows[row.ID]; !known {
				rows[row.ID] = row
			}
		}
	}
	ids = ids[:0]
	for id := range rows {
		ids = append(ids, id)
	}
	attempts, err := s.deps.Store.Attempts(ctx, e.Tenant, ids...)
	if err != nil {
		return nil, err
	}
	return &deliveriesOfEvent{rows: rows, attempts: attempts, waiting: s.waiting(ctx, slices.Collect(maps.Values(rows))...)}, nil
}

func (d *deliveriesOfEvent) view(id uuid.UUID, sub *webhook.Subscription) *explainedDelView {
	row, ok := d.rows[id]
	if !ok {
		return nil
	}
	wait := waitOf(&row, sub, d.waiting[id])
	return &explainedDelView{DeliveryView: viewDelivery(&row), WaitView: wait, Generation: int(row.Generation), Attempts: viewAttempts(d.attempts[id])}
}

func explainSubscription(e *webhook.Event, sub *webhook.Subscription, delivery *explainedDelView) explainedSubView {
	view := explainedSubView{SubscriptionID: sub.ID, Name: sub.Name, Status: string(sub.Status), Delivery: delivery}
	wanted, err := filter.Select(sub.EventTypes, sub.Filter)
	if err != nil {
		view.Clauses = []clauseView{{Pointer: "/filter", Detail: "the filter is not understood by this process"}}
	} else {
		view.Clauses = viewClauses(wanted.Explain(e))
	}
	view.Outcome, view.Detail = outcomeOf(e, sub, delivery, view.Clauses)
	return view
}

// outcomeOf says why there is no delivery, the surest reason first. What the subscription was like when the event came is not
// recorded: where it has been changed since, its clauses are those of today.
func outcomeOf(e *webhook.Event, sub *webhook.Subscription, delivery *explainedDelView, clauses []clauseView) (outcome, detail string) {
	changed := ""
	if sub.UpdatedAt.After(e.RecordedAt) {
		changed = "; it has been changed since the event came"
	}
	switch {
	case delivery != nil:
		return becameDelivery, "the event has a delivery to it, which is " + delivery.Status
	case sub.CreatedAt.After(e.RecordedAt):
		return becameCreatedLater, "the subscription was created after the event came"
	case len(clauses) > 0 && clauses[0].Pointer == "/eventTypes":
		return becameOtherType, "its event types do not cover the event" + changed
	case len(clauses) > 0:
		return becameFiltered, "its filter does not match the event" + changed
	case sub.Status == webhook.SubscriptionDisabled:
		return becameInactive, "the subscription is disabled: " + sub.StatusReason
	case changed != "":
		return becameChanged, "the event matches it as it is now" + changed
	default:
		return becameUnrecorded, "the event matches it, and no delivery is recorded yet"
	}
}

func viewPosition(p webhook.Position) positionView {
	return positionView{Topic: p.Topic, Partition: p.Partition, Offset: p.Offset}
}

func viewCopies(copies []webhook.Event) []copyView {
	views := make([]copyView, len(copies))
	for i := range copies {
		views[i] = copyView{
			Source: viewPosition(copies[i].Source), RecordedAt: copies[i].RecordedAt.UTC(),
			Duplicate: i > 0 && copies[i].RecordedAt.Sub(copies[i-1].RecordedAt) <= duplicateWindow,
		}
	}
	return views
}
