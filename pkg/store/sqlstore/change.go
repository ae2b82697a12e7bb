package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

const changeColumns = `created_at, id, tenant, actor_kind, actor_id, actor_name, kind, object_id, action, before, after`

// log writes an entry of the log of changes. Before and after are states, below, or nil.
func (s *Store) log(ctx context.Context, tx *sql.Tx, c store.Change, before, after any) error {
	states := [2]any{nil, nil}
	for i, state := range []any{before, after} {
		if state == nil {
			continue
		}
		text, err := json.Marshal(state)
		if err != nil {
			return err
		}
		states[i] = text
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	who := store.ActorOf(ctx)
	_, err = tx.ExecContext(ctx, `INSERT INTO changes (`+changeColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		s.d.Time(milli(time.Now())), id.String(), c.Tenant, string(who.Kind), store.Text(who.ID), store.Text(who.Name),
		string(c.Kind), c.ObjectID, string(c.Action), states[0], states[1])
	return err
}

// Changes lists the tenant's changes, newest first.
func (s *Store) Changes(ctx context.Context, tenant string, f store.ChangeFilter, p store.Page) (items []store.Change, next string, err error) {
	l := list[store.Change]{
		query: query{text: `SELECT ` + changeColumns + ` FROM changes`},
		scan:  scanChange,
		place: func(c store.Change) (time.Time, string) { return c.At, c.ID },
		id:    textID,
	}
	l.where("tenant = ", store.Text(tenant))
	if len(f.Kinds) > 0 {
		kinds := make([]any, len(f.Kinds))
		for i, kind := range f.Kinds {
			kinds[i] = string(kind)
		}
		l.in("kind", kinds)
	}
	if f.ObjectID != "" {
		l.where("object_id = ", store.Text(f.ObjectID))
	}
	if !f.From.IsZero() {
		l.where("created_at >= ", s.d.Time(store.Time(f.From)))
	}
	if !f.To.IsZero() {
		l.where("created_at < ", s.d.Time(store.Time(f.To)))
	}
	items, next, err = l.page(ctx, s, p)
	return items, next, s.wrap("list changes", err)
}

func scanChange(row scanner) (c store.Change, err error) {
	var before, after []byte
	err = row.Scan(at{&c.At}, &c.ID, &c.Tenant, &c.Actor.Kind, &c.Actor.ID, &c.Actor.Name, &c.Kind, &c.ObjectID, &c.Action, &before, &after)
	c.Before, c.After = before, after
	return c, err
}

func (s *Store) logSubscription(ctx context.Context, tx *sql.Tx, before, after *webhook.Subscription) error {
	one := after
	if one == nil {
		one = before
	}
	was, is := subscriptionStates(before, after)
	return s.log(ctx, tx, store.Change{Tenant: one.Tenant, Kind: store.ChangeSubscription, ObjectID: one.ID, Action: subscriptionAction(before, after)}, was, is)
}

func subscriptionAction(before, after *webhook.Subscription) store.Action {
	switch {
	case before == nil:
		return store.ActionCreate
	case after == nil:
		return store.ActionDelete
	case before.Status == after.Status:
		return store.ActionUpdate
	}
	switch after.Status {
	case webhook.SubscriptionDisabled:
		return store.ActionDisable
	case webhook.SubscriptionPaused:
		return store.ActionPause
	default:
		return store.ActionEnable
	}
}

type subscriptionState struct {
	Name         string            `json:"name"`
	Status       string            `json:"status"`
	StatusReason string            `json:"statusReason,omitempty"`
	EndpointURL  string            `json:"endpointUrl"`
	EventTypes   []string          `json:"eventTypes"`
	Filter       json.RawMessage   `json:"filter,omitempty"`
	SecretRef    string            `json:"secretRef"`
	SecretID     string            `json:"secretId"`
	Profile      string            `json:"profile"`
	Ordering     string            `json:"ordering"`
	Overrides    webhook.Overrides `json:"overrides"`
	Version      int64             `json:"version"`
}

// subscriptionStates hides the values of headers, which may be credentials, and still tells which of them changed.
func subscriptionStates(before, after *webhook.Subscription) (was, is any) {
	state := func(sub, old *webhook.Subscription) any {
		if sub == nil {
			return nil
		}
		overrides := sub.Overrides
		overrides.Headers = make(map[string]string, len(sub.Overrides.Headers))
		for name, value := range sub.Overrides.Headers {
			overrides.Headers[name] = "[redacted]"
			if old == nil {
				continue
			}
			if previous, had := old.Overrides.Headers[name]; had && previous != value {
				overrides.Headers[name] = "[redacted, changed]"
			}
		}
		return subscriptionState{
			Name: sub.Name, Status: string(sub.Status), StatusReason: sub.StatusReason, EndpointURL: sub.EndpointURL, EventTypes: sub.EventTypes,
			Filter: sub.Filter, SecretRef: sub.SecretRef, SecretID: sub.SecretID, Profile: sub.Profile, Ordering: string(sub.Ordering),
			Overrides: overrides, Version: sub.Version,
		}
	}
	return state(before, nil), state(after, before)
}

type secretState struct {
	Name     string               `json:"name"`
	Profile  string               `json:"profile,omitempty"`
	Versions []secretVersionState `json:"versions"`
}

type secretVersionState struct {
	Number    int       `json:"number"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

func (s *Store) logSecret(ctx context.Context, tx *sql.Tx, before, after *webhook.Secret) error {
	one := after
	if one == nil {
		one = before
	}
	state := func(secret *webhook.Secret) any {
		if secret == nil {
			return nil
		}
		out := secretState{Name: secret.Name, Profile: secret.Profile, Versions: []secretVersionState{}}
		for _, v := range secret.Versions {
			out.Versions = append(out.Versions, secretVersionState{Number: v.Number, CreatedAt: v.CreatedAt, ExpiresAt: v.ExpiresAt})
		}
		return out
	}
	return s.log(ctx, tx, store.Change{Tenant: one.Tenant, Kind: store.ChangeSecret, ObjectID: one.ID, Action: secretAction(before, after)},
		state(before), state(after))
}

func secretAction(before, after *webhook.Secret) store.Action {
	newest := func(secret *webhook.Secret) int {
		if len(secret.Versions) == 0 {
			return 0
		}
		return secret.Versions[0].Number
	}
	switch {
	case before == nil:
		return store.ActionCreate
	case after == nil:
		return store.ActionDelete
	case newest(after) > newest(before):
		return store.ActionRotate
	case len(after.Versions) < len(before.Versions):
		return store.ActionExpire
	case after.Profile != before.Profile:
		return store.ActionBind
	default:
		return store.ActionUpdate
	}
}

type apiKeyState struct {
	Name        string               `json:"name"`
	Prefix      string               `json:"prefix,omitempty"`
	Permissions []webhook.Permission `json:"permissions"`
	ExpiresAt   time.Time            `json:"expiresAt,omitzero"`
	Revoked     bool                 `json:"revoked"`
}

func (s *Store) logAPIKey(ctx context.Context, tx *sql.Tx, before, after *webhook.APIKey) error {
	state := func(k *webhook.APIKey) any {
		if k == nil {
			return nil
		}
		return apiKeyState{Name: k.Name, Prefix: k.Prefix, Permissions: k.Permissions, ExpiresAt: k.ExpiresAt, Revoked: k.Revoked}
	}
	action := store.ActionUpdate
	switch {
	case before == nil:
		action = store.ActionCreate
	case after.Revoked && !before.Revoked:
		action = store.ActionRevoke
	}
	return s.log(ctx, tx, store.Change{Tenant: after.Tenant, Kind: store.ChangeAPIKey, ObjectID: after.ID, Action: action}, state(before), state(after))
}

type tenantState struct {
	Name           string `json:"name"`
	DefaultProfile string `json:"defaultProfile"`
}

func (s *Store) logTenant(ctx context.Context, tx *sql.Tx, before, after *webhook.Tenant) error {
	action, was := store.ActionCreate, any(nil)
	if before != nil {
		action, was = store.ActionUpdate, tenantState{Name: before.Name, DefaultProfile: before.DefaultProfile}
	}
	return s.log(ctx, tx, store.Change{Tenant: after.ID, Kind: store.ChangeTenant, ObjectID: after.ID, Action: action},
		was, tenantState{Name: after.Name, DefaultProfile: after.DefaultProfile})
}
