package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/webhook"
)

// APIKeyView is a key without its token.
type APIKeyView struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
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
}

type apiKeyWithTokenOutput struct{ Body APIKeyWithTokenView }

func (s *Service) registerKeys(a huma.API) {
	tags := []string{"API keys"}
	route(s, a, huma.Operation{OperationID: "create-api-key", Method: http.MethodPost, Path: "/api-keys", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make an API key for the caller's tenant"}, webhook.PermissionAdmin, s.createAPIKey)
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
	token, hash := apikey.New()
	key := webhook.APIKey{ID: newID(), Tenant: who.Tenant, Name: in.Body.Name, Hash: hash, CreatedAt: at, ExpiresAt: in.Body.ExpiresAt.UTC().Truncate(time.Millisecond)}
	for _, p := range webhook.Permissions() {
		if slices.Contains(in.Body.Permissions, string(p)) {
			key.Permissions = append(key.Permissions, p)
		}
	}
	if err := s.deps.Store.PutAPIKey(ctx, key); err != nil {
		return nil, named(err, "an API key")
	}
	s.relay.changed()
	return &apiKeyWithTokenOutput{Body: APIKeyWithTokenView{APIKeyView: viewAPIKey(&key), Key: token}}, nil
}

func (s *Service) listAPIKeys(ctx context.Context, who caller, in *PageInput) (*pageOutput[APIKeyView], error) {
	rows, next, err := s.deps.Store.APIKeys(ctx, who.Tenant, in.page())
	if err != nil {
		return nil, err
	}
	return paged(rows, next, viewAPIKey), nil
}

// revokeAPIKey keeps the key, revoked, so that it can still be told who used it. Revoking only ever sets a flag, so two at
// once do no harm.
func (s *Service) revokeAPIKey(ctx context.Context, who caller, in *IDInput) (*struct{}, error) {
	key, err := s.deps.Store.APIKey(ctx, who.Tenant, in.ID)
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
		ID: key.ID, Name: key.Name, Tenant: key.Tenant, Permissions: []string{},
		CreatedAt: key.CreatedAt.UTC(), ExpiresAt: timeOrNull(key.ExpiresAt), Revoked: key.Revoked,
	}
	for _, p := range key.Permissions {
		view.Permissions = append(view.Permissions, string(p))
	}
	return view
}
