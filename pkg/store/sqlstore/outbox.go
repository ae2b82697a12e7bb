package sqlstore

import (
	"context"
	"database/sql"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// Outbox returns the oldest config records that wait to be published. Every row with a lower id than one returned has been
// committed before it.
func (s *Store) Outbox(ctx context.Context, limit int) ([]store.OutboxRecord, error) {
	records, err := collect(ctx, s.read, func(row scanner) (r store.OutboxRecord, err error) {
		return r, row.Scan(&r.ID, &r.Key, &r.Value)
	}, `SELECT id, key, value FROM outbox ORDER BY id LIMIT $1`, limit)
	return records, s.wrap("read outbox", err)
}

// Published deletes the outbox rows up to an id.
func (s *Store) Published(ctx context.Context, upTo int64) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM outbox WHERE id <= $1`, upTo)
	return s.wrap("clear outbox", err)
}

func (s *Store) emit(ctx context.Context, tx *sql.Tx, kind wire.Kind, id string, value []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO outbox (key, value, created_at) VALUES ($1, $2, $3)`,
		wire.ConfigKey(kind, id), value, s.d.Time(milli(time.Now())))
	return err
}

func (s *Store) emitSecret(ctx context.Context, tx *sql.Tx, secret *webhook.Secret) error {
	return s.emit(ctx, tx, wire.KindSecret, secret.ID, wire.EncodeSecret(secret))
}

func (s *Store) emitSubscription(ctx context.Context, tx *sql.Tx, sub *webhook.Subscription) error {
	value, err := wire.EncodeSubscription(sub)
	if err != nil {
		return err
	}
	return s.emit(ctx, tx, wire.KindSubscription, sub.ID, value)
}
