package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/store/sqlstore"
	"github.com/hookline/hookline/pkg/webhook"
)

// findRow is the row that a delivery belongs to, if there is one; see [store.Delivery].
const findRow = `SELECT created_at FROM deliveries WHERE id = $1 AND created_at >= $2
	AND (generation > 0 OR created_at <= $3) ORDER BY abs(created_at - $4), created_at LIMIT 1`

var (
	insertDelivery = `INSERT INTO deliveries AS d (` + sqlstore.DeliveryColumns + `) VALUES (` + places(19) + `) ` + sqlstore.MergeDelivery
	insertAttempt  = `INSERT INTO attempts (` + sqlstore.AttemptColumns + `) VALUES (` + places(30) + `) ON CONFLICT (id, created_at) DO NOTHING`
	insertEvent    = `INSERT INTO events (` + sqlstore.EventColumns + `) VALUES (` + places(13) + `) ON CONFLICT (id, tenant, created_at) DO NOTHING`
	putHealth      = `INSERT INTO subscription_health AS h (` + sqlstore.HealthColumns + `) VALUES (` + places(6) + `) ` + sqlstore.MergeHealth
)

const (
	moveRow    = `UPDATE deliveries SET created_at = $1 WHERE id = $2 AND created_at = $3`
	readOffset = `SELECT next_offset FROM consumer_offsets WHERE topic = $1 AND partition = $2`
	moveOffset = `INSERT INTO consumer_offsets AS o (topic, partition, next_offset) VALUES ($1, $2, $3)
		ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset WHERE excluded.next_offset > o.next_offset`
)

func places(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "$" + strconv.Itoa(i+1)
	}
	return strings.Join(list, ", ")
}

// Record writes a batch and its offsets in one transaction. Doing it again changes nothing. It returns an error wrapping
// [store.ErrUnavailable] where the same call may succeed later, [store.ErrGap] where the recorder must go back, and a
// [store.RefusedError] where rows must be left out.
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
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return classify(err)
	}
	// After a commit this does nothing.
	defer func() { _ = tx.Rollback() }()
	for _, write := range []func(context.Context, *sql.Tx, *store.Batch) error{checkOffsets, writeDeliveries, writeAttempts, writeEvents, writeHealth, writeOffsets} {
		if err := write(ctx, tx, b); err != nil {
			return classify(err)
		}
	}
	if !keep {
		return nil
	}
	return classify(tx.Commit())
}

func checkOffsets(ctx context.Context, tx *sql.Tx, b *store.Batch) error {
	for place, from := range b.From {
		var next int64
		err := tx.QueryRowContext(ctx, readOffset, place.Topic, place.Partition).Scan(&next)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err != nil || next < from {
			return fmt.Errorf("%w: %s/%d", store.ErrGap, place.Topic, place.Partition)
		}
	}
	return nil
}

func writeOffsets(ctx context.Context, tx *sql.Tx, b *store.Batch) error {
	for place, next := range b.Offsets {
		if _, err := tx.ExecContext(ctx, moveOffset, place.Topic, place.Partition, next); err != nil {
			return err
		}
	}
	return nil
}

func writeDeliveries(ctx context.Context, tx *sql.Tx, b *store.Batch) error {
	if len(b.Deliveries) == 0 {
		return nil
	}
	find, err := tx.PrepareContext(ctx, findRow)
	if err != nil {
		return err
	}
	defer func() { _ = find.Close() }()
	insert, err := tx.PrepareContext(ctx, insertDelivery)
	if err != nil {
		return err
	}
	defer func() { _ = insert.Close() }()
	for _, layer := range store.Coalesce(b.Deliveries) {
		for i := range layer {
			if err := mergeDelivery(ctx, tx, find, insert, &layer[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func mergeDelivery(ctx context.Context, tx *sql.Tx, find, insert *sql.Stmt, d *store.Delivery) error {
	row, err := rowOf(ctx, tx, find, d)
	if err != nil {
		return err
	}
	_, err = insert.ExecContext(ctx, row, d.ID[:], d.Tenant, d.EventID, d.EventType, d.SubscriptionID, d.Profile, d.ProfileVersion,
		d.Generation, string(d.Trigger), string(d.Status), string(d.Reason), argument(d.UpdatedAt), argument(d.NextAttemptAt),
		d.AttemptCount, d.Progress(), d.LastSeen(), d.LastStatusCode, string(d.LastError))
	return err
}

// rowOf is the created_at of the row that a delivery goes to. A row that is younger than its delivery becomes as old.
func rowOf(ctx context.Context, tx *sql.Tx, find *sql.Stmt, d *store.Delivery) (int64, error) {
	created := d.CreatedAt.UnixMicro()
	since, until := created-store.SameRow.Microseconds(), created+store.SameRow.Microseconds()
	if d.Generation > 0 {
		since, until = 0, math.MaxInt64
	}
	var row int64
	err := find.QueryRowContext(ctx, d.ID[:], since, until, created).Scan(&row)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return created, nil
	case err != nil:
		return 0, err
	case row <= created:
		return row, nil
	}
	_, err = tx.ExecContext(ctx, moveRow, created, d.ID[:], row)
	return created, err
}

func writeAttempts(ctx context.Context, tx *sql.Tx, b *store.Batch) error {
	if len(b.Attempts) == 0 {
		return nil
	}
	insert, err := tx.PrepareContext(ctx, insertAttempt)
	if err != nil {
		return err
	}
	defer func() { _ = insert.Close() }()
	for i := range b.Attempts {
		if _, err := insert.ExecContext(ctx, attemptArgs(&b.Attempts[i])...); err != nil {
			return err
		}
	}
	return nil
}

func attemptArgs(a *webhook.Attempt) []any {
	return []any{
		argument(store.AttemptCreatedAt(a)), a.ID[:], a.DeliveryID[:], a.Generation, a.Tenant, a.EventID, a.EventType, a.SubscriptionID,
		a.Profile, a.ProfileVersion, string(a.Trigger), argument(a.DeliveryCreatedAt), a.Number, a.Try, argument(a.StartedAt),
		a.Duration.Microseconds(), a.Phases.DNS.Microseconds(), a.Phases.Connect.Microseconds(), a.Phases.TLS.Microseconds(),
		a.Phases.FirstByte.Microseconds(), a.StatusCode, string(a.Error), a.Response, a.RequestBytes, a.ResponseBytes,
		string(a.Outcome.Status), string(a.Outcome.Reason), argument(a.Outcome.NextAttemptAt), a.Outcome.DisableSubscription, a.TraceParent,
	}
}

func writeHealth(ctx context.Context, tx *sql.Tx, b *store.Batch) error {
	for i := range b.Health {
		h := &b.Health[i]
		if _, err := tx.ExecContext(ctx, putHealth, h.Tenant, h.SubscriptionID, h.Partition, h.Next, h.State, argument(h.UpdatedAt)); err != nil {
			return err
		}
	}
	return nil
}

func writeEvents(ctx context.Context, tx *sql.Tx, b *store.Batch) error {
	if len(b.Events) == 0 {
		return nil
	}
	insert, err := tx.PrepareContext(ctx, insertEvent)
	if err != nil {
		return err
	}
	defer func() { _ = insert.Close() }()
	for i := range b.Events {
		e := &b.Events[i]
		if _, err := insert.ExecContext(ctx, argument(e.RecordedAt), e.Tenant, e.ID, e.Type, e.OrderingKey, argument(e.Timestamp),
			[]byte(e.Metadata), []byte(e.Data), e.Trace.Parent, e.Trace.State, e.Source.Topic, e.Source.Partition, e.Source.Offset); err != nil {
			return err
		}
	}
	return nil
}
