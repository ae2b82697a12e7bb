// Package store has the words of the database: what is written in one batch, what can be asked, and the errors that
// callers branch on. pgstore and sqlitestore implement them, storetest holds both to the same behaviour. Interfaces are
// declared by the callers.
package store

import (
	"errors"
	"fmt"
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
	// ErrGap: the store has lost what comes before the batch (a crash, a restored backup): read from its offsets again.
	ErrGap = errors.New("records before the batch are missing")
	// ErrUnavailable: the database cannot be reached; the same call may succeed later.
	ErrUnavailable = errors.New("database unavailable")
)

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Batch is what the recorder writes in one transaction: rows, and the offsets they bring it to. Writing the same batch
// twice changes nothing, and batches of the same records in another order end in the same rows. Record may change the
// batch's rows in place to make them storable (see [Batch.Clean]).
type Batch struct {
	Deliveries []Delivery
	Attempts   []webhook.Attempt
	Events     []webhook.Event
	Health     []Health // of each subscription at most one
	// Offsets are the next offsets to read. Stored ones never go back.
	Offsets map[TopicPartition]int64
	// From are the offsets that earlier batches have brought the store to. Where a stored one is lower, or missing, the store
	// has lost commits, and the batch is refused with [ErrGap] rather than leave a hole. Partitions that are not in From are
	// not checked.
	From map[TopicPartition]int64
}

// Delivery is a row of the audit, and what one record says about it: see [Delivery.Merge].
//
// A row is identified by its ID alone, but rows live in time partitions by CreatedAt. A record belongs to the row of its ID that
// was created within [SameRow] of it; the same event produced again after that has a row of its own. Once a row or a record is
// of a later generation (redelivery, replay), they belong together whenever they were created. Of several rows it is the nearest.
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
	AttemptCount  uint32
	NextAttemptAt time.Time // zero where none
	// LastAttempt and LastTry say which request LastStatusCode and LastError are of; 0 where there was none. Try 0 of an
	// attempt is what a dead letter knows of it.
	LastAttempt    uint32
	LastTry        uint32
	LastStatusCode int // 0 where none
	LastError      webhook.ErrorClass
}

// Health is how a subscription's receiver has fared lately, as the recorder counts it, at a position of the attempts topic. A stored
// one is only replaced by one of another partition, or of a position that is not lower: no attempt counts twice.
type Health struct {
	Tenant         string
	SubscriptionID string
	Partition      int32
	Next           int64  // the offset behind the last attempt counted
	State          []byte // the recorder's; nil where there is nothing to remember
	UpdatedAt      time.Time
}

// KeepHealth is how long a Health is kept after its last change.
const KeepHealth = 30 * 24 * time.Hour

// SameRow is how far apart a row and a record of generation 0 may be created.
const SameRow = 48 * time.Hour

// Retention is how long rows are kept by their CreatedAt; zero keeps them for ever.
type Retention struct {
	Deliveries time.Duration
	Attempts   time.Duration
	Events     time.Duration
}

// RefusedError says that the database refuses rows of a batch for what they contain, and that nothing of the batch was written.
// Every row that it refuses is named; the batch without them can be written.
type RefusedError struct {
	Rows []RefusedRow
}

// RefusedRow is one row that the database refuses: an index into the batch's Deliveries, Attempts or Events.
type RefusedRow struct {
	Table Table
	Index int
	Err   error
}

// Table names one of the batch's kinds of rows.
type Table string

// The tables of the audit.
const (
	TableDeliveries Table = "deliveries"
	TableAttempts   Table = "attempts"
	TableEvents     Table = "events"
)

func (e *RefusedError) Error() string {
	if len(e.Rows) == 0 {
		return "the database refuses the batch"
	}
	first := e.Rows[0]
	return fmt.Sprintf("the database refuses %d rows, the first is %s %d: %v", len(e.Rows), first.Table, first.Index, first.Err)
}

// DeliveryFilter selects deliveries of one tenant. Zero fields select everything.
type DeliveryFilter struct {
	Status         webhook.Status
	SubscriptionID string
	EventID        string
	EventType      string
	Trigger        webhook.Trigger
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
