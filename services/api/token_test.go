package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/services/api/token"
)

const audience = "hookline-api"

// provider is an OpenID Connect provider that counts what it is asked.
type provider struct {
	*httptest.Server
	keys  map[string]crypto.Signer
	asked atomic.Int32
	away  atomic.Bool
}

func openProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{keys: map[string]crypto.Signer{}}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.keys["RS256"], p.keys["ES256"], p.keys["EdDSA"], p.keys["PS256"] = r, e, d, r
	server := &oidctest.Server{Algorithms: []string{"RS256", "none", "HS256"}}
	for alg, key := range p.keys {
		server.PublicKeys = append(server.PublicKeys, oidctest.PublicKey{PublicKey: key.Public(), KeyID: alg, Algorithm: alg})
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if p.away.Load() {
			http.Error(w, "away", http.StatusBadGateway)
			return
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	server.SetIssuer(p.URL)
	return p
}

func (p *provider) config(c *Config, _ *Deps) {
	c.OIDC = token.Config{Issuer: p.URL, Audience: audience, TenantClaim: "tenant", PermissionsClaim: "permissions"}
}

// claims are good ones, changed.
func (p *provider) claims(change map[string]any) map[string]any {
	c := map[string]any{
		"iss": p.URL, "aud": audience, "sub": "jane", "exp": time.Now().Add(time.Hour).Unix(), "tenant": webhook.DefaultTenant,
		"permissions": []string{"webhook_subscription_read", "webhook_subscription_edit", "something_else"},
	}
	maps.Copy(c, change)
	return c
}

func (p *provider) token(t *testing.T, alg string, change map[string]any) string {
	t.Helper()
	text, err := json.Marshal(p.claims(change))
	if err != nil {
		t.Fatal(err)
	}
	return oidctest.SignIDToken(p.keys[alg], alg, alg, string(text))
}

func TestATokenOfTheProviderIsAccepted(t *testing.T) {
	t.Parallel()
	p := openProvider(t)
	r := start(t, p.config)
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		token := p.token(t, alg, nil)
		if a := r.callAs(token, http.MethodGet, "/subscriptions", nil); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", alg, a.status, a.text)
		}
		if a := r.callAs(token, http.MethodGet, "/deliveries", nil); a.status != http.StatusForbidden {
			t.Errorf("%s without the permission: %d %s", alg, a.status, a.text)
		}
	}
	made := r.callAs(p.token(t, "ES256", map[string]any{"permissions": "webhook_subscription_edit x"}), http.MethodPost, "/secrets", map[string]any{"name": "s"})
	if made.status != http.StatusCreated {
		t.Fatalf("permissions in one string: %s", made.text)
	}
	log := r.must(http.StatusOK, http.MethodGet, "/changes?kind=secret", nil)
	if actor := log.items()[0]["actor"].(map[string]any); actor["kind"] != "user" || actor["id"] != "jane" {
		t.Errorf("logged %v", actor)
	}
	if asked := p.asked.Load(); asked != 2 {
		t.Errorf("the provider was asked %d times, want 2: where its keys are, and the keys", asked)
	}
}

func TestATokenThatDoesNotHoldIsRefused(t *testing.T) {
	t.Parallel()
	p, other := openProvider(t), openProvider(t)
	r := start(t, p.config)
	unsigned := func(header string) string {
		claims, _ := json.Marshal(p.claims(nil))
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(claims) + "."
	}
	good := p.token(t, "RS256", nil)
	hour := time.Hour
	for name, token := range map[string]string{
		"expired":            p.token(t, "RS256", map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}),
		"without an end":     p.token(t, "RS256", map[string]any{"exp": nil}),
		"not yet":            p.token(t, "RS256", map[string]any{"nbf": time.Now().Add(hour).Unix()}),
		"other audience":     p.token(t, "RS256", map[string]any{"aud": "another"}),
		"no audience":        p.token(t, "RS256", map[string]any{"aud": nil}),
		"other issuer":       p.token(t, "RS256", map[string]any{"iss": other.URL}),
		"nobody":             p.token(t, "RS256", map[string]any{"sub": ""}),
		"another's key":      other.token(t, "RS256", map[string]any{"iss": p.URL}),
		"another algorithm":  p.token(t, "PS256", nil),
		"unsigned":           unsigned(`{"alg":"none"}`),
		"unsigned, but RSA":  unsigned(`{"alg":"RS256","kid":"RS256"}`),
		"changed":            strings.Replace(good, ".", ".e", 1),
		"no signature":       good[:strings.LastIndex(good, ".")+1],
		"two dots and bytes": "a.b.c",
	} {
		if a := r.callAs(token, http.MethodGet, "/subscriptions", nil); a.status != http.StatusUnauthorized || a.code() != "unauthenticated" || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %s", name, a.status, a.text)
		}
	}
	for name, claims := range map[string]map[string]any{
		"no tenant": {"tenant": nil}, "unknown tenant": {"tenant": "nobody"}, "a tenant that is a list": {"tenant": []string{"default"}},
		"no permissions": {"permissions": nil}, "permissions of another kind": {"permissions": map[string]any{"webhook_subscription_read": true}},
	} {
		if a := r.callAs(p.token(t, "RS256", claims), http.MethodGet, "/subscriptions", nil); a.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, a.status, a.text)
		}
	}
}

func TestTokensWithInventedKeysDoNotMakeTheProviderBusy(t *testing.T) {
	t.Parallel()
	p := openProvider(t)
	r := start(t, p.config)
	key := p.keys["RS256"]
	for range 20 {
		text, _ := json.Marshal(p.claims(nil))
		token := oidctest.SignIDToken(key, newID(), "RS256", string(text))
		if a := r.callAs(token, http.MethodGet, "/subscriptions", nil); a.status != http.StatusUnauthorized {
			t.Errorf("got %d %s", a.status, a.text)
		}
	}
	if asked := p.asked.Load(); asked > 4 {
		t.Errorf("the provider was asked %d times for 20 tokens", asked)
	}
}

func TestWithoutItsProviderATokenIsNotJudged(t *testing.T) {
	t.Parallel()
	p := openProvider(t)
	p.away.Store(true)
	r := start(t, p.config)
	a := r.callAs(p.token(t, "RS256", nil), http.MethodGet, "/subscriptions", nil)
	if a.status != http.StatusServiceUnavailable || a.code() != "identity_provider_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", a.status, a.text)
	}
	r.must(http.StatusOK, http.MethodGet, "/subscriptions", nil) // with a key
}

func TestWithoutAProviderATokenIsAnUnknownKey(t *testing.T) {
	t.Parallel()
	p := openProvider(t)
	r := start(t)
	if a := r.callAs(p.token(t, "RS256", nil), http.MethodGet, "/subscriptions", nil); a.status != http.StatusUnauthorized || p.asked.Load() != 0 {
		t.Errorf("got %d %s, the provider was asked %d times", a.status, a.text, p.asked.Load())
	}
}
