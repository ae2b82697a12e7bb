package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

// space is the UUIDv5 name space of ids that follow from an Idempotency-Key. It must not change: a request that is
// repeated across an upgrade must get the same ids.
var space = uuid.MustParse("3d1c1a52-6d0e-5c55-9a0b-0b8a5f2d8c11")

// newID is the id of an event without one: fresh, or with an idempotency key the same for the same place in the same
// request.
func newID(tenant, idempotencyKey string, index int) string {
	if idempotencyKey == "" {
		return uuid.Must(uuid.NewV7()).String()
	}
	return uuid.NewSHA1(space, []byte(tenant+"\x00"+idempotencyKey+"\x00"+strconv.Itoa(index))).String()
}

// records are the events as they stand on the topic: in protobuf, in which metadata and data stay byte for byte. The key
// is the ordering key or the id, so that a repeated request reaches the same partition.
func (s *Service) records(ctx context.Context, events []event.Decoded) ([]*kgo.Record, *refusal) {
	records := make([]*kgo.Record, len(events))
	for i := range events {
		e := &events[i]
		r, err := s.eventRecord(ctx, "publish event", &e.Event, "")
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid_event", err.Error())
		}
		if len(r.Value) > event.MaxRecord {
			return nil, refuse(http.StatusRequestEntityTooLarge, string(event.TooLarge), fmt.Sprintf("event %d is too large", i))
		}
		records[i] = r
		if e.Unknown > 0 {
			s.deps.Metrics.InvalidEventField.Add(ctx, int64(e.Unknown))
		}
	}
	return records, nil
}

// eventRecord is an event as a record within the trace that it came with, or one begun here; its span is linked to another trace where
// one is given.
func (s *Service) eventRecord(ctx context.Context, doing string, e *webhook.Event, link string) (*kgo.Record, error) {
	r, err := event.Record(s.deps.Kafka.Topics.Events, e)
	if err != nil {
		return nil, err
	}
	ctx, span := telemetry.StartProducer(ctx, s.deps.Tracer, doing, e.Trace,
		attribute.String("hookline.event", e.ID), attribute.String("hookline.event_type", e.Type), attribute.String("hookline.tenant", e.Tenant))
	defer span.End()
	linkTo(ctx, span, link)
	passed := telemetry.TraceContext(ctx)
	if passed.Parent == "" {
		passed = e.Trace
	}
	telemetry.SetRecordTrace(r, passed)
	return r, nil
}

var errNoAck = errors.New("no acknowledgement in time")

func promise(results chan<- error) func(*kgo.Record, error) {
	return func(_ *kgo.Record, err error) { results <- err }
}

// failed decides what a failed write means: for the client always that it may try again, for the producer that it goes on
// where Kafka was only slow, and is replaced otherwise.
func (s *Service) failed(ctx context.Context, p *producer, err error) *refusal {
	if s.unhappy.inAMinute(time.Now()) {
		s.deps.Log.WarnContext(ctx, "events not written", "error", err)
	}
	switch {
	case errors.Is(err, kgo.ErrMaxBuffered):
		return later("busy", "too much is waiting for Kafka")
	case errors.Is(err, errNoAck), errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrClientClosed):
	default:
		p.fail(err)
	}
	return later("not_acknowledged", "Kafka did not acknowledge; the events may have been written: send them again under the same ids")
}

// once lets something through at most once a minute.
type once struct {
	mu   sync.Mutex
	last time.Time
}

func (o *once) inAMinute(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.last) < time.Minute {
		return false
	}
	o.last = now
	return true
}
