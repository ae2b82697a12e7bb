package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

type eventView struct {
	ID             string          `json:"id"`
	EventType      string          `json:"eventType"`
	Tenant         string          `json:"tenant"`
	EventTimestamp time.Time       `json:"eventTimestamp" doc:"When it occurred, by its producer."`
	OrderingKey    *string         `json:"orderingKey"`
	Metadata       json.RawMessage `json:"metadata,omitempty" doc:"In a list with include=data."`
	Data           json.RawMessage `json:"data,omitempty" doc:"As the producer wrote it. In a list with include=data."`
	RecordedAt     time.Time       `json:"recordedAt" doc:"When Kafka took it."`
	Source         positionView    `json:"source"`
}

type positionView struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

type eventTypeView struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Profiles    []string        `json:"profiles" doc:"The profiles that describe it. Any profile delivers any type."`
	Sample      json.RawMessage `json:"sample" doc:"An example of its data."`
}

type profileView struct {
	Name        string          `json:"name"`
	Version     int             `json:"version"`
	Description string          `json:"description"`
	EventTypes  []string        `json:"eventTypes" doc:"The types that it describes; it delivers any type."`
	HTTPSOnly   bool            `json:"httpsOnly"`
	Definition  json.RawMessage `json:"definition" doc:"The whole contract, as its file states it."`
}

// EventIDInput is an event's id in a path. It is the producer's, and may be any text: what a path would take apart is percent-encoded.
type EventIDInput struct {
	ID string `path:"id" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters" doc:"The event's id, percent-encoded as one segment. Clients and proxies that make another path of ids such as .. or a%2Fb reach every event with /events?id= and /explain?eventId=."`
}

type eventOutput struct{ Body eventView }

type listEventsInput struct {
	PageInput
	ID        string    `query:"id" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f]*$" patternDescription:"text without control characters" doc:"The event of this id, once for each record of it."`
	EventType string    `query:"eventType" maxLength:"255" doc:"A type, prefix.* or *."`
	From      time.Time `query:"from" doc:"Recorded at this time or later."`
	To        time.Time `query:"to" doc:"Recorded before this time."`
	Include   string    `query:"include" enum:"data" doc:"data carries each event's metadata and data."`
	Unmatched bool      `query:"unmatched" doc:"Only events without any delivery: nobody wanted them. /explain says why."`
}

func (s *Service) registerEvents(a huma.API) {
	route(s, a, huma.Operation{OperationID: "list-events", Method: http.MethodGet, Path: "/events", Tags: []string{"Events"},
		Summary:     "List events, newest first",
		Description: "For as long as events are kept. A part may have fewer items than limit, or none, where looking for more would take long: nextCursor goes on."},
		webhook.PermissionAuditRead, s.listEvents)
	route(s, a, huma.Operation{OperationID: "get-event", Method: http.MethodGet, Path: "/events/{id}", Tags: []string{"Events"},
		Summary: "Get an event"}, webhook.PermissionAuditRead, s.getEvent)
	route(s, a, huma.Operation{OperationID: "list-event-types", Method: http.MethodGet, Path: "/event-types", Tags: []string{"Events"},
		Summary: "List the event types that the profiles describe", Description: "Other types may be sent and subscribed to as well."},
		webhook.PermissionSubscriptionRead, s.listEventTypes)
	route(s, a, huma.Operation{OperationID: "list-profiles", Method: http.MethodGet, Path: "/profiles", Tags: []string{"Profiles"},
		Summary: "List the delivery contracts"}, webhook.PermissionSubscriptionRead, s.listProfiles)
}

// listEvents looks through events in chunks until it has a page, for as long as lookTime.
func (s *Service) listEvents(ctx context.Context, who caller, in *listEventsInput) (*pageOutput[eventView], error) {
	from := store.EventFilter{From: in.From, To: in.To, ID: in.ID}
	if in.EventType != "" {
		from.Types = []string{in.EventType}
	}
	if in.Cursor != "" {
		at, id, err := store.ParseCursor(in.Cursor)
		if err != nil {
			return nil, err
		}
		from.Before = store.EventPlace{At: at, ID: id}
	}
	view := func(e *webhook.Event) eventView { return viewEvent(e, in.Include != "") }
	var page []webhook.Event
	for began := time.Now(); time.Since(began) < lookTime; {
		chunk, err := s.deps.Store.NewestEvents(ctx, who.Tenant, from, lookChunk)
		if err != nil {
			return nil, err
		}
		if len(chunk) == 0 {
			return paged(page, "", view), nil
		}
		from.Before = store.PlaceOf(&chunk[len(chunk)-1])
		if in.Unmatched {
			if chunk, err = s.unmatched(ctx, who, chunk); err != nil {
				return nil, err
			}
		}
		if page = append(page, chunk...); len(page) >= in.Limit {
			page = page[:in.Limit]
			from.Before = store.PlaceOf(&page[in.Limit-1])
			break
		}
	}
	return paged(page, store.Cursor(from.Before.At, from.Before.ID), view), nil
}

// unmatched leaves out the events that have a delivery.
func (s *Service) unmatched(ctx context.Context, who caller, events []webhook.Event) ([]webhook.Event, error) {
	ids := make([]string, len(events))
	for i := range events {
		ids[i] = events[i].ID
	}
	delivered, err := s.deps.Store.Matched(ctx, who.Tenant, ids...)
	return slices.DeleteFunc(events, func(e webhook.Event) bool { return delivered[e.ID] }), err
}

func (s *Service) getEvent(ctx context.Context, who caller, in *EventIDInput) (*eventOutput, error) {
	e, err := s.deps.Store.Event(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	return &eventOutput{Body: viewEvent(&e, true)}, nil
}

func viewEvent(e *webhook.Event, whole bool) eventView {
	view := eventView{
		ID: e.ID, EventType: e.Type, Tenant: e.Tenant, EventTimestamp: e.Timestamp.UTC(), OrderingKey: orNull(e.OrderingKey),
		RecordedAt: e.RecordedAt.UTC(), Source: viewPosition(e.Source),
	}
	if whole {
		view.Metadata, view.Data = rawOrNull(e.Metadata), rawOrNull(e.Data)
	}
	return view
}

func (s *Service) listEventTypes(context.Context, caller, *struct{}) (*pageOutput[eventTypeView], error) {
	found := map[string]*eventTypeView{}
	for _, name := range s.deps.Profiles.Names() {
		p, ok := s.deps.Profiles.Get(name)
		if !ok {
			continue
		}
		for _, t := range p.EventTypes {
			if found[t.Name] == nil {
				found[t.Name] = &eventTypeView{Name: t.Name, Description: t.Description, Sample: rawOrNull(t.Sample)}
			}
			found[t.Name].Profiles = append(found[t.Name].Profiles, name)
		}
	}
	out := &pageOutput[eventTypeView]{Body: pageView[eventTypeView]{Items: []eventTypeView{}}}
	for _, view := range found {
		out.Body.Items = append(out.Body.Items, *view)
	}
	slices.SortFunc(out.Body.Items, func(a, b eventTypeView) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (s *Service) listProfiles(context.Context, caller, *struct{}) (*pageOutput[profileView], error) {
	out := &pageOutput[profileView]{Body: pageView[profileView]{Items: []profileView{}}}
	for _, name := range s.deps.Profiles.Names() {
		p, ok := s.deps.Profiles.Get(name)
		if !ok {
			continue
		}
		view := profileView{Name: p.Name, Version: int(p.Version), Description: p.Description, EventTypes: []string{}, HTTPSOnly: p.HTTPSOnly, Definition: rawOrNull(p.JSON())}
		for _, t := range p.EventTypes {
			view.EventTypes = append(view.EventTypes, t.Name)
		}
		out.Body.Items = append(out.Body.Items, view)
	}
	return out, nil
}

func rawOrNull(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("null")
	}
	return raw
}
