package recorder

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/sqlitestore"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Kafka and a database in memory, each of which can be away. It lives in a synctest bubble.
type world struct {
	*testing.T
	cluster *kafka.Cluster
	client  *kgo.Client
	topics  topic.Names
	reader  *sdkmetric.ManualReader
	metrics *telemetry.Metrics
	health  *health.Health
	db      *fickle
	path    string
	log     *lines
	cut     atomic.Bool
}

// fickle is a database that can be away.
type fickle struct {
	*sqlitestore.Store
	away, readOnly atomic.Bool // readOnly: batches cannot be written, everything else can
	updates        atomic.Int64
}

func (f *fickle) gone() error {
	if f.away.Load() {
		return fmt.Errorf("connect: %w", store.ErrUnavailable)
	}
	return nil
}

func (f *fickle) Ping(ctx context.Context) error { return errors.Join(f.gone(), f.Store.Ping(ctx)) }

func (f *fickle) UpdateSubscription(ctx context.Context, tenant, id string, change func(*webhook.Subscription) error) (webhook.Subscription, error) {
	f.updates.Add(1)
	return f.Store.UpdateSubscription(ctx, tenant, id, change)
}

func (f *fickle) Record(ctx context.Context, b *store.Batch) error {
	if err := f.gone(); err != nil || f.readOnly.Load() {
		return errors.Join(err, store.ErrUnavailable)
	}
	return f.Store.Record(ctx, b)
}

func (f *fickle) Offsets(ctx context.Context, topics ...string) (map[store.TopicPartition]int64, error) {
	if err := f.gone(); err != nil {
		return nil, err
	}
	return f.Store.Offsets(ctx, topics...)
}

// lines counts log lines by message.
type lines struct {
	slog.Handler
	mu    sync.Mutex
	count map[string]int
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return slog.DiscardHandler }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count[r.Message]++
	return nil
}

func (l *lines) of(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count[message]
}

// settle gives recorders the time to read and write what there is: a fetch that has begun may wait for five seconds before the next one
// asks for a partition that has come since.
func settle() { time.Sleep(15 * time.Second) }

func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen),
			kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "1000"}))
		must(t, err)
		defer fake.Close()
		w := &world{T: t, log: &lines{count: map[string]int{}}, health: health.New(), reader: sdkmetric.NewManualReader(), db: &fickle{}}
		open := func(dial func(context.Context, string, string) (net.Conn, error)) *kafka.Cluster {
			return kafka.New(kafka.Config{Brokers: []string{"127.0.0.1:9092"}, SessionTimeout: 10 * time.Second, TopicPrefix: "hookline."},
				slog.New(slog.DiscardHandler), kgo.Dialer(dial), kgo.FetchMaxWait(5*time.Second))
		}
		w.cluster = open(func(ctx context.Context, name, addr string) (net.Conn, error) {
			if w.cut.Load() {
				return nil, errors.New("the network is cut")
			}
			return network.DialContext(ctx, name, addr)
		})
		w.topics = w.cluster.Topics
		w.client, err = open(network.DialContext).Client(w.cluster.Producer()...)
		must(t, err)
		defer w.client.Close()
		must(t, kafka.Ensure(t.Context(), w.client, w.topics.Specs(3), 1))
		w.metrics, err = telemetry.NewMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(w.reader)))
		must(t, err)
		w.path = filepath.Join(t.TempDir(), "hookline.db")
		w.db.Store, err = sqlitestore.Open(t.Context(), "sqlite://"+w.path)
		must(t, err)
		defer w.db.Close()
		must(t, w.db.Migrate(t.Context()))
		test(t, w)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var settings = Config{
	Batch: 1000, Linger: 100 * time.Millisecond, FailingAfter: 3, FailingSpan: time.Minute, Quiet: 5 * time.Minute, DrainTimeout: 20 * time.Second,
}

func (w *world) service() *Service {
	w.Helper()
	s, err := New(settings, Deps{Log: slog.New(w.log), Metrics: w.metrics, Health: w.health, Kafka: w.cluster, Store: w.db, Profiles: profile.Builtin()})
	must(w.T, err)
	return s
}

// start runs a recorder until the returned function is called, which returns when it has ended. Calling it again is harmless.
func (w *world) start() (stop func()) { return w.run(w.service()) }

func (w *world) run(s *Service) (stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return sync.OnceFunc(func() {
		w.Helper()
		cancel()
		if err := <-done; err != nil {
			w.Errorf("run: %v", err)
		}
	})
}

func (w *world) produce(records ...*kgo.Record) {
	w.Helper()
	must(w.T, w.client.ProduceSync(context.Background(), records...).FirstErr())
}

// sql changes the database behind the recorder's back.
func (w *world) sql(statements ...string) {
	w.Helper()
	db, err := sql.Open("sqlite", "file:"+w.path+"?_pragma=busy_timeout(5000)")
	must(w.T, err)
	defer func() { _ = db.Close() }()
	for _, statement := range statements {
		_, err := db.ExecContext(context.Background(), statement)
		must(w.T, err)
	}
}

func (w *world) rows() []store.Delivery {
	w.Helper()
	rows, _, err := w.db.Deliveries(context.Background(), webhook.DefaultTenant, store.DeliveryFilter{}, store.Page{Limit: 1000})
	must(w.T, err)
	return rows
}

func (w *world) row(d *webhook.Delivery) store.Delivery {
	w.Helper()
	row, err := w.db.Delivery(context.Background(), webhook.DefaultTenant, d.ID)
	must(w.T, err)
	return row
}

// rejected reads the rejected topic from its start.
func (w *world) rejected(n int) []*kgo.Record {
	w.Helper()
	cl, err := w.cluster.Client(kgo.ConsumeTopics(w.topics.Rejected), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	must(w.T, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n && ctx.Err() == nil {
		records = append(records, cl.PollFetches(ctx).Records()...)
	}
	if len(records) != n {
		w.Fatalf("%d rejected records, want %d", len(records), n)
	}
	return records
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// value reads a metric: the sum, or the last value, of a series.
func (w *world) value(name string, labels string) float64 {
	w.Helper()
	var all metricdata.ResourceMetrics
	must(w.T, w.reader.Collect(context.Background(), &all))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					if p.Attributes.Encoded(labelEncoder{}) == labels {
						return float64(p.Value)
					}
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					if p.Attributes.Encoded(labelEncoder{}) == labels {
						return float64(p.Value)
					}
				}
			case metricdata.Gauge[float64]:
				return data.DataPoints[0].Value
			}
		}
	}
	return -1
}

func newDelivery(event string) *webhook.Delivery {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return &webhook.Delivery{
		ID: webhook.DeliveryID(webhook.DefaultTenant, event, "sub"), SubscriptionID: "sub", Profile: "fynapse", ProfileVersion: 1, CreatedAt: now,
		Trigger: webhook.TriggerEvent, Event: webhook.Event{ID: event, Type: "a.b", Tenant: webhook.DefaultTenant, Data: []byte(`{"n":1.0}`), Timestamp: now, RecordedAt: now},
	}
}

func newAttempt(d *webhook.Delivery, number uint32, status webhook.Status) *webhook.Attempt {
	return &webhook.Attempt{
		ID: uuid.Must(uuid.NewV7()), DeliveryID: d.ID, Tenant: d.Event.Tenant, EventID: d.Event.ID, EventType: d.Event.Type, SubscriptionID: d.SubscriptionID,
		Profile: d.Profile, ProfileVersion: d.ProfileVersion, Trigger: d.Trigger, DeliveryCreatedAt: d.CreatedAt, Number: number, Try: 1,
		StartedAt: time.Now().UTC(), Duration: time.Second, StatusCode: 503, Outcome: webhook.Outcome{Status: status, Reason: webhook.ReasonHTTPStatus},
	}
}

func (w *world) delivery(d *webhook.Delivery) *kgo.Record {
	return &kgo.Record{Topic: w.topics.Deliveries, Key: []byte(d.ID.String()), Value: wire.EncodeDelivery(d)}
}

func (w *world) attempt(a *webhook.Attempt) *kgo.Record {
	return &kgo.Record{Topic: w.topics.Attempts, Key: []byte(a.SubscriptionID), Value: wire.EncodeAttempt(a)}
}

func (w *world) deadLetter(d *webhook.Delivery) *kgo.Record {
	return &kgo.Record{Topic: w.topics.DeadLetters, Key: []byte(d.SubscriptionID), Value: wire.EncodeDeadLetter(&wire.DeadLetter{
		Delivery: *d, Reason: webhook.ReasonAttemptsExhausted, StatusCode: 500,
	})}
}

// deliveries makes records of many deliveries.
func (w *world) deliveries(from, to int) (records []*kgo.Record) {
	for i := from; i < to; i++ {
		records = append(records, w.delivery(newDelivery(fmt.Sprintf("event-%03d", i))))
	}
	return records
}

func (w *world) unmet() string {
	var names []string
	for name := range w.health.Unmet() {
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
