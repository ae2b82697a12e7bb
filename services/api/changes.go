package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// ChangeView is an entry of the log of changes.
type ChangeView struct {
	ID       string          `json:"id"`
	At       time.Time       `json:"at"`
	Actor    actorView       `json:"actor"`
	Kind     string          `json:"kind" enum:"subscription,secret,api_key,tenant,replay,source,connection"`
	ObjectID string          `json:"objectId"`
	Action   string          `json:"action" enum:"create,update,delete,enable,disable,pause,resume,cancel,rotate,expire,bind,revoke"`
	Before   json.RawMessage `json:"before" doc:"null for what was created. No values of secrets, tokens or headers."`
	After    json.RawMessage `json:"after" doc:"null for what was deleted."`
}

type actorView struct {
	Kind string  `json:"kind" enum:"api_key,user,hookline"`
	ID   *string `json:"id" doc:"The API key's id, or the token's subject."`
	Name string  `json:"name"`
}

type listChangesInput struct {
	PageInput
	Kind string    `query:"kind" enum:"subscription,secret,api_key,tenant,replay,source,connection" doc:"API keys and tenants are shown to admins only."`
	ID   string    `query:"id" maxLength:"64" pattern:"^[!-~]*$" doc:"The id of what was changed."`
	From time.Time `query:"from" doc:"Inclusive."`
	To   time.Time `query:"to" doc:"Exclusive."`
}

func (s *Service) registerChanges(a huma.API) {
	route(s, a, huma.Operation{OperationID: "list-changes", Method: http.MethodGet, Path: "/changes", Tags: []string{"Changes"},
		Summary: "List who changed what and when", Description: "Newest first. An entry is written together with its change and never goes."},
		webhook.PermissionSubscriptionRead, s.listChanges)
}

func (s *Service) listChanges(ctx context.Context, who caller, in *listChangesInput) (*pageOutput[ChangeView], error) {
	f := store.ChangeFilter{ObjectID: in.ID, From: in.From, To: in.To}
	if in.Kind != "" {
		f.Kinds = []store.ChangeKind{store.ChangeKind(in.Kind)}
	}
	if !who.may(webhook.PermissionAdmin) {
		switch store.ChangeKind(in.Kind) {
		case store.ChangeAPIKey, store.ChangeTenant:
			return nil, problem(http.StatusForbidden, "permission_denied", "changes of this kind need the permission %s", webhook.PermissionAdmin)
		case "":
			f.Kinds = []store.ChangeKind{store.ChangeSubscription, store.ChangeSecret, store.ChangeReplay, store.ChangeSource, store.ChangeConnection}
		}
	}
	rows, next, err := s.deps.Store.Changes(ctx, who.Tenant, f, in.page())
	if err != nil {
		return nil, err
	}
	return paged(rows, next, viewChange), nil
}

func viewChange(c *store.Change) ChangeView {
	return ChangeView{
		ID: c.ID, At: c.At.UTC(), Actor: actorView{Kind: string(c.Actor.Kind), ID: orNull(c.Actor.ID), Name: c.Actor.Name},
		Kind: string(c.Kind), ObjectID: c.ObjectID, Action: string(c.Action), Before: rawOrNull(c.Before), After: rawOrNull(c.After),
	}
}
