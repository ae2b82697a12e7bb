package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/hookline/hookline/pkg/webhook"
	hooklinev1 "github.com/hookline/hookline/proto/hookline/v1"
)

// EncodeExpectation makes the value of a callbacks record.
func EncodeExpectation(x *webhook.Expectation) []byte {
	m := &hooklinev1.Expectation{
		DeliveryId: x.Delivery[:], Tenant: x.Tenant, SubscriptionId: x.SubscriptionID, Profile: x.Profile, EventId: x.EventID, Hash: x.Sent[:], SignedHash: x.Signed[:],
		UntilUnixMs: unixMilli(x.Until), Traceparent: x.Trace.Parent, Tracestate: x.Trace.State,
	}
	if x.Call != uuid.Nil {
		m.CallId = x.Call.String()
	}
	return marshal(&hooklinev1.CallbackRecord{Kind: &hooklinev1.CallbackRecord_Expectation{Expectation: m}})
}

// EncodeCall makes the value of a callbacks record.
func EncodeCall(c *webhook.Call) []byte {
	return marshal(&hooklinev1.CallbackRecord{Kind: &hooklinev1.CallbackRecord_Call{Call: &hooklinev1.Call{
		CallId: c.ID.String(), Tenant: c.Tenant, SubscriptionId: c.SubscriptionID, Profile: c.Profile, Hash: c.Sent[:], Body: c.Body,
		AtUnixMs: unixMilli(c.At), Traceparent: c.TraceParent,
	}}})
}

// EncodeFollowUp makes the value of a callbacks record.
func EncodeFollowUp(f *webhook.FollowUp) []byte {
	return marshal(&hooklinev1.CallbackRecord{Kind: &hooklinev1.CallbackRecord_FollowUp{FollowUp: &hooklinev1.FollowUp{
		Event: EventMessage(&f.Event), DeliveryId: f.Delivery[:], AtUnixMs: unixMilli(f.At), Traceparent: f.Event.Trace.Parent, Tracestate: f.Event.Trace.State,
	}}})
}

// EncodeFlight makes the value of a callbacks record.
func EncodeFlight(f *webhook.Flight) []byte {
	m := &hooklinev1.Flight{EventId: f.EventID, SinceUnixMs: unixMilli(f.Since)}
	for i := range f.Deliveries {
		m.DeliveryIds = append(m.DeliveryIds, f.Deliveries[i][:])
	}
	return marshal(&hooklinev1.CallbackRecord{Kind: &hooklinev1.CallbackRecord_Flight{Flight: m}})
}

// EncodeEnded makes the value of a callbacks record.
func EncodeEnded(at time.Time) []byte {
	return marshal(&hooklinev1.CallbackRecord{Kind: &hooklinev1.CallbackRecord_Ended{Ended: &hooklinev1.Ended{AtUnixMs: unixMilli(at)}}})
}

// DecodeCallback reads the value of a callbacks record: a *webhook.Expectation, *webhook.Call, *webhook.FollowUp or
// *webhook.Flight, or the time.Time at which a delivery ended.
func DecodeCallback(value []byte) (any, error) {
	record := new(hooklinev1.CallbackRecord)
	if err := proto.Unmarshal(value, record); err != nil {
		return nil, fmt.Errorf("decode callback: %w", err)
	}
	switch kind := record.GetKind().(type) {
	case *hooklinev1.CallbackRecord_Expectation:
		return expectationFrom(kind.Expectation)
	case *hooklinev1.CallbackRecord_Call:
		return callFrom(kind.Call)
	case *hooklinev1.CallbackRecord_FollowUp:
		m := kind.FollowUp
		delivery, err := uuid.FromBytes(m.GetDeliveryId())
		if err != nil || m.GetEvent() == nil {
			return nil, errors.New("decode follow-up: no delivery or no event")
		}
		f := &webhook.FollowUp{Event: EventFrom(m.GetEvent()), Delivery: delivery, At: fromUnixMilli(m.GetAtUnixMs())}
		f.Event.Trace = webhook.TraceContext{Parent: m.GetTraceparent(), State: m.GetTracestate()}
		return f, nil
	case *hooklinev1.CallbackRecord_Flight:
		f := &webhook.Flight{EventID: kind.Flight.GetEventId(), Since: fromUnixMilli(kind.Flight.GetSinceUnixMs())}
		for _, raw := range kind.Flight.GetDeliveryIds() {
			id, err := uuid.FromBytes(raw)
			if err != nil {
				return nil, fmt.Errorf("decode flight: %w", err)
			}
			f.Deliveries = append(f.Deliveries, id)
		}
		return f, nil
	case *hooklinev1.CallbackRecord_Ended:
		return fromUnixMilli(kind.Ended.GetAtUnixMs()), nil
	default:
		return nil, fmt.Errorf("decode callback: unknown kind %T", kind)
	}
}

func expectationFrom(m *hooklinev1.Expectation) (*webhook.Expectation, error) {
	x := &webhook.Expectation{
		Tenant: m.GetTenant(), SubscriptionID: m.GetSubscriptionId(), Profile: m.GetProfile(), EventID: m.GetEventId(), Until: fromUnixMilli(m.GetUntilUnixMs()),
		Trace: webhook.TraceContext{Parent: m.GetTraceparent(), State: m.GetTracestate()},
	}
	var err error
	if x.Delivery, err = uuid.FromBytes(m.GetDeliveryId()); err != nil {
		return nil, fmt.Errorf("decode expectation: %w", err)
	}
	if copy(x.Sent[:], m.GetHash()) != len(x.Sent) || copy(x.Signed[:], m.GetSignedHash()) != len(x.Signed) {
		return nil, fmt.Errorf("decode expectation: hashes of %d and %d bytes", len(m.GetHash()), len(m.GetSignedHash()))
	}
	if m.GetCallId() != "" {
		x.Call, err = uuid.Parse(m.GetCallId())
	}
	return x, err
}

func callFrom(m *hooklinev1.Call) (*webhook.Call, error) {
	c := &webhook.Call{
		Tenant: m.GetTenant(), SubscriptionID: m.GetSubscriptionId(), Profile: m.GetProfile(), Body: m.GetBody(), At: fromUnixMilli(m.GetAtUnixMs()), TraceParent: m.GetTraceparent(),
	}
	var err error
	if c.ID, err = uuid.Parse(m.GetCallId()); err != nil {
		return nil, fmt.Errorf("decode call: %w", err)
	}
	if copy(c.Sent[:], m.GetHash()) != len(c.Sent) {
		return nil, fmt.Errorf("decode call: hash of %d bytes", len(m.GetHash()))
	}
	return c, nil
}

// EncodeSourceRequest makes the value of a source-requests record.
func EncodeSourceRequest(r *webhook.SourceRequest) []byte {
	return marshal(&hooklinev1.SourceRequest{
		RequestId: r.ID, SourceId: r.SourceID, Tenant: r.Tenant, AtUnixUs: r.At.UnixMicro(), Outcome: string(r.Outcome), Reason: r.Reason, Detail: r.Detail,
		EventId: r.EventID, EventType: r.EventType, Bytes: int64(r.Bytes), Aggregator: r.Aggregator, RemoteId: r.RemoteID,
		Partition: r.Rejected.Partition, Offset: r.Rejected.Offset,
	})
}

// DecodeSourceRequest reads the value of a source-requests record.
func DecodeSourceRequest(value []byte) (*webhook.SourceRequest, error) {
	m := new(hooklinev1.SourceRequest)
	if err := proto.Unmarshal(value, m); err != nil {
		return nil, fmt.Errorf("decode source request: %w", err)
	}
	return &webhook.SourceRequest{
		ID: m.GetRequestId(), SourceID: m.GetSourceId(), Tenant: m.GetTenant(), At: time.UnixMicro(m.GetAtUnixUs()).UTC(),
		Outcome: webhook.SourceOutcome(m.GetOutcome()), Reason: m.GetReason(), Detail: m.GetDetail(), EventID: m.GetEventId(), EventType: m.GetEventType(),
		Bytes: int(m.GetBytes()), Aggregator: m.GetAggregator(), RemoteID: m.GetRemoteId(),
		Rejected: webhook.Position{Partition: m.GetPartition(), Offset: m.GetOffset()},
	}, nil
}
