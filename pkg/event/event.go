// Package event reads events as they come from outside: records of the events topic and requests to ingest, as native
// JSON, CloudEvents or protobuf. What it returns is valid, or refused with a stable code; which tenants exist is the
// caller's matter. docs/events.md describes the same for producers.
package event

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/webhook"
)

// Bounds of one event.
const (
	// MaxSize bounds what the producer sent: the value of the record, or the body of the request.
	MaxSize = 1 << 20
	// MaxRecord bounds an event in protobuf. It is larger, so that what ingest accepted and wrote with an id, a tenant and
	// metadata made from headers is accepted again where it is read.
	MaxRecord = MaxSize + 128<<10

	maxText       = 256      // bytes of an id, a type, a tenant, an ordering key
	maxAttributes = 32 << 10 // bytes of all CloudEvents headers
)

// Code is a stable name for why an event is refused. It is a metric label and the header hookline-reason.
type Code string

// The codes. Those of package strictjson appear as well.
const (
	Empty              Code = "empty"
	TooLarge           Code = "too_large"
	MissingType        Code = "missing_event_type"
	MissingData        Code = "missing_data"
	InvalidType        Code = "invalid_event_type"
	InvalidID          Code = "invalid_event_id"
	InvalidTimestamp   Code = "invalid_timestamp"
	InvalidTenant      Code = "invalid_tenant"
	InvalidOrderingKey Code = "invalid_ordering_key"
	InvalidMetadata    Code = "invalid_metadata"
	InvalidCloudEvent  Code = "invalid_cloudevent"
	InvalidProtobuf    Code = "invalid_protobuf"
	// UnsupportedContentType: a form of CloudEvents that is not read here.
	UnsupportedContentType Code = "unsupported_content_type"
	// UnsupportedData: the data of a CloudEvent is not JSON.
	UnsupportedData Code = "unsupported_data_content_type"
	TooManyEvents   Code = "too_many_events"
)

// Error is why an event is refused.
type Error struct {
	Code Code
	// Pointer is an RFC 6901 pointer into the body, "" where the whole of it, or a header, is meant.
	Pointer string
	// Detail is one sentence for people. It may repeat names of fields, never their values.
	Detail string
}

func (e *Error) Error() string {
	if e.Pointer == "" {
		return fmt.Sprintf("%s: %s", e.Code, e.Detail)
	}
	return fmt.Sprintf("%s: %s: %s", e.Code, e.Pointer, e.Detail)
}

// Decoded is an event, and how many fields of its envelope were ignored because nobody knows them. Metadata and data may
// alias what was decoded.
type Decoded struct {
	webhook.Event
	Unknown int
}

// refuse gives an error of strictjson its place here; pointer is where the checked value stands in the body.
func refuse(err error, pointer string) *Error {
	var own *Error
	var syntax *strictjson.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &syntax):
		return &Error{Code: Code(syntax.Code), Pointer: clip(pointer + syntax.Pointer), Detail: syntax.Detail}
	default:
		return &Error{Code: Code(strictjson.Syntax), Pointer: pointer, Detail: err.Error()}
	}
}

// clip bounds a pointer: it repeats keys, which are as long as their producer likes.
func clip(pointer string) string {
	const most = 512
	if len(pointer) <= most {
		return pointer
	}
	return strings.ToValidUTF8(pointer[:most], "") + "…"
}

// text decodes a JSON string that names something; null and "" are absent.
func text(value []byte, code Code, pointer string) (string, error) {
	if string(value) == "null" {
		return "", nil
	}
	s, err := strictjson.String(value)
	if err != nil {
		e := refuse(err, pointer)
		if e.Code == Code(strictjson.WrongType) {
			e.Code = code
		}
		return "", e
	}
	return s, name(s, code, pointer)
}

// name holds a text to what can be a header's value and a database's text: ids and types become both.
func name(s string, code Code, pointer string) error {
	if len(s) > maxText {
		return &Error{Code: code, Pointer: pointer, Detail: fmt.Sprintf("longer than %d bytes", maxText)}
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return &Error{Code: code, Pointer: pointer, Detail: "contains a control character"}
		}
	}
	if strings.TrimSpace(s) != s {
		return &Error{Code: code, Pointer: pointer, Detail: "starts or ends with white space"}
	}
	return nil
}

// timestamp reads RFC 3339, which allows lower case.
func timestamp(s, pointer string) (time.Time, error) {
	s = strings.ToUpper(s)
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || !strictTime(s) {
		return t, &Error{Code: InvalidTimestamp, Pointer: pointer, Detail: "is not an RFC 3339 time"}
	}
	return t.UTC(), inRange(t, pointer)
}

// strictTime refuses what time.Parse accepts beyond RFC 3339: an hour of one digit, a comma, an offset of a day or more.
func strictTime(s string) bool {
	const fraction = len("2006-01-02T15:04:05")
	if len(s) <= fraction || s[len("2006-01-02T15")] != ':' || s[fraction] == ',' {
		return false
	}
	if s[len(s)-1] == 'Z' {
		return true
	}
	offset := s[len(s)-len("07:00"):]
	return offset[:2] < "24" && offset[3:] < "60"
}

// inRange keeps to times that protobuf and RFC 3339 can both say. The zero time means none.
func inRange(t time.Time, pointer string) error {
	if u := t.UTC(); u.IsZero() || u.Year() < 1 || u.Year() > 9999 {
		return &Error{Code: InvalidTimestamp, Pointer: pointer, Detail: "is outside the years 1 to 9999"}
	}
	return nil
}

// metadata wants an object that means the same to every reader.
func metadata(value []byte, pointer string) ([]byte, error) {
	if len(value) == 0 || string(value) == "null" {
		return nil, nil
	}
	if err := strictjson.Check(value); err != nil {
		return nil, refuse(err, pointer)
	}
	if bytes.TrimLeft(value, " \t\r\n")[0] != '{' {
		return nil, &Error{Code: InvalidMetadata, Pointer: pointer, Detail: "is not an object"}
	}
	return value, nil
}

// complete refuses an event without what every event needs.
func complete(e *webhook.Event, typePointer, dataPointer string) error {
	if e.Type == "" {
		return &Error{Code: MissingType, Pointer: typePointer, Detail: "is required"}
	}
	if len(e.Data) == 0 {
		return &Error{Code: MissingData, Pointer: dataPointer, Detail: "is required"}
	}
	return nil
}

func tooLarge(size, most int) error {
	if size <= most {
		return nil
	}
	return &Error{Code: TooLarge, Detail: fmt.Sprintf("%d bytes, at most %d are accepted", size, most)}
}
