package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hookline/hookline/pkg/store"
)

// Record writes a batch, and its offsets last. Doing it again changes nothing, and several processes may write records of the
// same deliveries at once. It returns an error wrapping [store.ErrUnavailable] where the same call may succeed later, and a
// [store.RefusedError] where rows must be left out: then nothing has been written.
//
// No transaction waits for the disk (synchronous_commit = off). A crash of the database may lose the last commits, whole and
// in order, and offsets come after everything that they stand for: the next batch then fails with [store.ErrGap], and the
// recorder reads the same records again.
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

// sideBySide is from how many rows on a batch is worth two connections: such a one comes out of a backlog. With less, a second
// process of the database only takes a second core from others.
const sideBySide = 2000

// record writes the batch, or only tries whether it could be written. Its errors are classified.
func (s *Store) record(ctx context.Context, b *store.Batch, keep bool) error {
	if len(b.Deliveries)+len(b.Attempts)+len(b.Events) >= sideBySide {
		return classify(s.recordSideBySide(ctx, b, keep))
	}
	return classify(s.transact(ctx, b, keep, checkOffsets, writeDeliveries, writeAttempts, writeEvents, writeHealth, writeOffsets))
}

// recordSideBySide writes what happened, attempts and events, beside the state of the deliveries: it is half of the work, and never
// changes once it is there. Its transaction ends when the deliveries are known to fit, and before the offsets move.
func (s *Store) recordSideBySide(ctx context.Context, b *store.Batch, keep bool) error {
	state, happened := newGate(), newGate()
	go func() { happened.open(s.transact(ctx, b, keep, writeAttempts, writeEvents, state.await)) }()
	err := s.transact(ctx, b, keep, checkOffsets, writeDeliveries, writeHealth, state.pass, happened.await, writeOffsets)
	state.open(err)
	<-happened.opened
	if errors.Is(err, errBeside) {
		return happened.err
	}
	return err
}

// errBeside ends a transaction whose neighbour has failed. The neighbour's own error would have it tried again, in vain.
var errBeside = errors.New("the transaction beside this one has failed")

// gate is where one transaction waits for what has become of another.
type gate struct {
	once   sync.Once
	opened chan struct{}
	err    error
}

func newGate() *gate { return &gate{opened: make(chan struct{})} }

// open lets through whoever waits, with an error or none. Only the first call does anything.
func (g *gate) open(err error) {
	g.once.Do(func() {
		g.err = err
		close(g.opened)
	})
}

func (g *gate) pass(context.Context, *pgx.Conn, *store.Batch) error {
	g.open(nil)
	return nil
}

func (g *gate) await(context.Context, *pgx.Conn, *store.Batch) error {
	<-g.opened
	if g.err != nil {
		return errBeside
	}
	return nil
}

type step func(ctx context.Context, conn *pgx.Conn, b *store.Batch) error

// transact takes steps in one transaction, and rolls it back at the end unless it is to be kept.
func (s *Store) transact(ctx context.Context, b *store.Batch, keep bool, steps ...step) error {
	const tries = 5
	for try := 1; ; try++ {
		err := s.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return transactOn(ctx, conn.Conn(), b, keep, steps) })
		if !raced(err) || try == tries {
			return err
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

func transactOn(ctx context.Context, conn *pgx.Conn, b *store.Batch, keep bool, steps []step) error {
	if _, err := conn.PgConn().Exec(ctx, begin).ReadAll(); err != nil {
		return rollback(ctx, conn, err)
	}
	for _, take := range steps {
		if err := take(ctx, conn, b); err != nil {
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
