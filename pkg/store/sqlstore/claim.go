package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/hookline/hookline/pkg/store"
)

// ClaimRequest takes the right to run a request, or returns what it was answered before. [store.ErrClaimed] while another run of it
// is under way, [store.ErrOtherRequest] where the key belongs to another request. Claims and answers whose time is over are
// deleted.
func (s *Store) ClaimRequest(ctx context.Context, c store.Claim) (answer []byte, err error) {
	err = s.change(ctx, "claim request", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM answers WHERE expires_at <= $1`, s.d.Time(store.Time(time.Now()))); err != nil {
			return err
		}
		var request []byte
		err := tx.QueryRowContext(ctx, `SELECT request, answer FROM answers WHERE tenant = $1 AND key = $2`, c.Tenant, c.Key).Scan(&request, &answer)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			_, err = tx.ExecContext(ctx, `INSERT INTO answers (tenant, key, request, run, expires_at) VALUES ($1, $2, $3, $4, $5)`,
				c.Tenant, c.Key, c.Request[:], c.Run, s.d.Time(store.Time(c.ExpiresAt)))
			return err
		case err != nil:
			return err
		case string(request) != string(c.Request[:]):
			return store.ErrOtherRequest
		case answer == nil:
			return store.ErrClaimed
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// KeepAnswer ends a claim with what its repetitions will be answered until a moment. A claim that has gone to another run is left
// alone.
func (s *Store) KeepAnswer(ctx context.Context, c store.Claim, answer []byte, until time.Time) error {
	return s.change(ctx, "keep answer", func(tx *sql.Tx) error { return s.keep(ctx, tx, c, answer, until) })
}

func (s *Store) keep(ctx context.Context, tx *sql.Tx, c store.Claim, answer []byte, until time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE answers SET answer = $1, expires_at = $2 WHERE tenant = $3 AND key = $4 AND run = $5 AND answer IS NULL`,
		answer, s.d.Time(store.Time(until)), c.Tenant, c.Key, c.Run)
	return err
}

// ReleaseClaim lets the next repetition run. A claim that has an answer, or has gone to another run, is left alone.
func (s *Store) ReleaseClaim(ctx context.Context, c store.Claim) error {
	return s.change(ctx, "release claim", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM answers WHERE tenant = $1 AND key = $2 AND run = $3 AND answer IS NULL`, c.Tenant, c.Key, c.Run)
		return err
	})
}
