package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Expectation is a delivery whose profile asks the receiver to call back with the body that it got.
type Expectation struct {
	Delivery       uuid.UUID
	Tenant         string
	SubscriptionID string
	Profile        string
	EventID        string
	// Sent and Signed are the SHA-256 of the body as it was sent, but for what a parser may spell differently, and of what is signed
	// of it, whatever the order of its members.
	Sent, Signed [32]byte
	// Until is when a callback comes too late.
	Until time.Time
	Trace TraceContext
	// Call is the verified call that the delivery was matched to; the zero UUID before.
	Call uuid.UUID
}

// Call is a verified callback.
type Call struct {
	ID             uuid.UUID
	Tenant         string
	SubscriptionID string
	Profile        string
	Sent           [32]byte
	Body           []byte
	At             time.Time
	TraceParent    string
}

// FollowUp is an event that follows from a call, and goes out after those before it.
type FollowUp struct {
	Event Event
	// Delivery is the one that was called back.
	Delivery uuid.UUID
	At       time.Time
}

// Flight is the follow-up of a connection that is on its way: the next one waits until its deliveries have ended.
type Flight struct {
	EventID    string
	Deliveries []uuid.UUID
	Since      time.Time
}

// Follows is what an event says in its metadata of the delivery that it follows from.
type Follows struct {
	EventID    string    `json:"event_id"`
	DeliveryID uuid.UUID `json:"delivery_id"`
	Rule       string    `json:"rule"`
}

type followsMetadata struct {
	Follows *Follows `json:"hookline_follows,omitempty"`
}

// Metadata is the JSON object that says it.
func (f Follows) Metadata() json.RawMessage {
	text, err := json.Marshal(followsMetadata{&f})
	if err != nil { // cannot happen: texts
		return nil
	}
	return text
}

// FollowsFrom reads what [Follows.Metadata] wrote; false where the metadata says nothing of it.
func FollowsFrom(metadata json.RawMessage) (Follows, bool) {
	var said followsMetadata
	if json.Unmarshal(metadata, &said) != nil || said.Follows == nil {
		return Follows{}, false
	}
	return *said.Follows, true
}

// CallbackGroup names what is called back in order: one connection of one tenant. It fixes the partition of its records.
func CallbackGroup(tenant, key string) string {
	sum := sha256.Sum256([]byte(tenant + "\x00" + key))
	return hex.EncodeToString(sum[:16])
}

// SourceRequest is what became of one request to a source.
type SourceRequest struct {
	ID       string
	SourceID string
	Tenant   string // the source's
	At       time.Time
	Outcome  SourceOutcome
	// Reason is a stable code; empty for what was accepted.
	Reason     string
	Detail     string
	EventID    string
	EventType  string
	Bytes      int
	Aggregator string
	RemoteID   string
	// Rejected is where the body stands, for what was rejected.
	Rejected Position
}

// SourceOutcome says what became of a request to a source.
type SourceOutcome string

// A request is refused for what it is; what was rejected is the third party's own, and could not become an event yet.
const (
	SourceAccepted SourceOutcome = "accepted"
	SourceRejected SourceOutcome = "rejected"
	SourceRefused  SourceOutcome = "refused"
)
