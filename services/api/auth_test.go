package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/webhook"
)

// permissions is what every operation needs. A route that is not here fails the test.
var permissions = map[string]webhook.Permission{
	"POST /secrets":                      webhook.PermissionSubscriptionEdit,
	"GET /secrets":                       webhook.PermissionSubscriptionRead,
	"GET /secrets/{id}":                  webhook.PermissionSubscriptionRead,
	"POST /secrets/{id}/rotate":          webhook.PermissionSubscriptionEdit,
	"DELETE /secrets/{id}":               webhook.PermissionSubscriptionEdit,
	"POST /subscriptions":                webhook.PermissionSubscriptionEdit,
	"GET /subscriptions":                 webhook.PermissionSubscriptionRead,
	"GET /subscriptions/{id}":            webhook.PermissionSubscriptionRead,
	"PATCH /subscriptions/{id}":          webhook.PermissionSubscriptionEdit,
	"DELETE /subscriptions/{id}":         webhook.PermissionSubscriptionEdit,
	"POST /subscriptions/{id}/enable":    webhook.PermissionSubscriptionEdit,
	"POST /subscriptions/{id}/pause":     webhook.PermissionSubscriptionEdit,
	"POST /subscriptions/{id}/disable":   webhook.PermissionSubscriptionEdit,
	"POST /subscriptions/{id}/test":      webhook.PermissionSubscriptionEdit,
	"GET /deliveries":                    webhook.PermissionAuditRead,
	"GET /deliveries/count":              webhook.PermissionAuditRead,
	"GET /deliveries/{id}":               webhook.PermissionAuditRead,
	"POST /deliveries/{id}/redeliver":    webhook.PermissionSubscriptionEdit,
	"GET /events/{id}":                   webhook.PermissionAuditRead,
	"GET /events/{id}/explain":           webhook.PermissionAuditRead,
	"GET /events":                        webhook.PermissionAuditRead,
	"GET /explain":                       webhook.PermissionAuditRead,
	"POST /subscriptions/dry-run":        webhook.PermissionAuditRead,
	"POST /replays":                      webhook.PermissionSubscriptionEdit,
	"GET /replays":                       webhook.PermissionAuditRead,
	"GET /retries":                       webhook.PermissionAuditRead,
	"GET /retries/count":                 webhook.PermissionAuditRead,
	"POST /retries/now":                  webhook.PermissionSubscriptionEdit,
	"POST /retries/cancel":               webhook.PermissionSubscriptionEdit,
	"GET /replays/{id}":                  webhook.PermissionAuditRead,
	"POST /replays/{id}/pause":           webhook.PermissionSubscriptionEdit,
	"POST /replays/{id}/resume":          webhook.PermissionSubscriptionEdit,
	"POST /replays/{id}/cancel":          webhook.PermissionSubscriptionEdit,
	"GET /attempts/tail":                 webhook.PermissionAuditRead,
	"GET /event-types":                   webhook.PermissionSubscriptionRead,
	"GET /profiles":                      webhook.PermissionSubscriptionRead,
	"POST /api-keys":                     webhook.PermissionAdmin,
	"GET /api-keys":                      webhook.PermissionAdmin,
	"DELETE /api-keys/{id}":              webhook.PermissionAdmin,
	"POST /secrets/{id}/expire-previous": webhook.PermissionSubscriptionEdit,
	"GET /changes":                       webhook.PermissionSubscriptionRead,
	"POST /sources":                      webhook.PermissionSubscriptionEdit,
	"GET /sources":                       webhook.PermissionSubscriptionRead,
	"GET /sources/{id}":                  webhook.PermissionSubscriptionRead,
	"PATCH /sources/{id}":                webhook.PermissionSubscriptionEdit,
	"DELETE /sources/{id}":               webhook.PermissionSubscriptionEdit,
	"POST /sources/{id}/rotate":          webhook.PermissionSubscriptionEdit,
	"GET /sources/{id}/requests":         webhook.PermissionAuditRead,
	"POST /sources/{id}/requests/replay": webhook.PermissionSubscriptionEdit,
	"POST /connections":                  webhook.PermissionSubscriptionEdit,
	"GET /connections":                   webhook.PermissionSubscriptionRead,
	"GET /connections/{id}":              webhook.PermissionSubscriptionRead,
	"DELETE /connections/{id}":           webhook.PermissionSubscriptionEdit,
	"POST /tenants":                      webhook.PermissionAdmin,
	"GET /tenants":                       webhook.PermissionAdmin,
	"GET /tenants/{id}":                  webhook.PermissionAdmin,
	"PATCH /tenants/{id}":                webhook.PermissionAdmin,
}

// operations are all routes, from the description of the API.
func operations(t *testing.T, s *Service) []string {
	t.Helper()
	var spec struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(s.OpenAPI(), &spec); err != nil {
		t.Fatal(err)
	}
	var all []string
	for path, methods := range spec.Paths {
		for method := range methods {
			all = append(all, strings.ToUpper(method)+" "+strings.TrimPrefix(path, Base))
		}
	}
	return all
}

func TestEveryRouteNeedsItsPermissionAndNoOtherOfAKeyAsOfAUsersToken(t *testing.T) {
	t.Parallel()
	provider := openProvider(t)
	r := start(t, provider.config)
	tokens, users := map[webhook.Permission]string{}, map[webhook.Permission]string{}
	for _, p := range webhook.Permissions() {
		tokens[p] = r.key(webhook.DefaultTenant, p)
		users[p] = provider.token(t, "ES256", map[string]any{"permissions": []string{string(p)}})
	}
	none := r.key(webhook.DefaultTenant)
	all := operations(t, r.service)
	if len(all) != len(permissions) {
		t.Errorf("%d routes, %d of them with an expected permission", len(all), len(permissions))
	}
	for _, operation := range all {
		need, known := permissions[operation]
		if !known {
			t.Errorf("%s: no permission expected", operation)
			continue
		}
		method, path, _ := strings.Cut(operation, " ")
		path = strings.ReplaceAll(path, "{id}", "00000000-0000-0000-0000-000000000000")
		if path == "/attempts/tail" {
			path += "?wait=0"
		}
		for _, by := range []map[webhook.Permission]string{tokens, users} {
			for p, token := range by {
				// A body that is not JSON is refused after the permission and before anything is done.
				a := r.callAs(token, method, path, "{")
				if denied := a.status == http.StatusForbidden; denied != (p != need) || a.status == http.StatusUnauthorized {
					t.Errorf("%s with %s: got %d %s", operation, p, a.status, a.text)
				}
			}
		}
		if a := r.callAs(none, method, path, "{"); a.status != http.StatusForbidden || a.code() != "permission_denied" {
			t.Errorf("%s without a permission: got %d %s", operation, a.status, a.text)
		}
		if a := r.callAs("", method, path, "{"); a.status != http.StatusUnauthorized || a.code() != "unauthenticated" || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s without a key: got %d %s", operation, a.status, a.text)
		}
	}
}

func TestAKeyThatIsNoLongerGoodIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t)
	put := func(change func(*webhook.APIKey)) string {
		token, hash := apikey.New()
		k := webhook.APIKey{ID: newID(), Tenant: webhook.DefaultTenant, Name: "n", Hash: hash, Permissions: webhook.Permissions(), CreatedAt: now()}
		change(&k)
		if err := r.db.PutAPIKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		return token
	}
	unknown, _ := apikey.New()
	for name, token := range map[string]string{
		"revoked":   put(func(k *webhook.APIKey) { k.Revoked = true }),
		"expired":   put(func(k *webhook.APIKey) { k.ExpiresAt = now().Add(-time.Second) }),
		"unknown":   unknown,
		"malformed": unknown[:20],
		"by hand":   "never-heard-of-this-one",
	} {
		if a := r.callAs(token, http.MethodGet, "/profiles", nil); a.status != http.StatusUnauthorized {
			t.Errorf("%s: got %d", name, a.status)
		}
	}
	good := put(func(k *webhook.APIKey) { k.ExpiresAt = now().Add(time.Hour) })
	if a := r.callAs(good, http.MethodGet, "/profiles", nil); a.status != http.StatusOK {
		t.Errorf("good: got %d %s", a.status, a.text)
	}
}

func TestNothingOfAnotherTenantIsSeenOrTouched(t *testing.T) {
	t.Parallel()
	r := start(t)
	sub := r.subscribe("s")
	secret, err := r.db.SecretByName(t.Context(), webhook.DefaultTenant, "s")
	if err != nil {
		t.Fatal(err)
	}
	delivery := r.deliver(sub, "e1", webhook.Delivered)
	key := r.must(http.StatusCreated, http.MethodPost, "/api-keys", map[string]any{"name": "k", "permissions": []string{"admin"}}).str("id")
	stranger := r.key("other", webhook.Permissions()...)

	replay := r.must(http.StatusAccepted, http.MethodPost, "/replays", map[string]any{"subscriptionId": sub, "from": when}).str("id")
	source := r.source("mx").str("id")
	connection := r.connect("acme-1", "conn-1")
	ids := map[string]string{"/sources": source, "/connections": connection, "/replays": replay, "/secrets": secret.ID, "/subscriptions": sub, "/deliveries": delivery, "/events": "e1", "/api-keys": key}
	for _, operation := range operations(t, r.service) {
		method, path, _ := strings.Cut(operation, " ")
		kind, _, byID := strings.Cut(path, "/{id}")
		if !byID {
			continue
		}
		path = strings.ReplaceAll(path, "{id}", ids[kind])
		var body any
		if method == http.MethodPatch {
			body = map[string]any{"name": "stolen"}
		}
		if a := r.callAs(stranger, method, path, body); a.status != http.StatusNotFound || a.code() != "not_found" {
			t.Errorf("%s: got %d %s", operation, a.status, a.text)
		}
	}
	for kind := range ids {
		for _, item := range r.callAs(stranger, http.MethodGet, kind, nil).items() {
			if item["tenant"] != "other" {
				t.Errorf("%s lists %v", kind, item)
			}
		}
	}
	for _, path := range []string{"/explain?eventId=e1", "/explain?at=3:42", "/secrets/s", "/deliveries/" + strings.ToUpper(delivery)} {
		if a := r.callAs(stranger, http.MethodGet, path, nil); a.status != http.StatusNotFound {
			t.Errorf("%s: got %d %s", path, a.status, a.text)
		}
	}
	counts := r.callAs(stranger, http.MethodGet, "/deliveries/count", nil)
	if counts.body["counts"].(map[string]any)["DELIVERED"] != 0.0 {
		t.Errorf("counts: %s", counts.text)
	}
	// Naming the other tenant's secret is naming nothing.
	a := r.callAs(stranger, http.MethodPost, "/subscriptions", map[string]any{"name": "x", "endpointUrl": endpoint, "secretRef": "s"})
	if a.status != http.StatusUnprocessableEntity || a.code() != "unknown_secret" {
		t.Errorf("secretRef: %d %s", a.status, a.text)
	}
	if got := r.must(http.StatusOK, http.MethodGet, "/subscriptions/"+sub, nil); got.str("name") != "s" || got.str("status") != "active" {
		t.Errorf("the owner sees %s", got.text)
	}
}

func TestAnAPIKeyIsMadeListedAndRevoked(t *testing.T) {
	t.Parallel()
	r := start(t)
	made := r.must(http.StatusCreated, http.MethodPost, "/api-keys", map[string]any{
		"name": "ci", "permissions": []string{"delivery_audit_read", "delivery_audit_read"}, "expiresAt": "2099-01-01T00:00:00Z"})
	token, id := made.str("key"), made.str("id")
	if a := r.callAs(token, http.MethodGet, "/deliveries", nil); a.status != http.StatusOK {
		t.Errorf("the key does not work: %s", a.text)
	}
	if a := r.callAs(token, http.MethodGet, "/secrets", nil); a.status != http.StatusForbidden {
		t.Errorf("the key may too much: %d", a.status)
	}
	list := r.must(http.StatusOK, http.MethodGet, "/api-keys", nil)
	if len(list.items()) != 2 || strings.Contains(list.text, token) || strings.Contains(list.text, `"hash"`) {
		t.Errorf("list: %s", list.text)
	}
	r.must(http.StatusNoContent, http.MethodDelete, "/api-keys/"+id, nil)
	if a := r.callAs(token, http.MethodGet, "/deliveries", nil); a.status != http.StatusUnauthorized {
		t.Errorf("the revoked key works: %d", a.status)
	}
	r.must(http.StatusNoContent, http.MethodDelete, "/api-keys/"+id, nil)
	for pointer, body := range map[string]string{
		"/permissions":   `{"name":"x","permissions":[]}`,
		"/permissions/0": `{"name":"x","permissions":["root"]}`,
		"/expiresAt":     `{"name":"x","permissions":["admin"],"expiresAt":"2001-01-01T00:00:00Z"}`,
	} {
		if a := r.call(http.MethodPost, "/api-keys", body); a.status != http.StatusUnprocessableEntity || len(a.pointers()) != 1 || a.pointers()[0] != pointer {
			t.Errorf("%s: got %d %s", pointer, a.status, a.text)
		}
	}
}

func TestAChangedBootstrapKeyEndsTheOldOne(t *testing.T) {
	t.Parallel()
	r := start(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	cfg, deps := testConfig(), testDeps(t, r.db, r.kafka)
	cfg.BootstrapKey = "another-key-of-the-operator"
	again := launch(t, cfg, deps)
	eventually(t, "the new key works", func() bool {
		return again.callAs(cfg.BootstrapKey, http.MethodGet, "/profiles", nil).status == http.StatusOK
	})
	if a := again.callAs(bootstrapToken, http.MethodGet, "/profiles", nil); a.status != http.StatusUnauthorized {
		t.Errorf("the old key: got %d", a.status)
	}
}

func TestAKeyIsRememberedForAFewSecondsOnly(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	token, hash := apikey.New()
	key := webhook.APIKey{ID: "k", Tenant: webhook.DefaultTenant, Hash: hash, Permissions: webhook.Permissions(), CreatedAt: now()}
	if err := db.PutAPIKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	ring := newKeyring(db)
	if _, err := ring.get(t.Context(), apikey.Hash(token)); err != nil {
		t.Fatal(err)
	}
	key.Revoked = true
	if err := db.PutAPIKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if k, _ := ring.get(t.Context(), hash); k.Revoked {
		t.Error("asked again at once")
	}
	remembered := ring.known[hash]
	if life := time.Until(remembered.until); life > 5*time.Second {
		t.Errorf("remembered for %v", life)
	}
	remembered.until = time.Now()
	ring.known[hash] = remembered
	if k, _ := ring.get(t.Context(), hash); !k.Revoked {
		t.Error("remembered too long")
	}
}
