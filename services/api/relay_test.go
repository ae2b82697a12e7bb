package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

var errDied = errors.New("the process died here")

// relayTo is a relay of its own, as another process has it.
func relayTo(t *testing.T, outbox Outbox, cluster *kafka.Cluster) *relay {
	t.Helper()
	client, err := cluster.Client(cluster.Producer()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &relay{
		outbox: outbox, topic: cluster.Topics.Config, poll: time.Hour, wake: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler),
		publish: func(ctx context.Context, records ...*kgo.Record) (kgo.ProduceResults, error) {
			results := client.ProduceSync(ctx, records...)
			return results, results.FirstErr()
		},
	}
}

func putTenants(t *testing.T, db Tenants, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := db.PutTenant(t.Context(), webhook.Tenant{ID: id, Name: id, DefaultProfile: "fynapse", CreatedAt: when}); err != nil {
			t.Fatal(err)
		}
	}
}

func waiting(t *testing.T, db Outbox) int {
	t.Helper()
	rows, err := db.Outbox(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}

func keysOf(records []*kgo.Record) string {
	keys := make([]string, len(records))
	for i, r := range records {
		_, keys[i], _ = wire.ParseConfigKey(string(r.Key))
	}
	return strings.Join(keys, " ")
}

// C1: the change is committed, and the process dies before Kafka hears of it.
func TestTheNextProcessPublishesWhatTheLastCommitted(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	_, cluster := openKafka(t)
	putTenants(t, db, "a", "b", "c")
	if err := relayTo(t, db, cluster).flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, kafka: cluster}
	if got := keysOf(r.records(cluster.Topics.Config, 3)); got != "a b c" {
		t.Errorf("got %s", got)
	}
	if n := waiting(t, db); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// forgetful is an outbox whose process dies after Kafka has acknowledged.
type forgetful struct{ Store }

func (forgetful) Published(context.Context, int64) error { return errDied }

func TestDyingAfterTheAcknowledgementPublishesTheSameAgain(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	_, cluster := openKafka(t)
	putTenants(t, db, "a", "b")
	if err := relayTo(t, forgetful{db}, cluster).flush(t.Context()); !errors.Is(err, errDied) {
		t.Fatalf("got %v", err)
	}
	putTenants(t, db, "c")
	if err := relayTo(t, db, cluster).flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, kafka: cluster}
	if got := keysOf(r.records(cluster.Topics.Config, 5)); got != "a b a b c" {
		t.Errorf("got %s", got)
	}
}

func TestWhatKafkaTookOfABatchIsNotSentAgain(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	_, cluster := openKafka(t)
	putTenants(t, db, "a", "b", "c", "d")
	r := relayTo(t, db, cluster)
	whole := r.publish
	r.publish = func(ctx context.Context, records ...*kgo.Record) (kgo.ProduceResults, error) {
		results, _ := whole(ctx, records[:2]...)
		for _, rest := range records[2:] {
			results = append(results, kgo.ProduceResult{Record: rest, Err: errDied})
		}
		return results, errDied
	}
	if err := r.flush(t.Context()); !errors.Is(err, errDied) {
		t.Fatalf("got %v", err)
	}
	if n := waiting(t, db); n != 2 {
		t.Fatalf("%d rows are left", n)
	}
	r.publish = whole
	if err := r.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := keysOf((&running{t: t, kafka: cluster}).records(cluster.Topics.Config, 4)); got != "a b c d" {
		t.Errorf("got %s", got)
	}
}

func TestSeveralRelaysKeepTheOrder(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	_, cluster := openKafka(t)
	const changes = 200
	ctx, cancel := context.WithCancel(t.Context())
	var relays sync.WaitGroup
	for range 3 {
		r := relayTo(t, db, cluster)
		r.poll = time.Millisecond
		relays.Go(func() { r.run(ctx, t.Context()) })
	}
	for i := range changes {
		tenant := webhook.Tenant{ID: "a", Name: fmt.Sprint(i), DefaultProfile: "fynapse", CreatedAt: when}
		if err := db.PutTenant(t.Context(), tenant); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "everything is published", func() bool { return waiting(t, db) == 0 })
	cancel()
	relays.Wait()
	for i, record := range (&running{t: t, kafka: cluster}).records(cluster.Topics.Config, changes) {
		got, err := wire.DecodeConfig(record.Value)
		if err != nil || got.(*webhook.Tenant).Name != fmt.Sprint(i) {
			t.Fatalf("record %d is %v, %v", i, got, err)
		}
	}
}

// lines counts log lines.
type lines struct {
	slog.Handler
	n int
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

func (l *lines) Handle(context.Context, slog.Record) error {
	l.n++
	return nil
}

// memoryOutbox holds rows in memory: what this test is about is time, not SQL.
type memoryOutbox struct{ rows []store.OutboxRecord }

func (m *memoryOutbox) Outbox(context.Context, int) ([]store.OutboxRecord, error) { return m.rows, nil }

func (m *memoryOutbox) Published(context.Context, int64) error {
	m.rows = nil
	return nil
}

func (m *memoryOutbox) OutboxLock(ctx context.Context, f func(context.Context) error) (bool, error) {
	return true, f(ctx)
}

func TestKafkaAwayIsOneLineAMinuteAndNothingLost(t *testing.T) {
	t.Parallel()
	rows := []store.OutboxRecord{{ID: 1, Key: "tenant/a"}}
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		away := time.Now().Add(10*time.Minute + time.Second)
		var published int
		r := &relay{
			outbox: &memoryOutbox{rows: rows}, topic: "config", poll: 500 * time.Millisecond, wake: make(chan struct{}, 1), log: slog.New(log),
			publish: func(_ context.Context, records ...*kgo.Record) (kgo.ProduceResults, error) {
				if time.Now().Before(away) {
					return kgo.ProduceResults{{Record: records[0], Err: errDied}}, errDied
				}
				published += len(records)
				return kgo.ProduceResults{{Record: records[0]}}, nil
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		r.run(ctx, t.Context())
		if published != 1 || log.n != 11 {
			t.Errorf("published %d, %d lines", published, log.n)
		}
	})
}

func TestAChangeIsPublishedAtOnce(t *testing.T) {
	t.Parallel()
	r := start(t, func(cfg *Config, _ *Deps) { cfg.OutboxPoll = time.Hour })
	r.subscribe("s")
	records := r.records(r.kafka.Topics.Config, 4)
	kinds := map[wire.Kind]int{}
	for _, record := range records {
		kind, _, _ := wire.ParseConfigKey(string(record.Key))
		kinds[kind]++
	}
	if kinds[wire.KindTenant] != 1 || kinds[wire.KindAPIKey] != 1 || kinds[wire.KindSecret] != 1 || kinds[wire.KindSubscription] != 1 {
		t.Errorf("got %v", kinds)
	}
}

func TestAChangeOfAnotherProcessIsPublished(t *testing.T) {
	t.Parallel()
	r := start(t)
	putTenants(t, r.db, "other")
	if got := keysOf(r.records(r.kafka.Topics.Config, 3)); !strings.HasSuffix(got, " other") {
		t.Errorf("got %s", got)
	}
}

func TestTheLastChangeBeforeAStopIsPublished(t *testing.T) {
	t.Parallel()
	r := start(t)
	id := r.subscribe("s")
	r.must(http.StatusNoContent, http.MethodDelete, "/subscriptions/"+id, nil)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if n := waiting(t, r.db); n != 0 {
		t.Errorf("%d changes are left", n)
	}
	records := r.records(r.kafka.Topics.Config, 5)
	if last := records[len(records)-1]; len(records) != 5 || string(last.Key) != wire.ConfigKey(wire.KindSubscription, id) || last.Value != nil {
		t.Errorf("got %s", keysOf(records))
	}
}
