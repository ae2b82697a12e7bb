package webhook

import (
	"encoding/json"
	"slices"
	"time"
)

// DefaultTenant is the tenant of events and API keys that name none.
const DefaultTenant = "default"

// Tenant owns subscriptions, secrets, API keys and events; nothing of one tenant is visible to another.
type Tenant struct {
	ID   string
	Name string
	// DefaultProfile is the profile of subscriptions that name none.
	DefaultProfile string
	CreatedAt      time.Time
}

// SubscriptionStatus says whether a subscription takes events.
type SubscriptionStatus string

// A disabled or deleted subscription's deliveries end as CANCELLED; a paused one's wait.
const (
	SubscriptionActive   SubscriptionStatus = "active"
	SubscriptionPaused   SubscriptionStatus = "paused"
	SubscriptionDisabled SubscriptionStatus = "disabled"
)

// Ordering says whether deliveries of one ordering key wait for each other.
type Ordering string

// The kinds of ordering.
const (
	OrderingNone   Ordering = "none"
	OrderingPerKey Ordering = "per_key"
)

// Subscription says which events go to which endpoint, under which profile and secret.
type Subscription struct {
	ID           string
	Tenant       string
	Name         string
	Status       SubscriptionStatus
	StatusReason string
	// EndpointURL is the full URL that receives the POST.
	EndpointURL string
	// EventTypes are patterns for [MatchType]; none means every type.
	EventTypes []string
	// Filter is a pattern over the event, or nil.
	Filter json.RawMessage
	// SecretRef is the name of the secret, SecretID its id.
	SecretRef string
	SecretID  string
	// Profile names the delivery contract.
	Profile   string
	Ordering  Ordering
	Overrides Overrides
	// Version grows by one with every change; it is the ETag of the subscription.
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
	// StatusSince is when the status became what it is; the database keeps it, the config topic does not. Failures of attempts
	// begun before it say nothing about a subscription that was enabled since.
	StatusSince time.Time
}

// Wants reports whether the subscription's event types cover an event type. None are as one "*".
func (s *Subscription) Wants(eventType string) bool {
	return len(s.EventTypes) == 0 && MatchType("*", eventType) ||
		slices.ContainsFunc(s.EventTypes, func(pattern string) bool { return MatchType(pattern, eventType) })
}

// Overrides change a profile for one subscription, within the profile's bounds. A zero field changes nothing. It is
// JSON in the API, in the database and on the config topic alike.
type Overrides struct {
	Timeout     Duration          `json:"timeout,omitzero"`
	Retry       *RetryOverride    `json:"retry,omitempty"`
	MicroRetry  *MicroRetry       `json:"microRetry,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Rate        *Rate             `json:"rate,omitempty"`
	Concurrency int               `json:"concurrency,omitempty"`
	// Traceparent sends the trace context to the receiver; nil leaves it to the profile.
	Traceparent *bool `json:"traceparent,omitempty"`
}

// RetryOverride is a retry schedule: a list of delays (n delays are n+1 attempts), or an exponential one.
type RetryOverride struct {
	Delays   []Duration `json:"delays,omitempty"`
	Base     Duration   `json:"base,omitzero"`
	Factor   float64    `json:"factor,omitempty"`
	Max      Duration   `json:"max,omitzero"`
	Jitter   *float64   `json:"jitter,omitempty"`
	Attempts int        `json:"attempts,omitempty"`
	Window   Duration   `json:"window,omitzero"`
}

// MicroRetry is a quick second try within one attempt: tries in total, and the bounds of the random wait between them.
type MicroRetry struct {
	Attempts int      `json:"attempts"`
	Min      Duration `json:"min"`
	Max      Duration `json:"max"`
}

// Rate bounds the attempts to one subscription.
type Rate struct {
	PerSecond float64 `json:"perSecond"`
}

// Duration is a time.Duration written as a Go duration string in JSON.
type Duration time.Duration

// MarshalText writes the duration as Go prints it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a Go duration string.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Secret is the key material a receiver verifies signatures with. Its value never appears here in the clear: versions
// are sealed, and only package seal opens them.
type Secret struct {
	ID     string
	Tenant string
	Name   string
	// Profile is the contract the secret is bound to since its first use; empty until then. A key of one contract must
	// not sign for another.
	Profile   string
	Versions  []SecretVersion // newest first
	CreatedAt time.Time
	UpdatedAt time.Time
}

// SecretVersion is one sealed value of a secret.
type SecretVersion struct {
	Number    int
	Sealed    []byte
	CreatedAt time.Time
	// ExpiresAt ends the overlap after a rotation; zero means that it does not expire.
	ExpiresAt time.Time
}

// Live returns the versions that sign at a moment, newest first and at most two: the current one, and the previous one
// while its overlap lasts.
func (s *Secret) Live(at time.Time) []SecretVersion {
	live := make([]SecretVersion, 0, 2)
	for _, v := range s.Versions {
		if len(live) < 2 && (v.ExpiresAt.IsZero() || v.ExpiresAt.After(at)) {
			live = append(live, v)
		}
	}
	return live
}

// Permission is what an API key may do.
type Permission string

// The permissions of the control plane, and the one to publish events.
const (
	PermissionSubscriptionRead Permission = "webhook_subscription_read"
	PermissionSubscriptionEdit Permission = "webhook_subscription_edit"
	PermissionAuditRead        Permission = "delivery_audit_read"
	PermissionPublish          Permission = "event_publish"
	PermissionAdmin            Permission = "admin"
)

// Permissions lists every permission.
func Permissions() []Permission {
	return []Permission{PermissionSubscriptionRead, PermissionSubscriptionEdit, PermissionAuditRead, PermissionPublish, PermissionAdmin}
}

// APIKey lets its bearer act for one tenant. Only the SHA-256 of the token is kept: tokens are long and random.
type APIKey struct {
	ID     string
	Tenant string
	Name   string
	// Prefix is how the token begins, so that people know it again; empty for a token chosen by hand.
	Prefix      string
	Hash        [32]byte
	Permissions []Permission
	CreatedAt   time.Time
	// ExpiresAt is zero for a key that does not expire.
	ExpiresAt time.Time
	Revoked   bool
}

// Allows reports whether the key permits something at a moment.
func (k *APIKey) Allows(p Permission, at time.Time) bool {
	return !k.Revoked && (k.ExpiresAt.IsZero() || at.Before(k.ExpiresAt)) && slices.Contains(k.Permissions, p)
}
