package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/hookline/hookline/pkg/pgstore"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// mostCounted is up to how many of a status the API counts.
const mostCounted = 100_000

// days is over how long the deliveries of the large audit are spread.
const days = 30

// largeAudit is skewed as audits are: one tenant has half of everything, a hundredth of a tenant's subscriptions have most of its
// deliveries, few of which are not DELIVERED, except those of one dead endpoint; one subscription and one event type are rare; some are tests,
// redeliveries and replays. A day's rows go in in the order of their time.
const largeAudit = `INSERT INTO deliveries (created_at, id, tenant, event_id, event_type, subscription_id, profile, profile_version, generation,
	"trigger", status, reason, updated_at, next_attempt_at, attempt_count, progress, last_seen, last_status_code, last_error)
SELECT at, md5('delivery ' || n)::uuid, tenant, 'event-' || n / 2, type, sub, 'fynapse', 1, 0,
	CASE n % 1000 WHEN 1 THEN 'replay' WHEN 2 THEN 'manual' WHEN 3 THEN 'test' ELSE 'event' END, status,
	CASE WHEN status IN ('DELIVERED', 'PENDING') THEN '' ELSE 'http_status' END, at + interval '50 ms',
	CASE WHEN status = 'PENDING' THEN at + interval '1 hour' END, 1, 0, 0, CASE WHEN status = 'DELIVERED' THEN 200 ELSE 503 END, ''
FROM (
	SELECT n, at, tenant, sub, type, CASE
		WHEN sub = 'sub-dead' THEN 'DEAD_LETTER' WHEN luck < 0.965 THEN 'DELIVERED' WHEN luck < 0.985 THEN 'DEAD_LETTER'
		WHEN luck < 0.99 THEN 'CANCELLED' WHEN at > $4::timestamptz - interval '3 days' THEN 'PENDING' ELSE 'DELIVERED' END AS status
	FROM (
		SELECT n, $3::timestamptz + (n - $1) * (interval '1 day' / ($2 - $1 + 1)) AS at, random() AS luck,
			CASE WHEN n % 10 < 5 THEN 'default' ELSE 'tenant-' || (power(random(), 2) * 50)::int END AS tenant,
			CASE WHEN n % 100000 = 0 THEN 'sub-rare' WHEN n % 50 = 0 THEN 'sub-dead' ELSE 'sub-' || (power(random(), 4) * 2000)::int END AS sub,
			CASE WHEN n % 100000 = 50000 THEN 'type.rare' ELSE 'type.' || (power(random(), 3) * 60)::int END AS type
		FROM generate_series($1::bigint, $2::bigint) AS n) drawn) decided`

// question is one filter of GET /deliveries, drawn anew each time it is asked.
type question struct {
	name string
	draw func(d *drawer) store.DeliveryFilter
	page bool // ask for the page after a random place
}

type drawer struct {
	now  time.Time
	rows int
}

func (d *drawer) sub() string   { return fmt.Sprintf("sub-%d", skewed(4, 2000)) }
func (d *drawer) kind() string  { return fmt.Sprintf("type.%d", skewed(3, 60)) }
func (d *drawer) event() string { return fmt.Sprintf("event-%d", rand.IntN(d.rows/2)) }
func (d *drawer) at() time.Time {
	return d.now.Add(-time.Duration(rand.Int64N(int64(days * 24 * time.Hour))))
}
func skewed(power, most int) int {
	u := 1.0
	r := rand.Float64()
	for range power {
		u *= r
	}
	return int(u * float64(most))
}

func (d *drawer) span(f store.DeliveryFilter, length time.Duration) store.DeliveryFilter {
	f.To = d.at()
	f.From = f.To.Add(-length)
	return f
}

// asked are the documented filters: each alone, and their combinations, the ones that find little among them.
func asked() []question {
	type f = store.DeliveryFilter
	const day = 24 * time.Hour
	return []question{
		{"everything", func(*drawer) f { return f{} }, false},
		{"everything, a later page", func(*drawer) f { return f{} }, true},
		{"status=PENDING", func(*drawer) f { return f{Status: webhook.Pending} }, false},
		{"status=DELIVERED", func(*drawer) f { return f{Status: webhook.Delivered} }, false},
		{"status=DEAD_LETTER", func(*drawer) f { return f{Status: webhook.DeadLetter} }, false},
		{"status=DEAD_LETTER, a later page", func(*drawer) f { return f{Status: webhook.DeadLetter} }, true},
		{"status=CANCELLED", func(*drawer) f { return f{Status: webhook.Cancelled} }, false},
		{"subscriptionId", func(d *drawer) f { return f{SubscriptionID: d.sub()} }, false},
		{"subscriptionId, a later page", func(d *drawer) f { return f{SubscriptionID: d.sub()} }, true},
		{"subscriptionId of few", func(*drawer) f { return f{SubscriptionID: "sub-rare"} }, false},
		{"subscriptionId of none", func(*drawer) f { return f{SubscriptionID: "sub-none"} }, false},
		{"eventId", func(d *drawer) f { return f{EventID: d.event()} }, false},
		{"eventType", func(d *drawer) f { return f{EventType: d.kind()} }, false},
		{"eventType of few", func(*drawer) f { return f{EventType: "type.rare"} }, false},
		{"from, to: an hour", func(d *drawer) f { return d.span(f{}, time.Hour) }, false},
		{"from, to: ten days", func(d *drawer) f { return d.span(f{}, 10*day) }, false},
		{"status=DEAD_LETTER, subscriptionId", func(d *drawer) f { return f{Status: webhook.DeadLetter, SubscriptionID: d.sub()} }, false},
		{"status=CANCELLED, subscriptionId of few", func(*drawer) f { return f{Status: webhook.Cancelled, SubscriptionID: "sub-rare"} }, false},
		{"status=PENDING, subscriptionId", func(d *drawer) f { return f{Status: webhook.Pending, SubscriptionID: d.sub()} }, false},
		{"status=DELIVERED, subscriptionId", func(d *drawer) f { return f{Status: webhook.Delivered, SubscriptionID: d.sub()} }, false},
		{"status=DELIVERED, subscriptionId of a dead endpoint", func(*drawer) f { return f{Status: webhook.Delivered, SubscriptionID: "sub-dead"} }, false},
		{"status=DEAD_LETTER, eventType", func(d *drawer) f { return f{Status: webhook.DeadLetter, EventType: d.kind()} }, false},
		{"status=DELIVERED, eventType", func(d *drawer) f { return f{Status: webhook.Delivered, EventType: d.kind()} }, false},
		{"status=CANCELLED, eventType of few", func(*drawer) f { return f{Status: webhook.Cancelled, EventType: "type.rare"} }, false},
		{"status=DEAD_LETTER, from, to: ten days", func(d *drawer) f { return d.span(f{Status: webhook.DeadLetter}, 10*day) }, false},
		{"trigger=manual", func(*drawer) f { return f{Trigger: webhook.TriggerManual} }, false},
		{"trigger=event", func(*drawer) f { return f{Trigger: webhook.TriggerEvent} }, false},
		{"trigger=replay, subscriptionId", func(d *drawer) f { return f{Trigger: webhook.TriggerReplay, SubscriptionID: d.sub()} }, false},
		{"subscriptionId, eventType", func(d *drawer) f { return f{SubscriptionID: d.sub(), EventType: d.kind()} }, false},
		{"subscriptionId of many, eventType of few", func(*drawer) f { return f{SubscriptionID: "sub-0", EventType: "type.rare"} }, false},
		{"subscriptionId, from, to: a day", func(d *drawer) f { return d.span(f{SubscriptionID: d.sub()}, day) }, false},
		{"eventType, from, to: a day", func(d *drawer) f { return d.span(f{EventType: d.kind()}, day) }, false},
		{"status=DEAD_LETTER, subscriptionId, eventType, from, to: ten days", func(d *drawer) f {
			return d.span(f{Status: webhook.DeadLetter, SubscriptionID: d.sub(), EventType: d.kind()}, 10*day)
		}, false},
	}
}

// answered is how long the answers to a question took, in ascending order, and how the database found one.
type answered struct {
	name          string
	lists, counts []time.Duration
	plan          string
}

// questions fills a database, and asks it.
func (b *bench) questions(ctx context.Context, settings auditSettings, report *auditReport) error {
	i, err := b.auditInstallation(ctx)
	if err != nil {
		return err
	}
	defer i.removeAudit()
	url := i.env["HOOKLINE_DATABASE_URL"]
	db, err := pgstore.Open(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	now := time.Now().UTC().Truncate(24 * time.Hour)
	began := time.Now()
	if err := fill(ctx, url, now, settings.Rows, b.say); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "ANALYZE deliveries"); err != nil {
		return err
	}
	report.Filled = time.Since(began)
	if err := conn.QueryRow(ctx, `SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'deliveries'::regclass`).Scan(&report.Bytes); err != nil {
		return err
	}
	d := &drawer{now: now, rows: settings.Rows}
	for _, q := range asked() {
		a, err := ask(ctx, db, d, q, settings.Asked)
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		if a.plan, err = plan(ctx, db, conn, q.draw(d)); err != nil {
			return fmt.Errorf("plan of %s: %w", q.name, err)
		}
		report.Answers = append(report.Answers, a)
		b.say(fmt.Sprintf("%s: list p99 %v, count p99 %v", q.name, percentile(a.lists, 99), percentile(a.counts, 99)))
	}
	return nil
}

// fill makes the days' partitions and their rows, a day on each processor at a time.
func fill(ctx context.Context, url string, now time.Time, rows int, say func(string)) error {
	filling, ctx := errgroup.WithContext(ctx)
	filling.SetLimit(runtime.NumCPU())
	for day := range days {
		filling.Go(func() error {
			at := now.AddDate(0, 0, day-days)
			if err := fillDay(ctx, url, at, rows/days*day, rows/days*(day+1)-1, now); err != nil {
				return fmt.Errorf("fill %s: %w", at.Format(time.DateOnly), err)
			}
			if day%10 == 9 {
				say(fmt.Sprintf("%d days are filled", day+1))
			}
			return nil
		})
	}
	return filling.Wait()
}

// fillDay makes a day's rows, and then its indexes by making it a partition.
func fillDay(ctx context.Context, url string, at time.Time, from, to int, now time.Time) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	name := "deliveries_" + at.Format("20060102")
	if _, err := conn.Exec(ctx, `SET synchronous_commit = off; SET maintenance_work_mem = '256MB'; SET max_parallel_maintenance_workers = 0;
		DROP TABLE IF EXISTS `+name+`; CREATE TABLE `+name+` (LIKE deliveries INCLUDING DEFAULTS INCLUDING STORAGE)`); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, strings.Replace(largeAudit, "deliveries", name, 1), from, to, at, now); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, fmt.Sprintf("ALTER TABLE deliveries ATTACH PARTITION %s FOR VALUES FROM ('%s 00:00+00') TO ('%s 00:00+00')",
		name, at.Format(time.DateOnly), at.AddDate(0, 0, 1).Format(time.DateOnly)))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "VACUUM ANALYZE "+name)
	return err
}

// ask puts a question often enough for a p99; the first answers, which fill caches, do not count.
func ask(ctx context.Context, db *pgstore.Store, d *drawer, q question, times int) (answered, error) {
	a := answered{name: q.name}
	for n := range times + 10 {
		filter, page := q.draw(d), store.Page{}
		if q.page {
			page.Cursor = store.Cursor(d.at(), "80000000-0000-4000-8000-000000000000")
		}
		began := time.Now()
		if _, _, err := db.Deliveries(ctx, webhook.DefaultTenant, filter, page); err != nil {
			return a, err
		}
		if n >= 10 {
			a.lists = append(a.lists, time.Since(began))
		}
	}
	for range max(1, times/100) {
		began := time.Now()
		if _, err := db.CountDeliveriesUpTo(ctx, webhook.DefaultTenant, q.draw(d), mostCounted); err != nil {
			return a, err
		}
		a.counts = append(a.counts, time.Since(began))
	}
	slices.Sort(a.lists)
	slices.Sort(a.counts)
	return a, nil
}

// plan is how the database finds the first page, with every partition's part but the first two left out.
func plan(ctx context.Context, db *pgstore.Store, conn *pgx.Conn, f store.DeliveryFilter) (string, error) {
	text, args, err := db.DeliveriesStatement(webhook.DefaultTenant, f, store.Page{})
	if err != nil {
		return "", err
	}
	rows, err := conn.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, SUMMARY ON) "+text, args...)
	if err != nil {
		return "", err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return abridged(lines), err
}

// abridged leaves out all but the first two of the partitions, whose parts of a plan are alike.
func abridged(lines []string) string {
	var kept []string
	parts := 0
	for _, line := range lines {
		if strings.Contains(line, " on deliveries_") {
			parts++
		}
		outside := !strings.HasPrefix(line, "              ")
		if parts <= 2 || outside {
			kept = append(kept, line)
		}
	}
	if parts > 2 {
		kept = append(kept, fmt.Sprintf("(… %d partitions in all)", parts))
	}
	return strings.Join(kept, "\n")
}

func percentile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)].Round(10 * time.Microsecond)
}
