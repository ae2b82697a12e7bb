// Package store_test holds the Postgres store to the conformance suite on a real server, and to what only a real server shows:
// partitions, refused rows, locks between processes, connections that break.
package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/pgstore"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/store/storetest"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func open(t testing.TB, url string) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func migrated(t testing.TB) (*pgstore.Store, string) {
	t.Helper()
	url := testenv.Postgres(t)
	s := open(t, url)
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s, url
}

func exec(t testing.TB, url, statement string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestAStoreLeavesNoGoroutineBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	// Registered first, so it runs after the store has been closed.
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	s, _ := migrated(t)
	ran, err := s.OutboxLock(t.Context(), func(context.Context) error { return nil })
	if err != nil || !ran {
		t.Fatalf("lock: ran %v, %v", ran, err)
	}
}

func count(t testing.TB, url, query string, args ...any) (n int) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestPostgresStore(t *testing.T) {
	// One database for all: making one takes longer than most of the suite's tests.
	s, url := migrated(t)
	storetest.Run(t, func(t *testing.T) storetest.Store {
		exec(t, url, `DO $$ BEGIN EXECUTE (SELECT 'TRUNCATE ' || string_agg(quote_ident(relname), ', ') FROM pg_class
			WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'goose_db_version'); END $$`)
		return s
	})
}

func delivery(event string, at time.Time) store.Delivery {
	return store.Delivery{
		ID: webhook.DeliveryID("default", event, "s"), Tenant: "default", EventID: event, EventType: "a.b", SubscriptionID: "s", Profile: "fynapse",
		Trigger: webhook.TriggerEvent, Status: webhook.Pending, CreatedAt: at, UpdatedAt: at,
	}
}

func attempt(d store.Delivery, response string) webhook.Attempt {
	return webhook.Attempt{ID: uuid.Must(uuid.NewV7()), DeliveryID: d.ID, Tenant: d.Tenant, EventID: d.EventID, SubscriptionID: d.SubscriptionID,
		DeliveryCreatedAt: d.CreatedAt, Number: 1, StartedAt: time.Now(), Response: []byte(response), Outcome: webhook.Outcome{Status: webhook.Delivered}}
}

func TestEveryRowThatTheDatabaseRefusesIsNamedAndNothingIsWritten(t *testing.T) {
	const ofDeliveries, ofAttempts = `ALTER TABLE deliveries ADD CHECK (event_id <> 'refused');`, `ALTER TABLE attempts ADD CHECK (response <> 'refused');`
	for name, test := range map[string]struct {
		checks             string
		deliveries         int
		delivery, attempts bool // that are refused
	}{
		"a delivery": {ofDeliveries, 5, true, false}, "an attempt": {ofAttempts, 5, false, true}, "both": {ofDeliveries + ofAttempts, 5, true, true},
		"a delivery of many": {ofDeliveries, 1000, true, false}, "an attempt of many": {ofAttempts, 1000, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			s, url := migrated(t)
			exec(t, url, test.checks)
			b := &store.Batch{Offsets: map[store.TopicPartition]int64{{Topic: "t"}: 7}}
			for n := range test.deliveries {
				id := fmt.Sprintf("event-%d", n)
				if n == 2 {
					id = "refused"
				}
				d := delivery(id, time.Now())
				b.Deliveries = append(b.Deliveries, d)
				b.Attempts = append(b.Attempts, attempt(d, "x"+id), attempt(d, id))
			}
			var want []store.RefusedRow
			if test.delivery {
				want = append(want, store.RefusedRow{Table: store.TableDeliveries, Index: 2})
			}
			if test.attempts {
				want = append(want, store.RefusedRow{Table: store.TableAttempts, Index: 5})
			}
			err := s.Record(ctx, b)
			var refused *store.RefusedError
			if !errors.As(err, &refused) || len(refused.Rows) != len(want) {
				t.Fatalf("error %v", err)
			}
			for i, row := range refused.Rows {
				if row.Table != want[i].Table || row.Index != want[i].Index {
					t.Errorf("refused %+v", row)
				}
			}
			if n := count(t, url, `SELECT (SELECT count(*) FROM deliveries) + (SELECT count(*) FROM attempts) + (SELECT count(*) FROM consumer_offsets)`); n != 0 {
				t.Errorf("%d rows were written", n)
			}
			b.Deliveries = append(b.Deliveries[:2], b.Deliveries[3:]...)
			b.Attempts = append(b.Attempts[:5], b.Attempts[6:]...)
			if err := s.Record(ctx, b); err != nil {
				t.Errorf("without the refused rows: %v", err)
			}
			if n := count(t, url, `SELECT (SELECT count(*) FROM deliveries) + (SELECT count(*) FROM attempts)`); n != len(b.Deliveries)+len(b.Attempts) {
				t.Errorf("%d rows were written of the others", n)
			}
		})
	}
}

func TestRowsGoToThePartitionOfTheirDay(t *testing.T) {
	ctx := context.Background()
	s, url := migrated(t)
	now := time.Now().UTC()
	ancient := now.AddDate(-1, 0, 0)
	if err := s.Record(ctx, &store.Batch{Deliveries: []store.Delivery{delivery("now", now), delivery("ancient", ancient)}}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, url, `SELECT count(*) FROM deliveries_`+now.Format("20060102")); n != 1 {
		t.Errorf("%d rows in today's partition, want 1", n)
	}
	if n := count(t, url, `SELECT count(*) FROM deliveries_default`); n != 1 {
		t.Errorf("%d rows in the default partition, want 1", n)
	}
	// Where the day is made after all, its rows move there.
	if err := s.Maintain(ctx, ancient, store.Retention{}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, url, `SELECT count(*) FROM deliveries_default`); n != 0 {
		t.Errorf("%d rows stayed in the default partition", n)
	}
	if n := count(t, url, `SELECT count(*) FROM deliveries_`+ancient.Format("20060102")); n != 1 {
		t.Errorf("%d rows in the ancient partition, want 1", n)
	}
	if err := s.Maintain(ctx, now, store.Retention{Deliveries: 30 * 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, url, `SELECT count(*) FROM pg_class WHERE relname LIKE 'deliveries\_2%' AND relkind = 'r'`); n != 11 {
		t.Errorf("%d partitions, want the 7 days before today, today, and 3 ahead", n)
	}
	if n := count(t, url, `SELECT count(*) FROM deliveries`); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

func TestEachTableHasItsDaysAheadAndItsOwnRetention(t *testing.T) {
	ctx := context.Background()
	s, url := migrated(t)
	now := time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour)
	old, ancient, ahead := now.AddDate(0, 0, -20), now.AddDate(0, 0, -40), now.AddDate(0, 0, 9)
	tables := []string{"deliveries", "attempts", "events"}
	rows := func(table string, at time.Time) int {
		return count(t, url, `SELECT count(*) FROM `+table+` WHERE created_at = $1`, at)
	}
	inDefault := func(table string) int { return count(t, url, `SELECT count(*) FROM `+table+`_default`) }
	exists := func(table string, at time.Time) bool {
		return count(t, url, `SELECT count(*) FROM pg_inherits WHERE inhparent = $1::text::regclass AND inhrelid = to_regclass($2)`, table, table+at.Format("_20060102")) == 1
	}
	maintain := func(at time.Time, keep store.Retention) {
		t.Helper()
		if err := s.Maintain(ctx, at, keep); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range tables {
		for day := range 4 {
			if !exists(table, now.AddDate(0, 0, day)) {
				t.Errorf("%s has no partition for %d days ahead", table, day)
			}
		}
	}
	b := &store.Batch{}
	for _, at := range []time.Time{now, old, ancient, ahead} {
		d := delivery(at.String(), at)
		a := attempt(d, "x")
		a.ID, a.StartedAt = uuid.New(), at // only a version 7 says when it was made
		b.Deliveries, b.Attempts = append(b.Deliveries, d), append(b.Attempts, a)
		b.Events = append(b.Events, webhook.Event{ID: d.EventID, Tenant: d.Tenant, Type: "a.b", RecordedAt: at})
	}
	if err := s.Record(ctx, b); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if n := inDefault(table); n != 3 || exists(table, ahead) {
			t.Errorf("%d rows in the default partition of %s, want those of the three days without a partition", n, table)
		}
	}
	maintain(old, store.Retention{})
	maintain(ahead.AddDate(0, 0, -3), store.Retention{})
	for _, table := range tables {
		if n := inDefault(table); n != 1 || !exists(table, old) || !exists(table, ahead) || rows(table, ahead) != 1 {
			t.Errorf("%d rows in the default partition of %s, want only the ancient one", n, table)
		}
	}
	const keep = 10 * 24 * time.Hour
	gone := map[string]bool{}
	for i, retention := range []store.Retention{{Attempts: keep}, {Events: keep}, {Deliveries: keep}} {
		maintain(now, retention)
		gone[[]string{"attempts", "events", "deliveries"}[i]] = true
		for _, table := range tables {
			want := 1
			if gone[table] {
				want = 0
			}
			if rows(table, old) != want || rows(table, ancient) != want || exists(table, old) != (want == 1) || rows(table, now) != 1 || rows(table, ahead) != 1 {
				t.Errorf("after retention of %v: %d old rows and %d ancient ones in %s, want %d of each, and the newer ones", gone, rows(table, old), rows(table, ancient), table, want)
			}
		}
	}
}

func TestTwoProcessesMigrateAtOnce(t *testing.T) {
	url := testenv.Postgres(t)
	done := make(chan error)
	for range 3 {
		s := open(t, url)
		go func() { done <- s.Migrate(context.Background()) }()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestADatabaseThatIsNotMigratedIsUnavailableAndSaysHow(t *testing.T) {
	s := open(t, testenv.Postgres(t))
	for name, err := range map[string]error{
		"record": s.Record(context.Background(), &store.Batch{Deliveries: []store.Delivery{delivery("x", time.Now())}}),
		"tenant": s.PutTenant(context.Background(), webhook.Tenant{ID: "x"}),
	} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestADatabaseThatIsAwayIsUnavailable(t *testing.T) {
	s := open(t, "postgres://nobody@127.0.0.1:1/none")
	ctx := context.Background()
	_, err := s.Offsets(ctx, "x")
	_, lock := s.OutboxLock(ctx, func(context.Context) error { return nil })
	for name, err := range map[string]error{
		"offsets": err, "lock": lock, "ping": s.Ping(ctx), "record": s.Record(ctx, &store.Batch{}), "maintain": s.Maintain(ctx, time.Now(), store.Retention{}),
		"tenant": s.PutTenant(ctx, webhook.Tenant{ID: "x"}), "migrate": s.Migrate(ctx),
	} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestABrokenConnectionIsUnavailableOnceAndThenReplaced(t *testing.T) {
	ctx := context.Background()
	s, url := migrated(t)
	d := delivery("x", time.Now())
	if err := s.Record(ctx, &store.Batch{Deliveries: []store.Delivery{d}}); err != nil {
		t.Fatal(err)
	}
	exec(t, url, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	for range 12 {
		err := s.Record(ctx, &store.Batch{Deliveries: []store.Delivery{d}, Attempts: []webhook.Attempt{attempt(d, "x")}})
		if err == nil {
			return
		}
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("broken connection: %v", err)
		}
	}
	t.Error("the pool does not recover")
}

func TestTheRelayLockEndsWithItsConnection(t *testing.T) {
	ctx := context.Background()
	s, url := migrated(t)
	other := open(t, url)
	ran, err := s.OutboxLock(ctx, func(held context.Context) error {
		if ran, err := other.OutboxLock(ctx, func(context.Context) error { return nil }); ran || err != nil {
			t.Errorf("another process takes the lock: %t, %v", ran, err)
		}
		exec(t, url, `SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory'`)
		select {
		case <-held.Done():
			return held.Err()
		case <-time.After(20 * time.Second):
			t.Error("the holder does not notice")
			return nil
		}
	})
	if !ran || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("lost lock: %t, %v", ran, err)
	}
	if ran, err := other.OutboxLock(ctx, func(context.Context) error { return nil }); !ran || err != nil {
		t.Errorf("after it: %t, %v", ran, err)
	}
}

// A large batch is written in two transactions. That one of them loses against another process is no reason to try the other again.
func TestOnlyTheTransactionThatLostIsTriedAgain(t *testing.T) {
	s, url := migrated(t)
	exec(t, url, `CREATE SEQUENCE states; CREATE SEQUENCE happenings;
		CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('states'); RETURN NULL; END $$;
		CREATE FUNCTION loses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			PERFORM nextval('happenings'); RAISE serialization_failure; END $$;
		CREATE TRIGGER counts BEFORE INSERT ON deliveries FOR EACH STATEMENT EXECUTE FUNCTION counts();
		CREATE TRIGGER loses BEFORE INSERT ON attempts FOR EACH STATEMENT EXECUTE FUNCTION loses()`)
	batch, _ := traffic(1000, 0)
	var refused *pgconn.PgError
	if err := s.Record(context.Background(), &batch); !errors.As(err, &refused) || refused.Code != "40001" {
		t.Fatalf("a transaction that always loses: %v", err)
	}
	const tries = `SELECT nextval($1) - 1`
	if state, happened := count(t, url, tries, "states"), count(t, url, tries, "happenings"); state != 1 || happened != 5 {
		t.Errorf("the state was written %d times and what happened %d times, want 1 and 5", state, happened)
	}
	if rows := count(t, url, `SELECT count(*) FROM deliveries`); rows != 0 {
		t.Errorf("%d deliveries are there without what happened", rows)
	}
}
