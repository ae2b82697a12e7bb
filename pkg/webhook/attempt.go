package webhook

import (
	"time"

	"github.com/google/uuid"
)

// Attempt is one HTTP request of a delivery and what followed from it. Where something was decided without a request
// (cancelled, window over), Number is 0 and the fields of the request are empty.
type Attempt struct {
	// ID is a UUIDv7, unique to the request: the same record read twice is the same attempt.
	ID             uuid.UUID
	DeliveryID     uuid.UUID
	Generation     uint32
	Tenant         string
	EventID        string
	EventType      string
	SubscriptionID string
	Profile        string
	ProfileVersion uint32
	Trigger        Trigger
	// DeliveryCreatedAt is the delivery's CreatedAt: it finds the delivery's row.
	DeliveryCreatedAt time.Time
	// Number counts the attempts of the generation from 1. Try counts the requests within one attempt from 1 (micro-retry).
	Number uint32
	Try    uint32
	// StartedAt and Duration are of the request, from dial to the end of the response body.
	StartedAt time.Time
	Duration  time.Duration
	Phases    Phases
	// StatusCode is 0 where no response came.
	StatusCode int
	Error      ErrorClass
	// Response is the beginning of the response body, at most 1 KiB by default.
	Response []byte
	// RequestBytes and ResponseBytes are the sizes of the bodies; ResponseBytes stops where reading stopped.
	RequestBytes  int
	ResponseBytes int
	Outcome       Outcome
	TraceParent   string
}

// Phases are the parts of a request's time; zero where a phase did not happen.
type Phases struct {
	DNS       time.Duration
	Connect   time.Duration
	TLS       time.Duration
	FirstByte time.Duration
}

// Outcome is what is decided about a delivery after an attempt, or instead of one.
type Outcome struct {
	// Status is PENDING while another attempt follows.
	Status Status
	// Reason is a stable code; empty for DELIVERED.
	Reason Reason
	// NextAttemptAt is the earliest time of the next attempt where the status is PENDING; zero otherwise.
	NextAttemptAt time.Time
	// DisableSubscription asks that the subscription be disabled, as a profile's response rule may.
	DisableSubscription bool
	// Uncounted says that the failure is not held against the subscription: another try of the same attempt follows, or the
	// receiver answered 429 or 503 with a Retry-After, which is a receiver at work.
	Uncounted bool
}

// ErrorClass is why a request got no usable response. The list is fixed: it is a metric label and a field of the audit.
type ErrorClass string

// The classes of request errors. None means that a response came, whatever its status.
const (
	ErrorNone       ErrorClass = ""
	ErrorDNS        ErrorClass = "dns"
	ErrorBlocked    ErrorClass = "blocked"     // the address is not one that Hookline may call
	ErrorRefused    ErrorClass = "refused"     // connection refused or unreachable
	ErrorReset      ErrorClass = "reset"       // connection closed before the response was complete
	ErrorTimeout    ErrorClass = "timeout"     // the attempt's deadline passed
	ErrorTLS        ErrorClass = "tls"         // handshake or certificate
	ErrorProtocol   ErrorClass = "protocol"    // not HTTP, or headers beyond bounds
	ErrorRequest    ErrorClass = "request"     // the request could not be built under the contract
	ErrorNoSecret   ErrorClass = "no_secret"   // the signing secret cannot be read
	ErrorConnection ErrorClass = "connection"  // any other failure of the connection
	ErrorInternal   ErrorClass = "internal"    // a defect of Hookline; the delivery ends as a dead letter
	ErrorCut        ErrorClass = "interrupted" // the worker stopped before the response came
)

// Reason is a stable code for why a delivery waits or has ended.
type Reason string

// Reasons of retries and ends.
const (
	ReasonNone                 Reason = ""
	ReasonHTTPStatus           Reason = "http_status"           // the response asks for a retry, or forbids one
	ReasonNetwork              Reason = "network"               // no response came
	ReasonTimeout              Reason = "timeout"               // the deadline passed
	ReasonAttemptsExhausted    Reason = "attempts_exhausted"    // the schedule has no further attempt
	ReasonWindowExceeded       Reason = "window_exceeded"       // the next attempt would be after the retry window
	ReasonSubscriptionInactive Reason = "subscription_inactive" // disabled when picked up
	ReasonSubscriptionDeleted  Reason = "subscription_deleted"  // gone when picked up
	ReasonContract             Reason = "contract"              // the event does not fit the profile's contract
	ReasonInternal             Reason = "internal"              // a defect of Hookline
)

// Reasons of deferrals: the delivery waits without an attempt having been made or counted.
const (
	ReasonConcurrency Reason = "concurrency" // the endpoint's share of the worker is used up
	ReasonRate        Reason = "rate"
	ReasonBreaker     Reason = "breaker"
	ReasonPaused      Reason = "paused"
	ReasonConfig      Reason = "config" // the worker's config snapshot lacks something the delivery needs
	ReasonSecret      Reason = "secret" // the subscription's secret cannot be read yet
	ReasonShutdown    Reason = "shutdown"
	ReasonManual      Reason = "manual"    // asked for: redelivery, retry now
	ReasonCancelled   Reason = "cancelled" // asked for, while it waited
)
