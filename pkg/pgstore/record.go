package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hookline/hookline/pkg/store"
)

// Record writes a batch and its offsets in one transaction. Doing it again changes nothing, and several processes may write
// records of the same deliveries at once. It returns an error wrapping [store.ErrUnavailable] where the same call may succeed
// later, and a [store.RefusedError] where rows must be left out.
//
// The transaction does not wait for the disk (synchronous_commit = off). A crash of the database may lose the last commits,
// whole and in order, with the offsets in them: the next batch then fails with [store.ErrGap], and the recorder reads the same
// records again.
func (s *Store) Record(ctx context.Context, b *store.Batch) error {
	b.Clean()
	err := s.record(ctx, b, true)
	if errors.Is(err, store.ErrRefused) {
		err = store.Isolate(b, err, func(part *store.Batch) error { return s.record(ctx, part, false) })
	}
	if err != nil {
		return fmt.Errorf("record batch: %w", err)
	}
	return nil
}

// record writes the batch, or only tries whether it could be written. Its errors are classified.
func (s *Store) record(ctx context.Context, b *store.Batch, keep bool) error {
	const tries = 5
	for try := 1; ; try++ {
		err := s.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return recordIn(ctx, conn.Conn(), b, keep) })
		if !raced(err) || try == tries {
			return classify(err)
		}
	}
}

// begin starts the transaction. The batch is staged in temporary tables that a connection makes once. The planner knows
// nothing of a partition that was made empty this morning, so it is told what is always right here: look every staged row up
// in the indexes.
const begin = `BEGIN;
SET LOCAL synchronous_commit = off;
SET LOCAL client_min_messages = warning;
SET LOCAL jit = off;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_deliveries (LIKE deliveries, row_at timestamptz) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_attempts (LIKE attempts) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_events (LIKE events) ON COMMIT DELETE ROWS`

func recordIn(ctx context.Context, conn *pgx.Conn, b *store.Batch, keep bool) (err error) {
	if _, err := conn.PgConn().Exec(ctx, begin).ReadAll(); err != nil {
		return rollback(ctx, conn, err)
	}
	for _, write := range []func(context.Context, *pgx.Conn, *store.Batch) error{checkOffsets, writeDeliveries, writeAttempts, writeEvents, writeHealth, writeOffsets} {
		if err := write(ctx, conn, b); err != nil {
			return rollback(ctx, conn, err)
		}
	}
	if !keep {
		return rollback(ctx, conn, nil)
	}
	if _, err := conn.Exec(ctx, "COMMIT"); err != nil {
		return rollback(ctx, conn, err)
	}
	return nil
}

// rollback ends the transaction and returns the error. A connection that cannot even do that is closed, and the pool drops it.
func rollback(ctx context.Context, conn *pgx.Conn, err error) error {
	if conn.IsClosed() {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, failed := conn.Exec(ctx, "ROLLBACK"); failed != nil {
		_ = conn.Close(ctx)
		return errors.Join(err, failed)
	}
	return err
}
