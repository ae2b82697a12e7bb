package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/webhook"
)

type eventView struct {
	ID             string          `json:"id"`
	EventType      string          `json:"eventType"`
	Tenant         string          `json:"tenant"`
	EventTimestamp time.Time       `json:"eventTimestamp" doc:"When it occurred, by its producer."`
	OrderingKey    *string         `json:"orderingKey"`
	Metadata       json.RawMessage `json:"metadata"`
	Data           json.RawMessage `json:"data" doc:"As the producer wrote it."`
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

type eventOutput struct{ Body eventView }

func (s *Service) registerEvents(a huma.API) {
	route(s, a, huma.Operation{OperationID: "get-event", Method: http.MethodGet, Path: "/events/{id}", Tags: []string{"Events"},
		Summary: "Get an event"}, webhook.PermissionAuditRead, s.getEvent)
	route(s, a, huma.Operation{OperationID: "list-event-types", Method: http.MethodGet, Path: "/event-types", Tags: []string{"Events"},
		Summary: "List the event types that the profiles describe", Description: "Other types may be sent and subscribed to as well."},
		webhook.PermissionSubscriptionRead, s.listEventTypes)
	route(s, a, huma.Operation{OperationID: "list-profiles", Method: http.MethodGet, Path: "/profiles", Tags: []string{"Profiles"},
		Summary: "List the delivery contracts"}, webhook.PermissionSubscriptionRead, s.listProfiles)
}

func (s *Service) getEvent(ctx context.Context, who caller, in *struct {
	ID string `path:"id" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
}) (*eventOutput, error) {
	e, err := s.deps.Store.Event(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	return &eventOutput{Body: eventView{
		ID: e.ID, EventType: e.Type, Tenant: e.Tenant, EventTimestamp: e.Timestamp.UTC(), OrderingKey: orNull(e.OrderingKey),
		Metadata: rawOrNull(e.Metadata), Data: rawOrNull(e.Data), RecordedAt: e.RecordedAt.UTC(),
		Source: positionView{Topic: e.Source.Topic, Partition: e.Source.Partition, Offset: e.Source.Offset},
	}}, nil
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
