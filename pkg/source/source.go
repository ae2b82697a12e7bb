// Package source decides about what third parties post: whether a request is really theirs, and which event it becomes.
// It also evaluates the rules by which a verified callback becomes further events. Everything here is a function of its
// arguments: no I/O, no clock. docs/sources.md describes the specification of a source for people.
package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/webhook"
)

// MaxBytes bounds the body of one request. A specification may ask for less.
const MaxBytes = 512 << 10

// MaxSpec bounds a specification.
const MaxSpec = 32 << 10

// Spec is what a source accepts and what comes of it. It is JSON in the API, in the database and on the config topic alike.
type Spec struct {
	Verify Verification `json:"verify"`
	// ID finds what the sender calls its message, so that the same one sent twice is one event. Without it every request is
	// an event of its own.
	ID *Value `json:"id,omitempty"`
	// Connection, where there is one, says whose account the message is about.
	Connection *ConnectionSpec `json:"connection,omitempty"`
	Event      EventSpec       `json:"event"`
	// MaxBytes is at most the package's; 0 is that.
	MaxBytes int `json:"maxBytes,omitempty"`
}

// ConnectionSpec finds the connection in the table of connections.
type ConnectionSpec struct {
	Aggregator string `json:"aggregator"`
	RemoteID   Value  `json:"remoteId"`
}

// EventSpec makes the event.
type EventSpec struct {
	Type        Value  `json:"type"`
	OrderingKey *Value `json:"orderingKey,omitempty"`
	// Data are the members of the event's data, in this order. Without any, the data is the body itself, byte for byte.
	Data []Member `json:"data,omitempty"`
}

// Member is one member of the data.
type Member struct {
	Name string `json:"name"`
	Value
}

// Source is a compiled specification. It may be used concurrently.
type Source struct {
	spec       Spec
	verify     verifier
	id         *value
	remoteID   *value
	eventType  value
	orderKey   *value
	data       []member
	needsJSON  bool
	aggregator string
}

type member struct {
	key   []byte // as JSON
	value value
}

// SpecError is what is wrong with a specification.
type SpecError struct {
	// Pointer is an RFC 6901 pointer into the specification.
	Pointer string
	Detail  string
}

func (e *SpecError) Error() string { return e.Pointer + ": " + e.Detail }

// Compile reads a specification. The error joins a [*SpecError] for everything wrong in it.
func Compile(raw json.RawMessage) (*Source, error) {
	if len(raw) > MaxSpec {
		return nil, &SpecError{Detail: fmt.Sprintf("%d bytes, at most %d are accepted", len(raw), MaxSpec)}
	}
	if err := strictjson.Check(raw); err != nil {
		return nil, &SpecError{Detail: err.Error()}
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	var spec Spec
	if err := decoder.Decode(&spec); err != nil {
		return nil, &SpecError{Detail: strings.TrimPrefix(err.Error(), "json: ")}
	}
	c := &compiler{}
	s := c.source(&spec)
	if len(c.problems) > 0 {
		return nil, errors.Join(c.problems...)
	}
	return s, nil
}

type compiler struct{ problems []error }

func (c *compiler) fail(pointer, format string, args ...any) {
	c.problems = append(c.problems, &SpecError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
}

func (c *compiler) source(spec *Spec) *Source {
	s := &Source{spec: *spec, verify: c.verifier(&spec.Verify)}
	if spec.MaxBytes < 0 || spec.MaxBytes > MaxBytes {
		c.fail("/maxBytes", "want 1 to %d, or 0 for that", MaxBytes)
	}
	if spec.ID != nil {
		s.id = c.value(spec.ID, "/id")
	}
	if spec.Connection != nil {
		s.aggregator = spec.Connection.Aggregator
		if s.aggregator == "" {
			c.fail("/connection/aggregator", "is required")
		}
		s.remoteID = c.value(&spec.Connection.RemoteID, "/connection/remoteId")
	}
	s.eventType = *c.value(&spec.Event.Type, "/event/type")
	if spec.Event.OrderingKey != nil {
		s.orderKey = c.value(spec.Event.OrderingKey, "/event/orderingKey")
	}
	seen := map[string]bool{}
	for i := range spec.Event.Data {
		m, at := &spec.Event.Data[i], fmt.Sprintf("/event/data/%d", i)
		if m.Name == "" || seen[m.Name] {
			c.fail(at+"/name", "want a name that no other member has")
		}
		seen[m.Name] = true
		s.data = append(s.data, member{key: quote(m.Name), value: *c.value(&m.Value, at)})
	}
	s.needsJSON = len(s.data) == 0
	for _, v := range s.values() {
		s.needsJSON = s.needsJSON || v.needsJSON()
		if v.connection != "" && spec.Connection == nil {
			c.fail("/connection", "is required: a value takes the connection's %s", v.connection)
		}
	}
	for _, v := range []*value{s.id, s.remoteID} {
		if v != nil && v.connection != "" {
			c.fail("/connection", "is found after the id and the remote id, which cannot depend on it")
		}
	}
	return s
}

// values are all of the source.
func (s *Source) values() []*value {
	all := []*value{&s.eventType}
	for _, v := range []*value{s.id, s.remoteID, s.orderKey} {
		if v != nil {
			all = append(all, v)
		}
	}
	for i := range s.data {
		all = append(all, &s.data[i].value)
	}
	return all
}

// Limit is the largest body that the source takes.
func (s *Source) Limit() int64 {
	if s.spec.MaxBytes > 0 {
		return int64(s.spec.MaxBytes)
	}
	return MaxBytes
}

// Request is what a third party has sent.
type Request struct {
	Header http.Header
	Body   []byte
}

// Reason is a stable code for why a request is refused or rejected. It is a metric label.
type Reason string

// The reasons of refusals; the codes of package strictjson appear as well.
const (
	UnknownSource    Reason = "unknown_source"
	TooLarge         Reason = "too_large"
	MissingSignature Reason = "missing_signature"
	BadSignature     Reason = "bad_signature"
	MissingTimestamp Reason = "missing_timestamp"
	Stale            Reason = "stale"
	BadCredentials   Reason = "bad_credentials"
	NoSecret         Reason = "no_secret"
)

// The reasons why what a third party really sent becomes no event yet.
const (
	UnknownConnection Reason = "unknown_connection"
	MappingFailed     Reason = "mapping_failed"
)

// Error is why a request is refused, or becomes no event.
type Error struct {
	Reason Reason
	// Detail is one sentence for people. It quotes nothing of the request but names.
	Detail string
}

func (e *Error) Error() string { return string(e.Reason) + ": " + e.Detail }

func refuse(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// Message is an authentic request that has been understood as far as it can be without the table of connections.
type Message struct {
	// SenderID is what the sender calls it; "" where it does not say.
	SenderID string
	// Aggregator and RemoteID name the connection; both are "" where the source has none.
	Aggregator string
	RemoteID   string

	source *Source
	input  input
}

// Check refuses a body that nothing can be made of. It is for after the verification, which needs only bytes.
func (s *Source) Check(body []byte) error {
	if !s.needsJSON {
		if utf8.Valid(body) {
			return nil
		}
		return refuse(Reason(strictjson.InvalidUTF8), "the body is not UTF-8")
	}
	err := strictjson.Check(body)
	var wrong *strictjson.Error
	if errors.As(err, &wrong) {
		return refuse(Reason(wrong.Code), "%s at byte %d", wrong.Detail, wrong.Offset)
	}
	return err
}

// Read finds who a checked request is about. The error is an [*Error] of reason [MappingFailed].
func (s *Source) Read(r Request) (*Message, error) {
	m := &Message{Aggregator: s.aggregator, source: s, input: input{request: r}}
	var err error
	if s.id != nil {
		if m.SenderID, err = s.id.text(&m.input); err != nil {
			return m, failed("/id", err)
		}
	}
	if s.remoteID != nil {
		if m.RemoteID, err = s.remoteID.text(&m.input); err != nil {
			return m, failed("/connection/remoteId", err)
		}
		if m.RemoteID == "" {
			return m, refuse(MappingFailed, "/connection/remoteId: the message does not have it")
		}
	}
	return m, nil
}

func failed(pointer string, err error) *Error { return refuse(MappingFailed, "%s: %v", pointer, err) }

// Event makes the event; its id, time and trace are the caller's matter. The connection is nil where the source has none.
func (m *Message) Event(connection *webhook.Connection) (webhook.Event, error) {
	s := m.source
	if s.remoteID != nil && connection == nil {
		return webhook.Event{}, refuse(UnknownConnection, "%s has no connection for this remote id", s.aggregator)
	}
	m.input.connection = connection
	e := webhook.Event{}
	if connection != nil {
		e.Tenant = connection.Client
	}
	var err error
	if e.Type, err = s.eventType.text(&m.input); err != nil {
		return e, failed("/event/type", err)
	}
	if e.Type == "" {
		return e, refuse(MappingFailed, "/event/type: the message does not have it")
	}
	if s.orderKey != nil {
		if e.OrderingKey, err = s.orderKey.text(&m.input); err != nil {
			return e, failed("/event/orderingKey", err)
		}
	}
	if len(s.data) == 0 {
		e.Data = bytes.Clone(m.input.request.Body)
		return e, nil
	}
	e.Data, err = object(s.data, &m.input)
	return e, err
}

// object writes members in their order.
func object(members []member, in *input) (json.RawMessage, error) {
	out := []byte{'{'}
	for i := range members {
		v := &members[i].value
		raw, err := v.json(in)
		if err != nil {
			return nil, failed("/"+strictjson.Escape(strings.Trim(string(members[i].key), `"`)), err)
		}
		if raw == nil {
			if v.optional {
				continue
			}
			return nil, refuse(MappingFailed, "%s: the message does not have it", members[i].key)
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, members[i].key...), ':'), raw...)
	}
	return append(out, '}'), nil
}
