package webhook

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Status is where a delivery stands, as the fynapse seed defines it.
type Status string

// A delivery is PENDING until it ends in one of the others. Within a generation a status only moves forward, by [Status.Rank].
const (
	Pending    Status = "PENDING"
	Cancelled  Status = "CANCELLED"
	DeadLetter Status = "DEAD_LETTER"
	Delivered  Status = "DELIVERED"
)

// Statuses lists every status in the order of their ranks.
func Statuses() []Status { return []Status{Pending, Cancelled, DeadLetter, Delivered} }

// Rank orders statuses: of two records about the same generation, the higher rank is the truth. A 2xx that a stale
// worker saw beats a dead letter.
func (s Status) Rank() int {
	switch s {
	case Cancelled:
		return 1
	case DeadLetter:
		return 2
	case Delivered:
		return 3
	default:
		return 0
	}
}

// Trigger says why a generation of a delivery exists.
type Trigger string

// The triggers.
const (
	TriggerEvent  Trigger = "event"
	TriggerManual Trigger = "manual"
	TriggerReplay Trigger = "replay"
	// TriggerTest marks the one attempt of a test that somebody sent: nothing is retried, counted against the receiver, or told of.
	TriggerTest Trigger = "test"
)

// Delivery is one event on its way to one subscription, until it ends. The value carries everything that an attempt
// needs besides the subscription itself, which is looked up at every attempt.
type Delivery struct {
	// ID is [DeliveryID] of tenant, event and subscription.
	ID uuid.UUID
	// Generation is 0 for the event itself and grows with every redelivery or replay.
	Generation uint32
	// Trip counts the passes through the retries topic within the generation, attempts and deferrals alike.
	Trip uint32
	// Attempts is how many attempts of this generation have been made.
	Attempts       uint32
	SubscriptionID string
	// Profile and ProfileVersion are the contract the delivery was made under.
	Profile        string
	ProfileVersion uint32
	// CreatedAt starts the retry window. It is the event's RecordedAt, or the time of the redelivery's request.
	CreatedAt time.Time
	Trigger   Trigger
	// ConfigOffset is the config snapshot that the delivery was routed under.
	ConfigOffset int64
	Event        Event
}

// Key identifies this trip of the delivery.
func (d *Delivery) Key() Trip {
	return Trip{Delivery: d.ID, Generation: d.Generation, Number: d.Trip}
}

// Trip identifies one pass of a delivery through the retries topic. A trip seen twice is sent once.
type Trip struct {
	Delivery   uuid.UUID
	Generation uint32
	Number     uint32
}

// firstCommand and the numbers above it are not passes of a delivery: a record under one asks something of the trips of
// its generation that wait. Each has a number of its own, because the tombstone of one must not erase the next.
const firstCommand = 1 << 31

// Command is the key of a record that asks something of the waiting trips of a generation.
func Command(delivery uuid.UUID, generation uint32) Trip {
	return Trip{Delivery: delivery, Generation: generation, Number: firstCommand | rand.Uint32()}
}

// IsCommand tells a [Command] from a pass of the delivery.
func (t Trip) IsCommand() bool { return t.Number >= firstCommand }

// String is the key of the trip's record: delivery/generation/number.
func (t Trip) String() string {
	return t.Delivery.String() + "/" + strconv.FormatUint(uint64(t.Generation), 10) + "/" + strconv.FormatUint(uint64(t.Number), 10)
}

// ParseTrip reads what [Trip.String] wrote.
func ParseTrip(s string) (Trip, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Trip{}, fmt.Errorf("trip key %q: want delivery/generation/number", s)
	}
	id, err := uuid.Parse(parts[0])
	if err != nil {
		return Trip{}, fmt.Errorf("trip key %q: %w", s, err)
	}
	generation, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return Trip{}, fmt.Errorf("trip key %q: generation: %w", s, err)
	}
	number, err := strconv.ParseUint(parts[2], 10, 32)
	if err != nil {
		return Trip{}, fmt.Errorf("trip key %q: number: %w", s, err)
	}
	return Trip{Delivery: id, Generation: uint32(generation), Number: uint32(number)}, nil
}

// Compact is the short binary form of the trip, 18 bytes for small numbers: the member of the timer index.
func (t Trip) Compact() []byte {
	b := append(make([]byte, 0, 24), t.Delivery[:]...)
	b = binary.AppendUvarint(b, uint64(t.Generation))
	return binary.AppendUvarint(b, uint64(t.Number))
}

// ParseCompact reads what [Trip.Compact] wrote.
func ParseCompact(b []byte) (Trip, error) {
	var t Trip
	if len(b) < len(t.Delivery)+2 {
		return Trip{}, fmt.Errorf("compact trip of %d bytes: too short", len(b))
	}
	n := copy(t.Delivery[:], b)
	generation, g := binary.Uvarint(b[n:])
	if g <= 0 || generation > 1<<32-1 {
		return Trip{}, fmt.Errorf("compact trip %x: bad generation", b)
	}
	number, m := binary.Uvarint(b[n+g:])
	if m <= 0 || number > 1<<32-1 || n+g+m != len(b) {
		return Trip{}, fmt.Errorf("compact trip %x: bad number", b)
	}
	t.Generation, t.Number = uint32(generation), uint32(number)
	return t, nil
}

// Retry is a delivery waiting in the retries topic. It is due when Delay has passed since the broker appended it, so
// that no worker's clock decides.
type Retry struct {
	Delivery Delivery // Trip is already the coming one
	Delay    time.Duration
	Reason   Reason
}
