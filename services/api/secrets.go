package api

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// SecretView is a secret without its value, except where a response says that it carries it.
type SecretView struct {
	ID        string              `json:"id"`
	Name      string              `json:"name" doc:"What a subscription's secretRef names."`
	Profile   *string             `json:"profile" doc:"The profile it is bound to since its first use; null before."`
	Versions  []secretVersionView `json:"versions" doc:"Newest first. The first signs; the second signs too until it expires."`
	CreatedAt time.Time           `json:"createdAt"`
	UpdatedAt time.Time           `json:"updatedAt"`
}

type secretVersionView struct {
	Number    int        `json:"number"`
	CreatedAt time.Time  `json:"createdAt"`
	ExpiresAt *time.Time `json:"expiresAt" doc:"The end of its overlap after a rotation; null for the current one."`
}

type secretWithValueView struct {
	SecretView
	Value string `json:"value" doc:"What the receiver verifies signatures with. Keep it."`
}

type createSecret struct {
	Name    string `json:"name" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
	Profile string `json:"profile,omitempty" nullable:"true" maxLength:"64" doc:"Binds the secret at once, and gives its value the form that this profile expects."`
}

type rotateSecret struct {
	Overlap *webhook.Duration `json:"overlap,omitempty" nullable:"true" example:"24h" doc:"How long the previous value goes on signing: 0s to 168h, 24h unless given."`
	Force   bool              `json:"force,omitempty" nullable:"true" doc:"Rotate although the overlap of the last rotation is not over: the value before the previous one ends now."`
}

const (
	defaultOverlap = 24 * time.Hour
	longestOverlap = 7 * 24 * time.Hour
)

type secretWithValueOutput struct{ Body secretWithValueView }

type secretOutput struct{ Body SecretView }

func (s *Service) registerSecrets(a huma.API) {
	tags := []string{"Secrets"}
	route(s, a, huma.Operation{OperationID: "create-secret", Method: http.MethodPost, Path: "/secrets", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make a secret"}, webhook.PermissionSubscriptionEdit, s.createSecret)
	route(s, a, huma.Operation{OperationID: "list-secrets", Method: http.MethodGet, Path: "/secrets", Tags: tags,
		Summary: "List secrets, without values"}, webhook.PermissionSubscriptionRead, s.listSecrets)
	route(s, a, huma.Operation{OperationID: "get-secret", Method: http.MethodGet, Path: "/secrets/{id}", Tags: tags,
		Summary: "Get a secret with its value"}, webhook.PermissionSubscriptionRead, s.getSecret)
	route(s, a, huma.Operation{OperationID: "rotate-secret", Method: http.MethodPost, Path: "/secrets/{id}/rotate", Tags: tags,
		Summary: "Give a secret a new value"}, webhook.PermissionSubscriptionEdit, s.rotateSecret)
	route(s, a, huma.Operation{OperationID: "expire-previous-secret", Method: http.MethodPost, Path: "/secrets/{id}/expire-previous", Tags: tags,
		Summary: "End the overlap of a rotation", Description: "The previous value signs no more. Where there is none, nothing changes."}, webhook.PermissionSubscriptionEdit, s.expirePrevious)
	route(s, a, huma.Operation{OperationID: "delete-secret", Method: http.MethodDelete, Path: "/secrets/{id}", Tags: tags,
		Summary: "Delete a secret that no subscription uses"}, webhook.PermissionSubscriptionEdit, s.deleteSecret)
}

func (s *Service) createSecret(ctx context.Context, who caller, in *struct{ Body createSecret }) (*secretWithValueOutput, error) {
	if in.Body.Profile != "" {
		if _, ok := s.deps.Profiles.Get(in.Body.Profile); !ok {
			return nil, s.unknownProfile(in.Body.Profile)
		}
	}
	secret, value := s.newSecret(who.Tenant, in.Body.Name, in.Body.Profile)
	out := withValue(secret, value)
	promise(ctx, out)
	if err := s.deps.Store.CreateSecret(ctx, *secret); err != nil {
		return nil, named(err, "a secret")
	}
	s.relay.changed()
	return out, nil
}

func (s *Service) listSecrets(ctx context.Context, who caller, in *PageInput) (*pageOutput[SecretView], error) {
	rows, next, err := s.deps.Store.Secrets(ctx, who.Tenant, in.page())
	if err != nil {
		return nil, err
	}
	return paged(rows, next, viewSecret), nil
}

func (s *Service) getSecret(ctx context.Context, who caller, in *IDInput) (*secretWithValueOutput, error) {
	secret, err := s.deps.Store.Secret(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	value, err := s.open(&secret)
	if err != nil {
		return nil, err
	}
	return withValue(&secret, value), nil
}

func (s *Service) rotateSecret(ctx context.Context, who caller, in *struct {
	IDInput
	Body *rotateSecret
}) (*secretWithValueOutput, error) {
	request := rotateSecret{}
	if in.Body != nil {
		request = *in.Body
	}
	overlap, err := overlapOf(request.Overlap)
	if err != nil {
		return nil, err
	}
	var value seal.Value
	secret, err := s.deps.Store.UpdateSecret(ctx, who.Tenant, in.ID, func(secret *webhook.Secret) error {
		value = s.newValue(secret.Profile)
		if err := s.rotate(secret, value, overlap, request.Force, now()); err != nil {
			return err
		}
		promise(ctx, withValue(secret, value))
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.relay.changed()
	return withValue(&secret, value), nil
}

// overlapOf is how long the value before a rotation stays good.
func overlapOf(given *webhook.Duration) (time.Duration, error) {
	if given == nil {
		return defaultOverlap, nil
	}
	overlap := time.Duration(*given)
	if overlap < 0 || overlap > longestOverlap {
		var f fieldErrors
		f.add("/overlap", codeInvalid, "from 0s to 168h")
		return 0, f.problem()
	}
	return overlap, nil
}

// rotate puts a new version in front. The version before stays good for the overlap, and no other does: a receiver is never shown
// more than two signatures.
func (s *Service) rotate(secret *webhook.Secret, value seal.Value, overlap time.Duration, force bool, at time.Time) error {
	if len(secret.Live(at)) > 1 && !force {
		return problem(http.StatusConflict, "rotation_in_progress",
			"the previous value is good until %s: wait, or send force to end it now", secret.Live(at)[1].ExpiresAt.UTC().Format(time.RFC3339))
	}
	fresh := webhook.SecretVersion{Number: 1, CreatedAt: at}
	versions := []webhook.SecretVersion{}
	if len(secret.Versions) > 0 {
		previous := secret.Versions[0]
		fresh.Number = previous.Number + 1
		if overlap > 0 {
			previous.ExpiresAt = at.Add(overlap)
			versions = append(versions, previous)
		}
	}
	fresh.Sealed = s.deps.Ring.Seal(value, secret, fresh.Number)
	secret.Versions = append([]webhook.SecretVersion{fresh}, versions...)
	secret.UpdatedAt = at
	return nil
}

// expirePrevious ends the overlap of a rotation early: every receiver has the new value, or the old one has leaked.
func (s *Service) expirePrevious(ctx context.Context, who caller, in *IDInput) (*secretOutput, error) {
	secret, err := s.deps.Store.Secret(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	if len(secret.Live(time.Now())) > 1 {
		secret, err = s.deps.Store.UpdateSecret(ctx, who.Tenant, in.ID, func(secret *webhook.Secret) error {
			secret.Versions = secret.Versions[:min(1, len(secret.Versions))]
			return nil
		})
		if err != nil {
			return nil, err
		}
		s.relay.changed()
	}
	return &secretOutput{Body: viewSecret(&secret)}, nil
}

func (s *Service) deleteSecret(ctx context.Context, who caller, in *IDInput) (*struct{}, error) {
	if err := s.deps.Store.DeleteSecret(ctx, who.Tenant, in.ID); err != nil {
		return nil, err
	}
	s.relay.changed()
	return nil, nil
}

// newSecret makes a sealed secret and its value; profile may be empty.
func (s *Service) newSecret(tenant, name, profile string) (*webhook.Secret, seal.Value) {
	at := now()
	secret := &webhook.Secret{ID: newID(), Tenant: tenant, Name: name, Profile: profile, CreatedAt: at, UpdatedAt: at}
	value := s.newValue(profile)
	secret.Versions = []webhook.SecretVersion{{Number: 1, CreatedAt: at, Sealed: s.deps.Ring.Seal(value, secret, 1)}}
	return secret, value
}

// newValue makes a value in the form that the profile expects; without one, 32 random bytes as base64url.
func (s *Service) newValue(profile string) seal.Value {
	if p, ok := s.deps.Profiles.Get(profile); ok {
		return p.NewSecret()
	}
	random := make([]byte, 32)
	// crypto/rand.Read never fails: it ends the program where the system has no randomness.
	_, _ = rand.Read(random)
	return seal.Value(base64.RawURLEncoding.EncodeToString(random))
}

// open reads the current value.
func (s *Service) open(secret *webhook.Secret) (seal.Value, error) {
	if len(secret.Versions) == 0 {
		return nil, fmt.Errorf("secret %s has no value", secret.ID)
	}
	return s.deps.Ring.Open(secret, secret.Versions[0])
}

func withValue(secret *webhook.Secret, value seal.Value) *secretWithValueOutput {
	return &secretWithValueOutput{Body: secretWithValueView{SecretView: viewSecret(secret), Value: string(value)}}
}

func viewSecret(secret *webhook.Secret) SecretView {
	view := SecretView{
		ID: secret.ID, Name: secret.Name, Profile: orNull(secret.Profile),
		Versions: []secretVersionView{}, CreatedAt: secret.CreatedAt.UTC(), UpdatedAt: secret.UpdatedAt.UTC(),
	}
	for i, v := range secret.Versions {
		if i == 0 || v.ExpiresAt.After(time.Now()) {
			view.Versions = append(view.Versions, secretVersionView{Number: v.Number, CreatedAt: v.CreatedAt.UTC(), ExpiresAt: timeOrNull(v.ExpiresAt)})
		}
	}
	return view
}

// named says whose name is taken.
func named(err error, what string) error {
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	p := problem(http.StatusConflict, "name_taken", "%s of this name exists already", what)
	f := fieldErrors{}
	f.add("/name", "name_taken", "%s", p.Detail)
	p.Errors = f
	return p
}
