package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/filter"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

const (
	// lookTime bounds how long one request looks at stored events.
	lookTime = 5 * time.Second
	// lookChunk is how many are read at once.
	lookChunk = 200
)

type dryRunInput struct {
	Body struct {
		EventTypes []string          `json:"eventTypes,omitempty" nullable:"true" maxItems:"200" maxLength:"255" doc:"As in a subscription."`
		Filter     json.RawMessage   `json:"filter,omitempty" doc:"As in a subscription."`
		Events     []json.RawMessage `json:"events,omitempty" nullable:"true" maxItems:"100" doc:"Events to try instead of stored ones, as a producer writes them."`
		Last       int               `json:"last,omitempty" minimum:"1" maximum:"1000" doc:"So many of the newest stored events. 100 where neither last nor events is given."`
		From       time.Time         `json:"from,omitzero" doc:"Of stored events: recorded at this time or later."`
		To         time.Time         `json:"to,omitzero" doc:"Of stored events: recorded before this time."`
	} `nameHint:"TryFilter"`
}

type dryRunView struct {
	Looked   int              `json:"looked" doc:"How many events were looked at."`
	Matched  int              `json:"matched"`
	Complete bool             `json:"complete" doc:"false where time ran out before all were looked at."`
	Events   []triedEventView `json:"events" doc:"Newest first; given ones in their order."`
}

type triedEventView struct {
	EventID    string       `json:"eventId"`
	EventType  string       `json:"eventType"`
	RecordedAt *time.Time   `json:"recordedAt" doc:"null for a given event."`
	Matched    bool         `json:"matched"`
	Clauses    []clauseView `json:"clauses" doc:"What it does not meet."`
}

type dryRunOutput struct{ Body dryRunView }

func (s *Service) registerDryRun(a huma.API) {
	route(s, a, huma.Operation{OperationID: "dry-run-subscription", Method: http.MethodPost, Path: "/subscriptions/dry-run", Tags: []string{"Subscriptions"},
		Summary:     "Try event types and a filter",
		Description: "Which of the newest stored events, or of the events given, a subscription with these types and this filter would get. Nothing is delivered."},
		webhook.PermissionAuditRead, s.dryRun)
}

func (s *Service) dryRun(ctx context.Context, who caller, in *dryRunInput) (*dryRunOutput, error) {
	compiled, f := compileFilter(in.Body.Filter)
	given := samples(who.Tenant, in.Body.Events, &f)
	if len(in.Body.Events) > 0 && (in.Body.Last > 0 || !in.Body.From.IsZero() || !in.Body.To.IsZero()) {
		f.add("/events", codeInvalid, "either events, or last, from and to for stored ones")
	}
	if err := f.problem(); err != nil {
		return nil, err
	}
	try := &dryRunOutput{Body: dryRunView{Complete: true, Events: []triedEventView{}}}
	wanted := filter.Selection{Types: in.Body.EventTypes, Filter: compiled}
	if len(in.Body.Events) > 0 {
		try.Body.add(&wanted, given)
		return try, nil
	}
	last := in.Body.Last
	if last == 0 {
		last = 100
	}
	began, from := time.Now(), store.EventFilter{From: in.Body.From, To: in.Body.To}
	for try.Body.Looked < last {
		if try.Body.Complete = time.Since(began) < lookTime; !try.Body.Complete {
			break
		}
		chunk, err := s.deps.Store.NewestEvents(ctx, who.Tenant, from, min(lookChunk, last-try.Body.Looked))
		if err != nil {
			return nil, err
		}
		if len(chunk) == 0 {
			break
		}
		try.Body.add(&wanted, chunk)
		from.Before = store.PlaceOf(&chunk[len(chunk)-1])
	}
	return try, nil
}

func (v *dryRunView) add(wanted *filter.Selection, events []webhook.Event) {
	for i := range events {
		e := &events[i]
		tried := triedEventView{EventID: e.ID, EventType: e.Type, RecordedAt: timeOrNull(e.RecordedAt), Matched: wanted.Wants(e), Clauses: []clauseView{}}
		if tried.Matched {
			v.Matched++
		} else {
			tried.Clauses = viewClauses(wanted.Explain(e))
		}
		v.Looked++
		v.Events = append(v.Events, tried)
	}
}

// samples reads events as ingest does.
func samples(tenant string, given []json.RawMessage, f *fieldErrors) []webhook.Event {
	events := make([]webhook.Event, 0, len(given))
	for i, body := range given {
		decoded, _, err := event.FromRequest(http.Header{"Content-Type": {"application/json"}}, body)
		var wrong event.Errors
		if errors.As(err, &wrong) {
			for _, e := range wrong {
				f.add("/events/"+strconv.Itoa(i)+e.Pointer, string(e.Code), "%s", e.Detail)
			}
			continue
		}
		if err != nil || len(decoded) != 1 {
			f.add("/events/"+strconv.Itoa(i), codeInvalid, "is not one event")
			continue
		}
		e := decoded[0].Event
		e.Tenant = tenant
		if e.Timestamp.IsZero() {
			e.Timestamp = now()
		}
		events = append(events, e)
	}
	return events
}
