package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/source"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	// requestsRead bounds how far back the requests of a source are looked for among all that share its partition.
	requestsRead = 20_000
	// requestsTime bounds how long that takes.
	requestsTime = 8 * time.Second
	// replayMost bounds what one call sends again.
	replayMost = 500
)

// SourceRequestView is what became of one request to a source.
type SourceRequestView struct {
	ID         string    `json:"id"`
	At         time.Time `json:"at"`
	Outcome    string    `json:"outcome" enum:"accepted,rejected,refused" doc:"refused: forged, stale, or not readable. rejected: the third party's own, but no event could be made of it yet; it can be sent again."`
	Reason     *string   `json:"reason"`
	Detail     *string   `json:"detail"`
	EventID    *string   `json:"eventId" doc:"The event that it became, or will."`
	EventType  *string   `json:"eventType"`
	Bytes      int       `json:"bytes"`
	Aggregator *string   `json:"aggregator"`
	RemoteID   *string   `json:"remoteId"`
}

type listSourceRequestsInput struct {
	IDInput
	Outcome string `query:"outcome" enum:"accepted,rejected,refused"`
	Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many items."`
}

type replaySource struct {
	RequestID string `json:"requestId,omitempty" nullable:"true" maxLength:"64" doc:"Only this request. Left out: all that were rejected, at most 500 in one call."`
}

type replayedRequestsOutput struct {
	Body struct {
		Replayed int                 `json:"replayed"`
		Rejected int                 `json:"rejected" doc:"That still cannot become events."`
		Items    []SourceRequestView `json:"items"`
	}
}

func (s *Service) registerSourceRequests(a huma.API) {
	tags := []string{"Sources"}
	route(s, a, huma.Operation{OperationID: "list-source-requests", Method: http.MethodGet, Path: "/sources/{id}/requests", Tags: tags,
		Summary: "List the last requests to a source", Description: "Newest first. Of more than twenty in a second not all are shown, except those that were rejected."},
		webhook.PermissionAuditRead, s.listSourceRequests)
	route(s, a, huma.Operation{OperationID: "replay-source-requests", Method: http.MethodPost, Path: "/sources/{id}/requests/replay", Tags: tags,
		Summary: "Make events of what was rejected", Description: "For after a connection was added or the specification put right. Each becomes the event that it would have become, under the same id. The last seven days can be sent again."},
		webhook.PermissionSubscriptionEdit, s.replaySourceRequests)
}

func (s *Service) listSourceRequests(ctx context.Context, who caller, in *listSourceRequestsInput) (*pageOutput[SourceRequestView], error) {
	if _, err := s.deps.Store.Source(ctx, who.Tenant, in.ID); err != nil {
		return nil, err
	}
	all, err := s.sourceRequests(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r webhook.SourceRequest) bool { return in.Outcome != "" && string(r.Outcome) != in.Outcome })
	return paged(all[:min(len(all), in.Limit)], "", viewSourceRequest), nil
}

func noKafka() error {
	return unavailable("kafka_unavailable", "Kafka cannot be reached; what was accepted waits in it")
}

// sourceRequests reads what the topic tells of a source, newest first. Of a request that is told of twice the last word counts.
func (s *Service) sourceRequests(ctx context.Context, id string) ([]webhook.SourceRequest, error) {
	name := s.deps.Kafka.Topics.SourceRequests
	ctx, cancel := context.WithTimeout(ctx, requestsTime)
	defer cancel()
	ends, err := s.journal.Ends(ctx, name)
	if err != nil {
		return nil, noKafka()
	}
	partition := kafka.PartitionOf(id, len(ends))
	latest := map[string]webhook.SourceRequest{}
	err = s.journal.Range(ctx, name, partition, max(0, ends[partition]-requestsRead), ends[partition], func(r *kgo.Record) {
		told, err := wire.DecodeSourceRequest(r.Value)
		if err == nil && told.SourceID == id {
			latest[told.ID] = *told
		}
	})
	if err != nil {
		return nil, noKafka()
	}
	all := make([]webhook.SourceRequest, 0, len(latest))
	for _, told := range latest {
		all = append(all, told)
	}
	slices.SortFunc(all, func(a, b webhook.SourceRequest) int { return cmp.Or(b.At.Compare(a.At), strings.Compare(b.ID, a.ID)) })
	return all, nil
}

func (s *Service) replaySourceRequests(ctx context.Context, who caller, in *struct {
	IDInput
	Body *replaySource
}) (*replayedRequestsOutput, error) {
	from, err := s.deps.Store.Source(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	rules, err := compileSource(from.Spec)
	if err != nil {
		return nil, err
	}
	all, err := s.sourceRequests(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r webhook.SourceRequest) bool {
		return r.Outcome != webhook.SourceRejected || in.Body != nil && in.Body.RequestID != "" && r.ID != in.Body.RequestID
	})
	slices.Reverse(all) // in the order in which they came
	p := &sourceReplay{Service: s, from: &from, rules: rules, wanted: all[:min(len(all), replayMost)]}
	if err := p.run(ctx); err != nil {
		return nil, err
	}
	out := &replayedRequestsOutput{}
	out.Body.Items = []SourceRequestView{}
	for i := range p.wanted {
		out.Body.Items = append(out.Body.Items, viewSourceRequest(&p.wanted[i]))
		if p.wanted[i].Outcome == webhook.SourceAccepted {
			out.Body.Replayed++
		} else {
			out.Body.Rejected++
		}
	}
	return out, nil
}

// sourceReplay makes events of rejected requests.
type sourceReplay struct {
	*Service
	from   *webhook.Source
	rules  *source.Source
	wanted []webhook.SourceRequest
	bodies map[webhook.Position]*kgo.Record
}

func (p *sourceReplay) run(ctx context.Context) error {
	if err := p.fetch(ctx); err != nil {
		return noKafka()
	}
	var records []*kgo.Record
	for i := range p.wanted {
		told := &p.wanted[i]
		e, err := p.event(ctx, told)
		var wrong *source.Error
		switch {
		case errors.As(err, &wrong):
			told.Reason, told.Detail = string(wrong.Reason), wrong.Detail
			continue
		case err != nil:
			return err
		}
		told.Outcome, told.Reason, told.Detail, told.EventType = webhook.SourceAccepted, "", "", e.Type
		if _, err := p.deps.Store.Event(ctx, e.Tenant, e.ID); err == nil {
			continue // somebody has sent it again before
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		r, err := event.Record(p.deps.Kafka.Topics.Events, e)
		if err != nil {
			return err
		}
		telemetry.SetRecordTrace(r, e.Trace)
		records = append(records, r)
	}
	if _, err := p.journal.Write(ctx, records...); err != nil {
		return noKafka()
	}
	var told []*kgo.Record
	for i := range p.wanted {
		if p.wanted[i].Outcome == webhook.SourceAccepted {
			told = append(told, &kgo.Record{Topic: p.deps.Kafka.Topics.SourceRequests, Key: []byte(p.from.ID), Value: wire.EncodeSourceRequest(&p.wanted[i])})
		}
	}
	if _, err := p.journal.Write(ctx, told...); err != nil {
		return noKafka()
	}
	return nil
}

// fetch reads the rejected records, partition by partition.
func (p *sourceReplay) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestsTime)
	defer cancel()
	p.bodies = map[webhook.Position]*kgo.Record{}
	type span struct{ from, to int64 }
	spans := map[int32]span{}
	for _, told := range p.wanted {
		at := told.Rejected
		one, ok := spans[at.Partition]
		if !ok {
			one = span{at.Offset, at.Offset + 1}
		}
		spans[at.Partition] = span{min(one.from, at.Offset), max(one.to, at.Offset+1)}
	}
	name := p.deps.Kafka.Topics.Rejected
	for partition, one := range spans {
		err := p.journal.Range(ctx, name, partition, one.from, one.to, func(r *kgo.Record) {
			if string(r.Key) == p.from.ID {
				p.bodies[webhook.Position{Partition: r.Partition, Offset: r.Offset}] = r
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// event reads a rejected request again. A [*source.Error] says why it still is no event.
func (p *sourceReplay) event(ctx context.Context, told *webhook.SourceRequest) (*webhook.Event, error) {
	r := p.bodies[webhook.Position{Partition: told.Rejected.Partition, Offset: told.Rejected.Offset}]
	if r == nil {
		return nil, &source.Error{Reason: "gone", Detail: "the body is not kept any more"}
	}
	request := source.Request{Header: http.Header{}, Body: r.Value}
	for _, h := range r.Headers {
		if name, ok := strings.CutPrefix(h.Key, topic.HeaderSourceHeader); ok {
			request.Header.Set(name, string(h.Value))
		}
	}
	if err := p.rules.Check(request.Body); err != nil {
		return nil, err
	}
	message, err := p.rules.Read(request)
	if err != nil {
		return nil, err
	}
	var connection *webhook.Connection
	if message.Aggregator != "" {
		found, err := p.deps.Store.Connection(ctx, p.from.Tenant, webhook.ConnectionID(p.from.Tenant, message.Aggregator, message.RemoteID))
		if err == nil {
			connection = &found
		} else if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	e, err := message.Event(connection)
	if err != nil {
		return nil, err
	}
	e.ID, e.Timestamp, e.Trace = told.EventID, told.At, telemetry.RecordTrace(r)
	e.Tenant = cmp.Or(e.Tenant, p.from.Tenant)
	return &e, nil
}

func viewSourceRequest(r *webhook.SourceRequest) SourceRequestView {
	return SourceRequestView{
		ID: r.ID, At: r.At.UTC(), Outcome: string(r.Outcome), Reason: orNull(r.Reason), Detail: orNull(r.Detail), EventID: orNull(r.EventID),
		EventType: orNull(r.EventType), Bytes: r.Bytes, Aggregator: orNull(r.Aggregator), RemoteID: orNull(r.RemoteID),
	}
}
