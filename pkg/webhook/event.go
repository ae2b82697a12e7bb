package webhook

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Event is something that happened upstream, as its producer stated it.
type Event struct {
	// ID names the event within its tenant. The producer gives it; without one it is [DerivedEventID].
	ID string
	// Type is the dotted event type, for example "balance.extracted".
	Type   string
	Tenant string
	// OrderingKey groups events whose order matters to a subscription with ordering per_key. May be empty.
	OrderingKey string
	// Timestamp is when the event occurred, by its producer; the time of the record where it gave none.
	Timestamp time.Time
	// Metadata is a JSON object, or nil where the producer gave none.
	Metadata json.RawMessage
	// Data is one JSON value, byte for byte as the producer wrote it.
	Data json.RawMessage
	// Trace is the producer's W3C trace context.
	Trace TraceContext
	// Source is where the event stands in Kafka. It is zero until the event has been written.
	Source Position
	// RecordedAt is the timestamp of the event's Kafka record; the same however often the record is read.
	RecordedAt time.Time
}

// TraceContext is a W3C trace context as its two header values; empty strings where there is none.
type TraceContext struct {
	Parent string // traceparent
	State  string // tracestate
}

// traceID is where the trace's own id ends in a traceparent. https://www.w3.org/TR/trace-context/#traceparent-header-field-values
const traceID = len("00-4bf92f3577b34da6a3ce929d0e0e4736")

// Join is the trace context of what comes of t and of another traceparent: that one, where it is of the same trace or the only one;
// otherwise t, and the other is to be linked.
func (t TraceContext) Join(parent string) (joined TraceContext, link string) {
	same := len(t.Parent) > traceID && len(parent) > traceID && t.Parent[:traceID] == parent[:traceID]
	if t.Parent == "" || same {
		return TraceContext{Parent: parent, State: t.State}, ""
	}
	return t, parent
}

// Position is a place in Kafka.
type Position struct {
	Topic     string
	Partition int32
	Offset    int64
}

func (p Position) String() string { return fmt.Sprintf("%s/%d@%d", p.Topic, p.Partition, p.Offset) }

// space is the UUIDv5 name space of every identity that Hookline derives. Changing it would change the ids of
// deliveries that are under way.
var space = uuid.MustParse("5a1b7f0e-8f3c-5f5e-9c52-6d1f0c2f7a10")

// DerivedEventID is the id of an event whose producer gave none: a function of the record's place in Kafka, so that
// reading the record again gives the same id.
func DerivedEventID(p Position) string {
	name := make([]byte, 0, len(p.Topic)+1+4+8)
	name = append(name, p.Topic...)
	name = append(name, 0)
	name = binary.BigEndian.AppendUint32(name, uint32(p.Partition))
	name = binary.BigEndian.AppendUint64(name, uint64(p.Offset))
	return uuid.NewSHA1(space, name).String()
}

// DeliveryID is the identity of the delivery of one event to one subscription. It is the same on crash, retry,
// redelivery and replay.
func DeliveryID(tenant, eventID, subscriptionID string) uuid.UUID {
	name := make([]byte, 0, len(tenant)+len(eventID)+len(subscriptionID)+2)
	name = append(name, tenant...)
	name = append(name, 0)
	name = append(name, eventID...)
	name = append(name, 0)
	name = append(name, subscriptionID...)
	return uuid.NewSHA1(space, name)
}

// operational is what the types of events about Hookline itself begin with.
const operational = "hookline."

// Operational reports whether events of a type are about Hookline itself: a subscription was disabled, a delivery given up.
func Operational(eventType string) bool { return strings.HasPrefix(eventType, operational) }

// MatchType reports whether an event type is covered by a pattern: the type itself, "prefix.*" for everything below a
// prefix (at any depth), or "*" for all but the operational ones, which a receiver of everything would not understand.
func MatchType(pattern, eventType string) bool {
	if pattern == eventType || pattern == "*" && !Operational(eventType) {
		return true
	}
	prefix, ok := strings.CutSuffix(pattern, "*")
	return ok && strings.HasSuffix(prefix, ".") && strings.HasPrefix(eventType, prefix) && len(eventType) > len(prefix)
}
