package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/hookline/hookline/pkg/callback"
	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// UnknownTenant is the reason of rejection that package event cannot know.
const UnknownTenant event.Code = "unknown_tenant"

// passage is one event record on its way through the router.
type passage struct {
	record   *kgo.Record
	event    event.Decoded
	refused  *event.Error
	matched  int
	failed   int                     // filters that could not be evaluated
	pending  []*webhook.Subscription // of the last chunk sent
	config   int64
	consumed trace.Span  // nil for what was rejected
	produced trace.Span  // nil where nothing was sent
	tooLarge atomic.Bool // Kafka refused a record for its size
}

// route sends what follows from a record: its deliveries, or its rejection, or nothing. It waits only where the fan-out is
// larger than a chunk. It returns false where it stopped before the record was done: at the end of the session, or
// between the chunks of a fan-out when a rebalance waits or the service stops.
func (ss *session) route(ctx context.Context, r *kgo.Record) (done bool) {
	decoded, err := event.FromRecord(r)
	if err == nil && !ss.tenantExists(decoded.Tenant) {
		err = &event.Error{Code: UnknownTenant, Pointer: "/tenant", Detail: "there is no such tenant"}
	}
	p := &passage{record: r, event: decoded}
	if err != nil {
		errors.As(err, &p.refused)
		ss.reject(p)
		return true
	}
	spanCtx, span := telemetry.StartConsumer(ss.work, ss.deps.Tracer, "route", decoded.Trace,
		attribute.String("hookline.event", decoded.ID), attribute.String("hookline.event_type", decoded.Type), attribute.String("hookline.tenant", decoded.Tenant))
	p.consumed = span
	if decoded.Unknown > 0 {
		ss.deps.Metrics.InvalidEventField.Add(ss.work, int64(decoded.Unknown))
	}

	from := ss.at.cursorAt(r.Partition, r.Offset)
	ss.awaitConfig(ctx, from.config)
	matches, failed := ss.deps.Snapshot.Match(&decoded.Event)
	// Asked after the match: the worker takes an unknown subscription for deleted only once it has applied this offset.
	p.config = ss.deps.Snapshot.Offset()
	p.matched, p.failed = len(matches), failed
	matches = behind(matches, from.after)
	if len(matches) == 0 {
		ss.sent = append(ss.sent, p)
		return true
	}
	spanCtx, p.produced = telemetry.StartProducer(spanCtx, ss.deps.Tracer, "send deliveries", webhook.TraceContext{}, attribute.Int("messaging.batch.message_count", len(matches)))
	if passed := telemetry.TraceContext(spanCtx); passed.Parent != "" {
		p.event.Trace = passed
	}
	return ss.fanOut(ctx, p, matches)
}

func (ss *session) tenantExists(id string) bool {
	if id == webhook.DefaultTenant { // exists by definition, also before the control plane has said so
		return true
	}
	_, ok := ss.deps.Snapshot.Tenant(id)
	return ok
}

// awaitConfig lets the snapshot catch up with the one a fan-out was begun under by another router. A snapshot that does
// not catch up is used as it is: its staleness is that of any router.
func (ss *session) awaitConfig(ctx context.Context, offset int64) {
	const pause, patience = 100 * time.Millisecond, 10 * time.Second
	for deadline := time.Now().Add(patience); ss.deps.Snapshot.Offset() < offset && time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// behind are the subscriptions whose ids follow an id; matches are ordered by id.
func behind(matches []*webhook.Subscription, id string) []*webhook.Subscription {
	if id == "" {
		return matches
	}
	return matches[sort.Search(len(matches), func(i int) bool { return matches[i].ID > id }):]
}

// fanOut sends the deliveries of an event. Up to a chunk they are on their way when it returns. A larger fan-out first
// waits for everything before it, so that the partition's position can stand at this event, and then for each chunk.
func (ss *session) fanOut(ctx context.Context, p *passage, matches []*webhook.Subscription) (done bool) {
	size := len(p.event.Data) + len(p.event.Metadata) + 512
	most := max(min(ss.chunk.deliveries, ss.chunk.bytes/size), 1)
	if len(matches) <= most {
		p.pending = matches
		ss.sendAll(p, matches)
		ss.sent = append(ss.sent, p)
		return true
	}
	if !ss.settle() {
		return false
	}
	for chunk := range slices.Chunk(matches, most) {
		if ctx.Err() != nil || ss.wanted.Load() || !ss.sendChunk(p, chunk) {
			p.end()
			return false
		}
		if p.refused != nil {
			break
		}
		ss.at.advance(p.record.Partition, position{offset: p.record.Offset, cursor: cursor{after: chunk[len(chunk)-1].ID, config: p.config}})
	}
	ss.sent = append(ss.sent, p)
	return true
}

// sendChunk sends one chunk and waits for it. It returns false where the session ended.
func (ss *session) sendChunk(p *passage, chunk []*webhook.Subscription) bool {
	p.pending = chunk
	ss.sendAll(p, chunk)
	if ss.acknowledged() != nil {
		return false
	}
	if !p.tooLarge.Swap(false) {
		return true
	}
	if !ss.sendAlone(p) {
		return false
	}
	if p.refused != nil {
		p.tooLarge.Store(true) // settle sends the rejection
	}
	return true
}

func (ss *session) sendAll(p *passage, matches []*webhook.Subscription) {
	for _, sub := range matches {
		expected := ss.expect(p, sub)
		d := &webhook.Delivery{
			ID:             webhook.DeliveryID(p.event.Tenant, p.event.ID, sub.ID),
			SubscriptionID: sub.ID,
			Profile:        sub.Profile,
			CreatedAt:      p.event.RecordedAt,
			Trigger:        webhook.TriggerEvent,
			ConfigOffset:   p.config,
			Event:          p.event.Event,
		}
		if contract, ok := ss.deps.Profiles.Get(sub.Profile); ok {
			d.ProfileVersion = contract.Version
		}
		r := &kgo.Record{Topic: ss.topics.Deliveries, Key: []byte(d.ID.String()), Value: wire.EncodeDelivery(d)}
		telemetry.SetRecordTrace(r, p.event.Trace)
		switch {
		case !expected:
			ss.produce(p, r)
		case ss.held.add(p, r) >= ss.chunk.bytes:
			_ = ss.acknowledged() // an error ends the session, and whoever waits for the rest learns of it
		}
	}
}

// expect writes that the receiver should call the delivery back, and reports whether it should. The delivery itself must be held until
// that is acknowledged: whoever is called back can then find the expectation, however fast the call is.
func (ss *session) expect(p *passage, sub *webhook.Subscription) bool {
	contract, ok := ss.deps.Profiles.Get(sub.Profile)
	if !ok || contract.Callback() == nil || contract.Callback().EventType != p.event.Type {
		return false
	}
	sent, signed, key, err := contract.Expect(&p.event.Event)
	if err != nil {
		return false // the delivery will end as a dead letter, which says why
	}
	x := &webhook.Expectation{
		Delivery: webhook.DeliveryID(p.event.Tenant, p.event.ID, sub.ID), Tenant: p.event.Tenant, SubscriptionID: sub.ID, Profile: sub.Profile,
		EventID: p.event.ID, Sent: sent, Signed: signed, Until: p.event.RecordedAt.Add(contract.Callback().Within), Trace: p.event.Trace,
	}
	ss.produce(p, &kgo.Record{
		Topic: ss.topics.Callbacks, Key: []byte(callback.ExpectationKey(webhook.CallbackGroup(x.Tenant, key), x.Delivery)), Value: wire.EncodeExpectation(x),
	})
	return true
}

// acknowledged waits until Kafka has all that was sent, and then sends what was held for that, and waits for it too.
func (ss *session) acknowledged() error {
	err := ss.flight.wait(ss.work)
	if err == nil && len(ss.held.records) > 0 {
		for i, r := range ss.held.records {
			if p := ss.held.passages[i]; !p.tooLarge.Load() { // or all of the event is sent again, alone
				ss.produce(p, r)
			}
		}
		err = ss.flight.wait(ss.work)
	}
	ss.held.clear()
	return err
}

// produce sends one record of a flight. While Kafka is away it waits, for as long as that takes. An error means that the
// client cannot go on, and ends the session; the one exception is a record that no client will ever get through.
func (ss *session) produce(p *passage, r *kgo.Record) {
	ss.flight.begin()
	ss.producer.Produce(ss.work, r, func(_ *kgo.Record, err error) {
		switch {
		case err == nil:
		case errors.Is(err, kerr.MessageTooLarge):
			p.tooLarge.Store(true)
		default:
			ss.fail(err)
		}
		ss.flight.end()
	})
}

// settle waits until all that was sent is acknowledged, and moves the positions behind it. It returns false where the
// session ended before that; the positions stay then, and the events are read again.
func (ss *session) settle() (settled bool) {
	if settled = ss.acknowledged() == nil; settled {
		settled = ss.resendTooLarge()
	}
	for _, p := range ss.sent {
		p.end()
		if settled {
			ss.at.advance(p.record.Partition, position{offset: p.record.Offset + 1})
			ss.observe(p)
		}
	}
	clear(ss.sent)
	ss.sent = ss.sent[:0]
	return settled
}

// resendTooLarge deals with records that Kafka refused for their size: a topic allows less than Hookline does. A whole
// batch is refused then, so each record is sent again alone; an event whose own deliveries are too large is rejected.
// Without it such an event would hold its partition for ever. Where even the cut rejection is refused, the session fails:
// nothing may get lost in silence.
func (ss *session) resendTooLarge() bool {
	for _, p := range ss.sent {
		if !p.tooLarge.Swap(false) {
			continue
		}
		if p.refused == nil && !ss.sendAlone(p) {
			return false
		}
		if p.refused == nil {
			continue
		}
		ss.sendRejected(p, true)
		if ss.acknowledged() != nil {
			return false
		}
		if p.tooLarge.Load() {
			ss.fail(fmt.Errorf("reject event at offset %d of partition %d: %w", p.record.Offset, p.record.Partition, kerr.MessageTooLarge))
			return false
		}
	}
	return true
}

// sendAlone sends the last chunk of an event again, record by record, and refuses the event where one is still too large.
// It returns false where the session ended.
func (ss *session) sendAlone(p *passage) bool {
	for _, sub := range p.pending {
		ss.sendAll(p, []*webhook.Subscription{sub})
		if ss.acknowledged() != nil {
			return false
		}
		if p.tooLarge.Swap(false) {
			p.refused = &event.Error{Code: event.TooLarge, Detail: "the deliveries topic refuses a record of this size"}
			return true
		}
	}
	return true
}

// end ends the spans of the passage.
func (p *passage) end() {
	for _, span := range []trace.Span{p.produced, p.consumed} {
		if span != nil {
			span.End()
		}
	}
}

// observe counts an event that is done, and writes its one log line.
func (ss *session) observe(p *passage) {
	outcome := routed
	switch {
	case p.refused != nil:
		outcome = rejected
		ss.deps.Metrics.Rejected.Add(ss.work, 1, telemetry.Labels("topic", "events", "reason", string(p.refused.Code)))
	case p.matched == 0:
		outcome = unmatched
	}
	ss.deps.Metrics.Events.Add(ss.work, 1, outcome.label)
	if p.failed > 0 {
		ss.deps.Metrics.FilterErrors.Add(ss.work, int64(p.failed))
	}
	if !ss.deps.Log.Enabled(ss.work, slog.LevelDebug) {
		return
	}
	reason := ""
	if p.refused != nil {
		reason = string(p.refused.Code)
	}
	ss.deps.Log.LogAttrs(ss.work, slog.LevelDebug, "event", slog.String("outcome", outcome.name), slog.String("reason", reason),
		slog.String("event", p.event.ID), slog.String("event_type", p.event.Type), slog.String("tenant", p.event.Tenant),
		slog.Int("partition", int(p.record.Partition)), slog.Int64("offset", p.record.Offset), slog.Int("deliveries", p.matched), slog.Int("filter_errors", p.failed),
		slog.Int("bytes", len(p.record.Value)), slog.String("traceparent", p.event.Trace.Parent))
}
