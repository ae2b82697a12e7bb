package event

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
)

// The content types that are not native JSON.
const (
	ContentTypeProtobuf   = "application/protobuf"
	ContentTypeCloudEvent = "application/cloudevents+json"
	ContentTypeBatch      = "application/cloudevents-batch+json"
)

// header is a CloudEvents attribute from a header, without the header's prefix.
type header struct{ name, value string }

// FromRecord reads a record of the events topic, by its headers: content-type application/cloudevents+json, ce_*,
// content-type application/protobuf, otherwise native JSON. What the producer left out gets its default: the id from the
// record's place, the tenant "default", the record's timestamp. The error is an [*Error]. The same record gives the same
// event, always.
func FromRecord(r *kgo.Record) (Decoded, error) {
	h := recordHeaders(r)
	d, err := h.decode(r.Value)
	if err != nil {
		return Decoded{}, err
	}
	d.Trace = trace(h.trace, d.Trace)
	d.Source = webhook.Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}
	d.RecordedAt = r.Timestamp.UTC()
	if d.ID == "" {
		d.ID = webhook.DerivedEventID(d.Source)
	}
	if d.Tenant == "" {
		d.Tenant = webhook.DefaultTenant
	}
	if d.Timestamp.IsZero() {
		d.Timestamp = d.RecordedAt
	}
	return d, nil
}

// headers are what the headers of a record or a request say about its value.
type headers struct {
	contentType string
	attributes  []header
	binary      bool // a CloudEvent in binary mode
	trace       webhook.TraceContext
}

func recordHeaders(r *kgo.Record) headers {
	var h headers
	for _, rh := range r.Headers {
		switch {
		case strings.EqualFold(rh.Key, topic.HeaderContentType):
			h.contentType = string(rh.Value)
		case rh.Key == topic.HeaderTraceParent:
			h.trace.Parent = string(rh.Value)
		case rh.Key == topic.HeaderTraceState:
			h.trace.State = string(rh.Value)
		case strings.HasPrefix(rh.Key, "ce_"):
			h.attribute(rh.Key[len("ce_"):], string(rh.Value))
		}
	}
	return h
}

// attribute takes a CloudEvents header. Only those that every CloudEvent has make the record one.
func (h *headers) attribute(name, value string) {
	h.attributes = append(h.attributes, header{name, value})
	switch name {
	case "specversion", "id", "source", "type":
		h.binary = true
	}
}

func (h *headers) decode(body []byte) (d Decoded, err error) {
	media := mediaType(h.contentType)
	most := MaxSize
	if media == ContentTypeProtobuf && !h.binary {
		most = MaxRecord
	}
	if err := tooLarge(len(body), most); err != nil {
		return Decoded{}, err
	}
	switch {
	case media == ContentTypeCloudEvent:
		return structured(body)
	case h.binary:
		return binary(h.attributes, h.contentType, body)
	case len(body) == 0:
		return Decoded{}, &Error{Code: Empty, Detail: "there is no value"}
	case media == ContentTypeProtobuf:
		return protobuf(body)
	case strings.HasPrefix(media, "application/cloudevents"):
		return Decoded{}, &Error{Code: UnsupportedContentType, Detail: "CloudEvents are read as application/cloudevents+json or from headers"}
	}
	if d, err = native(body); err != nil {
		return Decoded{}, err
	}
	for _, a := range h.attributes { // a stray ce_traceparent is still one
		switch a.name {
		case "traceparent":
			d.Trace.Parent = a.value
		case "tracestate":
			d.Trace.State = a.value
		}
	}
	return d, nil
}
