package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// PutTenant inserts or updates a tenant. The CreatedAt of one that exists stays. Putting it unchanged publishes nothing.
func (s *Store) PutTenant(ctx context.Context, t webhook.Tenant) error {
	t.CreatedAt = milli(t.CreatedAt)
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

const apiKeyColumns = `id, tenant, name, hash, permissions, created_at, expires_at, revoked`

// PutAPIKey inserts or updates a key by its ID; [store.ErrExists] where another key has its hash. The CreatedAt of one that
// exists stays. Putting it unchanged publishes nothing.
func (s *Store) PutAPIKey(ctx context.Context, k webhook.APIKey) error {
	k.CreatedAt, k.ExpiresAt = milli(k.CreatedAt), milli(k.ExpiresAt)
	return s.change(ctx, "put API key", func(tx *sql.Tx) error {
		old, err := scanAPIKey(tx.QueryRowContext(ctx, `SELECT `+apiKeyColumns+` FROM api_keys WHERE id = $1`, k.ID))
		switch {
		case err == nil:
			if k.CreatedAt = old.CreatedAt; sameAPIKey(k, old) {
				return nil
			}
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO api_keys (`+apiKeyColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, name = excluded.name, hash = excluded.hash,
			permissions = excluded.permissions, expires_at = excluded.expires_at, revoked = excluded.revoked`,
			k.ID, k.Tenant, k.Name, k.Hash[:], asJSON{k.Permissions}, s.d.Time(k.CreatedAt), s.d.Time(k.ExpiresAt), k.Revoked); err != nil {
			return err
		}
		return s.emit(ctx, tx, wire.KindAPIKey, k.ID, wire.EncodeAPIKey(&k))
	})
}

// APIKeyByHash returns the key of any tenant whose token has this SHA-256, or [store.ErrNotFound].
func (s *Store) APIKeyByHash(ctx context.Context, hash [32]byte) (webhook.APIKey, error) {
	k, err := scanAPIKey(s.read.QueryRowContext(ctx, `SELECT `+apiKeyColumns+` FROM api_keys WHERE hash = $1`, hash[:]))
	return k, s.wrap("read API key", err)
}

func scanAPIKey(row scanner) (k webhook.APIKey, err error) {
	var hash []byte
	err = row.Scan(&k.ID, &k.Tenant, &k.Name, &hash, asJSON{&k.Permissions}, at{&k.CreatedAt}, at{&k.ExpiresAt}, &k.Revoked)
	copy(k.Hash[:], hash)
	return k, err
}

func sameAPIKey(a, b webhook.APIKey) bool {
	return a.Tenant == b.Tenant && a.Name == b.Name && a.Hash == b.Hash && slices.Equal(a.Permissions, b.Permissions) &&
		a.ExpiresAt.Equal(b.ExpiresAt) && a.Revoked == b.Revoked
}
