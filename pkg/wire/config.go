package wire

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hookline/hookline/pkg/webhook"
	hooklinev1 "github.com/hookline/hookline/proto/hookline/v1"
)

// Kind is what a config record is about.
type Kind string

// The kinds of config records.
const (
	KindTenant       Kind = "tenant"
	KindSubscription Kind = "subscription"
	KindSecret       Kind = "secret"
	KindAPIKey       Kind = "api_key"
	KindSource       Kind = "source"
	KindConnection   Kind = "connection"
)

// ConfigKey is the key of a config record.
func ConfigKey(kind Kind, id string) string { return string(kind) + "/" + id }

// ParseConfigKey reads what [ConfigKey] wrote.
func ParseConfigKey(key string) (Kind, string, error) {
	kind, id, ok := strings.Cut(key, "/")
	if !ok || id == "" {
		return "", "", fmt.Errorf("config key %q: want kind/id", key)
	}
	return Kind(kind), id, nil
}

// EncodeTenant makes the value of a config record.
func EncodeTenant(t *webhook.Tenant) []byte {
	return marshal(&hooklinev1.ConfigRecord{Kind: &hooklinev1.ConfigRecord_Tenant{Tenant: &hooklinev1.Tenant{
		Id: t.ID, Name: t.Name, DefaultProfile: t.DefaultProfile, CreatedAtUnixMs: unixMilli(t.CreatedAt),
	}}})
}

// EncodeSubscription makes the value of a config record.
func EncodeSubscription(s *webhook.Subscription) ([]byte, error) {
	overrides, err := json.Marshal(s.Overrides)
	if err != nil {
		return nil, fmt.Errorf("encode subscription %s: overrides: %w", s.ID, err)
	}
	return marshal(&hooklinev1.ConfigRecord{Kind: &hooklinev1.ConfigRecord_Subscription{Subscription: &hooklinev1.Subscription{
		Id: s.ID, Tenant: s.Tenant, Name: s.Name, Status: string(s.Status), StatusReason: s.StatusReason,
		EndpointUrl: s.EndpointURL, EventTypes: s.EventTypes, Filter: s.Filter, SecretRef: s.SecretRef, SecretId: s.SecretID,
		Profile: s.Profile, Ordering: string(s.Ordering), Overrides: overrides, Version: s.Version,
		CreatedAtUnixMs: unixMilli(s.CreatedAt), UpdatedAtUnixMs: unixMilli(s.UpdatedAt),
	}}}), nil
}

// EncodeSecret makes the value of a config record. The versions stay sealed.
func EncodeSecret(s *webhook.Secret) []byte {
	m := &hooklinev1.Secret{
		Id: s.ID, Tenant: s.Tenant, Name: s.Name, Profile: s.Profile,
		CreatedAtUnixMs: unixMilli(s.CreatedAt), UpdatedAtUnixMs: unixMilli(s.UpdatedAt),
		Versions: versionMessages(s.Versions),
	}
	return marshal(&hooklinev1.ConfigRecord{Kind: &hooklinev1.ConfigRecord_Secret{Secret: m}})
}

func versionMessages(versions []webhook.SecretVersion) (out []*hooklinev1.SecretVersion) {
	for _, v := range versions {
		out = append(out, &hooklinev1.SecretVersion{
			Number: uint32(v.Number), Sealed: v.Sealed, CreatedAtUnixMs: unixMilli(v.CreatedAt), ExpiresAtUnixMs: unixMilli(v.ExpiresAt),
		})
	}
	return out
}

// EncodeSource makes the value of a config record. The versions of its secret stay sealed.
func EncodeSource(s *webhook.Source) []byte {
	return marshal(&hooklinev1.ConfigRecord{Kind: &hooklinev1.ConfigRecord_Source{Source: &hooklinev1.Source{
		Id: s.ID, Tenant: s.Tenant, Name: s.Name, Disabled: s.Disabled, Spec: s.Spec, Versions: versionMessages(s.Versions), Version: s.Version,
		CreatedAtUnixMs: unixMilli(s.CreatedAt), UpdatedAtUnixMs: unixMilli(s.UpdatedAt),
	}}})
}

// EncodeConnection makes the value of a config record.
func EncodeConnection(c *webhook.Connection) []byte {
	return marshal(&hooklinev1.ConfigRecord{Kind: &hooklinev1.ConfigRecord_Connection{Connection: &hooklinev1.Connection{
		Id: c.ID, Tenant: c.Tenant, Aggregator: c.Aggregator, RemoteId: c.RemoteID, ConnectionId: c.ConnectionID, Client: c.Client,
		Environment: c.Environment, CreatedAtUnixMs: unixMilli(c.CreatedAt),
	}}})
}

// EncodeAPIKey makes the value of a config record.
func EncodeAPIKey(k *webhook.APIKey) []byte {
	m := &hooklinev1.APIKey{
		Id: k.ID, Tenant: k.Tenant, Name: k.Name, Hash: k.Hash[:],
		CreatedAtUnixMs: unixMilli(k.CreatedAt), ExpiresAtUnixMs: unixMilli(k.ExpiresAt), Revoked: k.Revoked,
	}
	for _, p := range k.Permissions {
		m.Permissions = append(m.Permissions, string(p))
	}
	return marshal(&hooklinev1.ConfigRecord{Kind: &hooklinev1.ConfigRecord_ApiKey{ApiKey: m}})
}

// DecodeConfig reads the value of a config record: a *webhook.Tenant, *webhook.Subscription, *webhook.Secret, *webhook.APIKey,
// *webhook.Source or *webhook.Connection.
func DecodeConfig(value []byte) (any, error) {
	record := new(hooklinev1.ConfigRecord)
	if err := proto.Unmarshal(value, record); err != nil {
		return nil, fmt.Errorf("decode config: %w", err)
	}
	switch kind := record.GetKind().(type) {
	case *hooklinev1.ConfigRecord_Tenant:
		m := kind.Tenant
		return &webhook.Tenant{ID: m.GetId(), Name: m.GetName(), DefaultProfile: m.GetDefaultProfile(), CreatedAt: fromUnixMilli(m.GetCreatedAtUnixMs())}, nil
	case *hooklinev1.ConfigRecord_Subscription:
		return subscriptionFrom(kind.Subscription)
	case *hooklinev1.ConfigRecord_Secret:
		return secretFrom(kind.Secret), nil
	case *hooklinev1.ConfigRecord_ApiKey:
		return apiKeyFrom(kind.ApiKey)
	case *hooklinev1.ConfigRecord_Source:
		m := kind.Source
		return &webhook.Source{
			ID: m.GetId(), Tenant: m.GetTenant(), Name: m.GetName(), Disabled: m.GetDisabled(), Spec: m.GetSpec(), Versions: versionsFrom(m.GetVersions()),
			Version: m.GetVersion(), CreatedAt: fromUnixMilli(m.GetCreatedAtUnixMs()), UpdatedAt: fromUnixMilli(m.GetUpdatedAtUnixMs()),
		}, nil
	case *hooklinev1.ConfigRecord_Connection:
		m := kind.Connection
		return &webhook.Connection{
			ID: m.GetId(), Tenant: m.GetTenant(), Aggregator: m.GetAggregator(), RemoteID: m.GetRemoteId(), ConnectionID: m.GetConnectionId(),
			Client: m.GetClient(), Environment: m.GetEnvironment(), CreatedAt: fromUnixMilli(m.GetCreatedAtUnixMs()),
		}, nil
	default:
		return nil, fmt.Errorf("decode config: unknown kind %T", kind)
	}
}

func subscriptionFrom(m *hooklinev1.Subscription) (*webhook.Subscription, error) {
	s := &webhook.Subscription{
		ID: m.GetId(), Tenant: m.GetTenant(), Name: m.GetName(),
		Status: webhook.SubscriptionStatus(m.GetStatus()), StatusReason: m.GetStatusReason(),
		EndpointURL: m.GetEndpointUrl(), EventTypes: m.GetEventTypes(), Filter: m.GetFilter(),
		SecretRef: m.GetSecretRef(), SecretID: m.GetSecretId(), Profile: m.GetProfile(),
		Ordering: webhook.Ordering(m.GetOrdering()), Version: m.GetVersion(),
		CreatedAt: fromUnixMilli(m.GetCreatedAtUnixMs()), UpdatedAt: fromUnixMilli(m.GetUpdatedAtUnixMs()),
	}
	if len(m.GetOverrides()) > 0 {
		if err := json.Unmarshal(m.GetOverrides(), &s.Overrides); err != nil {
			return nil, fmt.Errorf("decode subscription %s: overrides: %w", m.GetId(), err)
		}
	}
	return s, nil
}

func secretFrom(m *hooklinev1.Secret) *webhook.Secret {
	s := &webhook.Secret{
		ID: m.GetId(), Tenant: m.GetTenant(), Name: m.GetName(), Profile: m.GetProfile(),
		CreatedAt: fromUnixMilli(m.GetCreatedAtUnixMs()), UpdatedAt: fromUnixMilli(m.GetUpdatedAtUnixMs()),
		Versions: versionsFrom(m.GetVersions()),
	}
	return s
}

func versionsFrom(messages []*hooklinev1.SecretVersion) (out []webhook.SecretVersion) {
	for _, v := range messages {
		out = append(out, webhook.SecretVersion{
			Number: int(v.GetNumber()), Sealed: v.GetSealed(),
			CreatedAt: fromUnixMilli(v.GetCreatedAtUnixMs()), ExpiresAt: fromUnixMilli(v.GetExpiresAtUnixMs()),
		})
	}
	return out
}

func apiKeyFrom(m *hooklinev1.APIKey) (*webhook.APIKey, error) {
	k := &webhook.APIKey{
		ID: m.GetId(), Tenant: m.GetTenant(), Name: m.GetName(), Revoked: m.GetRevoked(),
		CreatedAt: fromUnixMilli(m.GetCreatedAtUnixMs()), ExpiresAt: fromUnixMilli(m.GetExpiresAtUnixMs()),
	}
	if copy(k.Hash[:], m.GetHash()) != len(k.Hash) {
		return nil, fmt.Errorf("decode API key %s: hash of %d bytes", m.GetId(), len(m.GetHash()))
	}
	for _, p := range m.GetPermissions() {
		k.Permissions = append(k.Permissions, webhook.Permission(p))
	}
	return k, nil
}
