package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/httpapi"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/kafka/kafkatest"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/snapshot"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

const testRing = "test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// table is what sources, connections and subscriptions a test has.
type table struct {
	sources     map[string]*snapshot.Source
	connections map[string]*webhook.Connection
	subs        []*webhook.Subscription
	secrets     map[string]*webhook.Secret
}

func newTable() *table {
	return &table{sources: map[string]*snapshot.Source{}, connections: map[string]*webhook.Connection{}, secrets: map[string]*webhook.Secret{}}
}

func (c *table) Source(id string) (*snapshot.Source, bool) {
	found, ok := c.sources[id]
	return found, ok
}

func (c *table) Connection(tenant, aggregator, remoteID string) (*webhook.Connection, bool) {
	found, ok := c.connections[webhook.ConnectionID(tenant, aggregator, remoteID)]
	return found, ok
}

func (c *table) Wanting(tenant, eventType string) (out []*webhook.Subscription) {
	for _, sub := range c.subs {
		if sub.Tenant == tenant && sub.Wants(eventType) {
			out = append(out, sub)
		}
	}
	return out
}

func (c *table) Match(e *webhook.Event) ([]*webhook.Subscription, int) {
	return c.Wanting(e.Tenant, e.Type), 0
}

func (c *table) Secret(id string) (*webhook.Secret, bool) {
	found, ok := c.secrets[id]
	return found, ok
}

func sealed(secret *webhook.Secret, value string) []webhook.SecretVersion {
	ring, err := seal.ParseRing(testRing)
	if err != nil {
		panic(err)
	}
	return []webhook.SecretVersion{{Number: 1, Sealed: ring.Seal(seal.Value(value), secret, 1)}}
}

// keys are the API keys of a test, by name; the token of a key is its name, made long enough.
type keys struct {
	*table
	ready chan struct{}
	byKey map[[32]byte]*webhook.APIKey
}

func token(name string) string { return "test-token-of-" + name }

func newKeys() *keys {
	k := &keys{table: newTable(), ready: make(chan struct{}), byKey: map[[32]byte]*webhook.APIKey{}}
	close(k.ready)
	add := func(name, tenant string, change func(*webhook.APIKey), permissions ...webhook.Permission) {
		key := &webhook.APIKey{ID: name, Tenant: tenant, Permissions: permissions}
		if change != nil {
			change(key)
		}
		k.byKey[apikey.Hash(token(name))] = key
	}
	add("publisher", "default", nil, webhook.PermissionPublish)
	add("acme", "acme", nil, webhook.PermissionPublish)
	add("reader", "default", nil, webhook.PermissionSubscriptionRead)
	add("revoked", "default", func(k *webhook.APIKey) { k.Revoked = true }, webhook.PermissionPublish)
	add("expired", "default", func(k *webhook.APIKey) { k.ExpiresAt = time.Unix(1, 0) }, webhook.PermissionPublish)
	return k
}

func (k *keys) Ready() <-chan struct{} { return k.ready }
func (k *keys) APIKey(hash [32]byte) (*webhook.APIKey, bool) {
	key, ok := k.byKey[hash]
	return key, ok
}

// world is a Kafka in memory and an ingest in front of it. It lives in a synctest bubble.
type world struct {
	*testing.T
	network kfake.VirtualNetwork
	fake    *kfake.Cluster
	cluster *kafka.Cluster
	client  *kgo.Client
	cut     atomic.Bool
	service *Service
	health  *health.Health
	reader  *sdkmetric.ManualReader
	stop    func()
	change  func(*Config, *Deps)
}

func inWorld(t *testing.T, change func(*Config, *Deps), test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, health: health.New()}
		var err error
		if w.fake, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.network.Listen),
			kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "1000"})); err != nil {
			t.Fatal(err)
		}
		defer w.fake.Close()
		open := func(dial func(context.Context, string, string) (net.Conn, error)) *kafka.Cluster {
			return kafka.New(kafka.Config{Brokers: []string{"127.0.0.1:9092"}, SessionTimeout: 10 * time.Second, TopicPrefix: "hookline."}, slog.New(slog.DiscardHandler), kgo.Dialer(dial))
		}
		w.cluster = open(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if w.cut.Load() {
				return nil, errors.New("the network is cut")
			}
			return w.network.DialContext(ctx, network, addr)
		})
		if w.client, err = open(w.network.DialContext).Client(); err != nil {
			t.Fatal(err)
		}
		defer w.client.Close()
		if err := kafka.Ensure(t.Context(), w.client, w.cluster.Topics.Specs(2), 1); err != nil {
			t.Fatal(err)
		}
		w.change = change
		w.start(change)
		defer func() { w.stop() }()
		test(t, w)
	})
}

func (w *world) start(change func(*Config, *Deps)) {
	w.Helper()
	w.reader = sdkmetric.NewManualReader()
	metrics, err := telemetry.NewMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(w.reader)))
	if err != nil {
		w.Fatal(err)
	}
	ring, err := seal.ParseRing(testRing)
	if err != nil {
		w.Fatal(err)
	}
	cfg := Config{Addr: "127.0.0.1:0", BufferBytes: 64 << 20, DrainTimeout: 5 * time.Second}
	deps := Deps{Log: slog.New(slog.DiscardHandler), Metrics: metrics, Health: w.health, Kafka: w.cluster, Snapshot: newKeys(), Keys: ring, Profiles: profile.Builtin(), Mounted: true}
	if change != nil {
		change(&cfg, &deps)
	}
	if w.service, err = New(cfg, deps); err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- w.service.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("Run: %v", err)
		}
	})
	time.Sleep(2 * time.Second)
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) problem(t *testing.T) (p httpapi.Problem) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != httpapi.ContentTypeProblem {
		t.Fatalf("%d %s is no problem document", a.status, a.body)
	}
	return p
}

// post sends an event as a key, with headers given as name, value, name, value.
func (w *world) post(key, body string, headers ...string) answer {
	if key != "" {
		headers = append([]string{"Authorization", "Bearer " + token(key)}, headers...)
	}
	return w.postTo("/v1/events", body, headers...)
}

func (w *world) postTo(path, body string, headers ...string) answer {
	r := httptest.NewRequestWithContext(w.Context(), http.MethodPost, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	w.service.Handler().ServeHTTP(recorder, r)
	return answer{recorder.Code, recorder.Header(), recorder.Body.String()}
}

// send writes a record.
func (w *world) send(name, key string, value []byte) {
	w.Helper()
	cl, err := w.cluster.Client(w.cluster.Producer()...)
	if err != nil {
		w.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(w.Context(), &kgo.Record{Topic: name, Key: []byte(key), Value: value}).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

// all reads what a topic holds now.
func (w *world) all(name string) []*kgo.Record {
	w.Helper()
	return kafkatest.Records(w, w.cluster, name)
}

// events returns what the topic holds now, as the router reads it.
func (w *world) events() (out []event.Decoded) {
	w.Helper()
	for _, r := range w.all(w.cluster.Topics.Events) {
		d, err := event.FromRecord(r)
		if err != nil {
			w.Fatalf("the router would reject it: %v", err)
		}
		out = append(out, d)
	}
	return out
}

func (w *world) byID() map[string]event.Decoded {
	w.Helper()
	out := map[string]event.Decoded{}
	for _, e := range w.events() {
		out[e.ID] = e
	}
	return out
}

// counted is a counter's value for an outcome and a reason.
func (w *world) counted(name, outcome, reason string) int64 {
	w.Helper()
	return w.countedAs(name, attribute.String("outcome", outcome), attribute.String("reason", reason))
}

func (w *world) countedAs(name string, labels ...attribute.KeyValue) int64 {
	w.Helper()
	var all metricdata.ResourceMetrics
	if err := w.reader.Collect(context.WithoutCancel(w.Context()), &all); err != nil {
		w.Fatal(err)
	}
	want := attribute.NewSet(labels...)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			for i := range sum.DataPoints {
				if ok && m.Name == name && sum.DataPoints[i].Attributes.Equals(&want) {
					return sum.DataPoints[i].Value
				}
			}
		}
	}
	return 0
}
