package store

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// ErrNotHeld: the lease of the replay has gone to another process.
var ErrNotHeld = errors.New("the replay is not held")

// Replay delivers stored events to one subscription, again or for the first time. One process at a time works on it, under a
// lease; where it dies, the next one goes on from the cursor.
type Replay struct {
	ID             string
	Tenant         string
	SubscriptionID string
	// Spec says which events. It does not change.
	Spec ReplaySpec
	// Rate bounds the deliveries of a second.
	Rate  float64
	State ReplayState
	// Reason is why it is paused or failed, for people.
	Reason string
	// Total is how many events there were to look at when it was created, Done how many have been looked at, Matched how many
	// deliveries were made of them.
	Total, Done, Matched int64
	// Cursor is the last event of the last chunk that is done.
	Cursor EventPlace
	// Plan is the chunk that is under way; nil between chunks.
	Plan       *ReplayPlan
	CreatedBy  string
	CreatedAt  time.Time
	UpdatedAt  time.Time
	FinishedAt time.Time // zero until it has ended
}

// ReplaySpec selects the events of a replay. Zero fields select everything. It is JSON in the database.
type ReplaySpec struct {
	From       time.Time       `json:"from,omitzero"` // of RecordedAt: From inclusive, To exclusive
	To         time.Time       `json:"to,omitzero"`
	Offsets    []OffsetRange   `json:"offsets,omitempty"`
	EventTypes []string        `json:"eventTypes,omitempty"`
	Filter     json.RawMessage `json:"filter,omitempty"`
	// Statuses are those of the delivery to the subscription; NoDelivery is for events without one.
	Statuses []webhook.Status `json:"statuses,omitempty"`
}

// NoDelivery stands among the statuses for an event that has no delivery to the subscription.
const NoDelivery webhook.Status = "NONE"

// ReplayPlan is a chunk of a replay: written before anything of it is produced, so that a process that does the chunk again makes
// the same generations of the same deliveries.
type ReplayPlan struct {
	// Until is the last event of the chunk; Events is how many it has.
	Until  EventPlace `json:"until"`
	Events int64      `json:"events"`
	// Generations are those of the deliveries to make, by the event's id. Other events of the chunk do not match.
	Generations map[string]uint32 `json:"generations"`
}

// ReplayState is where a replay stands. Running and paused ones go on; the others have ended.
type ReplayState string

// The states.
const (
	ReplayRunning   ReplayState = "running"
	ReplayPaused    ReplayState = "paused"
	ReplayCancelled ReplayState = "cancelled"
	ReplayDone      ReplayState = "done"
	ReplayFailed    ReplayState = "failed"
)

// Ended reports whether nothing follows any more.
func (s ReplayState) Ended() bool { return s != ReplayRunning && s != ReplayPaused }

// EventPlace is the place of an event in the order of the stored events of a tenant.
type EventPlace struct {
	At time.Time `json:"at,omitzero"` // RecordedAt
	ID string    `json:"id,omitempty"`
}

// PlaceOf is the place of an event.
func PlaceOf(e *webhook.Event) EventPlace { return EventPlace{At: Time(e.RecordedAt), ID: e.ID} }

// OffsetRange is a part of a partition: From inclusive, To exclusive; To 0 is open.
type OffsetRange struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to,omitempty"`
}

// EventFilter selects stored events of one tenant. Zero fields select everything.
type EventFilter struct {
	ID       string
	From, To time.Time // of RecordedAt: From inclusive, To exclusive
	// Offsets select events of these parts of partitions, of one or another.
	Offsets []OffsetRange
	// Types are patterns for [webhook.MatchType].
	Types []string
	// After, Until and Before bound a chunk, in the order of the places: only Until is inclusive.
	After, Until, Before EventPlace
}
