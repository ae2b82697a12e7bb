package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// TenantView is a tenant as it is answered.
type TenantView struct {
	ID             string    `json:"id"`
	Name           string    `json:"name"`
	DefaultProfile string    `json:"defaultProfile" doc:"The profile of subscriptions that name none."`
	CreatedAt      time.Time `json:"createdAt"`
}

type createTenant struct {
	ID             string `json:"id" minLength:"1" maxLength:"64" pattern:"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$" patternDescription:"lower-case letters, digits, - and _" doc:"What events name as their tenant. It never changes."`
	Name           string `json:"name,omitempty" nullable:"true" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f]*$" patternDescription:"text without control characters" doc:"For people. Left out: the id."`
	DefaultProfile string `json:"defaultProfile,omitempty" nullable:"true" maxLength:"64" doc:"Left out: fynapse."`
}

type patchTenant struct {
	Name           *string `json:"name,omitempty" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
	DefaultProfile *string `json:"defaultProfile,omitempty" minLength:"1" maxLength:"64" doc:"For subscriptions that are made from now on."`
}

type tenantOutput struct {
	ETag string `header:"ETag" doc:"Send it as If-Match with a PATCH."`
	Body TenantView
}

func (s *Service) registerTenants(a huma.API) {
	tags := []string{"Tenants"}
	admin := webhook.PermissionAdmin
	route(s, a, huma.Operation{OperationID: "create-tenant", Method: http.MethodPost, Path: "/tenants", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make a tenant", Description: "For an admin of the tenant default."}, admin, s.createTenant)
	route(s, a, huma.Operation{OperationID: "list-tenants", Method: http.MethodGet, Path: "/tenants", Tags: tags,
		Summary: "List tenants", Description: "All of them for an admin of the tenant default, otherwise the caller's own."}, admin, s.listTenants)
	route(s, a, huma.Operation{OperationID: "get-tenant", Method: http.MethodGet, Path: "/tenants/{id}", Tags: tags,
		Summary: "Get a tenant"}, admin, s.getTenant)
	route(s, a, huma.Operation{OperationID: "patch-tenant", Method: http.MethodPatch, Path: "/tenants/{id}", Tags: tags,
		Summary: "Change a tenant", Description: "Fields that are left out stay as they are. With If-Match, only the version that it names is changed."}, admin, s.patchTenant)
}

func (s *Service) createTenant(ctx context.Context, who caller, in *struct{ Body createTenant }) (*tenantOutput, error) {
	if !who.operator() {
		return nil, problem(http.StatusForbidden, "permission_denied", "tenants are made by an admin of the tenant %s", webhook.DefaultTenant)
	}
	t := webhook.Tenant{ID: in.Body.ID, Name: in.Body.Name, DefaultProfile: in.Body.DefaultProfile, CreatedAt: now()}
	if t.Name == "" {
		t.Name = t.ID
	}
	if t.DefaultProfile == "" {
		t.DefaultProfile = defaultProfile
	}
	if err := s.checkDefaultProfile(t.DefaultProfile); err != nil {
		return nil, err
	}
	out := tenantOut(&t)
	promise(ctx, out)
	err := s.deps.Store.CreateTenant(ctx, t)
	if errors.Is(err, store.ErrExists) {
		var f fieldErrors
		f.add("/id", "id_taken", "a tenant of this id exists already")
		return nil, invalid(http.StatusConflict, f)
	}
	if err != nil {
		return nil, err
	}
	s.relay.changed()
	return out, nil
}

func (s *Service) listTenants(ctx context.Context, who caller, in *PageInput) (*pageOutput[TenantView], error) {
	if who.operator() {
		rows, next, err := s.deps.Store.Tenants(ctx, in.page())
		if err != nil {
			return nil, err
		}
		return paged(rows, next, viewTenant), nil
	}
	own, err := s.deps.Store.Tenant(ctx, who.Tenant)
	if errors.Is(err, store.ErrNotFound) {
		return paged([]webhook.Tenant{}, "", viewTenant), nil
	}
	if err != nil {
		return nil, err
	}
	return paged([]webhook.Tenant{own}, "", viewTenant), nil
}

func (s *Service) getTenant(ctx context.Context, who caller, in *IDInput) (*tenantOutput, error) {
	if in.ID != who.Tenant && !who.operator() {
		return nil, store.ErrNotFound
	}
	t, err := s.deps.Store.Tenant(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return tenantOut(&t), nil
}

func (s *Service) patchTenant(ctx context.Context, who caller, in *struct {
	IDInput
	IfMatchInput
	Body patchTenant
}) (*tenantOutput, error) {
	if in.ID != who.Tenant && !who.operator() {
		return nil, store.ErrNotFound
	}
	if in.Body.DefaultProfile != nil {
		if err := s.checkDefaultProfile(*in.Body.DefaultProfile); err != nil {
			return nil, err
		}
	}
	t, err := s.deps.Store.UpdateTenant(ctx, in.ID, func(t *webhook.Tenant) error {
		if err := in.check(tenantTag(t)); err != nil {
			return err
		}
		set(&t.Name, in.Body.Name)
		set(&t.DefaultProfile, in.Body.DefaultProfile)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.relay.changed()
	return tenantOut(&t), nil
}

func (s *Service) checkDefaultProfile(name string) error {
	if _, ok := s.deps.Profiles.Get(name); ok {
		return nil
	}
	f := s.unknownProfileError(name)
	f[0].Pointer = "/defaultProfile"
	return f.problem()
}

// tenantTag is made of what a PATCH may change.
func tenantTag(t *webhook.Tenant) string {
	sum := sha256.Sum256([]byte(t.Name + "\x00" + t.DefaultProfile))
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
}

func tenantOut(t *webhook.Tenant) *tenantOutput {
	return &tenantOutput{ETag: tenantTag(t), Body: viewTenant(t)}
}

func viewTenant(t *webhook.Tenant) TenantView {
	return TenantView{ID: t.ID, Name: t.Name, DefaultProfile: t.DefaultProfile, CreatedAt: t.CreatedAt.UTC()}
}
