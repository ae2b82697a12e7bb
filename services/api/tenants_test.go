package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func TestATenantIsMadeAndItsDefaultProfileChanged(t *testing.T) {
	t.Parallel()
	r := start(t)
	made := r.must(http.StatusCreated, http.MethodPost, "/tenants", map[string]any{"id": "acme"})
	if made.str("name") != "acme" || made.str("defaultProfile") != "fynapse" || made.header.Get("ETag") == "" {
		t.Errorf("made %s", made.text)
	}
	if a := r.must(http.StatusConflict, http.MethodPost, "/tenants", map[string]any{"id": "acme"}); a.code() != "id_taken" || !slices.Equal(a.pointers(), []string{"/id"}) {
		t.Errorf("twice: %s", a.text)
	}
	patched := r.must(http.StatusOK, http.MethodPatch, "/tenants/acme", map[string]any{"defaultProfile": "standard"}, "If-Match", made.header.Get("ETag"))
	if patched.str("defaultProfile") != "standard" || patched.header.Get("ETag") == made.header.Get("ETag") {
		t.Errorf("patched %s", patched.text)
	}
	if a := r.must(http.StatusPreconditionFailed, http.MethodPatch, "/tenants/acme", map[string]any{"name": "Lost"}, "If-Match", made.header.Get("ETag")); a.code() != "version_mismatch" {
		t.Errorf("lost update: %s", a.text)
	}
	if a := r.must(http.StatusUnprocessableEntity, http.MethodPatch, "/tenants/acme", map[string]any{"defaultProfile": "nobody"}); !slices.Equal(a.pointers(), []string{"/defaultProfile"}) {
		t.Errorf("unknown profile: %s", a.text)
	}
	for _, id := range []string{"", "A", "a b", "-a", "a/b", "é", "a\x00"} {
		r.must(http.StatusUnprocessableEntity, http.MethodPost, "/tenants", map[string]any{"id": id})
	}
	if got := r.must(http.StatusOK, http.MethodGet, "/tenants/acme", nil); got.text != patched.text || got.header.Get("ETag") != patched.header.Get("ETag") {
		t.Errorf("got %s", got.text)
	}
	if list := r.must(http.StatusOK, http.MethodGet, "/tenants", nil); len(list.items()) != 2 {
		t.Errorf("list %s", list.text)
	}
	r.must(http.StatusNotFound, http.MethodGet, "/tenants/nobody", nil)
	r.must(http.StatusNotFound, http.MethodPatch, "/tenants/nobody", map[string]any{"name": "n"})
}

func TestAnAdminOfTheDefaultTenantMakesKeysForOthers(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.must(http.StatusCreated, http.MethodPost, "/tenants", map[string]any{"id": "acme", "defaultProfile": "standard"})
	made := r.must(http.StatusCreated, http.MethodPost, "/api-keys", map[string]any{"name": "k", "tenant": "acme", "permissions": []string{"admin", "webhook_subscription_edit"}})
	acme := made.str("key")
	if made.str("tenant") != "acme" || made.str("prefix") != acme[:9] {
		t.Errorf("made %s", made.text)
	}
	sub := r.callAs(acme, http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": endpoint})
	if sub.str("tenant") != "acme" || sub.str("profile") != "standard" {
		t.Errorf("subscription %s", sub.text)
	}
	if list := r.must(http.StatusOK, http.MethodGet, "/api-keys?tenant=acme", nil); len(list.items()) != 1 || list.items()[0]["prefix"] != acme[:9] {
		t.Errorf("keys of acme: %s", list.text)
	}
	if a := r.must(http.StatusNotFound, http.MethodPost, "/api-keys", map[string]any{"name": "k", "tenant": "nobody", "permissions": []string{"admin"}}); a.code() != "unknown_tenant" {
		t.Errorf("unknown tenant: %s", a.text)
	}

	// The other tenant's admin administers that tenant alone.
	for operation, want := range map[string]int{
		"GET /tenants/default": http.StatusNotFound, "GET /tenants/acme": http.StatusOK, "GET /api-keys?tenant=default": http.StatusForbidden,
		"DELETE /api-keys/bootstrap?tenant=default": http.StatusForbidden, "DELETE /api-keys/bootstrap": http.StatusNotFound, "GET /tenants": http.StatusOK,
	} {
		method, path, _ := strings.Cut(operation, " ")
		if a := r.callAs(acme, method, path, nil); a.status != want {
			t.Errorf("%s %s: %d %s", method, path, a.status, a.text)
		}
	}
	if a := r.callAs(acme, http.MethodPost, "/tenants", map[string]any{"id": "mine"}); a.status != http.StatusForbidden {
		t.Errorf("a tenant made by another: %d", a.status)
	}
	if a := r.callAs(acme, http.MethodPatch, "/tenants/default", map[string]any{"name": "mine"}); a.status != http.StatusNotFound {
		t.Errorf("a tenant changed by another: %d", a.status)
	}
	if list := r.callAs(acme, http.MethodGet, "/tenants", nil); len(list.items()) != 1 || list.items()[0]["id"] != "acme" {
		t.Errorf("acme sees %s", list.text)
	}
	r.must(http.StatusNoContent, http.MethodDelete, "/api-keys/"+made.str("id")+"?tenant=acme", nil)
	if a := r.callAs(acme, http.MethodGet, "/tenants", nil); a.status != http.StatusUnauthorized {
		t.Errorf("revoked: %d", a.status)
	}
}

func TestAKeyGivesNoMoreThanItsMakerHas(t *testing.T) {
	t.Parallel()
	r := start(t)
	admin := r.key(webhook.DefaultTenant, webhook.PermissionAdmin, webhook.PermissionPublish)
	a := r.callAs(admin, http.MethodPost, "/api-keys", map[string]any{"name": "k", "permissions": []string{"event_publish", "delivery_audit_read", "admin", "webhook_subscription_read"}})
	if a.status != http.StatusForbidden || a.code() != "permission_not_held" || !slices.Equal(a.pointers(), []string{"/permissions/1", "/permissions/3"}) {
		t.Errorf("got %d %s", a.status, a.text)
	}
	if a := r.callAs(admin, http.MethodPost, "/api-keys", map[string]any{"name": "k", "permissions": []string{"event_publish", "admin"}}); a.status != http.StatusCreated {
		t.Errorf("got %d %s", a.status, a.text)
	}
}

func TestATenantIsPublishedWhereEventsAreRead(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.must(http.StatusCreated, http.MethodPost, "/tenants", map[string]any{"id": "acme"})
	for _, record := range r.records(r.kafka.Topics.Config, 3) {
		if string(record.Key) == wire.ConfigKey(wire.KindTenant, "acme") {
			return
		}
	}
	t.Error("the tenant is not on the config topic")
}
