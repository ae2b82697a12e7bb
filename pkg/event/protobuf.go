package event

import (
	"cmp"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
	hooklinev1 "github.com/hookline/hookline/proto/hookline/v1"
)

// Record is what a producer stated of an event as a record with [ContentTypeProtobuf], the one form in which metadata and data stay byte
// for byte as they are. Its key is the ordering key where there is one. It carries no trace.
func Record(topicName string, e *webhook.Event) (*kgo.Record, error) {
	value, err := proto.Marshal(wire.EventMessage(e))
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return &kgo.Record{
		Topic: topicName, Key: []byte(cmp.Or(e.OrderingKey, e.ID)), Value: value,
		Headers: []kgo.RecordHeader{{Key: topic.HeaderContentType, Value: []byte(ContentTypeProtobuf)}},
	}, nil
}

// protobuf reads a hookline.v1.Event. Pointers name its fields as the JSON does.
func protobuf(body []byte) (Decoded, error) {
	m := new(hooklinev1.Event)
	if err := proto.Unmarshal(body, m); err != nil {
		return Decoded{}, &Error{Code: InvalidProtobuf, Detail: "is not a hookline.v1.Event"}
	}
	d := Decoded{Event: wire.EventFrom(m)}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		d.Unknown = 1
	}
	for _, field := range []struct {
		value string
		code  Code
		name  string
	}{
		{d.ID, InvalidID, "/event_id"}, {d.Type, InvalidType, "/event_type"},
		{d.Tenant, InvalidTenant, "/tenant"}, {d.OrderingKey, InvalidOrderingKey, "/ordering_key"},
	} {
		if err := name(field.value, field.code, field.name); err != nil {
			return Decoded{}, err
		}
	}
	if t := m.GetEventTimestamp(); t != nil {
		if t.CheckValid() != nil {
			return Decoded{}, &Error{Code: InvalidTimestamp, Pointer: "/event_timestamp", Detail: "is not a valid timestamp"}
		}
		if err := inRange(d.Timestamp, "/event_timestamp"); err != nil {
			return Decoded{}, err
		}
	}
	var err error
	if d.Metadata, err = metadata(d.Metadata, "/metadata"); err != nil {
		return Decoded{}, err
	}
	if err := complete(&d.Event, "/event_type", "/data"); err != nil {
		return Decoded{}, err
	}
	if err := strictjson.WellFormed(d.Data); err != nil {
		return Decoded{}, refuse(err, "/data")
	}
	return d, nil
}
