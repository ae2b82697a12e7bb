package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// DeliveryView is a delivery in a list.
type DeliveryView struct {
	ID             string     `json:"id"`
	Status         string     `json:"status" enum:"PENDING,DELIVERED,DEAD_LETTER,CANCELLED"`
	EventID        string     `json:"eventId"`
	EventType      string     `json:"eventType"`
	SubscriptionID string     `json:"subscriptionId"`
	Trigger        string     `json:"trigger" enum:"event,manual,replay,test" doc:"Why its generation exists; test: somebody sent a test, which is one attempt and counts for nothing."`
	CreatedAt      time.Time  `json:"createdAt"`
	UpdatedAt      time.Time  `json:"updatedAt"`
	AttemptCount   int        `json:"attemptCount" doc:"Attempts of the current generation."`
	NextAttemptAt  *time.Time `json:"nextAttemptAt" doc:"While PENDING: not before this."`
	LastStatusCode *int       `json:"lastStatusCode" doc:"Of the last response; null where none came."`
	Reason         *string    `json:"reason" doc:"Why it waits or has ended, as a stable code; null for DELIVERED."`
}

type listedDeliveryView struct {
	DeliveryView
	Attempts []AttemptView `json:"attempts,omitzero" doc:"With include=attempts."`
}

type deliveryDetailView struct {
	DeliveryView
	WaitView
	Tenant         string        `json:"tenant"`
	Profile        string        `json:"profile"`
	ProfileVersion int           `json:"profileVersion"`
	Generation     int           `json:"generation" doc:"0 for the event itself; grows with every redelivery or replay."`
	LastError      *string       `json:"lastError" doc:"Why the last attempt got no response, as a stable code."`
	Attempts       []AttemptView `json:"attempts" doc:"Oldest first, of every generation. An attempt with a quick second try is two entries of one number."`
}

// AttemptView is one request of a delivery.
type AttemptView struct {
	ID            string     `json:"id"`
	Generation    int        `json:"generation"`
	Number        int        `json:"number" doc:"Counts the attempts of a generation from 1."`
	Try           int        `json:"try" doc:"Counts the requests within one attempt from 1."`
	Trigger       string     `json:"trigger"`
	StartedAt     time.Time  `json:"startedAt"`
	DurationMs    float64    `json:"durationMs" doc:"From dialling to the end of the response."`
	Phases        phasesView `json:"phases"`
	StatusCode    *int       `json:"statusCode" doc:"null where no response came."`
	Error         *string    `json:"error" doc:"Why no response came, as a stable code."`
	Response      *string    `json:"response" doc:"The beginning of the response's body."`
	RequestBytes  int        `json:"requestBytes"`
	ResponseBytes int        `json:"responseBytes"`
	Status        string     `json:"status" doc:"Of the delivery after this request."`
	Reason        *string    `json:"reason"`
	NextAttemptAt *time.Time `json:"nextAttemptAt"`
	Traceparent   *string    `json:"traceparent" doc:"Of the request's span, in the producer's trace."`
}

type phasesView struct {
	DNSMs       float64 `json:"dnsMs"`
	ConnectMs   float64 `json:"connectMs"`
	TLSMs       float64 `json:"tlsMs"`
	FirstByteMs float64 `json:"firstByteMs"`
}

// FilterInput selects deliveries.
type FilterInput struct {
	Status         string    `query:"status" enum:"PENDING,DELIVERED,DEAD_LETTER,CANCELLED"`
	SubscriptionID string    `query:"subscriptionId" maxLength:"64"`
	EventID        string    `query:"eventId" maxLength:"256"`
	EventType      string    `query:"eventType" maxLength:"255"`
	Trigger        string    `query:"trigger" enum:"event,manual,replay,test" doc:"Why its generation exists. Left out: tests are there too."`
	From           time.Time `query:"from" doc:"Created at this time or later."`
	To             time.Time `query:"to" doc:"Created before this time."`
}

func (f *FilterInput) filter() store.DeliveryFilter {
	return store.DeliveryFilter{
		Status: webhook.Status(f.Status), SubscriptionID: f.SubscriptionID, EventID: f.EventID, EventType: f.EventType,
		Trigger: webhook.Trigger(f.Trigger), From: f.From, To: f.To,
	}
}

type listDeliveriesInput struct {
	FilterInput
	PageInput
	Include string `query:"include" enum:"attempts" doc:"attempts carries each delivery's attempts."`
}

type countsOutput struct {
	Body struct {
		Counts  map[string]int64 `json:"counts" doc:"Deliveries by status; every status is there."`
		AtLeast bool             `json:"atLeast" doc:"true where counting them all would have taken more than 3 seconds: of each status there are as many as it says, or, from 100,000 on, more."`
	} `nameHint:"DeliveryCounts"`
}

const (
	// countTime bounds an exact count.
	countTime = 3 * time.Second
	// mostCounted is where a count stops for which the time is not enough.
	mostCounted = 100_000
)

type deliveryOutput struct{ Body deliveryDetailView }

func (s *Service) registerDeliveries(a huma.API) {
	tags := []string{"Deliveries"}
	route(s, a, huma.Operation{OperationID: "list-deliveries", Method: http.MethodGet, Path: "/deliveries", Tags: tags,
		Summary: "List deliveries, newest first"}, webhook.PermissionAuditRead, s.listDeliveries)
	route(s, a, huma.Operation{OperationID: "count-deliveries", Method: http.MethodGet, Path: "/deliveries/count", Tags: tags,
		Summary: "Count deliveries by status"}, webhook.PermissionAuditRead, s.countDeliveries)
	route(s, a, huma.Operation{OperationID: "get-delivery", Method: http.MethodGet, Path: "/deliveries/{id}", Tags: tags,
		Summary: "Get a delivery with its attempts"}, webhook.PermissionAuditRead, s.getDelivery)
	route(s, a, huma.Operation{OperationID: "redeliver", Method: http.MethodPost, Path: "/deliveries/{id}/redeliver", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Deliver again", Description: "A new generation of the same delivery: the same ids, its attempts counted from 1. A delivery that is PENDING is refused."},
		webhook.PermissionSubscriptionEdit, s.redeliver)
}

func (s *Service) listDeliveries(ctx context.Context, who caller, in *listDeliveriesInput) (*pageOutput[listedDeliveryView], error) {
	rows, next, err := s.deps.Store.Deliveries(ctx, who.Tenant, in.filter(), in.page())
	if err != nil {
		return nil, err
	}
	attempts := map[uuid.UUID][]webhook.Attempt{}
	if in.Include != "" && len(rows) > 0 {
		ids := make([]uuid.UUID, len(rows))
		for i := range rows {
			ids[i] = rows[i].ID
		}
		if attempts, err = s.deps.Store.Attempts(ctx, who.Tenant, ids...); err != nil {
			return nil, err
		}
	}
	return paged(rows, next, func(row *store.Delivery) listedDeliveryView {
		view := listedDeliveryView{DeliveryView: viewDelivery(row)}
		if in.Include != "" {
			view.Attempts = viewAttempts(attempts[row.ID])
		}
		return view
	}), nil
}

func (s *Service) countDeliveries(ctx context.Context, who caller, in *FilterInput) (*countsOutput, error) {
	counts, all, err := inTime(ctx,
		func(ctx context.Context) (map[webhook.Status]int64, error) {
			return s.deps.Store.CountDeliveries(ctx, who.Tenant, in.filter())
		},
		func() (map[webhook.Status]int64, error) {
			return s.deps.Store.CountDeliveriesUpTo(ctx, who.Tenant, in.filter(), mostCounted)
		})
	if err != nil {
		return nil, err
	}
	out := &countsOutput{}
	out.Body.Counts, out.Body.AtLeast = map[string]int64{}, !all
	for _, status := range webhook.Statuses() {
		out.Body.Counts[string(status)] = counts[status]
	}
	return out, nil
}

// inTime counts everything for as long as countTime; where that is not enough it counts some, and all is false.
func inTime[T any](ctx context.Context, everything func(context.Context) (T, error), some func() (T, error)) (counted T, all bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	if counted, err = everything(bounded); err == nil || bounded.Err() == nil || ctx.Err() != nil {
		return counted, true, err
	}
	counted, err = some()
	return counted, false, err
}

func (s *Service) getDelivery(ctx context.Context, who caller, in *IDInput) (*deliveryOutput, error) {
	row, err := s.delivery(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	return s.detail(ctx, &row)
}

// delivery finds a row. What is not a delivery id is nobody's delivery.
func (s *Service) delivery(ctx context.Context, who caller, text string) (store.Delivery, error) {
	id, ok := deliveryID(text)
	if !ok {
		return store.Delivery{}, store.ErrNotFound
	}
	return s.deps.Store.Delivery(ctx, who.Tenant, id)
}

// deliveryID reads an id as it is written, and in no other of the forms that a UUID may have.
func deliveryID(text string) (uuid.UUID, bool) {
	id, err := uuid.Parse(text)
	return id, err == nil && len(text) == len(id.String())
}

func (s *Service) detail(ctx context.Context, row *store.Delivery) (*deliveryOutput, error) {
	attempts, err := s.deps.Store.Attempts(ctx, row.Tenant, row.ID)
	if err != nil {
		return nil, err
	}
	var sub *webhook.Subscription
	if row.Status == webhook.Pending {
		found, err := s.deps.Store.Subscription(ctx, row.Tenant, row.SubscriptionID)
		switch {
		case err == nil:
			sub = &found
		case !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
	}
	wait := waitOf(row, sub, s.waiting(ctx, *row)[row.ID])
	return &deliveryOutput{Body: deliveryDetailView{
		DeliveryView: viewDelivery(row), WaitView: wait, Tenant: row.Tenant, Profile: row.Profile, ProfileVersion: int(row.ProfileVersion),
		Generation: int(row.Generation), LastError: orNull(string(row.LastError)),
		Attempts: viewAttempts(attempts[row.ID]),
	}}, nil
}

func viewDelivery(d *store.Delivery) DeliveryView {
	return DeliveryView{
		ID: d.ID.String(), Status: string(d.Status), EventID: d.EventID, EventType: d.EventType, SubscriptionID: d.SubscriptionID, Trigger: string(d.Trigger),
		CreatedAt: d.CreatedAt.UTC(), UpdatedAt: d.UpdatedAt.UTC(), AttemptCount: int(d.AttemptCount),
		NextAttemptAt: timeOrNull(d.NextAttemptAt), LastStatusCode: orNull(d.LastStatusCode), Reason: orNull(string(d.Reason)),
	}
}

// viewAttempts leaves out decisions that were made without a request: the delivery itself says what they were.
func viewAttempts(attempts []webhook.Attempt) []AttemptView {
	views := make([]AttemptView, 0, len(attempts))
	for i := range attempts {
		if attempts[i].Number > 0 {
			views = append(views, viewAttempt(&attempts[i]))
		}
	}
	return views
}

func viewAttempt(a *webhook.Attempt) AttemptView {
	return AttemptView{
		ID: a.ID.String(), Generation: int(a.Generation), Number: int(a.Number), Try: int(a.Try), Trigger: string(a.Trigger),
		StartedAt: a.StartedAt.UTC(), DurationMs: millis(a.Duration),
		Phases:     phasesView{DNSMs: millis(a.Phases.DNS), ConnectMs: millis(a.Phases.Connect), TLSMs: millis(a.Phases.TLS), FirstByteMs: millis(a.Phases.FirstByte)},
		StatusCode: orNull(a.StatusCode), Error: orNull(string(a.Error)), Response: orNull(strings.ToValidUTF8(string(a.Response), "\uFFFD")),
		RequestBytes: a.RequestBytes, ResponseBytes: a.ResponseBytes,
		Status: string(a.Outcome.Status), Reason: orNull(string(a.Outcome.Reason)), NextAttemptAt: timeOrNull(a.Outcome.NextAttemptAt),
		Traceparent: orNull(a.TraceParent),
	}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
