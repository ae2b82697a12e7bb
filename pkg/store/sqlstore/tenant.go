package sqlstore

import (
	"context"
	"database/sql"
	"errors"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// PutTenant inserts or updates a tenant. The CreatedAt of one that exists stays. Putting it unchanged publishes nothing.
func (s *Store) PutTenant(ctx context.Context, t webhook.Tenant) error {
	t.CreatedAt = dated(t.CreatedAt)
	return s.change(ctx, "put tenant", func(tx *sql.Tx) error {
		old, err := tenant(ctx, tx, t.ID)
		switch {
		case err == nil:
			if t.CreatedAt = old.CreatedAt; t == old {
				return nil
			}
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO tenants (id, name, default_profile, created_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, default_profile = excluded.default_profile`,
			t.ID, t.Name, t.DefaultProfile, s.d.Time(t.CreatedAt)); err != nil {
			return err
		}
		return s.emit(ctx, tx, wire.KindTenant, t.ID, wire.EncodeTenant(&t))
	})
}

// Tenant returns a tenant, or [store.ErrNotFound].
func (s *Store) Tenant(ctx context.Context, id string) (webhook.Tenant, error) {
	t, err := tenant(ctx, s.read, store.Text(id))
	return t, s.wrap("read tenant", err)
}

func tenant(ctx context.Context, q querier, id string) (t webhook.Tenant, err error) {
	row := q.QueryRowContext(ctx, `SELECT id, name, default_profile, created_at FROM tenants WHERE id = $1`, id)
	return t, row.Scan(&t.ID, &t.Name, &t.DefaultProfile, at{&t.CreatedAt})
}
