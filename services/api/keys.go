package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// APIKeyView is a key without its token.
type APIKeyView struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Prefix      *string    `json:"prefix" doc:"How the key begins; null for one chosen by hand."`
	Tenant      string     `json:"tenant"`
	Permissions []string   `json:"permissions"`
	CreatedAt   time.Time  `json:"createdAt"`
	ExpiresAt   *time.Time `json:"expiresAt"`
	Revoked     bool       `json:"revoked"`
}

// APIKeyWithTokenView is a key as it is shown once.
type APIKeyWithTokenView struct {
	APIKeyView
	Key string `json:"key" doc:"Send it as Authorization: Bearer. It is not shown again."`
}

type createAPIKey struct {
	Name        string    `json:"name" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
	Permissions []string  `json:"permissions" minItems:"1" maxItems:"16" enum:"webhook_subscription_read,webhook_subscription_edit,delivery_audit_read,event_publish,admin"`
	ExpiresAt   time.Time `json:"expiresAt,omitzero" nullable:"true" doc:"Left out: it does not expire."`
	Tenant      string    `json:"tenant,omitempty" nullable:"true" maxLength:"64" doc:"Left out: the caller's. Another one is for an admin of the tenant default."`
}

// TenantInput names another tenant than the caller's.
type TenantInput struct {
	Tenant string `query:"tenant" maxLength:"64" pattern:"^[!-~]*$" doc:"Left out: the caller's. Another one is for an admin of the tenant default."`
}

type apiKeyWithTokenOutput struct{ Body APIKeyWithTokenView }

func (s *Service) registerKeys(a huma.API) {
	tags := []string{"API keys"}
	route(s, a, huma.Operation{OperationID: "create-api-key", Method: http.MethodPost, Path: "/api-keys", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make an API key", Description: "It may do at most what its maker may."}, webhook.PermissionAdmin, s.createAPIKey)
	route(s, a, huma.Operation{OperationID: "list-api-keys", Method: http.MethodGet, Path: "/api-keys", Tags: tags,
		Summary: "List API keys, also revoked ones"}, webhook.PermissionAdmin, s.listAPIKeys)
	route(s, a, huma.Operation{OperationID: "revoke-api-key", Method: http.MethodDelete, Path: "/api-keys/{id}", Tags: tags,
		Summary: "Revoke an API key", Description: "For good, within 5 seconds everywhere."}, webhook.PermissionAdmin, s.revokeAPIKey)
}

func (s *Service) createAPIKey(ctx context.Context, who caller, in *struct{ Body createAPIKey }) (*apiKeyWithTokenOutput, error) {
	at := now()
	if !in.Body.ExpiresAt.IsZero() && !in.Body.ExpiresAt.After(at) {
		var f fieldErrors
		f.add("/expiresAt", codeInvalid, "is in the past")
		return nil, f.problem()
	}
	tenant, err := s.tenantFor(ctx, who, in.Body.Tenant)
	if err != nil {
		return nil, err
	}
	if err := grantable(who, in.Body.Permissions); err != nil {
		return nil, err
	}
	token, hash := apikey.New()
	key := webhook.APIKey{
		ID: newID(), Tenant: tenant, Name: in.Body.Name, Prefix: apikey.Recognizable(token), Hash: hash,
		CreatedAt: at, ExpiresAt: in.Body.ExpiresAt.UTC().Truncate(time.Millisecond),
	}
	for _, p := range webhook.Permissions() {
		if slices.Contains(in.Body.Permissions, string(p)) {
			key.Permissions = append(key.Permissions, p)
		}
	}
	out := &apiKeyWithTokenOutput{Body: APIKeyWithTokenView{APIKeyView: viewAPIKey(&key), Key: token}}
	promise(ctx, out)
	if err := s.deps.Store.PutAPIKey(ctx, key); err != nil {
		return nil, named(err, "an API key")
	}
	s.relay.changed()
	return out, nil
}

// tenantFor is the tenant whose keys a request is about. A tenant that the caller may not see does not exist.
func (s *Service) tenantFor(ctx context.Context, who caller, asked string) (string, error) {
	if asked == "" || asked == who.Tenant {
		return who.Tenant, nil
	}
	if !who.operator() {
		return "", problem(http.StatusForbidden, "permission_denied", "keys of other tenants are for an admin of the tenant %s", webhook.DefaultTenant)
	}
	_, err := s.deps.Store.Tenant(ctx, asked)
	if errors.Is(err, store.ErrNotFound) {
		return "", problem(http.StatusNotFound, "unknown_tenant", "there is no tenant of this id")
	}
	return asked, err
}

// grantable refuses permissions that the maker of a key does not have.
func grantable(who caller, permissions []string) error {
	var f fieldErrors
	for i, p := range permissions {
		if !who.may(webhook.Permission(p)) {
			f.add("/permissions/"+strconv.Itoa(i), "permission_not_held", "you cannot give the permission %s, which you do not have", p)
		}
	}
	if len(f) == 0 {
		return nil
	}
	return invalid(http.StatusForbidden, f)
}

func (s *Service) listAPIKeys(ctx context.Context, who caller, in *struct {
	PageInput
	TenantInput
}) (*pageOutput[APIKeyView], error) {
	tenant, err := s.tenantFor(ctx, who, in.Tenant)
	if err != nil {
		return nil, err
	}
	rows, next, err := s.deps.Store.APIKeys(ctx, tenant, in.page())
	if err != nil {
		return nil, err
	}
	return paged(rows, next, viewAPIKey), nil
}

// revokeAPIKey keeps the key, revoked, so that it can still be told who used it. Revoking only ever sets a flag, so two at
// once do no harm.
func (s *Service) revokeAPIKey(ctx context.Context, who caller, in *struct {
	IDInput
	TenantInput
}) (*struct{}, error) {
	tenant, err := s.tenantFor(ctx, who, in.Tenant)
	if err != nil {
		return nil, err
	}
	key, err := s.deps.Store.APIKey(ctx, tenant, in.ID)
	if err != nil {
		return nil, err
	}
	key.Revoked = true
	if err := s.deps.Store.PutAPIKey(ctx, key); err != nil {
		return nil, err
	}
	s.keys.forget(key.Hash)
	s.relay.changed()
	return nil, nil
}

func viewAPIKey(key *webhook.APIKey) APIKeyView {
	view := APIKeyView{
		ID: key.ID, Name: key.Name, Prefix: orNull(key.Prefix), Tenant: key.Tenant, Permissions: []string{},
		CreatedAt: key.CreatedAt.UTC(), ExpiresAt: timeOrNull(key.ExpiresAt), Revoked: key.Revoked,
	}
	for _, p := range key.Permissions {
		view.Permissions = append(view.Permissions, string(p))
	}
	return view
}
