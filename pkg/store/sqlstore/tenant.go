package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const tenantColumns = `id, name, default_profile, created_at`

// PutTenant inserts or updates a tenant. The CreatedAt of one that exists stays. Putting it unchanged publishes nothing.
func (s *Store) PutTenant(ctx context.Context, t webhook.Tenant) error {
	t.CreatedAt = dated(t.CreatedAt)
	return s.change(ctx, "put tenant", func(tx *sql.Tx) error {
		old, err := tenant(ctx, tx, t.ID)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return s.insertTenant(ctx, tx, &t)
		case err != nil:
			return err
		}
		if t.CreatedAt = old.CreatedAt; t == old {
			return nil
		}
		return s.saveTenant(ctx, tx, &old, &t)
	})
}

// CreateTenant inserts a tenant; [store.ErrExists] where the id is taken.
func (s *Store) CreateTenant(ctx context.Context, t webhook.Tenant) error {
	t.CreatedAt = dated(t.CreatedAt)
	return s.change(ctx, "create tenant", func(tx *sql.Tx) error { return s.insertTenant(ctx, tx, &t) })
}

func (s *Store) insertTenant(ctx context.Context, tx *sql.Tx, t *webhook.Tenant) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO tenants (`+tenantColumns+`) VALUES ($1, $2, $3, $4)`,
		t.ID, t.Name, t.DefaultProfile, s.d.Time(t.CreatedAt)); err != nil {
		return err
	}
	if err := s.logTenant(ctx, tx, nil, t); err != nil {
		return err
	}
	return s.emit(ctx, tx, wire.KindTenant, t.ID, wire.EncodeTenant(t))
}

// UpdateTenant changes a tenant under a lock that all changes of the control plane share, so change must be quick and must not
// call the store. What change returns as an error is returned as it is, and nothing is written. ID and CreatedAt stay.
func (s *Store) UpdateTenant(ctx context.Context, id string, change func(*webhook.Tenant) error) (webhook.Tenant, error) {
	var updated webhook.Tenant
	err := s.change(ctx, "update tenant", func(tx *sql.Tx) error {
		old, err := tenant(ctx, tx, store.Text(id))
		if err != nil {
			return err
		}
		updated = old
		if err := change(&updated); err != nil {
			return aborted{err}
		}
		updated.ID, updated.CreatedAt = old.ID, old.CreatedAt
		return s.saveTenant(ctx, tx, &old, &updated)
	})
	if err != nil {
		return webhook.Tenant{}, err
	}
	return updated, nil
}

func (s *Store) saveTenant(ctx context.Context, tx *sql.Tx, old, t *webhook.Tenant) error {
	if _, err := tx.ExecContext(ctx, `UPDATE tenants SET name = $1, default_profile = $2 WHERE id = $3`, t.Name, t.DefaultProfile, t.ID); err != nil {
		return err
	}
	if err := s.logTenant(ctx, tx, old, t); err != nil {
		return err
	}
	return s.emit(ctx, tx, wire.KindTenant, t.ID, wire.EncodeTenant(t))
}

// Tenants lists all tenants, newest first.
func (s *Store) Tenants(ctx context.Context, p store.Page) (items []webhook.Tenant, next string, err error) {
	l := list[webhook.Tenant]{
		query: query{text: `SELECT ` + tenantColumns + ` FROM tenants`},
		scan:  scanTenant,
		place: func(t webhook.Tenant) (time.Time, string) { return t.CreatedAt, t.ID },
		id:    textID,
	}
	items, next, err = l.page(ctx, s, p)
	return items, next, s.wrap("list tenants", err)
}

// Tenant returns a tenant, or [store.ErrNotFound].
func (s *Store) Tenant(ctx context.Context, id string) (webhook.Tenant, error) {
	t, err := tenant(ctx, s.read, store.Text(id))
	return t, s.wrap("read tenant", err)
}

func tenant(ctx context.Context, q querier, id string) (webhook.Tenant, error) {
	return scanTenant(q.QueryRowContext(ctx, `SELECT `+tenantColumns+` FROM tenants WHERE id = $1`, id))
}

func scanTenant(row scanner) (t webhook.Tenant, err error) {
	return t, row.Scan(&t.ID, &t.Name, &t.DefaultProfile, at{&t.CreatedAt})
}
