package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const apiKeyColumns = `id, tenant, name, hash, permissions, created_at, expires_at, revoked, prefix`

// PutAPIKey inserts or updates a key by its ID; [store.ErrExists] where another key has its hash. The CreatedAt of one that
// exists stays. Putting it unchanged publishes nothing.
func (s *Store) PutAPIKey(ctx context.Context, k webhook.APIKey) error {
	k.CreatedAt, k.ExpiresAt = dated(k.CreatedAt), milli(k.ExpiresAt)
	return s.change(ctx, "put API key", func(tx *sql.Tx) error {
		var before *webhook.APIKey
		old, err := scanAPIKey(tx.QueryRowContext(ctx, `SELECT `+apiKeyColumns+` FROM api_keys WHERE id = $1`, k.ID))
		switch {
		case err == nil:
			if k.CreatedAt = old.CreatedAt; sameAPIKey(k, old) {
				return nil
			}
			before = &old
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO api_keys (`+apiKeyColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, name = excluded.name, hash = excluded.hash,
			permissions = excluded.permissions, expires_at = excluded.expires_at, revoked = excluded.revoked, prefix = excluded.prefix`,
			k.ID, k.Tenant, k.Name, k.Hash[:], asJSON{k.Permissions}, s.d.Time(k.CreatedAt), s.d.Time(k.ExpiresAt), k.Revoked, k.Prefix); err != nil {
			return err
		}
		if err := s.logAPIKey(ctx, tx, before, &k); err != nil {
			return err
		}
		return s.emit(ctx, tx, wire.KindAPIKey, k.ID, wire.EncodeAPIKey(&k))
	})
}

// APIKey returns a key of the tenant, also a revoked one, or [store.ErrNotFound].
func (s *Store) APIKey(ctx context.Context, tenant, id string) (webhook.APIKey, error) {
	k, err := scanAPIKey(s.read.QueryRowContext(ctx, `SELECT `+apiKeyColumns+` FROM api_keys WHERE tenant = $1 AND id = $2`,
		store.Text(tenant), store.Text(id)))
	return k, s.wrap("read API key", err)
}

// APIKeys lists the tenant's keys, also revoked ones, newest first.
func (s *Store) APIKeys(ctx context.Context, tenant string, p store.Page) (items []webhook.APIKey, next string, err error) {
	l := list[webhook.APIKey]{
		query: query{text: `SELECT ` + apiKeyColumns + ` FROM api_keys`},
		scan:  scanAPIKey,
		place: func(k webhook.APIKey) (time.Time, string) { return k.CreatedAt, k.ID },
		id:    textID,
	}
	l.where("tenant = ", store.Text(tenant))
	items, next, err = l.page(ctx, s, p)
	return items, next, s.wrap("list API keys", err)
}

// APIKeyByHash returns the key of any tenant whose token has this SHA-256, or [store.ErrNotFound].
func (s *Store) APIKeyByHash(ctx context.Context, hash [32]byte) (webhook.APIKey, error) {
	k, err := scanAPIKey(s.read.QueryRowContext(ctx, `SELECT `+apiKeyColumns+` FROM api_keys WHERE hash = $1`, hash[:]))
	return k, s.wrap("read API key", err)
}

func scanAPIKey(row scanner) (k webhook.APIKey, err error) {
	var hash []byte
	err = row.Scan(&k.ID, &k.Tenant, &k.Name, &hash, asJSON{&k.Permissions}, at{&k.CreatedAt}, at{&k.ExpiresAt}, &k.Revoked, &k.Prefix)
	copy(k.Hash[:], hash)
	return k, err
}

func sameAPIKey(a, b webhook.APIKey) bool {
	return a.Tenant == b.Tenant && a.Name == b.Name && a.Prefix == b.Prefix && a.Hash == b.Hash && slices.Equal(a.Permissions, b.Permissions) &&
		a.ExpiresAt.Equal(b.ExpiresAt) && a.Revoked == b.Revoked
}
