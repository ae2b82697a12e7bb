package api

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/services/api/replay"
)

// Store is the database as the control plane needs it: package pgstore or sqlitestore.
type Store interface {
	Ping(ctx context.Context) error
	Tenants
	APIKeys
	SecretReader
	SecretWriter
	SubscriptionReader
	SubscriptionWriter
	Audit
	Outbox
	ChangeLog
	Answers
	EventLog
	ReplayKeeper
	replay.Store
	Retries
	Sources
	Connections
}

// Tenants keeps the tenants.
type Tenants interface {
	Tenant(ctx context.Context, id string) (webhook.Tenant, error)
	Tenants(ctx context.Context, p store.Page) (items []webhook.Tenant, next string, err error)
	CreateTenant(ctx context.Context, t webhook.Tenant) error
	PutTenant(ctx context.Context, t webhook.Tenant) error
	UpdateTenant(ctx context.Context, id string, change func(*webhook.Tenant) error) (webhook.Tenant, error)
}

// APIKeys keeps the keys that requests come with.
type APIKeys interface {
	PutAPIKey(ctx context.Context, k webhook.APIKey) error
	APIKey(ctx context.Context, tenant, id string) (webhook.APIKey, error)
	APIKeyByHash(ctx context.Context, hash [32]byte) (webhook.APIKey, error)
	APIKeys(ctx context.Context, tenant string, p store.Page) (items []webhook.APIKey, next string, err error)
}

// SecretReader finds secrets; their values are sealed.
type SecretReader interface {
	Secret(ctx context.Context, tenant, id string) (webhook.Secret, error)
	SecretByName(ctx context.Context, tenant, name string) (webhook.Secret, error)
	Secrets(ctx context.Context, tenant string, p store.Page) (items []webhook.Secret, next string, err error)
}

// SecretWriter changes secrets, each together with its config record.
type SecretWriter interface {
	CreateSecret(ctx context.Context, s webhook.Secret) error
	UpdateSecret(ctx context.Context, tenant, id string, change func(*webhook.Secret) error) (webhook.Secret, error)
	DeleteSecret(ctx context.Context, tenant, id string) error
}

// SubscriptionReader finds subscriptions.
type SubscriptionReader interface {
	Subscription(ctx context.Context, tenant, id string) (webhook.Subscription, error)
	Subscriptions(ctx context.Context, tenant string, p store.Page) (items []webhook.Subscription, next string, err error)
}

// SubscriptionWriter changes subscriptions, each together with its config record.
type SubscriptionWriter interface {
	CreateSubscription(ctx context.Context, sub webhook.Subscription, fresh *webhook.Secret, replays ...store.Replay) error
	UpdateSubscription(ctx context.Context, tenant, id string, change func(*webhook.Subscription) error) (webhook.Subscription, error)
	DeleteSubscription(ctx context.Context, tenant, id string, checks ...func(*webhook.Subscription) error) error
}

// Audit is what the recorder has written.
type Audit interface {
	DeliveryAudit
	Attempts(ctx context.Context, tenant string, deliveries ...uuid.UUID) (map[uuid.UUID][]webhook.Attempt, error)
	Event(ctx context.Context, tenant, id string) (webhook.Event, error)
}

// DeliveryAudit finds deliveries.
type DeliveryAudit interface {
	Delivery(ctx context.Context, tenant string, id uuid.UUID) (store.Delivery, error)
	Deliveries(ctx context.Context, tenant string, f store.DeliveryFilter, p store.Page) (items []store.Delivery, next string, err error)
	CountDeliveries(ctx context.Context, tenant string, f store.DeliveryFilter) (map[webhook.Status]int64, error)
	CountDeliveriesUpTo(ctx context.Context, tenant string, f store.DeliveryFilter, most int64) (map[webhook.Status]int64, error)
	DeliveriesByID(ctx context.Context, tenant string, ids ...uuid.UUID) (map[uuid.UUID]store.Delivery, error)
}

// EventLog finds stored events.
type EventLog interface {
	Events(ctx context.Context, tenant string, f store.EventFilter, limit int) ([]webhook.Event, error)
	NewestEvents(ctx context.Context, tenant string, f store.EventFilter, limit int) ([]webhook.Event, error)
	CountEvents(ctx context.Context, tenant string, f store.EventFilter) (int64, error)
	EventAt(ctx context.Context, tenant string, at webhook.Position) (webhook.Event, error)
	Copies(ctx context.Context, tenant, id string) ([]webhook.Event, error)
	Matched(ctx context.Context, tenant string, ids ...string) (map[string]bool, error)
}

// ReplayKeeper keeps replays as people see and steer them.
type ReplayKeeper interface {
	CreateReplay(ctx context.Context, r store.Replay) error
	Replay(ctx context.Context, tenant, id string) (store.Replay, error)
	Replays(ctx context.Context, tenant, subscriptionID string, p store.Page) (items []store.Replay, next string, err error)
	SteerReplay(ctx context.Context, tenant, id string, change func(*store.Replay) error) (store.Replay, error)
}

// ChangeLog tells who changed what.
type ChangeLog interface {
	Changes(ctx context.Context, tenant string, f store.ChangeFilter, p store.Page) (items []store.Change, next string, err error)
}

// Answers keeps what requests with an idempotency key were answered.
type Answers interface {
	ClaimRequest(ctx context.Context, c store.Claim) (answer []byte, err error)
	KeepAnswer(ctx context.Context, c store.Claim, answer []byte, until time.Time) error
	ReleaseClaim(ctx context.Context, c store.Claim) error
}

// Outbox holds the config records that changes have left behind, oldest first.
type Outbox interface {
	Outbox(ctx context.Context, limit int) ([]store.OutboxRecord, error)
	Published(ctx context.Context, upTo int64) error
	OutboxLock(ctx context.Context, f func(ctx context.Context) error) (ran bool, err error)
}

// Profiles are the delivery contracts: a *profile.Catalog.
type Profiles interface {
	Names() []string
	Get(name string) (*profile.Profile, bool)
}

// EndpointChecker refuses endpoint URLs that may not be called, and makes the transport of test requests, which
// refuses addresses: an *egress.Guard.
type EndpointChecker interface {
	CheckURL(ctx context.Context, raw string) error
	Transport() *egress.Transport
}
