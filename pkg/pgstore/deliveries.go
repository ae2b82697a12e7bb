package pgstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/store/sqlstore"
)

var (
	// rowOf is the row that a record s belongs to: see store.Delivery for the rule. A new delivery is looked for in the few partitions
	// since SameRow before it, and a redelivery in all.
	rowOf = fmt.Sprintf(`FROM deliveries d WHERE d.id = s.id
		AND d.created_at >= CASE WHEN s.generation > 0 THEN '-infinity' ELSE s.created_at - interval '%[1]d seconds' END
		AND (d.generation > 0 OR s.generation > 0 OR d.created_at <= s.created_at + interval '%[1]d seconds')
		ORDER BY greatest(d.created_at - s.created_at, s.created_at - d.created_at), d.created_at LIMIT 1`, int(store.SameRow.Seconds()))

	// knownRows are the rows of those records that have one.
	knownRows = `SELECT (s.n - 1)::integer, d.* FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) WITH ORDINALITY AS s (id, created_at, generation, n)
		CROSS JOIN LATERAL (SELECT ` + sqlstore.DeliveryColumns + ` ` + rowOf + `) d`

	// findRows says for every staged delivery in which partition its row is: row_at. How many rows are younger than their staged
	// delivery is the result.
	findRows = `WITH found AS (
		UPDATE stage_deliveries s SET row_at = coalesce((SELECT d.created_at ` + rowOf + `), s.created_at)
		RETURNING s.row_at > s.created_at AS younger)
		SELECT count(*) FROM found WHERE younger`

	// moveRows makes those rows as old as their delivery, which moves them to another partition if need be. It is
	// rare: a record of a later production of an event was read before one of an earlier.
	moveRows = `UPDATE deliveries d SET created_at = s.created_at FROM stage_deliveries s
		WHERE s.row_at > s.created_at AND d.id = s.id AND d.created_at = s.row_at`

	mergeRows = `INSERT INTO deliveries AS d (` + sqlstore.DeliveryColumns + `)
		SELECT least(row_at, created_at), ` + sqlstore.DeliveryColumns[len("created_at, "):] + ` FROM stage_deliveries
		` + sqlstore.MergeDelivery
)

// writeDeliveries merges the batch's deliveries into their rows.
func writeDeliveries(ctx context.Context, conn *pgx.Conn, b *store.Batch) error {
	for i, layer := range store.Coalesce(b.Deliveries) {
		if i > 0 {
			if _, err := conn.Exec(ctx, "TRUNCATE stage_deliveries"); err != nil {
				return err
			}
		}
		if err := mergeDeliveries(ctx, conn, layer); err != nil {
			return err
		}
	}
	return nil
}

// mergeDeliveries takes each delivery once. They go in by id, so that two recorders lock rows in the same order. Most have no row yet
// and are copied straight into the table; of the others only those are written that change their row.
func mergeDeliveries(ctx context.Context, conn *pgx.Conn, deliveries []store.Delivery) error {
	slices.SortFunc(deliveries, func(x, y store.Delivery) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	known, err := known(ctx, conn, deliveries)
	if err != nil {
		return err
	}
	var changed []*store.Delivery
	fresh, unknown := newRows(), make([]*store.Delivery, 0, len(deliveries))
	for i := range deliveries {
		d := &deliveries[i]
		row, found := known[i]
		if !found {
			unknown = append(unknown, d)
			fresh.delivery(d)
			continue
		}
		if changes(row, d) {
			changed = append(changed, d)
		}
	}
	if len(unknown) > 0 {
		inserted, err := fresh.insertNew(ctx, conn, "deliveries", sqlstore.DeliveryColumns)
		if err != nil {
			return err
		}
		if !inserted { // another recorder was at them too
			changed = append(changed, unknown...)
		}
	}
	return mergeStaged(ctx, conn, changed)
}

// changes reports whether the record changes the row.
func changes(row store.Delivery, d *store.Delivery) bool {
	merged := row
	merged.Merge(*d)
	return merged != row
}

// known are the rows that deliveries have already, by the index of the delivery.
func known(ctx context.Context, conn *pgx.Conn, deliveries []store.Delivery) (map[int]store.Delivery, error) {
	ids, created, generations := make([]uuid.UUID, len(deliveries)), make([]time.Time, len(deliveries)), make([]int64, len(deliveries))
	for i := range deliveries {
		ids[i], created[i], generations[i] = deliveries[i].ID, deliveries[i].CreatedAt, int64(deliveries[i].Generation)
	}
	rows, err := conn.Query(ctx, knownRows, ids, created, generations)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	known := map[int]store.Delivery{}
	for rows.Next() {
		var i int
		d, err := sqlstore.ScanDelivery(rows, &i)
		if err != nil {
			return nil, err
		}
		known[i] = d
	}
	return known, rows.Err()
}

// mergeStaged merges deliveries into their rows where they have one, whatever other recorders do meanwhile.
func mergeStaged(ctx context.Context, conn *pgx.Conn, deliveries []*store.Delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	slices.SortFunc(deliveries, func(x, y *store.Delivery) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	r := newRows()
	for _, d := range deliveries {
		r.delivery(d)
	}
	if err := r.send(ctx, conn.PgConn(), "stage_deliveries", sqlstore.DeliveryColumns); err != nil {
		return err
	}
	var younger int
	if err := conn.QueryRow(ctx, findRows).Scan(&younger); err != nil {
		return err
	}
	if younger > 0 {
		if _, err := conn.Exec(ctx, moveRows); err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, mergeRows)
	return err
}

func (r *rows) delivery(d *store.Delivery) {
	r.row(19)
	r.time(d.CreatedAt)
	r.uuid(d.ID)
	r.text(d.Tenant)
	r.text(d.EventID)
	r.text(d.EventType)
	r.text(d.SubscriptionID)
	r.text(d.Profile)
	r.int8(int64(d.ProfileVersion))
	r.int8(int64(d.Generation))
	r.text(string(d.Trigger))
	r.text(string(d.Status))
	r.text(string(d.Reason))
	r.time(d.UpdatedAt)
	r.time(d.NextAttemptAt)
	r.int8(int64(d.AttemptCount))
	r.int8(d.Progress())
	r.int8(d.LastSeen())
	r.int4(d.LastStatusCode)
	r.text(string(d.LastError))
}
