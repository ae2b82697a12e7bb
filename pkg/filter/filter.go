// Package filter decides whether a subscription wants an event by what is in it: by a pattern over the event, in the manner of
// EventBridge, or by a CEL expression. A filter is compiled when a subscription is saved, and once more where events are
// routed; what it decides depends on the event and the filter alone. docs/filters.md describes both forms for people.
//
// Both see the event as its producer may state it: event_id, event_type, event_timestamp, tenant, ordering_key, metadata and
// data. A field that the event does not have matches nothing, unless the pattern asks for its absence.
package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hookline/hookline/pkg/expression"
	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/webhook"
)

// Bounds of a filter. What a match may cost follows from them, and for CEL from costLimit as well.
const (
	MaxSize   = 8 << 10 // bytes
	maxDepth  = 16      // objects within each other
	maxTests  = 250     // alternatives of all lists
	maxUnions = 32      // alternatives of all $or
)

// Code is a stable name for why a filter is refused.
type Code string

// The codes. Those of package strictjson appear as well.
const (
	Invalid         Code = "filter_invalid"
	UnknownField    Code = "filter_unknown_field"
	UnknownOperator Code = "filter_unknown_operator"
	TooLarge        Code = "filter_too_large"
	TooCostly       Code = "filter_too_costly"
)

// Error is why a filter is refused.
type Error struct {
	Code Code
	// Pointer is an RFC 6901 pointer into the filter.
	Pointer string
	Detail  string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %s", e.Code, e.Pointer, e.Detail) }

// Filter is a compiled filter. It may be used concurrently. A nil *Filter matches every event.
type Filter struct {
	pattern *object
	cel     *expression.Expression
}

// Clause is a part of a filter that an event does not match.
type Clause struct {
	// Pointer is an RFC 6901 pointer into the filter.
	Pointer string
	// Detail is one sentence for people. It quotes the beginning of the event's value.
	Detail string
}

// Compile reads a filter. Nothing, null and {} are no filter: nil. The error is an [*Error].
func Compile(raw json.RawMessage) (*Filter, error) {
	if None(raw) {
		return nil, nil
	}
	raw = bytes.TrimSpace(raw)
	if len(raw) > MaxSize {
		return nil, &Error{Code: TooLarge, Detail: fmt.Sprintf("%d bytes, at most %d are accepted", len(raw), MaxSize)}
	}
	if err := strictjson.Check(raw); err != nil {
		return nil, syntax(err)
	}
	if raw[0] != '{' {
		return nil, &Error{Code: Invalid, Detail: `want an object: a pattern over the event, or {"cel": "…"}`}
	}
	fields := fieldsOf(raw)
	if has(fields, "cel") {
		return compileCEL(fields)
	}
	pattern, err := compilePattern(fields)
	if err != nil {
		return nil, err
	}
	return &Filter{pattern: pattern}, nil
}

// None reports whether a filter says nothing: it is absent, null or {}.
func None(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) == 0 || string(raw) == "null" || raw[0] == '{' && len(bytes.TrimSpace(raw[1:])) == 1 && raw[len(raw)-1] == '}'
}

// Match reports whether an event passes. The error, for CEL only, says that the expression could not be evaluated for this
// event; the event does not match then. An expression that asks for a field which the event does not have is no error.
func (f *Filter) Match(e *webhook.Event) (bool, error) {
	switch {
	case f == nil:
		return true, nil
	case f.cel != nil:
		matched, err := evaluate(f.cel, e)
		if errors.Is(err, expression.ErrMissing) {
			err = nil
		}
		return matched, err
	default:
		return f.pattern.matchEvent(e, nil), nil
	}
}

// Explain lists the parts of the filter that an event does not match; none where it matches. Of alternatives of which one
// would have been enough it lists all.
func (f *Filter) Explain(e *webhook.Event) []Clause {
	switch {
	case f == nil:
		return nil
	case f.cel != nil:
		return explain(f.cel, e)
	}
	var r report
	if f.pattern.matchEvent(e, &r) {
		return nil
	}
	return r.clauses
}

// root are the fields of an event, as a pattern and an expression name them.
var root = []string{"event_id", "event_type", "event_timestamp", "tenant", "ordering_key", "metadata", "data"}

// fieldOf is a field of the event; the event is what the producer stated, with what Hookline added where it stated nothing.
func fieldOf(e *webhook.Event, name string) value {
	switch name {
	case "event_id":
		return text(e.ID)
	case "event_type":
		return text(e.Type)
	case "event_timestamp":
		return text(e.Timestamp.UTC().Format(time.RFC3339Nano))
	case "tenant":
		return text(e.Tenant)
	case "ordering_key":
		return text(e.OrderingKey)
	case "metadata":
		return raw(e.Metadata)
	case "data":
		return raw(e.Data)
	}
	return value{}
}

// report collects clauses, up to a bound.
type report struct{ clauses []Clause }

const maxClauses = 50

func (r *report) add(pointer, format string, args ...any) {
	if r != nil && len(r.clauses) < maxClauses {
		r.clauses = append(r.clauses, Clause{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
}

// field is a member of an object of the filter.
type field struct {
	key   string
	value []byte
}

// fieldsOf reads an object that has been checked.
func fieldsOf(object []byte) (fields []field) {
	_ = strictjson.Members(object, func(key, value []byte) error {
		fields = append(fields, field{key: string(key), value: bytes.Clone(value)})
		return nil
	})
	return fields
}

// elementsOf reads an array that has been checked.
func elementsOf(array []byte) (elements [][]byte) {
	_ = strictjson.Elements(array, func(_ int, value []byte) error {
		elements = append(elements, bytes.Clone(value))
		return nil
	})
	return elements
}

func has(fields []field, key string) bool {
	for _, f := range fields {
		if f.key == key {
			return true
		}
	}
	return false
}

func syntax(err error) *Error {
	if wrong, ok := err.(*strictjson.Error); ok { //nolint:errorlint // the package returns nothing else, unwrapped
		return &Error{Code: Code(wrong.Code), Pointer: wrong.Pointer, Detail: wrong.Detail}
	}
	return &Error{Code: Invalid, Detail: err.Error()}
}
