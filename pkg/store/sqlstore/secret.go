package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const secretColumns = `id, tenant, name, profile, versions, created_at, updated_at`

// CreateSecret inserts a secret; [store.ErrExists] where the name is taken.
func (s *Store) CreateSecret(ctx context.Context, secret webhook.Secret) error {
	return s.change(ctx, "create secret", func(tx *sql.Tx) error { return s.insertSecret(ctx, tx, &secret) })
}

func (s *Store) insertSecret(ctx context.Context, tx *sql.Tx, secret *webhook.Secret) error {
	trimSecret(secret)
	if _, err := tx.ExecContext(ctx, `INSERT INTO secrets (`+secretColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		secret.ID, secret.Tenant, secret.Name, secret.Profile, asJSON{secret.Versions},
		s.d.Time(secret.CreatedAt), s.d.Time(secret.UpdatedAt)); err != nil {
		return err
	}
	if err := s.logSecret(ctx, tx, nil, secret); err != nil {
		return err
	}
	return s.emitSecret(ctx, tx, secret)
}

// Secret returns a secret of the tenant, or [store.ErrNotFound].
func (s *Store) Secret(ctx context.Context, tenant, id string) (webhook.Secret, error) {
	secret, err := secretBy(ctx, s.read, "id", tenant, id)
	return secret, s.wrap("read secret", err)
}

// SecretByName returns a secret of the tenant, or [store.ErrNotFound].
func (s *Store) SecretByName(ctx context.Context, tenant, name string) (webhook.Secret, error) {
	secret, err := secretBy(ctx, s.read, "name", tenant, name)
	return secret, s.wrap("read secret", err)
}

func secretBy(ctx context.Context, q querier, column, tenant, value string) (webhook.Secret, error) {
	return scanSecret(q.QueryRowContext(ctx, `SELECT `+secretColumns+` FROM secrets WHERE tenant = $1 AND `+column+` = $2`,
		store.Text(tenant), store.Text(value)))
}

// Secrets lists the tenant's secrets, newest first.
func (s *Store) Secrets(ctx context.Context, tenant string, p store.Page) (items []webhook.Secret, next string, err error) {
	l := list[webhook.Secret]{
		query: query{text: `SELECT ` + secretColumns + ` FROM secrets`},
		scan:  scanSecret,
		place: func(secret webhook.Secret) (time.Time, string) { return secret.CreatedAt, secret.ID },
		id:    textID,
	}
	l.where("tenant = ", store.Text(tenant))
	items, next, err = l.page(ctx, s, p)
	return items, next, s.wrap("list secrets", err)
}

// UpdateSecret changes a secret under a lock that all changes of the control plane share, so change must be quick and must not
// call the store. What change returns as an error is returned as it is, and nothing is written. ID, Tenant, Name and
// CreatedAt stay.
func (s *Store) UpdateSecret(ctx context.Context, tenant, id string, change func(*webhook.Secret) error) (webhook.Secret, error) {
	var updated webhook.Secret
	err := s.change(ctx, "update secret", func(tx *sql.Tx) error {
		old, err := secretBy(ctx, tx, "id", tenant, id)
		if err != nil {
			return err
		}
		updated = old
		updated.Versions = slices.Clone(old.Versions)
		if err := change(&updated); err != nil {
			return aborted{err}
		}
		updated.ID, updated.Tenant, updated.Name, updated.CreatedAt, updated.UpdatedAt = old.ID, old.Tenant, old.Name, old.CreatedAt, time.Now()
		return s.saveSecret(ctx, tx, &old, &updated)
	})
	if err != nil {
		return webhook.Secret{}, err
	}
	return updated, nil
}

func (s *Store) saveSecret(ctx context.Context, tx *sql.Tx, old, secret *webhook.Secret) error {
	trimSecret(secret)
	if _, err := tx.ExecContext(ctx, `UPDATE secrets SET profile = $1, versions = $2, updated_at = $3 WHERE id = $4`,
		secret.Profile, asJSON{secret.Versions}, s.d.Time(secret.UpdatedAt), secret.ID); err != nil {
		return err
	}
	if err := s.logSecret(ctx, tx, old, secret); err != nil {
		return err
	}
	return s.emitSecret(ctx, tx, secret)
}

// DeleteSecret deletes a secret; [store.ErrInUse] where a subscription uses it.
func (s *Store) DeleteSecret(ctx context.Context, tenant, id string) error {
	return s.change(ctx, "delete secret", func(tx *sql.Tx) error {
		var users int
		row := tx.QueryRowContext(ctx, `SELECT count(*) FROM subscriptions WHERE tenant = $1 AND secret_id = $2`, store.Text(tenant), store.Text(id))
		if err := row.Scan(&users); err != nil {
			return err
		}
		if users > 0 {
			return store.ErrInUse
		}
		old, err := secretBy(ctx, tx, "id", tenant, id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM secrets WHERE id = $1`, old.ID); err != nil {
			return err
		}
		if err := s.logSecret(ctx, tx, &old, nil); err != nil {
			return err
		}
		return s.emit(ctx, tx, wire.KindSecret, id, nil)
	})
}

// bind makes a secret belong to a profile, or refuses where it belongs to another.
func (s *Store) bind(ctx context.Context, tx *sql.Tx, secret *webhook.Secret, profile string) error {
	switch secret.Profile {
	case profile:
		return nil
	case "":
		old := *secret
		secret.Profile, secret.UpdatedAt = profile, time.Now()
		return s.saveSecret(ctx, tx, &old, secret)
	default:
		return fmt.Errorf("%w: %s", store.ErrProfileMismatch, secret.Profile)
	}
}

func scanSecret(row scanner) (secret webhook.Secret, err error) {
	return secret, row.Scan(&secret.ID, &secret.Tenant, &secret.Name, &secret.Profile, asJSON{&secret.Versions},
		at{&secret.CreatedAt}, at{&secret.UpdatedAt})
}

func trimSecret(secret *webhook.Secret) {
	secret.CreatedAt, secret.UpdatedAt = dated(secret.CreatedAt), dated(secret.UpdatedAt)
	for i := range secret.Versions {
		v := &secret.Versions[i]
		v.CreatedAt, v.ExpiresAt = milli(v.CreatedAt), milli(v.ExpiresAt)
	}
}
