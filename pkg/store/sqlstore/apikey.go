package sqlstore

import (
	"context"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

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
