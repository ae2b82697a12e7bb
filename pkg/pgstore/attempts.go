package pgstore

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/store/sqlstore"
	"github.com/hookline/hookline/pkg/webhook"
)

const (
	insertAttempts = `INSERT INTO attempts (` + sqlstore.AttemptColumns + `) SELECT ` + sqlstore.AttemptColumns + ` FROM stage_attempts
		ON CONFLICT (id, created_at) DO NOTHING`
	insertEvents = `INSERT INTO events (` + sqlstore.EventColumns + `) SELECT ` + sqlstore.EventColumns + ` FROM stage_events
		ON CONFLICT (id, tenant, created_at) DO NOTHING`
)

// writeAttempts inserts the attempts that are not there yet.
func writeAttempts(ctx context.Context, conn *pgx.Conn, b *store.Batch) error {
	if len(b.Attempts) == 0 {
		return nil
	}
	order := make([]*webhook.Attempt, len(b.Attempts))
	for i := range b.Attempts {
		order[i] = &b.Attempts[i]
	}
	slices.SortFunc(order, func(x, y *webhook.Attempt) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	order = slices.CompactFunc(order, func(x, y *webhook.Attempt) bool { return x.ID == y.ID })
	r := newRows(len(order), 640)
	for _, a := range order {
		r.attempt(a)
	}
	return r.insert(ctx, conn, "attempts", sqlstore.AttemptColumns, insertAttempts)
}

// insert puts rows into a table, those that are not there yet. None is there, except where records are read again: so they are first
// copied straight into the table, and only where one is there already staged, at twice the cost.
func (r *rows) insert(ctx context.Context, conn *pgx.Conn, table, columns, fromStage string) error {
	fresh, err := r.insertNew(ctx, conn, table, columns)
	if err != nil || fresh {
		return err
	}
	if err := r.send(ctx, conn.PgConn(), "stage_"+table, columns); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, fromStage)
	return err
}

// insertNew copies rows straight into a table. Where one is there already it inserts none, and reports false.
func (r *rows) insertNew(ctx context.Context, conn *pgx.Conn, table, columns string) (fresh bool, err error) {
	if _, err := conn.Exec(ctx, "SAVEPOINT fresh"); err != nil {
		return false, err
	}
	if err := r.send(ctx, conn.PgConn(), table, columns); !errors.Is(classify(err), store.ErrExists) {
		return err == nil, err
	}
	_, err = conn.Exec(ctx, "ROLLBACK TO SAVEPOINT fresh")
	return false, err
}

func (r *rows) attempt(a *webhook.Attempt) {
	r.row(30)
	r.time(store.AttemptCreatedAt(a))
	r.uuid(a.ID)
	r.uuid(a.DeliveryID)
	r.int8(int64(a.Generation))
	r.text(a.Tenant)
	r.text(a.EventID)
	r.text(a.EventType)
	r.text(a.SubscriptionID)
	r.text(a.Profile)
	r.int8(int64(a.ProfileVersion))
	r.text(string(a.Trigger))
	r.time(a.DeliveryCreatedAt)
	r.int8(int64(a.Number))
	r.int8(int64(a.Try))
	r.time(a.StartedAt)
	r.int8(a.Duration.Microseconds())
	r.int8(a.Phases.DNS.Microseconds())
	r.int8(a.Phases.Connect.Microseconds())
	r.int8(a.Phases.TLS.Microseconds())
	r.int8(a.Phases.FirstByte.Microseconds())
	r.int4(a.StatusCode)
	r.text(string(a.Error))
	r.bytes(a.Response)
	r.int8(int64(a.RequestBytes))
	r.int8(int64(a.ResponseBytes))
	r.text(string(a.Outcome.Status))
	r.text(string(a.Outcome.Reason))
	r.time(a.Outcome.NextAttemptAt)
	r.bool(a.Outcome.DisableSubscription)
	r.text(a.TraceParent)
}

// writeEvents inserts the events that are not there yet.
func writeEvents(ctx context.Context, conn *pgx.Conn, b *store.Batch) error {
	if len(b.Events) == 0 {
		return nil
	}
	order := make([]*webhook.Event, len(b.Events))
	for i := range b.Events {
		order[i] = &b.Events[i]
	}
	slices.SortFunc(order, compareEvents)
	order = slices.CompactFunc(order, func(x, y *webhook.Event) bool { return compareEvents(x, y) == 0 })
	r := newRows(len(order), 1024)
	for _, e := range order {
		r.event(e)
	}
	return r.insert(ctx, conn, "events", sqlstore.EventColumns, insertEvents)
}

func compareEvents(x, y *webhook.Event) int {
	if c := strings.Compare(x.ID, y.ID); c != 0 {
		return c
	}
	if c := strings.Compare(x.Tenant, y.Tenant); c != 0 {
		return c
	}
	return x.RecordedAt.Compare(y.RecordedAt)
}

func (r *rows) event(e *webhook.Event) {
	r.row(13)
	r.time(e.RecordedAt)
	r.text(e.Tenant)
	r.text(e.ID)
	r.text(e.Type)
	r.text(e.OrderingKey)
	r.time(e.Timestamp)
	r.bytes(e.Metadata)
	r.bytes(e.Data)
	r.text(e.Trace.Parent)
	r.text(e.Trace.State)
	r.text(e.Source.Topic)
	r.int4(int(e.Source.Partition))
	r.int8(e.Source.Offset)
}
