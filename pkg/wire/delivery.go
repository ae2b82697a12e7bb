// Package wire turns Hookline's words into the protobuf values of Kafka records and back. Decoders accept any bytes:
// they return an error for what is not a valid record and never panic. Strings and byte slices of a decoded value are
// its own.
package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hookline/hookline/pkg/webhook"
	hooklinev1 "github.com/hookline/hookline/proto/hookline/v1"
)

// DeadLetter is the value of a dead-letters record.
type DeadLetter struct {
	Delivery   webhook.Delivery
	Reason     webhook.Reason
	StatusCode int
	Error      webhook.ErrorClass
	Response   []byte
}

// EncodeDelivery makes the value of a deliveries record.
func EncodeDelivery(d *webhook.Delivery) []byte { return marshal(deliveryMessage(d)) }

// DecodeDelivery reads the value of a deliveries record.
func DecodeDelivery(value []byte) (*webhook.Delivery, error) {
	m, err := unmarshalDelivery(value)
	if err != nil {
		return nil, err
	}
	return deliveryFrom(m)
}

// EncodeRetry makes the value of a retries record.
func EncodeRetry(r *webhook.Retry) []byte {
	m := deliveryMessage(&r.Delivery)
	m.DelayMs = r.Delay.Milliseconds()
	m.Reason = string(r.Reason)
	return marshal(m)
}

// DecodeRetry reads the value of a retries record.
func DecodeRetry(value []byte) (*webhook.Retry, error) {
	m, err := unmarshalDelivery(value)
	if err != nil {
		return nil, err
	}
	d, err := deliveryFrom(m)
	if err != nil {
		return nil, err
	}
	return &webhook.Retry{Delivery: *d, Delay: time.Duration(m.GetDelayMs()) * time.Millisecond, Reason: webhook.Reason(m.GetReason())}, nil
}

// DeliveryOfRetry makes the value of a deliveries record from that of a retries record, and says under which trace it goes on. It copies
// what a delivery has field by field, without making a [webhook.Delivery] of it.
func DeliveryOfRetry(value []byte) (delivery []byte, trace webhook.TraceContext, err error) {
	delivery, err = copyFields(make([]byte, 0, len(value)), value, func(number protowire.Number, field []byte) bool {
		switch number {
		case traceparentField:
			trace.Parent = textOf(field)
		case tracestateField:
			trace.State = textOf(field)
		case delayField, reasonField:
			return false
		}
		return true
	})
	return delivery, trace, err
}

// The fields of hooklinev1.Delivery that are read or changed where the others are only copied.
const tripField, traceparentField, tracestateField, delayField, reasonField = 3, 16, 17, 18, 19

// copyFields appends the fields of a message that take wants, in their order.
func copyFields(dst, message []byte, take func(number protowire.Number, field []byte) bool) ([]byte, error) {
	for len(message) > 0 {
		number, _, size := protowire.ConsumeField(message)
		if size < 0 {
			return nil, fmt.Errorf("read delivery: %w", protowire.ParseError(size))
		}
		if take(number, message[:size]) {
			dst = append(dst, message[:size]...)
		}
		message = message[size:]
	}
	return dst, nil
}

// textOf is what a field of text says; nothing where it is no text.
func textOf(field []byte) string {
	_, kind, tag := protowire.ConsumeTag(field)
	if kind != protowire.BytesType {
		return ""
	}
	text, _ := protowire.ConsumeString(field[tag:])
	return text
}

// EncodeDeadLetter makes the value of a dead-letters record.
func EncodeDeadLetter(l *DeadLetter) []byte {
	m := deliveryMessage(&l.Delivery)
	m.Reason = string(l.Reason)
	m.LastResponse = &hooklinev1.LastResponse{StatusCode: int32(l.StatusCode), Error: string(l.Error), Body: l.Response}
	return marshal(m)
}

// DecodeDeadLetter reads the value of a dead-letters record.
func DecodeDeadLetter(value []byte) (*DeadLetter, error) {
	m, err := unmarshalDelivery(value)
	if err != nil {
		return nil, err
	}
	d, err := deliveryFrom(m)
	if err != nil {
		return nil, err
	}
	last := m.GetLastResponse()
	return &DeadLetter{
		Delivery: *d, Reason: webhook.Reason(m.GetReason()),
		StatusCode: int(last.GetStatusCode()), Error: webhook.ErrorClass(last.GetError()), Response: last.GetBody(),
	}, nil
}

func unmarshalDelivery(value []byte) (*hooklinev1.Delivery, error) {
	m := new(hooklinev1.Delivery)
	if err := proto.Unmarshal(value, m); err != nil {
		return nil, fmt.Errorf("decode delivery: %w", err)
	}
	return m, nil
}

func deliveryMessage(d *webhook.Delivery) *hooklinev1.Delivery {
	return &hooklinev1.Delivery{
		DeliveryId:       d.ID[:],
		Generation:       d.Generation,
		Trip:             d.Trip,
		Attempts:         d.Attempts,
		SubscriptionId:   d.SubscriptionID,
		Profile:          d.Profile,
		ProfileVersion:   d.ProfileVersion,
		CreatedAtUnixMs:  unixMilli(d.CreatedAt),
		Trigger:          string(d.Trigger),
		ConfigOffset:     d.ConfigOffset,
		Event:            EventMessage(&d.Event),
		SourceTopic:      d.Event.Source.Topic,
		SourcePartition:  d.Event.Source.Partition,
		SourceOffset:     d.Event.Source.Offset,
		RecordedAtUnixMs: unixMilli(d.Event.RecordedAt),
		Traceparent:      d.Event.Trace.Parent,
		Tracestate:       d.Event.Trace.State,
	}
}

func deliveryFrom(m *hooklinev1.Delivery) (*webhook.Delivery, error) {
	id, err := uuid.FromBytes(m.GetDeliveryId())
	if err != nil {
		return nil, fmt.Errorf("decode delivery: id: %w", err)
	}
	if m.GetEvent() == nil || m.GetSubscriptionId() == "" {
		return nil, errors.New("decode delivery: no event or no subscription")
	}
	event := EventFrom(m.GetEvent())
	event.Source = webhook.Position{Topic: m.GetSourceTopic(), Partition: m.GetSourcePartition(), Offset: m.GetSourceOffset()}
	event.RecordedAt = fromUnixMilli(m.GetRecordedAtUnixMs())
	event.Trace = webhook.TraceContext{Parent: m.GetTraceparent(), State: m.GetTracestate()}
	return &webhook.Delivery{
		ID:             id,
		Generation:     m.GetGeneration(),
		Trip:           m.GetTrip(),
		Attempts:       m.GetAttempts(),
		SubscriptionID: m.GetSubscriptionId(),
		Profile:        m.GetProfile(),
		ProfileVersion: m.GetProfileVersion(),
		CreatedAt:      fromUnixMilli(m.GetCreatedAtUnixMs()),
		Trigger:        webhook.Trigger(m.GetTrigger()),
		ConfigOffset:   m.GetConfigOffset(),
		Event:          event,
	}, nil
}

// EventMessage is the protobuf form of what the producer stated of an event.
func EventMessage(e *webhook.Event) *hooklinev1.Event {
	m := &hooklinev1.Event{
		EventId: e.ID, EventType: e.Type, Tenant: e.Tenant, OrderingKey: e.OrderingKey, Metadata: e.Metadata, Data: e.Data,
	}
	if !e.Timestamp.IsZero() {
		m.EventTimestamp = timestamppb.New(e.Timestamp)
	}
	return m
}

// EventFrom reads [EventMessage]. It validates nothing: package event does, for what comes from outside.
func EventFrom(m *hooklinev1.Event) webhook.Event {
	e := webhook.Event{
		ID: m.GetEventId(), Type: m.GetEventType(), Tenant: m.GetTenant(), OrderingKey: m.GetOrderingKey(),
		Metadata: m.GetMetadata(), Data: m.GetData(),
	}
	if m.GetEventTimestamp() != nil {
		e.Timestamp = m.GetEventTimestamp().AsTime()
	}
	return e
}

// marshal cannot fail for messages built here: they have no required fields, and their strings come from validated or
// decoded values.
func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", m, err))
	}
	return b
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromUnixMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
