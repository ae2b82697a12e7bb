package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/sqlitestore"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bootstrapToken = "bootstrap-key-of-the-tests"

func testConfig() Config {
	return Config{Addr: "127.0.0.1:0", BootstrapKey: bootstrapToken, DrainTimeout: 5 * time.Second, OutboxPoll: 20 * time.Millisecond}
}

// database is the store together with what only tests and other services call.
type database interface {
	Store
	Record(ctx context.Context, batch *store.Batch) error
}

func openStore(t *testing.T) database {
	t.Helper()
	db, err := sqlitestore.Open(t.Context(), "sqlite://"+filepath.Join(t.TempDir(), "hookline.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

// openKafka is a broker with Hookline's topics.
func openKafka(t *testing.T) (*kfake.Cluster, *kafka.Cluster) {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	cluster := clusterAt(broker.ListenAddrs()...)
	client, err := cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := kafka.Ensure(t.Context(), client, cluster.Topics.Specs(1), 1); err != nil {
		t.Fatal(err)
	}
	return broker, cluster
}

func clusterAt(addrs ...string) *kafka.Cluster {
	return kafka.New(kafka.Config{Brokers: addrs, SessionTimeout: 10 * time.Second, TopicPrefix: "hookline."}, slog.New(slog.DiscardHandler))
}

func testDeps(t *testing.T, db Store, cluster *kafka.Cluster) Deps {
	t.Helper()
	metrics, err := telemetry.NewMetrics(noop.NewMeterProvider())
	if err != nil {
		t.Fatal(err)
	}
	ring, err := seal.ParseRing(seal.NewKey("k1"))
	if err != nil {
		t.Fatal(err)
	}
	guard, err := egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	return Deps{
		Log: slog.New(slog.DiscardHandler), Metrics: metrics, Tracer: tracenoop.NewTracerProvider().Tracer(""), Health: health.New(),
		Kafka: cluster, Store: db, Ring: ring, Profiles: profile.Builtin(), Endpoint: guard,
	}
}

// running is a service that serves and relays, and what is behind it.
type running struct {
	t       *testing.T
	service *Service
	db      database
	broker  *kfake.Cluster
	kafka   *kafka.Cluster
	health  *health.Health
	base    string
	client  *http.Client
	stop    func() error
}

// start runs a service; change may alter its parts first.
func start(t *testing.T, change ...func(*Config, *Deps)) *running {
	t.Helper()
	db := openStore(t)
	broker, cluster := openKafka(t)
	cfg, deps := testConfig(), testDeps(t, db, cluster)
	for _, c := range change {
		c(&cfg, &deps)
	}
	r := launch(t, cfg, deps)
	r.db, r.broker, r.kafka = db, broker, cluster
	eventually(t, "the bootstrap key works", func() bool { return r.call(http.MethodGet, "/secrets", nil).status == http.StatusOK })
	return r
}

func launch(t *testing.T, cfg Config, deps Deps) *running {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	deps.Listener = listener
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	r := &running{
		t: t, service: s, health: deps.Health, base: "http://" + listener.Addr().String() + Base,
		client: &http.Client{Transport: transport, Timeout: 20 * time.Second},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	var stopErr error
	r.stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			transport.CloseIdleConnections()
			stopErr = <-ended
		}
		return stopErr
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// assembled is a service that has not been run and has no store.
func assembled(t *testing.T) *Service {
	t.Helper()
	s, err := New(testConfig(), testDeps(t, struct{ Store }{}, clusterAt("127.0.0.1:1")))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answer is a response, its body as JSON where it is.
type answer struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

func (a answer) code() string { return a.str("code") }

func (a answer) str(name string) string {
	s, _ := a.body[name].(string)
	return s
}

// pointers are the places that a problem names.
func (a answer) pointers() []string {
	var out []string
	list, _ := a.body["errors"].([]any)
	for _, e := range list {
		entry, _ := e.(map[string]any)
		if parameter, ok := entry["parameter"].(string); ok {
			out = append(out, "?"+parameter)
		} else {
			out = append(out, entry["pointer"].(string))
		}
	}
	return out
}

func (a answer) items() []map[string]any {
	list, _ := a.body["items"].([]any)
	out := make([]map[string]any, 0, len(list))
	for _, item := range list {
		out = append(out, item.(map[string]any))
	}
	return out
}

// call asks with the bootstrap key. A string body is sent as it is, anything else as JSON.
func (r *running) call(method, path string, body any, headers ...string) answer {
	r.t.Helper()
	return r.callAs(bootstrapToken, method, path, body, headers...)
}

func (r *running) callAs(token, method, path string, body any, headers ...string) answer {
	r.t.Helper()
	var content io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		content = strings.NewReader(body)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			r.t.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.base+path, content)
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.client.Do(request)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, text: string(text)}
	_ = json.Unmarshal(text, &a.body)
	return a
}

// must is a call that has to be answered with the status.
func (r *running) must(status int, method, path string, body any, headers ...string) answer {
	r.t.Helper()
	a := r.call(method, path, body, headers...)
	if a.status != status {
		r.t.Fatalf("%s %s: got %d %s", method, path, a.status, a.text)
	}
	return a
}

// key makes a key of a tenant directly in the store.
func (r *running) key(tenant string, permissions ...webhook.Permission) string {
	r.t.Helper()
	token, hash := apikey.New()
	k := webhook.APIKey{ID: newID(), Tenant: tenant, Name: "test", Hash: hash, Permissions: permissions, CreatedAt: now()}
	if err := r.db.PutAPIKey(r.t.Context(), k); err != nil {
		r.t.Fatal(err)
	}
	return token
}

const endpoint = "https://127.0.0.1/hook"

// subscribe makes a subscription and returns its id.
func (r *running) subscribe(name string) string {
	r.t.Helper()
	return r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": name, "endpointUrl": endpoint}).str("id")
}

// records reads a topic from its beginning until there are n records.
func (r *running) records(topic string, n int) []*kgo.Record {
	r.t.Helper()
	client, err := r.kafka.Client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			r.t.Fatalf("%s has %d records, want %d", topic, len(records), n)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// eventually asks again until it is so. It waits on real servers; what is about time runs in synctest.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("not so in 10 s: %s", what)
		}
		<-tick.C
	}
}
