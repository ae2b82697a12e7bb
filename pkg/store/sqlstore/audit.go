package sqlstore

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// Columns of the audit's tables, in the order in which both drivers write them.
const (
	DeliveryColumns = `created_at, id, tenant, event_id, event_type, subscription_id, profile, profile_version, generation, "trigger",
		status, reason, updated_at, next_attempt_at, attempt_count, progress, last_seen, last_status_code, last_error`
	AttemptColumns = `created_at, id, delivery_id, generation, tenant, event_id, event_type, subscription_id, profile, profile_version,
		"trigger", delivery_created_at, number, try, started_at, duration_us, dns_us, connect_us, tls_us, first_byte_us, status_code,
		error, response, request_bytes, response_bytes, status, reason, next_attempt_at, disable_subscription, traceparent`
	EventColumns = `created_at, tenant, id, type, ordering_key, occurred_at, metadata, data, traceparent, tracestate,
		source_topic, source_partition, source_offset`
	HealthColumns = `tenant, subscription_id, partition, next_offset, state, updated_at`
)

// MergeHealth ends an INSERT INTO subscription_health AS h: what stands further stays.
const MergeHealth = `ON CONFLICT (subscription_id, tenant) DO UPDATE SET partition = excluded.partition, next_offset = excluded.next_offset,
	state = excluded.state, updated_at = excluded.updated_at
	WHERE h.partition <> excluded.partition OR h.next_offset <= excluded.next_offset`

// MergeDelivery ends an INSERT INTO deliveries AS d: it does what [store.Delivery.Merge] does.
var MergeDelivery = mergeDelivery()

func mergeDelivery() string {
	const (
		state = `(excluded.progress, excluded.updated_at, excluded.reason) > (d.progress, d.updated_at, d.reason)`
		last  = `(excluded.last_seen, excluded.last_status_code, excluded.last_error) > (d.last_seen, d.last_status_code, d.last_error)`
		count = `excluded.generation = d.generation AND excluded.attempt_count > d.attempt_count`
	)
	var sets []string
	set := func(when string, columns ...string) {
		for _, c := range columns {
			sets = append(sets, c+" = CASE WHEN "+when+" THEN excluded."+c+" ELSE d."+c+" END")
		}
	}
	set(state, "event_type", "profile", "profile_version", "generation", `"trigger"`, "status", "reason", "updated_at", "next_attempt_at", "progress")
	set(last, "last_seen", "last_status_code", "last_error")
	set("excluded.generation > d.generation OR ("+count+")", "attempt_count")
	return "ON CONFLICT (id, created_at) DO UPDATE SET " + strings.Join(sets, ", ") +
		" WHERE " + state + " OR " + last + " OR (" + count + ")"
}

// Deliveries lists the tenant's deliveries that a filter selects, newest first.
func (s *Store) Deliveries(ctx context.Context, tenant string, f store.DeliveryFilter, p store.Page) (items []store.Delivery, next string, err error) {
	items, next, err = s.deliveries(tenant, f).page(ctx, s, p)
	return items, next, s.wrap("list deliveries", err)
}

func (s *Store) deliveries(tenant string, f store.DeliveryFilter) list[store.Delivery] {
	l := list[store.Delivery]{
		query: query{text: `SELECT ` + DeliveryColumns + ` FROM deliveries`},
		scan:  scanDelivery,
		place: func(d store.Delivery) (time.Time, string) { return d.CreatedAt, d.ID.String() },
		id:    s.uuidID,
	}
	s.filter(&l.query, tenant, f)
	if ofEvents := f.Trigger == "" || f.Trigger == webhook.TriggerEvent; ofEvents && f.SubscriptionID != "" && f.Status == "" && f.EventType == "" && f.EventID == "" {
		l.halves = []string{"status = 'DELIVERED'", "status <> 'DELIVERED'"}
	}
	return l
}

// DeliveriesStatement is the statement behind [Store.Deliveries] and its arguments, for a look at how the database carries it out.
func (s *Store) DeliveriesStatement(tenant string, f store.DeliveryFilter, p store.Page) (text string, args []any, err error) {
	l := s.deliveries(tenant, f)
	text, err = l.statement(s, p)
	return text, l.args, err
}

// CountDeliveries counts the tenant's deliveries that a filter selects, by status. A status without any is not in the map.
func (s *Store) CountDeliveries(ctx context.Context, tenant string, f store.DeliveryFilter) (map[webhook.Status]int64, error) {
	q := query{text: `SELECT status, count(*) FROM deliveries`}
	s.filter(&q, tenant, f)
	return s.counts(ctx, q.end("GROUP BY status"), q.args)
}

// CountDeliveriesUpTo is [Store.CountDeliveries], but stops counting a status at most, however many there are.
func (s *Store) CountDeliveriesUpTo(ctx context.Context, tenant string, f store.DeliveryFilter, most int64) (map[webhook.Status]int64, error) {
	q, statement := s.countUpTo(tenant, f, most)
	return s.counts(ctx, statement, q.args)
}

func (s *Store) counts(ctx context.Context, statement string, args []any) (map[webhook.Status]int64, error) {
	type count struct {
		status webhook.Status
		n      int64
	}
	rows, err := collect(ctx, s.read, func(row scanner) (c count, err error) { return c, row.Scan(&c.status, &c.n) }, statement, args...)
	if err != nil {
		return nil, s.wrap("count deliveries", err)
	}
	counts := make(map[webhook.Status]int64, len(rows))
	for _, c := range rows {
		if c.n > 0 {
			counts[c.status] = c.n
		}
	}
	return counts, nil
}

// countUpTo counts each status by itself: a common one must not keep a rare one from being counted.
func (s *Store) countUpTo(tenant string, f store.DeliveryFilter, most int64) (q query, statement string) {
	var parts []string
	for _, status := range webhook.Statuses() {
		if f.Status != "" && f.Status != status {
			continue
		}
		one := f
		one.Status = status
		part := query{text: `SELECT 1 FROM deliveries`, args: q.args}
		s.filter(&part, tenant, one)
		limited := part.end("LIMIT " + part.arg(most))
		parts = append(parts, "SELECT '"+string(status)+"', (SELECT count(*) FROM ("+limited+") counted)")
		q.args = part.args
	}
	return q, strings.Join(parts, " UNION ALL ")
}

func (s *Store) filter(q *query, tenant string, f store.DeliveryFilter) {
	q.where("tenant = ", store.Text(tenant))
	if f.Status != "" {
		q.where("status = ", store.Text(string(f.Status)))
		// Says what the partial index is for; most rows are DELIVERED and are not in it.
		if f.Status != webhook.Delivered {
			q.conds = append(q.conds, "status <> 'DELIVERED'")
		}
	}
	if f.SubscriptionID != "" {
		q.where("subscription_id = ", store.Text(f.SubscriptionID))
	}
	if f.EventID != "" {
		q.where("event_id = ", store.Text(f.EventID))
	}
	if f.EventType != "" {
		q.where("event_type = ", store.Text(f.EventType))
	}
	if f.Trigger != "" {
		q.where(`"trigger" = `, store.Text(string(f.Trigger)))
		// As above: nearly all are of events.
		if f.Trigger != webhook.TriggerEvent {
			q.conds = append(q.conds, `"trigger" <> 'event'`)
		}
	}
	if !f.From.IsZero() {
		q.where("created_at >= ", s.d.Time(store.Time(f.From)))
	}
	if !f.To.IsZero() {
		q.where("created_at < ", s.d.Time(store.Time(f.To)))
	}
}

// Delivery returns a delivery of the tenant, or [store.ErrNotFound]. Where its event was produced again much later, it is the
// row that stands furthest.
func (s *Store) Delivery(ctx context.Context, tenant string, id uuid.UUID) (store.Delivery, error) {
	d, err := scanDelivery(s.read.QueryRowContext(ctx, `SELECT `+DeliveryColumns+` FROM deliveries WHERE id = $1 AND tenant = $2
		ORDER BY generation DESC, created_at DESC LIMIT 1`, s.d.UUID(id), store.Text(tenant)))
	return d, s.wrap("read delivery", err)
}

// Attempts returns the attempts of deliveries of the tenant, oldest first, at most 1,000 deliveries in one call.
func (s *Store) Attempts(ctx context.Context, tenant string, deliveries ...uuid.UUID) (map[uuid.UUID][]webhook.Attempt, error) {
	found := make(map[uuid.UUID][]webhook.Attempt, len(deliveries))
	if len(deliveries) == 0 {
		return found, nil
	}
	ids := make([]any, len(deliveries))
	for i, id := range deliveries {
		ids[i] = s.d.UUID(id)
	}
	q := query{text: `SELECT ` + AttemptColumns + ` FROM attempts`}
	q.in("delivery_id", ids)
	q.where("tenant = ", store.Text(tenant))
	attempts, err := collect(ctx, s.read, scanAttempt, q.end("ORDER BY generation, created_at, id"), q.args...)
	if err != nil {
		return nil, s.wrap("read attempts", err)
	}
	for _, a := range attempts {
		found[a.DeliveryID] = append(found[a.DeliveryID], a)
	}
	return found, nil
}

// Event returns an event of the tenant with its payload, or [store.ErrNotFound]. Of one that was produced several times it is
// the latest.
func (s *Store) Event(ctx context.Context, tenant, id string) (webhook.Event, error) {
	e, err := scanEvent(s.read.QueryRowContext(ctx, `SELECT `+EventColumns+` FROM events WHERE tenant = $1 AND id = $2
		ORDER BY created_at DESC LIMIT 1`, store.Text(tenant), store.Text(id)))
	return e, s.wrap("read event", err)
}

// Offsets returns the next offsets to read of every partition of the topics that has one.
func (s *Store) Offsets(ctx context.Context, topics ...string) (map[store.TopicPartition]int64, error) {
	offsets := map[store.TopicPartition]int64{}
	if len(topics) == 0 {
		return offsets, nil
	}
	names := make([]any, len(topics))
	for i, name := range topics {
		names[i] = name
	}
	q := query{text: `SELECT topic, partition, next_offset FROM consumer_offsets`}
	q.in("topic", names)
	type row struct {
		store.TopicPartition
		next int64
	}
	rows, err := collect(ctx, s.read, func(r scanner) (o row, err error) {
		return o, r.Scan(&o.Topic, &o.Partition, &o.next)
	}, q.end(""), q.args...)
	for _, r := range rows {
		offsets[r.TopicPartition] = r.next
	}
	return offsets, s.wrap("read offsets", err)
}

// Health returns what is remembered of the subscriptions whose attempts are in one of the partitions.
func (s *Store) Health(ctx context.Context, partitions ...int32) ([]store.Health, error) {
	if len(partitions) == 0 {
		return nil, nil
	}
	numbers := make([]any, len(partitions))
	for i, p := range partitions {
		numbers[i] = p
	}
	q := query{text: `SELECT ` + HealthColumns + ` FROM subscription_health`}
	q.in("partition", numbers)
	q.conds = append(q.conds, "state IS NOT NULL")
	healths, err := collect(ctx, s.read, func(r scanner) (h store.Health, err error) {
		return h, r.Scan(&h.Tenant, &h.SubscriptionID, &h.Partition, &h.Next, &h.State, at{&h.UpdatedAt})
	}, q.end(""), q.args...)
	return healths, s.wrap("read health", err)
}

func (s *Store) uuidID(text string) (any, error) {
	id, err := uuid.Parse(text)
	return s.d.UUID(id), err
}

func scanDelivery(row scanner) (store.Delivery, error) { return ScanDelivery(row) }

// ScanDelivery reads DeliveryColumns out of a row, and whatever stands before them.
func ScanDelivery(row interface{ Scan(into ...any) error }, before ...any) (d store.Delivery, err error) {
	var progress, lastSeen int64
	err = row.Scan(append(before, at{&d.CreatedAt}, &d.ID, &d.Tenant, &d.EventID, &d.EventType, &d.SubscriptionID, &d.Profile, &d.ProfileVersion, &d.Generation,
		&d.Trigger, &d.Status, &d.Reason, at{&d.UpdatedAt}, at{&d.NextAttemptAt}, &d.AttemptCount, &progress, &lastSeen, &d.LastStatusCode, &d.LastError)...)
	d.SetLastSeen(lastSeen)
	return d, err
}

func scanAttempt(row scanner) (a webhook.Attempt, err error) {
	var createdAt time.Time
	var duration, dns, connect, tls, firstByte int64
	err = row.Scan(at{&createdAt}, &a.ID, &a.DeliveryID, &a.Generation, &a.Tenant, &a.EventID, &a.EventType, &a.SubscriptionID, &a.Profile, &a.ProfileVersion,
		&a.Trigger, at{&a.DeliveryCreatedAt}, &a.Number, &a.Try, at{&a.StartedAt}, &duration, &dns, &connect, &tls, &firstByte, &a.StatusCode,
		&a.Error, &a.Response, &a.RequestBytes, &a.ResponseBytes, &a.Outcome.Status, &a.Outcome.Reason, at{&a.Outcome.NextAttemptAt},
		&a.Outcome.DisableSubscription, &a.TraceParent)
	micros := func(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
	a.Duration = micros(duration)
	a.Phases = webhook.Phases{DNS: micros(dns), Connect: micros(connect), TLS: micros(tls), FirstByte: micros(firstByte)}
	return a, err
}

func scanEvent(row scanner) (e webhook.Event, err error) {
	var metadata, data []byte
	err = row.Scan(at{&e.RecordedAt}, &e.Tenant, &e.ID, &e.Type, &e.OrderingKey, at{&e.Timestamp}, &metadata, &data,
		&e.Trace.Parent, &e.Trace.State, &e.Source.Topic, &e.Source.Partition, &e.Source.Offset)
	if len(metadata) > 0 {
		e.Metadata = metadata
	}
	e.Data = data
	return e, err
}
