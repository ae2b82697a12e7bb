package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	subscriptionColumns = `id, tenant, name, status, status_reason, endpoint_url, event_types, filter, secret_ref, secret_id,
		profile, ordering, overrides, version, created_at, updated_at, status_since`
	subscriptionValues = `$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17`
)

// CreateSubscription inserts a subscription, together with a secret made for it (fresh) or using the one that sub.SecretID, or
// else sub.SecretRef, names. It binds the secret to the subscription's profile. [store.ErrExists] where a name is taken,
// [store.ErrNotFound] where there is no such secret, [store.ErrProfileMismatch] where it is bound to another profile. Replays
// to the new subscription are created with it.
func (s *Store) CreateSubscription(ctx context.Context, sub webhook.Subscription, fresh *webhook.Secret, replays ...store.Replay) error {
	return s.change(ctx, "create subscription", func(tx *sql.Tx) error {
		if fresh != nil {
			made := *fresh
			made.Tenant = sub.Tenant
			if made.Profile == "" {
				made.Profile = sub.Profile
			}
			if err := s.insertSecret(ctx, tx, &made); err != nil {
				return err
			}
			sub.SecretID, sub.SecretRef = made.ID, made.Name
		}
		if err := s.attach(ctx, tx, &sub); err != nil {
			return err
		}
		sub.Version = max(sub.Version, 1)
		sub.CreatedAt, sub.UpdatedAt = dated(sub.CreatedAt), dated(sub.UpdatedAt)
		sub.StatusSince = sub.CreatedAt
		if _, err := tx.ExecContext(ctx, `INSERT INTO subscriptions (`+subscriptionColumns+`) VALUES (`+subscriptionValues+`)`,
			s.subscriptionArgs(&sub)...); err != nil {
			return err
		}
		if err := s.logSubscription(ctx, tx, nil, &sub); err != nil {
			return err
		}
		for i := range replays {
			if err := s.insertReplay(ctx, tx, &replays[i]); err != nil {
				return err
			}
		}
		return s.emitSubscription(ctx, tx, &sub)
	})
}

// attach finds the subscription's secret and binds it to the subscription's profile.
func (s *Store) attach(ctx context.Context, tx *sql.Tx, sub *webhook.Subscription) error {
	column, value := "id", sub.SecretID
	if value == "" {
		column, value = "name", sub.SecretRef
	}
	secret, err := secretBy(ctx, tx, column, sub.Tenant, value)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("secret: %w", store.ErrNotFound)
	}
	if err != nil {
		return err
	}
	sub.SecretID, sub.SecretRef = secret.ID, secret.Name
	return s.bind(ctx, tx, &secret, sub.Profile)
}

// Subscription returns a subscription of the tenant, or [store.ErrNotFound].
func (s *Store) Subscription(ctx context.Context, tenant, id string) (webhook.Subscription, error) {
	sub, err := subscription(ctx, s.read, tenant, id)
	return sub, s.wrap("read subscription", err)
}

func subscription(ctx context.Context, q querier, tenant, id string) (webhook.Subscription, error) {
	return scanSubscription(q.QueryRowContext(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions WHERE tenant = $1 AND id = $2`,
		store.Text(tenant), store.Text(id)))
}

// Subscriptions lists the tenant's subscriptions, newest first.
func (s *Store) Subscriptions(ctx context.Context, tenant string, p store.Page) (items []webhook.Subscription, next string, err error) {
	l := list[webhook.Subscription]{
		query: query{text: `SELECT ` + subscriptionColumns + ` FROM subscriptions`},
		scan:  scanSubscription,
		place: func(sub webhook.Subscription) (time.Time, string) { return sub.CreatedAt, sub.ID },
		id:    textID,
	}
	l.where("tenant = ", store.Text(tenant))
	items, next, err = l.page(ctx, s, p)
	return items, next, s.wrap("list subscriptions", err)
}

// UpdateSubscription changes a subscription under a lock that all changes of the control plane share, so change must be quick
// and must not call the store. What change returns as an error is returned as it is, and nothing is written. ID, Tenant and
// CreatedAt stay, Version grows by one. Another secret is named by SecretID, or by SecretRef where the SecretID is left.
func (s *Store) UpdateSubscription(ctx context.Context, tenant, id string, change func(*webhook.Subscription) error) (webhook.Subscription, error) {
	var updated webhook.Subscription
	err := s.change(ctx, "update subscription", func(tx *sql.Tx) error {
		old, err := subscription(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		updated = old
		updated.EventTypes, updated.Overrides.Headers = slices.Clone(old.EventTypes), maps.Clone(old.Overrides.Headers)
		if err := change(&updated); err != nil {
			return aborted{err}
		}
		updated.ID, updated.Tenant, updated.CreatedAt = old.ID, old.Tenant, old.CreatedAt
		updated.Version, updated.UpdatedAt = old.Version+1, milli(time.Now())
		if updated.StatusSince = old.StatusSince; updated.Status != old.Status {
			updated.StatusSince = updated.UpdatedAt
		}
		if updated.SecretID == old.SecretID && updated.SecretRef != old.SecretRef {
			updated.SecretID = ""
		}
		if updated.SecretID != old.SecretID || updated.Profile != old.Profile {
			if err := s.attach(ctx, tx, &updated); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE subscriptions SET (`+subscriptionColumns+`) = (`+subscriptionValues+`) WHERE id = $1`,
			s.subscriptionArgs(&updated)...); err != nil {
			return err
		}
		if err := s.logSubscription(ctx, tx, &old, &updated); err != nil {
			return err
		}
		return s.emitSubscription(ctx, tx, &updated)
	})
	if err != nil {
		return webhook.Subscription{}, err
	}
	return updated, nil
}

// DeleteSubscription deletes a subscription of the tenant, or returns [store.ErrNotFound]. Its secret stays. An error of a check,
// made under the lock of UpdateSubscription, is returned as it is, and nothing is deleted.
func (s *Store) DeleteSubscription(ctx context.Context, tenant, id string, checks ...func(*webhook.Subscription) error) error {
	return s.change(ctx, "delete subscription", func(tx *sql.Tx) error {
		old, err := subscription(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		for _, check := range checks {
			if err := check(&old); err != nil {
				return aborted{err}
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM subscriptions WHERE id = $1`, old.ID); err != nil {
			return err
		}
		if err := s.logSubscription(ctx, tx, &old, nil); err != nil {
			return err
		}
		return s.emit(ctx, tx, wire.KindSubscription, id, nil)
	})
}

func (s *Store) subscriptionArgs(sub *webhook.Subscription) []any {
	return []any{
		sub.ID, sub.Tenant, sub.Name, string(sub.Status), sub.StatusReason, sub.EndpointURL, asJSON{sub.EventTypes}, []byte(sub.Filter),
		sub.SecretRef, sub.SecretID, sub.Profile, string(sub.Ordering), asJSON{sub.Overrides}, sub.Version,
		s.d.Time(sub.CreatedAt), s.d.Time(sub.UpdatedAt), s.d.Time(sub.StatusSince),
	}
}

func scanSubscription(row scanner) (sub webhook.Subscription, err error) {
	var filter []byte
	err = row.Scan(&sub.ID, &sub.Tenant, &sub.Name, &sub.Status, &sub.StatusReason, &sub.EndpointURL, asJSON{&sub.EventTypes}, &filter,
		&sub.SecretRef, &sub.SecretID, &sub.Profile, &sub.Ordering, asJSON{&sub.Overrides}, &sub.Version,
		at{&sub.CreatedAt}, at{&sub.UpdatedAt}, at{&sub.StatusSince})
	if len(filter) > 0 {
		sub.Filter = json.RawMessage(filter)
	}
	return sub, err
}
