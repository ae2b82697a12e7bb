package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/source"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// Sources keeps where third parties post to.
type Sources interface {
	CreateSource(ctx context.Context, source webhook.Source) error
	Source(ctx context.Context, tenant, id string) (webhook.Source, error)
	Sources(ctx context.Context, tenant string, p store.Page) (items []webhook.Source, next string, err error)
	UpdateSource(ctx context.Context, tenant, id string, change func(*webhook.Source) error) (webhook.Source, error)
	DeleteSource(ctx context.Context, tenant, id string) error
}

// SourceView is a source as it is answered.
type SourceView struct {
	ID             string              `json:"id"`
	Name           string              `json:"name"`
	Status         string              `json:"status" enum:"active,disabled"`
	Path           string              `json:"path" doc:"Where the third party posts to, at the address of ingest."`
	Spec           json.RawMessage     `json:"spec" doc:"What it accepts, and which event comes of it."`
	SecretVersions []secretVersionView `json:"secretVersions" doc:"Newest first. A request that fits one of them is accepted."`
	CreatedAt      time.Time           `json:"createdAt"`
	UpdatedAt      time.Time           `json:"updatedAt"`
}

type sourceWithValueView struct {
	SourceView
	SecretValue *string `json:"secretValue" doc:"What was made, where none was given: it is for the third party, and shown once."`
}

type createSource struct {
	Name        string          `json:"name" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
	Spec        json.RawMessage `json:"spec" doc:"What it accepts, and which event comes of it: see docs/sources.md."`
	SecretValue string          `json:"secretValue,omitempty" nullable:"true" maxLength:"4096" doc:"What the third party signs with, or its public key, token or password. Left out: one is made."`
}

type patchSource struct {
	Name   *string         `json:"name,omitempty" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
	Status *string         `json:"status,omitempty" enum:"active,disabled"`
	Spec   json.RawMessage `json:"spec,omitempty" doc:"Replaces the specification as a whole."`
}

type rotateSource struct {
	SecretValue string            `json:"secretValue,omitempty" nullable:"true" maxLength:"4096" doc:"Left out: one is made."`
	Overlap     *webhook.Duration `json:"overlap,omitempty" nullable:"true" example:"24h" doc:"How long the previous value is accepted too: 0s to 168h, 24h unless given."`
	Force       bool              `json:"force,omitempty" nullable:"true" doc:"Rotate although the overlap of the last rotation is not over: the value before the previous one ends now."`
}

type sourceOutput struct {
	ETag string `header:"ETag" doc:"Send it as If-Match with a PATCH."`
	Body SourceView
}

type sourceWithValueOutput struct {
	ETag string `header:"ETag"`
	Body sourceWithValueView
}

func (s *Service) registerSources(a huma.API) {
	tags := []string{"Sources"}
	read, edit := webhook.PermissionSubscriptionRead, webhook.PermissionSubscriptionEdit
	route(s, a, huma.Operation{OperationID: "create-source", Method: http.MethodPost, Path: "/sources", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make a place where a third party posts its webhooks to"}, edit, s.createSource)
	route(s, a, huma.Operation{OperationID: "list-sources", Method: http.MethodGet, Path: "/sources", Tags: tags,
		Summary: "List sources"}, read, s.listSources)
	route(s, a, huma.Operation{OperationID: "get-source", Method: http.MethodGet, Path: "/sources/{id}", Tags: tags,
		Summary: "Get a source"}, read, s.getSource)
	route(s, a, huma.Operation{OperationID: "patch-source", Method: http.MethodPatch, Path: "/sources/{id}", Tags: tags,
		Summary: "Change a source", Description: "Fields that are left out stay as they are. With If-Match, only the version that it names is changed."}, edit, s.patchSource)
	route(s, a, huma.Operation{OperationID: "rotate-source", Method: http.MethodPost, Path: "/sources/{id}/rotate", Tags: tags,
		Summary: "Give a source a new secret"}, edit, s.rotateSource)
	route(s, a, huma.Operation{OperationID: "delete-source", Method: http.MethodDelete, Path: "/sources/{id}", Tags: tags,
		Summary: "Delete a source"}, edit, s.deleteSource)
	s.registerSourceRequests(a)
	s.registerConnections(a)
}

func (s *Service) createSource(ctx context.Context, who caller, in *struct{ Body createSource }) (*sourceWithValueOutput, error) {
	rules, err := compileSource(in.Body.Spec)
	if err != nil {
		return nil, err
	}
	at := now()
	made := webhook.Source{ID: newID(), Tenant: who.Tenant, Name: in.Body.Name, Spec: in.Body.Spec, Version: 1, CreatedAt: at, UpdatedAt: at}
	value, fresh, err := s.sourceSecret(rules, in.Body.SecretValue)
	if err != nil {
		return nil, err
	}
	made.Versions = []webhook.SecretVersion{{Number: 1, CreatedAt: at, Sealed: s.deps.Ring.Seal(value, made.Secret(), 1)}}
	out := &sourceWithValueOutput{ETag: sourceTag(&made), Body: sourceWithValueView{SourceView: viewSource(&made), SecretValue: fresh}}
	promise(ctx, out)
	if err := s.deps.Store.CreateSource(ctx, made); err != nil {
		return nil, named(err, "a source")
	}
	s.relay.changed()
	return out, nil
}

// compileSource refuses a specification with everything wrong in it.
func compileSource(spec json.RawMessage) (*source.Source, error) {
	rules, err := source.Compile(spec)
	if err == nil {
		return rules, nil
	}
	problems := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		problems = joined.Unwrap()
	}
	var f fieldErrors
	for _, problem := range problems {
		var wrong *source.SpecError
		if errors.As(problem, &wrong) {
			f.add("/spec"+wrong.Pointer, "source_spec_invalid", "%s", wrong.Detail)
		}
	}
	return nil, f.problem()
}

// sourceSecret is the value that was given, or a fresh one, which is then shown.
func (s *Service) sourceSecret(rules *source.Source, given string) (value seal.Value, fresh *string, err error) {
	value = seal.Value(given)
	if given == "" {
		value = s.newValue("")
		fresh = new(string(value))
	}
	if err := rules.CheckSecret(value); err != nil {
		var f fieldErrors
		f.add("/secretValue", "secret_does_not_fit", "%s", err.Error())
		return nil, nil, f.problem()
	}
	return value, fresh, nil
}

func (s *Service) listSources(ctx context.Context, who caller, in *PageInput) (*pageOutput[SourceView], error) {
	rows, next, err := s.deps.Store.Sources(ctx, who.Tenant, in.page())
	if err != nil {
		return nil, err
	}
	return paged(rows, next, viewSource), nil
}

func (s *Service) getSource(ctx context.Context, who caller, in *IDInput) (*sourceOutput, error) {
	found, err := s.deps.Store.Source(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	return &sourceOutput{ETag: sourceTag(&found), Body: viewSource(&found)}, nil
}

func (s *Service) patchSource(ctx context.Context, who caller, in *struct {
	IDInput
	IfMatchInput
	Body patchSource
}) (*sourceOutput, error) {
	if in.Body.Spec != nil {
		if _, err := compileSource(in.Body.Spec); err != nil {
			return nil, err
		}
	}
	updated, err := s.deps.Store.UpdateSource(ctx, who.Tenant, in.ID, func(source *webhook.Source) error {
		if err := in.check(sourceTag(source)); err != nil {
			return err
		}
		set(&source.Name, in.Body.Name)
		if in.Body.Status != nil {
			source.Disabled = *in.Body.Status == "disabled"
		}
		if in.Body.Spec != nil {
			source.Spec = in.Body.Spec
		}
		return nil
	})
	if err != nil {
		return nil, named(err, "a source")
	}
	s.relay.changed()
	return &sourceOutput{ETag: sourceTag(&updated), Body: viewSource(&updated)}, nil
}

func (s *Service) rotateSource(ctx context.Context, who caller, in *struct {
	IDInput
	Body *rotateSource
}) (*sourceWithValueOutput, error) {
	request := rotateSource{}
	if in.Body != nil {
		request = *in.Body
	}
	overlap, err := overlapOf(request.Overlap)
	if err != nil {
		return nil, err
	}
	out := &sourceWithValueOutput{}
	updated, err := s.deps.Store.UpdateSource(ctx, who.Tenant, in.ID, func(found *webhook.Source) error {
		rules, err := compileSource(found.Spec)
		if err != nil {
			return err
		}
		value, fresh, err := s.sourceSecret(rules, request.SecretValue)
		if err != nil {
			return err
		}
		secret := found.Secret()
		if err := s.rotate(secret, value, overlap, request.Force, now()); err != nil {
			return err
		}
		found.Versions = secret.Versions
		out.Body.SecretValue = fresh
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.relay.changed()
	out.ETag, out.Body.SourceView = sourceTag(&updated), viewSource(&updated)
	return out, nil
}

func (s *Service) deleteSource(ctx context.Context, who caller, in *IDInput) (*struct{}, error) {
	if err := s.deps.Store.DeleteSource(ctx, who.Tenant, in.ID); err != nil {
		return nil, err
	}
	s.relay.changed()
	return nil, nil
}

func sourceTag(source *webhook.Source) string { return fmt.Sprintf(`"%d"`, source.Version) }

func viewSource(source *webhook.Source) SourceView {
	view := SourceView{
		ID: source.ID, Name: source.Name, Status: "active", Path: "/v1/sources/" + source.ID, Spec: source.Spec, SecretVersions: []secretVersionView{},
		CreatedAt: source.CreatedAt.UTC(), UpdatedAt: source.UpdatedAt.UTC(),
	}
	if source.Disabled {
		view.Status = "disabled"
	}
	for _, v := range source.Secret().Live(time.Now()) {
		view.SecretVersions = append(view.SecretVersions, secretVersionView{Number: v.Number, CreatedAt: v.CreatedAt.UTC(), ExpiresAt: timeOrNull(v.ExpiresAt)})
	}
	return view
}
