package pgstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/store/sqlstore"
)

var (
	// knownRows are the rows that records may belong to, of which store.Delivery's rule picks one.
	knownRows = `SELECT ` + sqlstore.DeliveryColumns + ` FROM deliveries WHERE id = ANY($1::uuid[]) AND created_at >= $2`

	// findRows says for every staged delivery in which partition its row is: row_at. A new delivery is looked for in the few partitions
	// since SameRow before it, and a redelivery in all. How many rows are younger than their staged delivery is the result.
	findRows = fmt.Sprintf(`WITH found AS (
		UPDATE stage_deliveries s SET row_at = coalesce((SELECT d.created_at FROM deliveries d WHERE d.id = s.id
			AND d.created_at >= CASE WHEN s.generation > 0 THEN '-infinity' ELSE s.created_at - interval '%[1]d seconds' END
			AND (d.generation > 0 OR s.generation > 0 OR d.created_at <= s.created_at + interval '%[1]d seconds')
			ORDER BY greatest(d.created_at - s.created_at, s.created_at - d.created_at), d.created_at LIMIT 1), s.created_at)
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

// mergeDeliveries takes each delivery once. They go in by id, so that two recorders lock rows in the same order. Most have no row yet
// and are copied straight into the table; of the others only those are written that change their row.
func mergeDeliveries(ctx context.Context, conn *pgx.Conn, layer []store.Delivery) error {
	deliveries := make([]*store.Delivery, len(layer))
	for i := range layer {
		deliveries[i] = &layer[i]
	}
	sortByID(deliveries)
	known, err := known(ctx, conn, deliveries)
	if err != nil {
		return err
	}
	var changed []*store.Delivery
	fresh, unknown := newRows(len(deliveries), 320), make([]*store.Delivery, 0, len(deliveries))
	for _, d := range deliveries {
		switch row := d.Nearest(known[d.ID]); {
		case row == nil:
			unknown = append(unknown, d)
			fresh.delivery(d)
		case changes(*row, d):
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

func sortByID(deliveries []*store.Delivery) {
	slices.SortFunc(deliveries, func(x, y *store.Delivery) int { return bytes.Compare(x.ID[:], y.ID[:]) })
}

// changes reports whether the record changes the row.
func changes(row store.Delivery, d *store.Delivery) bool {
	merged := row
	merged.Merge(*d)
	return merged != row
}

// uuids is an array as the driver writes it without a detour over text.
type uuids = pgtype.FlatArray[pgtype.UUID]

// known are the rows that deliveries may belong to, by id: for new ones those that are not much older, for redeliveries all.
func known(ctx context.Context, conn *pgx.Conn, deliveries []*store.Delivery) (map[uuid.UUID][]store.Delivery, error) {
	rows := map[uuid.UUID][]store.Delivery{}
	var again uuids
	ids, since := make(uuids, 0, len(deliveries)), deliveries[0].CreatedAt
	for _, d := range deliveries {
		id := pgtype.UUID{Bytes: d.ID, Valid: true}
		if d.Generation > 0 {
			again = append(again, id)
			continue
		}
		ids = append(ids, id)
		if d.CreatedAt.Before(since) {
			since = d.CreatedAt
		}
	}
	if err := readKnown(ctx, conn, rows, ids, since.Add(-store.SameRow)); err != nil {
		return nil, err
	}
	return rows, readKnown(ctx, conn, rows, again, time.Time{})
}

func readKnown(ctx context.Context, conn *pgx.Conn, into map[uuid.UUID][]store.Delivery, ids uuids, since time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, knownRows, ids, since)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		d, err := sqlstore.ScanDelivery(rows)
		if err != nil {
			return err
		}
		into[d.ID] = append(into[d.ID], d)
	}
	return rows.Err()
}

// mergeStaged merges deliveries into their rows where they have one, whatever other recorders do meanwhile.
func mergeStaged(ctx context.Context, conn *pgx.Conn, deliveries []*store.Delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	sortByID(deliveries)
	r := newRows(len(deliveries), 320)
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
