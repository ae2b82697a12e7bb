package sqlstore

import (
	"context"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// maxEventBytes bounds the payloads that one call of Events or NewestEvents returns.
const maxEventBytes = 16 << 20

// Events returns stored events of the tenant in the order of their places, at most limit and at most some 16 MiB of them, and at
// least one where there is one. An event that was produced several times is there several times.
func (s *Store) Events(ctx context.Context, tenant string, f store.EventFilter, limit int) ([]webhook.Event, error) {
	return s.events(ctx, tenant, f, limit, "ASC")
}

// NewestEvents is [Store.Events] from the newest event backwards, within the filter.
func (s *Store) NewestEvents(ctx context.Context, tenant string, f store.EventFilter, limit int) ([]webhook.Event, error) {
	return s.events(ctx, tenant, f, limit, "DESC")
}

func (s *Store) events(ctx context.Context, tenant string, f store.EventFilter, limit int, order string) ([]webhook.Event, error) {
	q := query{text: `SELECT ` + EventColumns + ` FROM events`}
	s.selectEvents(&q, tenant, f)
	rows, err := s.read.QueryContext(ctx, q.end("ORDER BY created_at "+order+", id "+order+" LIMIT "+q.arg(limit)), q.args...)
	if err != nil {
		return nil, s.wrap("list events", err)
	}
	defer func() { _ = rows.Close() }()
	var events []webhook.Event
	for size := 0; size < maxEventBytes && rows.Next(); {
		e, err := scanEvent(rows)
		if err != nil {
			return nil, s.wrap("list events", err)
		}
		events = append(events, e)
		size += len(e.Data) + len(e.Metadata)
	}
	return events, s.wrap("list events", rows.Err())
}

// CountEvents counts the stored events of the tenant that a filter selects.
func (s *Store) CountEvents(ctx context.Context, tenant string, f store.EventFilter) (n int64, err error) {
	q := query{text: `SELECT count(*) FROM events`}
	s.selectEvents(&q, tenant, f)
	return n, s.wrap("count events", s.read.QueryRowContext(ctx, q.end(""), q.args...).Scan(&n))
}

// EventAt returns the event of the tenant that stands at a place in Kafka, or [store.ErrNotFound].
func (s *Store) EventAt(ctx context.Context, tenant string, at webhook.Position) (webhook.Event, error) {
	e, err := scanEvent(s.read.QueryRowContext(ctx, `SELECT `+EventColumns+` FROM events
		WHERE source_partition = $1 AND source_offset = $2 AND source_topic = $3 AND tenant = $4 ORDER BY created_at DESC LIMIT 1`,
		at.Partition, at.Offset, store.Text(at.Topic), store.Text(tenant)))
	return e, s.wrap("read event", err)
}

// Copies returns the records of an event, without payload, oldest first and at most 20: more than one where it was produced
// several times.
func (s *Store) Copies(ctx context.Context, tenant, id string) ([]webhook.Event, error) {
	events, err := collect(ctx, s.read, func(row scanner) (e webhook.Event, err error) {
		return e, row.Scan(at{&e.RecordedAt}, &e.Tenant, &e.ID, &e.Type, &e.Source.Topic, &e.Source.Partition, &e.Source.Offset)
	}, `SELECT created_at, tenant, id, type, source_topic, source_partition, source_offset FROM events
		WHERE tenant = $1 AND id = $2 ORDER BY created_at LIMIT 20`, store.Text(tenant), store.Text(id))
	return events, s.wrap("list copies of event", err)
}

// Matched reports which of some events of the tenant, at most 1,000 in one call, have a delivery.
func (s *Store) Matched(ctx context.Context, tenant string, ids ...string) (map[string]bool, error) {
	matched := make(map[string]bool, len(ids))
	if len(ids) == 0 {
		return matched, nil
	}
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = store.Text(id)
	}
	q := query{text: `SELECT DISTINCT event_id FROM deliveries`}
	q.in("event_id", args)
	q.where("tenant = ", store.Text(tenant))
	found, err := collect(ctx, s.read, func(row scanner) (id string, err error) { return id, row.Scan(&id) }, q.end(""), q.args...)
	for _, id := range found {
		matched[id] = true
	}
	return matched, s.wrap("read matched events", err)
}

// DeliveriesByID returns those of the deliveries of the tenant that are recorded, at most 1,000 in one call. Where there are several
// rows of one, it is the one that stands furthest.
func (s *Store) DeliveriesByID(ctx context.Context, tenant string, ids ...uuid.UUID) (map[uuid.UUID]store.Delivery, error) {
	found := make(map[uuid.UUID]store.Delivery, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = s.d.UUID(id)
	}
	q := query{text: `SELECT ` + DeliveryColumns + ` FROM deliveries`}
	q.in("id", args)
	q.where("tenant = ", store.Text(tenant))
	rows, err := collect(ctx, s.read, scanDelivery, q.end("ORDER BY generation, created_at"), q.args...)
	for _, row := range rows {
		found[row.ID] = row
	}
	return found, s.wrap("read deliveries", err)
}

func (s *Store) selectEvents(q *query, tenant string, f store.EventFilter) {
	q.where("tenant = ", store.Text(tenant))
	if f.ID != "" {
		q.where("id = ", store.Text(f.ID))
	}
	if !f.From.IsZero() {
		q.where("created_at >= ", s.d.Time(store.Time(f.From)))
	}
	if !f.To.IsZero() {
		q.where("created_at < ", s.d.Time(store.Time(f.To)))
	}
	bound := func(operator string, place store.EventPlace) {
		if !place.At.IsZero() {
			q.conds = append(q.conds, "(created_at, id) "+operator+" ("+q.arg(s.d.Time(store.Time(place.At)))+", "+q.arg(store.Text(place.ID))+")")
		}
	}
	bound(">", f.After)
	bound("<=", f.Until)
	bound("<", f.Before)
	var types, offsets []string
	for _, pattern := range f.Types {
		types = append(types, typeCondition(q, pattern))
	}
	for _, o := range f.Offsets {
		offsets = append(offsets, offsetCondition(q, o))
	}
	q.oneOf(types)
	q.oneOf(offsets)
}

// oneOf adds conditions of which one must hold; none adds nothing.
func (q *query) oneOf(conditions []string) {
	if len(conditions) > 0 {
		q.conds = append(q.conds, "("+strings.Join(conditions, " OR ")+")")
	}
}

// typeCondition is [webhook.MatchType] in SQL.
func typeCondition(q *query, pattern string) string {
	if pattern == "*" {
		return "substr(type, 1, 9) <> 'hookline.'"
	}
	exact := "type = " + q.arg(store.Text(pattern))
	prefix, wild := strings.CutSuffix(pattern, "*")
	if !wild || !strings.HasSuffix(prefix, ".") {
		return exact
	}
	n := utf8.RuneCountInString(prefix)
	return exact + " OR (substr(type, 1, " + strconv.Itoa(n) + ") = " + q.arg(store.Text(prefix)) + " AND length(type) > " + strconv.Itoa(n) + ")"
}

func offsetCondition(q *query, o store.OffsetRange) string {
	condition := "source_topic = " + q.arg(store.Text(o.Topic)) + " AND source_partition = " + q.arg(o.Partition) + " AND source_offset >= " + q.arg(o.From)
	if o.To > 0 {
		condition += " AND source_offset < " + q.arg(o.To)
	}
	return "(" + condition + ")"
}
