// Package token verifies JSON Web Tokens of an OpenID Connect provider: who a request speaks for that comes without an API key. What
// they may do is the control plane's matter.
package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/hookline/hookline/pkg/webhook"
)

// Config says whose tokens are accepted besides API keys.
type Config struct {
	// Issuer is the URL of an OpenID Connect provider; empty accepts no tokens.
	Issuer string `env:"HOOKLINE_OIDC_ISSUER"`
	// Audience is what a token's aud must name.
	Audience         string `env:"HOOKLINE_OIDC_AUDIENCE"`
	TenantClaim      string `env:"HOOKLINE_OIDC_TENANT_CLAIM" envDefault:"tenant"`
	PermissionsClaim string `env:"HOOKLINE_OIDC_PERMISSIONS_CLAIM" envDefault:"permissions"`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	if c.Issuer == "" && c.Audience == "" {
		return nil
	}
	var problems []error
	if u, err := url.Parse(c.Issuer); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		problems = append(problems, errors.New("HOOKLINE_OIDC_ISSUER: not the URL of an OpenID Connect provider"))
	}
	for name, value := range map[string]string{
		"HOOKLINE_OIDC_AUDIENCE": c.Audience, "HOOKLINE_OIDC_TENANT_CLAIM": c.TenantClaim, "HOOKLINE_OIDC_PERMISSIONS_CLAIM": c.PermissionsClaim,
	} {
		if value == "" {
			problems = append(problems, fmt.Errorf("%s: is needed with HOOKLINE_OIDC_ISSUER", name))
		}
	}
	return errors.Join(problems...)
}

const (
	// keysLife is how long a provider's keys are trusted without asking it again.
	keysLife = time.Hour
	// keysPause is the least time between two questions, so that tokens with invented key ids cannot make Hookline ask without end.
	keysPause = 5 * time.Second
	// providerTimeout bounds one question.
	providerTimeout = 5 * time.Second
	maxProviderBody = 1 << 20
)

// signedWith are the algorithms that a token may be signed with, whatever its provider says of itself.
var signedWith = []string{oidc.RS256, oidc.ES256, oidc.EdDSA}

// Verifier verifies tokens. It asks the provider only when a token comes. Its methods may be called concurrently.
type Verifier struct {
	cfg       Config
	transport *http.Transport

	mu   sync.Mutex
	keys oidc.KeySet
	// asked is when the keys were asked for the first time, or in vain.
	asked time.Time
	err   error
}

// New makes a verifier; it asks nobody yet.
func New(cfg Config) *Verifier {
	return &Verifier{cfg: cfg, transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}}
}

// Close ends the connections to the provider.
func (t *Verifier) Close() { t.transport.CloseIdleConnections() }

// Reads reports whether something looks like a token that is for it rather than an API key.
func (t *Verifier) Reads(token string) bool {
	return t.cfg.Issuer != "" && strings.Count(token, ".") == 2
}

var (
	// ErrInvalid: the token does not hold; what is wrong with it is told to nobody.
	ErrInvalid = errors.New("the token is not valid")
	// ErrProvider: whether it holds cannot be told now.
	ErrProvider = errors.New("the identity provider cannot be asked")
)

// Claims are what a token says of the user it speaks for.
type Claims struct {
	Subject     string
	Tenant      string // empty where it names none
	Permissions []webhook.Permission
}

// Verify returns what a token says that is signed by the provider, for this audience, and in its time.
func (t *Verifier) Verify(ctx context.Context, token string) (Claims, error) {
	keys, err := t.provider(ctx)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrProvider, err)
	}
	seen := &watchedKeys{KeySet: keys}
	verified, err := oidc.NewVerifier(t.cfg.Issuer, seen, &oidc.Config{ClientID: t.cfg.Audience, SupportedSigningAlgs: signedWith}).Verify(ctx, token)
	switch {
	case errors.As(seen.err, new(*url.Error)):
		return Claims{}, fmt.Errorf("%w: %w", ErrProvider, seen.err)
	case err != nil, verified.Subject == "":
		return Claims{}, ErrInvalid
	}
	var claims map[string]any
	if err := verified.Claims(&claims); err != nil {
		return Claims{}, ErrInvalid
	}
	tenant, _ := claims[t.cfg.TenantClaim].(string)
	return Claims{Subject: verified.Subject, Tenant: tenant, Permissions: permissionsIn(claims[t.cfg.PermissionsClaim])}, nil
}

// permissionsIn reads a list, or one string with spaces between. What is no permission of Hookline's is for somebody else.
func permissionsIn(claim any) []webhook.Permission {
	var named []string
	switch claim := claim.(type) {
	case string:
		named = strings.Fields(claim)
	case []any:
		for _, one := range claim {
			if name, ok := one.(string); ok {
				named = append(named, name)
			}
		}
	}
	return slices.DeleteFunc(webhook.Permissions(), func(p webhook.Permission) bool { return !slices.Contains(named, string(p)) })
}

// provider finds where the provider keeps its keys, and keeps them for a while.
func (t *Verifier) provider(ctx context.Context) (oidc.KeySet, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if age := time.Since(t.asked); t.keys != nil && age < keysLife || t.err != nil && age < keysPause {
		return t.keys, t.err
	}
	client := &http.Client{Transport: &paced{next: t.transport}, Timeout: providerTimeout}
	// The set outlives the request that made it.
	ctx = oidc.ClientContext(context.WithoutCancel(ctx), client)
	provider, err := oidc.NewProvider(ctx, t.cfg.Issuer)
	var found struct {
		Keys string `json:"jwks_uri"`
	}
	if err == nil {
		err = provider.Claims(&found)
	}
	t.asked, t.err, t.keys = time.Now(), err, nil
	if err == nil {
		t.keys = oidc.NewRemoteKeySet(ctx, found.Keys)
	}
	return t.keys, t.err
}

// watchedKeys remembers why a signature could not be verified: the verifier's own error hides it.
type watchedKeys struct {
	oidc.KeySet
	err error
}

func (k *watchedKeys) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, jwt)
	k.err = err
	return payload, err
}

// paced asks for the same URL at most once in keysPause and answers from memory in between, also with an error.
type paced struct {
	next  http.RoundTripper
	mu    sync.Mutex
	known map[string]pacedAnswer
}

type pacedAnswer struct {
	at   time.Time
	body []byte
	err  error
}

func (p *paced) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.known[r.URL.String()]
	if !ok || time.Since(known.at) >= keysPause {
		known.body, known.err = p.ask(r)
		known.at = time.Now()
		p.known = map[string]pacedAnswer{r.URL.String(): known}
	}
	if known.err != nil {
		return nil, known.err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(known.body)), ContentLength: int64(len(known.body)),
	}, nil
}

func (p *paced) ask(r *http.Request) ([]byte, error) {
	response, err := p.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the identity provider answered %d", response.StatusCode)
	}
	return io.ReadAll(io.LimitReader(response.Body, maxProviderBody))
}
