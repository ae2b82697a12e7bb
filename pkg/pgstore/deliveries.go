package pgstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/store/sqlstore"
)

var (
	// findRows says for every staged delivery in which partition its row is: row_at. Nearly always it is the staged
	// created_at itself, which one index of one partition answers; a new delivery is looked for in the few partitions since
	// SameRow before it, and a redelivery in all. See store.Delivery for the rule. How many rows are younger than their staged
	// delivery is the result.
	findRows = fmt.Sprintf(`WITH found AS (
		UPDATE stage_deliveries s SET row_at = coalesce(
			(SELECT d.created_at FROM deliveries d WHERE d.id = s.id AND d.created_at = s.created_at),
			(SELECT d.created_at FROM deliveries d WHERE d.id = s.id
				AND d.created_at >= CASE WHEN s.generation > 0 THEN '-infinity' ELSE s.created_at - interval '%[1]d seconds' END
				AND (d.generation > 0 OR s.generation > 0 OR d.created_at <= s.created_at + interval '%[1]d seconds')
				ORDER BY greatest(d.created_at - s.created_at, s.created_at - d.created_at), d.created_at LIMIT 1),
			s.created_at)
		RETURNING s.row_at > s.created_at AS younger)
		SELECT count(*) FROM found WHERE younger`, int(store.SameRow.Seconds()))

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

// mergeDeliveries takes each delivery once. They go in by id, so that two recorders lock rows in the same order.
func mergeDeliveries(ctx context.Context, conn *pgx.Conn, deliveries []store.Delivery) error {
	slices.SortFunc(deliveries, func(x, y store.Delivery) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	r := newRows()
	for i := range deliveries {
		r.delivery(&deliveries[i])
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
