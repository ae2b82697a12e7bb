// Package store has the words of the database: what is written in one batch, what can be asked, and the errors that
// callers branch on. pgstore and sqlitestore implement them, storetest holds both to the same behaviour. Interfaces are
// declared by the callers.
package store

import (
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/webhook"
)

// Errors that callers branch on.
var (
	// ErrNotFound: there is no such row in this tenant.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken in this tenant.
	ErrExists = errors.New("already exists")
	// ErrInUse: a secret that subscriptions use cannot be deleted.
	ErrInUse = errors.New("in use")
	// ErrProfileMismatch: the secret is bound to another profile.
	ErrProfileMismatch = errors.New("secret is bound to another profile")
	// ErrUnavailable: the database cannot be reached; the same call may succeed later.
	ErrUnavailable = errors.New("database unavailable")
)

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Batch is what the recorder writes in one transaction: rows, and the offsets they bring it to. Writing the same batch
// twice changes nothing.
type Batch struct {
	Deliveries []Delivery
	Attempts   []webhook.Attempt
	Events     []webhook.Event
	// Offsets are the next offsets to read.
	Offsets map[TopicPartition]int64
}

// Delivery is a row of the audit. A row moves forward only: to a higher generation, or within one to a higher
// [webhook.Status.Rank]; while PENDING, to more attempts.
type Delivery struct {
	ID             uuid.UUID
	Tenant         string
	EventID        string
	EventType      string
	SubscriptionID string
	Profile        string
	ProfileVersion uint32
	Generation     uint32
	Trigger        webhook.Trigger
	Status         webhook.Status
	Reason         webhook.Reason
	// CreatedAt is the delivery's CreatedAt. It says in which time partition the row is.
	CreatedAt time.Time
	UpdatedAt time.Time
	// AttemptCount counts attempts (not tries) of the current generation.
	AttemptCount   uint32
	NextAttemptAt  time.Time // zero where none
	LastStatusCode int       // 0 where none
	LastError      webhook.ErrorClass
}

// DeliveryFilter selects deliveries of one tenant. Zero fields select everything.
type DeliveryFilter struct {
	Status         webhook.Status
	SubscriptionID string
	EventID        string
	EventType      string
	From, To       time.Time // of CreatedAt: From inclusive, To exclusive
}

// Page asks for at most Limit rows after Cursor. Cursors are opaque; an empty one starts at the newest row.
type Page struct {
	Cursor string
	Limit  int
}

// ErrBadCursor: the cursor is not one that a list returned.
var ErrBadCursor = errors.New("bad cursor")

// OutboxRecord is a config record that waits to be published. IDs grow in the order of the changes.
type OutboxRecord struct {
	ID    int64
	Key   string
	Value []byte // nil deletes
}
