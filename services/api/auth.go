package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/httpapi"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/services/api/token"
)

// caller is who asks. The tenant of everything a request touches is the caller's, never one that the request names.
type caller struct {
	Tenant string
	// KeyID is the id of an API key, or the subject of a token where User is set; Name is for people.
	KeyID string
	Name  string
	User  bool

	permissions []webhook.Permission
}

func (c *caller) may(p webhook.Permission) bool { return slices.Contains(c.permissions, p) }

// operator reports whether the caller administers the whole installation: an admin of the default tenant does, one of another
// tenant administers that tenant.
func (c *caller) operator() bool {
	return c.Tenant == webhook.DefaultTenant && c.may(webhook.PermissionAdmin)
}

// actor is who the log of changes names.
func (c *caller) actor() store.Actor {
	kind := store.ActorAPIKey
	if c.User {
		kind = store.ActorUser
	}
	return store.Actor{Kind: kind, ID: c.KeyID, Name: c.Name}
}

// String says who it was, to people.
func (c *caller) String() string {
	if c.User {
		return "user " + c.Name
	}
	return "API key " + c.Name
}

type callerKey struct{}

// callerFrom is who a request's context belongs to; observe has put it there, authorize has filled it in.
func callerFrom(ctx context.Context) *caller {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		return new(caller)
	}
	return c
}

// permissionKey is where an operation's metadata says what it needs. An operation without one is denied to everybody.
const permissionKey = "permission"

// authorize lets a request through to its handler only with a key that permits the operation.
func (s *Service) authorize(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	who, err := s.authenticate(ctx.Context(), r)
	if err == nil {
		need, stated := ctx.Operation().Metadata[permissionKey].(webhook.Permission)
		if !stated || !who.may(need) {
			err = problem(http.StatusForbidden, "permission_denied", "this needs the permission %s", need)
		}
	}
	if err != nil {
		s.refuse(ctx.Context(), w, ctx.Operation().OperationID, err)
		return
	}
	*callerFrom(ctx.Context()) = who
	next(ctx)
}

func (s *Service) authenticate(ctx context.Context, r *http.Request) (caller, error) {
	text, ok := httpapi.Bearer(r)
	if !ok {
		return caller{}, unauthenticated(`Bearer realm="hookline"`, "send an API key as Authorization: Bearer <key>")
	}
	if s.tokens.Reads(text) {
		return s.authenticateToken(ctx, text)
	}
	refused := unauthenticated(`Bearer realm="hookline", error="invalid_token"`, "the API key is unknown, expired or revoked")
	hash, err := apikey.Parse(text)
	if err != nil {
		return caller{}, refused
	}
	key, err := s.keys.get(ctx, hash)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return caller{}, refused
	case err != nil:
		return caller{}, err
	case key.Revoked, !key.ExpiresAt.IsZero() && !time.Now().Before(key.ExpiresAt):
		return caller{}, refused
	}
	return caller{Tenant: key.Tenant, KeyID: key.ID, Name: key.Name, permissions: key.Permissions}, nil
}

// authenticateToken is who a token speaks for, in a tenant that exists.
func (s *Service) authenticateToken(ctx context.Context, text string) (caller, error) {
	claims, err := s.tokens.Verify(ctx, text)
	switch {
	case errors.Is(err, token.ErrInvalid):
		return caller{}, unauthenticated(`Bearer realm="hookline", error="invalid_token"`, "the token does not hold: its signature, issuer, audience or time")
	case err != nil:
		s.log.WarnContext(ctx, "a token cannot be verified", "error", err)
		return caller{}, unavailable("identity_provider_unavailable", "the identity provider cannot be asked; API keys are accepted")
	case claims.Tenant == "":
		return caller{}, problem(http.StatusForbidden, "permission_denied", "the token names no tenant in its claim %s", s.cfg.OIDC.TenantClaim)
	}
	_, err = s.deps.Store.Tenant(ctx, claims.Tenant)
	if errors.Is(err, store.ErrNotFound) {
		return caller{}, problem(http.StatusForbidden, "permission_denied", "the token's tenant does not exist")
	}
	return caller{Tenant: claims.Tenant, KeyID: claims.Subject, Name: claims.Subject, User: true, permissions: claims.Permissions}, err
}

func unauthenticated(challenge, detail string) *Problem {
	return problem(http.StatusUnauthorized, "unauthenticated", "%s", detail).with("WWW-Authenticate", challenge)
}

// refuse answers before huma has begun.
func (s *Service) refuse(ctx context.Context, w http.ResponseWriter, operation string, err error) {
	var p *Problem
	if !errors.As(s.failure(ctx, operation, err), &p) {
		p = problem(http.StatusInternalServerError, "internal", "an unexpected error")
	}
	for name, values := range p.headers {
		w.Header()[name] = values
	}
	httpapi.Write(w, p.Problem)
}

// keyring remembers keys for a few seconds, so that a burst of requests is one query. What a key may do is decided
// anew each time; a revocation is forgotten at once here, and within keyLife in other processes.
type keyring struct {
	store APIKeys
	mu    sync.Mutex
	known map[[32]byte]knownKey
}

type knownKey struct {
	key   webhook.APIKey
	until time.Time
}

const (
	keyLife  = 5 * time.Second
	keyLimit = 10_000
)

func newKeyring(keys APIKeys) *keyring {
	return &keyring{store: keys, known: map[[32]byte]knownKey{}}
}

func (k *keyring) get(ctx context.Context, hash [32]byte) (webhook.APIKey, error) {
	if key, ok := k.remembered(hash); ok {
		return key, nil
	}
	asked := time.Now()
	key, err := k.store.APIKeyByHash(ctx, hash)
	if err != nil {
		return webhook.APIKey{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.known) >= keyLimit {
		clear(k.known)
	}
	k.known[hash] = knownKey{key: key, until: asked.Add(keyLife)}
	return key, nil
}

func (k *keyring) remembered(hash [32]byte) (webhook.APIKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, ok := k.known[hash]
	return known.key, ok && time.Now().Before(known.until)
}

func (k *keyring) forget(hash [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, hash)
}
