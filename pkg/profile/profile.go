package profile

import (
	"bytes"
	"encoding/json"
	"time"
)

// Profile is one version of a delivery contract. It is immutable and safe for concurrent use.
type Profile struct {
	Name        string
	Version     uint32
	Description string
	// HTTPSOnly says that the receiver asks for https:// endpoints. Whether http:// is accepted at all is the operator's
	// setting, for every profile alike.
	HTTPSOnly bool
	// Timeout is of one request, from dialling to the end of the response body.
	Timeout time.Duration
	// Tolerance is how far a receiver lets a signed timestamp be from its clock.
	Tolerance time.Duration
	// AutoDisable is nil where subscriptions are never disabled for failing.
	AutoDisable *AutoDisable
	// EventTypes are the documented ones, with a sample each. They do not restrict what may be delivered.
	EventTypes []EventType

	contentType string
	body        body
	headers     []header
	generate    generator
	forms       []form
	signatures  []signature
	sorted      bool // some signature covers the sorted form of the body
	trace       bool
	responses   responses
	settings    settings
	bounds      bounds
	callback    *Callback
	plain       *Contract       // without overrides
	reserved    map[string]bool // canonical names of the headers that the profile writes
	yaml, json  []byte
}

// AutoDisable asks for a subscription to be disabled after consecutive failures.
type AutoDisable struct {
	// After is how many, Count of what: "attempts" or "deliveries".
	After int
	Count string
	// Window is how long they must have lasted besides; 0 for no such condition.
	Window time.Duration
}

// EventType is a documented event type.
type EventType struct {
	Name        string
	Description string
	// Sample is the data of a test event.
	Sample json.RawMessage
}

type header struct {
	name   string // canonical
	value  template
	forbid string
}

type generator struct {
	prefix   string
	bytes    int
	encoding encoding
}

// YAML is the profile's file.
func (p *Profile) YAML() []byte { return bytes.Clone(p.yaml) }

// JSON is the profile's file as JSON, with its members in the file's order.
func (p *Profile) JSON() json.RawMessage { return bytes.Clone(p.json) }

// EventType finds a documented event type.
func (p *Profile) EventType(name string) (EventType, bool) {
	for _, t := range p.EventTypes {
		if t.Name == name {
			return t, true
		}
	}
	return EventType{}, false
}
