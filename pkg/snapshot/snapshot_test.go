package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is an installation in memory whose network can be cut.
type bench struct {
	t       *testing.T
	network kfake.VirtualNetwork
	broker  *kfake.Cluster
	cluster *kafka.Cluster
	cut     atomic.Bool
}

const configTopic = "hookline.config"

func newBench(t *testing.T, topics ...string) *bench {
	t.Helper()
	b := &bench{t: t}
	var err error
	b.broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(b.network.Listen), kfake.SeedTopics(1, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.broker.Close)
	b.cluster = kafka.New(kafka.Config{Brokers: []string{"127.0.0.1:9092"}, TopicPrefix: "hookline."}, slog.New(slog.DiscardHandler),
		kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if b.cut.Load() {
				return nil, errors.New("the network is cut")
			}
			return b.network.DialContext(ctx, network, addr)
		}), kgo.FetchMaxWait(time.Second))
	return b
}

func (b *bench) produce(records ...*kgo.Record) {
	b.t.Helper()
	cl, err := b.cluster.Client(b.cluster.Producer()...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(b.t.Context(), records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) snapshot() *Snapshot {
	b.t.Helper()
	metrics, err := telemetry.NewMetrics(noop.NewMeterProvider())
	if err != nil {
		b.t.Fatal(err)
	}
	return New(Deps{Kafka: b.cluster, Log: slog.New(slog.DiscardHandler), Metrics: metrics})
}

// run runs the snapshot until the test ends.
func (b *bench) run(s *Snapshot) {
	ctx, stop := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
}

func config(kind wire.Kind, id string, value []byte) *kgo.Record {
	return &kgo.Record{Topic: configTopic, Key: []byte(wire.ConfigKey(kind, id)), Value: value}
}

func subscription(t *testing.T, sub webhook.Subscription) *kgo.Record {
	t.Helper()
	if sub.Tenant == "" {
		sub.Tenant = webhook.DefaultTenant
	}
	if sub.Status == "" {
		sub.Status = webhook.SubscriptionActive
	}
	value, err := wire.EncodeSubscription(&sub)
	if err != nil {
		t.Fatal(err)
	}
	return config(wire.KindSubscription, sub.ID, value)
}

func ids(subs []*webhook.Subscription) []string {
	out := []string{}
	for _, s := range subs {
		out = append(out, s.ID)
	}
	return out
}

func isReady(s *Snapshot) bool {
	select {
	case <-s.Ready():
		return true
	default:
		return false
	}
}

func TestAnEmptyTopicIsReadyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, configTopic)
		s := b.snapshot()
		b.run(s)
		<-s.Ready()
		if got := s.Offset(); got != -1 {
			t.Errorf("offset %d, want -1", got)
		}
	})
}

func TestItIsReadyWhenEverythingPublishedBeforeIsApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, configTopic)
		var records []*kgo.Record
		for i := range 2000 {
			records = append(records, subscription(t, webhook.Subscription{ID: strconv.Itoa(i), EventTypes: []string{"a.b"}}))
		}
		b.produce(records...)
		s := b.snapshot()
		if isReady(s) {
			t.Error("ready before it ran")
		}
		b.run(s)
		<-s.Ready()
		if got := len(match(s, webhook.DefaultTenant, "a.b")); got != 2000 {
			t.Errorf("%d subscriptions when ready, want 2000", got)
		}
		if got := s.Offset(); got != 1999 {
			t.Errorf("offset %d, want 1999", got)
		}
	})
}

func TestChangesAndDeletionsAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, configTopic)
		s := b.snapshot()
		b.run(s)
		<-s.Ready()

		hash := sha256.Sum256([]byte("token"))
		b.produce(
			config(wire.KindTenant, "acme", wire.EncodeTenant(&webhook.Tenant{ID: "acme"})),
			config(wire.KindSecret, "sec", wire.EncodeSecret(&webhook.Secret{ID: "sec", Tenant: "acme"})),
			config(wire.KindAPIKey, "key", wire.EncodeAPIKey(&webhook.APIKey{ID: "key", Tenant: "acme", Hash: hash})),
			subscription(t, webhook.Subscription{ID: "sub", Tenant: "acme", EventTypes: []string{"a.*"}}),
		)
		time.Sleep(time.Second)
		if _, ok := s.Tenant("acme"); !ok {
			t.Error("no tenant")
		}
		if _, ok := s.Secret("sec"); !ok {
			t.Error("no secret")
		}
		if k, ok := s.APIKey(hash); !ok || k.ID != "key" {
			t.Error("no API key")
		}
		if got := ids(match(s, "acme", "a.b")); !slices.Equal(got, []string{"sub"}) {
			t.Errorf("matches %v", got)
		}

		other := sha256.Sum256([]byte("another token"))
		b.produce(
			config(wire.KindAPIKey, "key", wire.EncodeAPIKey(&webhook.APIKey{ID: "key", Tenant: "acme", Hash: other})),
			subscription(t, webhook.Subscription{ID: "sub", Tenant: "acme", EventTypes: []string{"b"}}),
		)
		time.Sleep(time.Second)
		if _, ok := s.APIKey(hash); ok {
			t.Error("the old hash still finds the key")
		}
		if _, ok := s.APIKey(other); !ok {
			t.Error("the new hash does not find the key")
		}
		if got := ids(match(s, "acme", "a.b")); len(got) > 0 {
			t.Errorf("still matches %v", got)
		}

		b.produce(config(wire.KindTenant, "acme", nil), config(wire.KindSecret, "sec", nil), config(wire.KindAPIKey, "key", nil), config(wire.KindSubscription, "sub", nil))
		time.Sleep(time.Second)
		_, tenant := s.Tenant("acme")
		_, secret := s.Secret("sec")
		_, key := s.APIKey(other)
		_, sub := s.Subscription("sub")
		if tenant || secret || key || sub || len(match(s, "acme", "b")) > 0 {
			t.Errorf("left after deletion: tenant %v, secret %v, key %v, subscription %v", tenant, secret, key, sub)
		}
	})
}

func TestARecordThatCannotBeReadIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, configTopic)
		b.produce(
			&kgo.Record{Topic: configTopic, Key: []byte("nonsense"), Value: []byte("x")},
			config(wire.KindTenant, "t", []byte("\xff\xff")),
			config("planet", "earth", nil),
			config(wire.KindTenant, "other", wire.EncodeTenant(&webhook.Tenant{ID: "t"})),
			config(wire.KindTenant, "acme", wire.EncodeTenant(&webhook.Tenant{ID: "acme"})),
		)
		s := b.snapshot()
		b.run(s)
		<-s.Ready()
		if _, ok := s.Tenant("acme"); !ok {
			t.Error("the record behind the bad ones was not applied")
		}
		if _, ok := s.Tenant("t"); ok {
			t.Error("a value under another's key was applied")
		}
	})
}

func TestItIsReadyOnATopicThatEndsWithATransactionsMarker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, configTopic)
		cl, err := b.cluster.Client(append(b.cluster.Producer(), kgo.TransactionalID("writer"))...)
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		cl.Produce(t.Context(), config(wire.KindTenant, "acme", wire.EncodeTenant(&webhook.Tenant{ID: "acme"})), nil)
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		cl.Close()
		s := b.snapshot()
		b.run(s)
		<-s.Ready()
		if _, ok := s.Tenant("acme"); !ok {
			t.Error("no tenant")
		}
	})
}

func TestWithoutKafkaItWaitsAndThenReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, configTopic)
		b.produce(config(wire.KindTenant, "acme", wire.EncodeTenant(&webhook.Tenant{ID: "acme"})))
		b.cut.Store(true)
		s := b.snapshot()
		b.run(s)
		time.Sleep(2 * time.Minute)
		if isReady(s) {
			t.Fatal("ready without Kafka")
		}
		b.cut.Store(false)
		<-s.Ready()
		if _, ok := s.Tenant("acme"); !ok {
			t.Error("no tenant")
		}
	})
}

func TestAMissingTopicIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		s := b.snapshot()
		b.run(s)
		time.Sleep(time.Minute)
		if isReady(s) {
			t.Fatal("ready without a topic")
		}
		if err := b.broker.CreateTopic(configTopic, 1, nil); err != nil {
			t.Fatal(err)
		}
		<-s.Ready()
	})
}

func TestItStopsBeforeItIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, configTopic)
		b.cut.Store(true)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := b.snapshot().Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func match(s *Snapshot, tenant, eventType string) []*webhook.Subscription {
	matched, _ := s.Match(&webhook.Event{Tenant: tenant, Type: eventType})
	return matched
}

func TestAFilterDecidesAfterTheTypeAndChangesWithItsSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, configTopic)
		s := b.snapshot()
		b.run(s)
		<-s.Ready()
		filtered := func(filter string, version int64) *kgo.Record {
			return subscription(t, webhook.Subscription{ID: "sub", Tenant: "acme", EventTypes: []string{"a"}, Filter: []byte(filter), Version: version})
		}
		event := func(amount string) *webhook.Event {
			return &webhook.Event{Tenant: "acme", Type: "a", Data: []byte(`{"amount":` + amount + `}`)}
		}
		expect := func(what string, e *webhook.Event, matches, failures int) {
			t.Helper()
			time.Sleep(time.Second)
			if matched, failed := s.Match(e); len(matched) != matches || failed != failures {
				t.Errorf("%s: %d matches and %d failures, want %d and %d", what, len(matched), failed, matches, failures)
			}
		}
		b.produce(filtered(`{"data":{"amount":[{"numeric":[">",100]}]}}`, 1),
			subscription(t, webhook.Subscription{ID: "all", Tenant: "acme", Version: 1}))
		expect("above", event("101"), 2, 0)
		expect("below", event("99"), 1, 0)
		b.produce(filtered(`{"cel":"event.data.amount < 100"}`, 2))
		expect("changed, below", event("99"), 2, 0)
		expect("not to be evaluated", event(`"much"`), 1, 1)
		b.produce(filtered(`{"data":{"amount":[{"newer":1}]}}`, 3))
		expect("from a newer version", event("99"), 1, 1)
		b.produce(filtered(``, 4))
		expect("none", event("99"), 2, 0)
	})
}
