package ingest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/snapshot"
	"github.com/hookline/hookline/pkg/source"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// arrival is one request of a third party.
type arrival struct {
	from    *snapshot.Source
	request source.Request
	trace   webhook.TraceContext
	// told is what people will see of it.
	told webhook.SourceRequest
}

// takeFromSource answers 202 once Kafka has the event, or, for what is the third party's own and cannot become an event yet, the
// rejected record from which it can be made later.
func (s *Service) takeFromSource(w http.ResponseWriter, r *http.Request) (any, *refusal) {
	p, refused := s.ready()
	if refused != nil {
		return nil, refused
	}
	from, ok := s.deps.Snapshot.Source(r.PathValue("id"))
	if !ok || from.Disabled {
		s.countSource(r.Context(), webhook.SourceRefused, string(source.UnknownSource))
		return nil, refuse(http.StatusNotFound, "not_found", "there is no such source")
	}
	a := &arrival{
		from: from, trace: webhook.TraceContext{Parent: r.Header.Get("Traceparent"), State: strings.Join(r.Header.Values("Tracestate"), ",")},
		told: webhook.SourceRequest{ID: uuid.Must(uuid.NewV7()).String(), SourceID: from.ID, Tenant: from.Tenant, At: time.Now()},
	}
	body, release, refused := s.read(w, r, from.Rules.Limit())
	defer release()
	if refused != nil {
		if refused.Status != http.StatusServiceUnavailable {
			s.tellRefused(r.Context(), p, a, refused.Code, refused.Detail)
		}
		return nil, refused
	}
	a.request, a.told.Bytes = source.Request{Header: r.Header, Body: body}, len(body)
	if refused := s.admit(r.Context(), p, a); refused != nil {
		return nil, refused
	}
	if refused := s.pass(r.Context(), p, a); refused != nil {
		return nil, refused
	}
	return map[string]string{"request_id": a.told.ID, "event_id": a.told.EventID, "outcome": string(a.told.Outcome)}, nil
}

// admit refuses what is forged or stale, or cannot be read at all.
func (s *Service) admit(ctx context.Context, p *producer, a *arrival) *refusal {
	secrets := s.opened(ctx, a.from.Secret())
	err := a.from.Rules.Verify(a.request, secrets, time.Now())
	status := http.StatusUnauthorized
	if err == nil {
		err, status = a.from.Rules.Check(a.request.Body), http.StatusBadRequest
	}
	if err == nil {
		return nil
	}
	var wrong *source.Error
	if !errors.As(err, &wrong) {
		wrong = &source.Error{Reason: "invalid_json", Detail: err.Error()}
	}
	s.tellRefused(ctx, p, a, string(wrong.Reason), wrong.Detail)
	if wrong.Reason == source.NoSecret {
		return later("no_secret", wrong.Detail)
	}
	if status == http.StatusUnauthorized {
		// What exactly was wrong is for those who may see the source's requests.
		return refuse(status, "not_verified", "the request is not verified")
	}
	return refuse(status, string(wrong.Reason), wrong.Detail)
}

// opened are the live values of a secret. One that cannot be opened is left out, and logged at most once a minute.
func (s *Service) opened(ctx context.Context, secret *webhook.Secret) (values [][]byte) {
	for _, version := range secret.Live(time.Now()) {
		value, err := s.deps.Keys.Open(secret, version)
		if err != nil {
			if s.unhappy.inAMinute(time.Now()) {
				s.deps.Log.ErrorContext(ctx, "a secret cannot be opened", "secret", secret.ID, "error", err)
			}
			continue
		}
		values = append(values, value)
	}
	return values
}

// pass writes the event, or the rejected record.
func (s *Service) pass(ctx context.Context, p *producer, a *arrival) *refusal {
	record, err := s.eventOf(ctx, a)
	a.told.Outcome = webhook.SourceAccepted
	if err != nil {
		a.told.Outcome, a.told.Reason, a.told.Detail = webhook.SourceRejected, string(source.MappingFailed), err.Error()
		var wrong *source.Error
		if errors.As(err, &wrong) {
			a.told.Reason, a.told.Detail = string(wrong.Reason), wrong.Detail
		}
		record = s.rejectedRequest(a)
	}
	if refused := s.writeRecords(ctx, p, []*kgo.Record{record}); refused != nil {
		return refused
	}
	if a.told.Outcome == webhook.SourceRejected {
		a.told.Rejected = webhook.Position{Topic: record.Topic, Partition: record.Partition, Offset: record.Offset}
		s.deps.Metrics.Rejected.Add(ctx, 1, telemetry.Labels("topic", "sources", "reason", a.told.Reason))
	}
	s.tell(ctx, p, a)
	return nil
}

// eventOf makes the record of the event. An error is why it cannot be made now.
func (s *Service) eventOf(ctx context.Context, a *arrival) (*kgo.Record, error) {
	message, err := a.from.Rules.Read(a.request)
	a.told.Aggregator, a.told.RemoteID = message.Aggregator, message.RemoteID
	// Whatever becomes of it later, it is the same event.
	a.told.EventID = a.told.ID
	if message.SenderID != "" {
		a.told.EventID = webhook.SourceEventID(a.from.ID, message.SenderID)
	}
	if err != nil {
		return nil, err
	}
	var connection *webhook.Connection
	if message.Aggregator != "" {
		if found, ok := s.deps.Snapshot.Connection(a.from.Tenant, message.Aggregator, message.RemoteID); ok {
			connection = found
		}
	}
	e, err := message.Event(connection)
	if err != nil {
		return nil, err
	}
	e.ID, e.Timestamp, e.Trace = a.told.EventID, a.told.At, a.trace
	if e.Tenant == "" {
		e.Tenant = a.from.Tenant
	}
	a.told.EventType = e.Type
	records, refused := s.records(ctx, []event.Decoded{{Event: e}})
	if refused != nil {
		return nil, &source.Error{Reason: source.MappingFailed, Detail: refused.Detail}
	}
	// The router would reject what it cannot read, and nobody would know whence it came.
	if _, err := event.FromRecord(records[0]); err != nil {
		return nil, &source.Error{Reason: source.MappingFailed, Detail: err.Error()}
	}
	return records[0], nil
}

// Bounds of what is kept of a request's headers.
const (
	maxKeptHeaders = 64
	maxKeptHeader  = 4 << 10
)

// rejectedRequest keeps what it takes to read the request again; its credentials are not among it.
func (s *Service) rejectedRequest(a *arrival) *kgo.Record {
	r := &kgo.Record{Topic: s.deps.Kafka.Topics.Rejected, Key: []byte(a.from.ID), Value: a.request.Body}
	add := func(name, value string) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	add(topic.HeaderReason, a.told.Reason)
	add(topic.HeaderDetail, a.told.Detail)
	add(topic.HeaderSourceID, a.from.ID)
	add(topic.HeaderSourceTenant, a.from.Tenant)
	add(topic.HeaderSourceRequest, a.told.ID)
	add(topic.HeaderSourceEvent, a.told.EventID)
	kept := 0
	for name, values := range a.request.Header {
		switch {
		case name == "Authorization" || name == "Cookie" || name == "Proxy-Authorization" || a.from.Rules.Proves(name):
		case len(values) != 1 || len(values[0]) > maxKeptHeader || kept == maxKeptHeaders:
		default:
			add(topic.HeaderSourceHeader+strings.ToLower(name), values[0])
			kept++
		}
	}
	telemetry.SetRecordTrace(r, a.trace)
	return r
}

func (s *Service) countSource(ctx context.Context, outcome webhook.SourceOutcome, reason string) {
	s.deps.Metrics.SourceRequests.Add(ctx, 1, telemetry.Labels("outcome", string(outcome), "reason", reason))
}

func (s *Service) tellRefused(ctx context.Context, p *producer, a *arrival, reason, detail string) {
	a.told.Outcome, a.told.Reason, a.told.Detail = webhook.SourceRefused, reason, detail
	s.tell(ctx, p, a)
}

// tell counts a request and, within bounds, shows it to people. Nobody waits for that, and it may get lost; what was rejected stands
// in the rejected topic all the same.
func (s *Service) tell(ctx context.Context, p *producer, a *arrival) {
	s.countSource(ctx, a.told.Outcome, a.told.Reason)
	if a.told.Outcome != webhook.SourceRejected && !s.told.may(a.from.ID, a.told.At) {
		return
	}
	p.TryProduce(context.WithoutCancel(ctx), &kgo.Record{
		Topic: s.deps.Kafka.Topics.SourceRequests, Key: []byte(a.from.ID), Value: wire.EncodeSourceRequest(&a.told),
	}, nil)
}

// told bounds how many requests of a source are shown: whoever posts thousands a second needs no list of all of them, and whoever
// forges them must not fill a topic.
type told struct {
	mu      sync.Mutex
	sources map[string]*second
}

type second struct {
	number int64
	count  int
}

const toldPerSecond = 20

func (t *told) may(id string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.sources[id]
	if one == nil {
		one = &second{}
		t.sources[id] = one
	}
	if n := now.Unix(); n != one.number {
		one.number, one.count = n, 0
	}
	one.count++
	return one.count <= toldPerSecond
}
