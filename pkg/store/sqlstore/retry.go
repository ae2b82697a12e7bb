package sqlstore

import (
	"context"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// Retries lists the tenant's deliveries that wait for their next attempt, newest first.
func (s *Store) Retries(ctx context.Context, tenant string, f store.RetryFilter, p store.Page) (items []store.Delivery, next string, err error) {
	l := list[store.Delivery]{
		query: query{text: `SELECT ` + DeliveryColumns + ` FROM deliveries`},
		scan:  scanDelivery,
		place: func(d store.Delivery) (time.Time, string) { return d.CreatedAt, d.ID.String() },
		id:    s.uuidID,
	}
	s.waiting(&l.query, tenant, f)
	items, next, err = l.page(ctx, s, p)
	return items, next, s.wrap("list retries", err)
}

func (s *Store) waiting(q *query, tenant string, f store.RetryFilter) {
	s.filter(q, tenant, store.DeliveryFilter{Status: webhook.Pending, SubscriptionID: f.SubscriptionID, EventType: f.EventType})
	q.conds = append(q.conds, "next_attempt_at IS NOT NULL")
	if f.Reason != "" {
		q.where("reason = ", store.Text(string(f.Reason)))
	}
	if !f.From.IsZero() {
		q.where("next_attempt_at >= ", s.d.Time(store.Time(f.From)))
	}
	if !f.To.IsZero() {
		q.where("next_attempt_at < ", s.d.Time(store.Time(f.To)))
	}
}

// CountRetries counts what a filter selects of the tenant's deliveries that wait for their next attempt. The due times ascend.
func (s *Store) CountRetries(ctx context.Context, tenant string, f store.RetryFilter, due ...time.Time) (store.RetryCounts, error) {
	return s.CountRetriesUpTo(ctx, tenant, f, 0, due...)
}

// CountRetriesUpTo is [Store.CountRetries] of any so many of them; 0 is all.
func (s *Store) CountRetriesUpTo(ctx context.Context, tenant string, f store.RetryFilter, most int64, due ...time.Time) (store.RetryCounts, error) {
	counts := store.RetryCounts{Due: make([]int64, len(due)+1), Reasons: map[webhook.Reason]int64{}}
	if err := s.countDue(ctx, s.counted(tenant, f, most), due, &counts); err != nil {
		return counts, s.wrap("count retries", err)
	}
	bySubscription, err := s.countRetriesBy(ctx, "subscription_id", s.counted(tenant, f, most))
	if err != nil {
		return counts, s.wrap("count retries", err)
	}
	byReason, err := s.countRetriesBy(ctx, "reason", s.counted(tenant, f, most))
	for reason, n := range byReason {
		counts.Reasons[webhook.Reason(reason)] = n
	}
	counts.Subscriptions = bySubscription
	return counts, s.wrap("count retries", err)
}

// counted is what is counted, from FROM on.
func (s *Store) counted(tenant string, f store.RetryFilter, most int64) query {
	q := query{text: `SELECT subscription_id, reason, next_attempt_at FROM deliveries`}
	s.waiting(&q, tenant, f)
	limit := ""
	if most > 0 {
		limit = "LIMIT " + q.arg(most)
	}
	return query{text: " FROM (" + q.end(limit) + ") counted", args: q.args}
}

func (s *Store) countDue(ctx context.Context, q query, due []time.Time, counts *store.RetryCounts) error {
	columns := `SELECT count(*), min(next_attempt_at)`
	before := make([]int64, len(due))
	into := []any{&counts.Waiting, at{&counts.Oldest}}
	for i, t := range due {
		columns += ", count(CASE WHEN next_attempt_at < " + q.arg(s.d.Time(store.Time(t))) + " THEN 1 END)"
		into = append(into, &before[i])
	}
	if err := s.read.QueryRowContext(ctx, columns+q.text, q.args...).Scan(into...); err != nil {
		return err
	}
	last := int64(0)
	for i, n := range append(before, counts.Waiting) {
		counts.Due[i], last = n-last, n
	}
	return nil
}

func (s *Store) countRetriesBy(ctx context.Context, column string, q query) (map[string]int64, error) {
	type count struct {
		of string
		n  int64
	}
	rows, err := collect(ctx, s.read, func(row scanner) (c count, err error) {
		return c, row.Scan(&c.of, &c.n)
	}, "SELECT "+column+", count(*)"+q.text+" GROUP BY "+column+" ORDER BY 2 DESC, 1 LIMIT "+q.arg(store.MaxCounted), q.args...)
	counts := make(map[string]int64, len(rows))
	for _, c := range rows {
		counts[c.of] = c.n
	}
	return counts, err
}
