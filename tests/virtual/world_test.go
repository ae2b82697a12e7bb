// Package virtual runs the whole pipeline, every service of it, in one process and in virtual time: days of retries in
// about a second, with failures as arguments.
package virtual

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/snapshot"
	"github.com/hookline/hookline/pkg/sqlitestore"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/services/api"
	"github.com/hookline/hookline/services/delivery"
	"github.com/hookline/hookline/services/ingest"
	"github.com/hookline/hookline/services/recorder"
	"github.com/hookline/hookline/services/router"
	"github.com/hookline/hookline/services/scheduler"
)

const (
	apiKey     = "bootstrap-key-of-virtual-time"
	brokerAddr = "127.0.0.1:9092"
	hookAddr   = "127.0.0.1:8443"
	hookURL    = "https://" + hookAddr
)

// arrival is one request that an endpoint got.
type arrival struct {
	at     time.Time
	path   string
	header http.Header
	body   []byte
}

// endpoint answers the n-th request (from 1) to a path.
type endpoint func(path string, n int) (status int, header map[string]string)

// world is a Hookline in a bubble: kfake, miniredis, SQLite, and endpoints behind an in-memory network.
type world struct {
	*testing.T
	network  kfake.VirtualNetwork
	broker   *kfake.Cluster
	redis    *miniredis.Miniredis
	cluster  *kafka.Cluster
	client   *kgo.Client
	store    *sqlitestore.Store
	metrics  *telemetry.Metrics
	keys     *seal.Ring
	profiles *profile.Catalog
	guard    *egress.Guard
	log      *slog.Logger
	api      http.Handler
	ingest   http.Handler

	authorities *x509.CertPool
	services    map[string]func() service
	running     map[string]started

	mu       sync.Mutex
	answer   endpoint
	arrivals []arrival
}

// inWorld runs a test in a bubble in which every service is up.
func inWorld(t *testing.T, answer endpoint, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, answer: answer, log: testLog(), profiles: profile.Builtin(), running: map[string]started{}}
		w.openServers()
		w.serveEndpoints()
		w.openServices()
		w.start("snapshot", "api", "router", "delivery", "scheduler", "recorder")
		defer func() { w.stop(slices.Collect(maps.Keys(w.running))...) }()
		test(w)
	})
}

// TestMain lets memory grow: days of idle loops make garbage only, and collecting it took a third of the time.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	m.Run()
}

func testLog() *slog.Logger {
	if os.Getenv("TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (w *world) openServers() {
	w.broker = must(kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.network.Listen), kfake.BrokerConfigs(map[string]string{
		"group.consumer.heartbeat.interval.ms": "60000", "group.consumer.session.timeout.ms": "600000", "group.consumer.max.session.timeout.ms": "600000",
	})))
	w.Cleanup(w.broker.Close)
	w.redis = miniredis.NewMiniRedis()
	w.redis.ClockTTL(true)
	w.Cleanup(w.redis.Close)
	// Long fetches and heartbeats: in virtual time it is the idle polls that cost.
	w.cluster = kafka.New(kafka.Config{Brokers: []string{brokerAddr}, SessionTimeout: 10 * time.Minute, TopicPrefix: "hookline."}, w.log,
		kgo.Dialer(w.network.DialContext), kgo.FetchMaxWait(5*time.Minute), kgo.MetadataMaxAge(time.Hour))
	w.client = must(w.cluster.Client(w.cluster.Producer()...))
	w.Cleanup(w.client.Close)
	if err := kafka.Ensure(w.Context(), w.client, w.cluster.Topics.Specs(2), 1); err != nil {
		w.Fatal(err)
	}
	w.store = must(sqlitestore.Open(w.Context(), "sqlite://"+filepath.Join(w.TempDir(), "hookline.db")))
	w.Cleanup(w.store.Close)
	if err := w.store.Migrate(w.Context()); err != nil {
		w.Fatal(err)
	}
	w.metrics = must(telemetry.NewMetrics(noopmetric.NewMeterProvider()))
	w.keys = must(seal.ParseRing(seal.NewKey("test")))
	w.guard = must(egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, egress.WithDialer(w.network.DialContext)))
}

func (w *world) serveEndpoints() {
	listener := must(w.network.Listen("tcp", hookAddr))
	counts := map[string]int{}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body := must(io.ReadAll(r.Body))
		w.mu.Lock()
		counts[r.URL.Path]++
		n := counts[r.URL.Path]
		w.arrivals = append(w.arrivals, arrival{time.Now(), r.URL.Path, r.Header.Clone(), body})
		w.mu.Unlock()
		status, header := w.answer(r.URL.Path, n)
		for name, value := range header {
			rw.Header().Set(name, value)
		}
		rw.WriteHeader(status)
	})}
	var certificate tls.Certificate
	certificate, w.authorities = selfSigned()
	// A pipe holds nothing: a ticket sent behind the server's part of the handshake would wait for a client that is writing too.
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	w.Cleanup(func() { _ = server.Close() })
}

// selfSigned is the certificate of the endpoints, and who must be trusted for it.
func selfSigned() (tls.Certificate, *x509.CertPool) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	pool := x509.NewCertPool()
	pool.AddCert(must(x509.ParseCertificate(der)))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// service is what main runs.
type service interface {
	Run(ctx context.Context) error
}

// started is a service that runs.
type started struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// openServices makes what services share, and says how each of them is made.
func (w *world) openServices() {
	state := health.New()
	tracer := nooptrace.NewTracerProvider().Tracer("")
	applied := snapshot.New(snapshot.Deps{Kafka: w.cluster, Log: w.log, Metrics: w.metrics})
	index := must(retryqueue.Open("redis://127.0.0.1:6379/0?protocol=2", retryqueue.Options{
		Prefix: "hookline.", Embedded: true,
		Dialer: func(context.Context, string, string) (net.Conn, error) { return w.redis.Dial() },
	}))
	w.Cleanup(func() { _ = index.Close() })
	transport := w.guard.Transport()
	transport.TLSClientConfig.RootCAs = w.authorities
	w.Cleanup(transport.CloseIdleConnections)
	drain := 20 * time.Second
	w.services = map[string]func() service{
		"snapshot": func() service { return applied },
		"api": func() service {
			control := must(api.New(
				api.Config{Addr: "127.0.0.1:0", BootstrapKey: apiKey, DrainTimeout: time.Second, OutboxPoll: time.Minute},
				api.Deps{Log: w.log, Metrics: w.metrics, Tracer: tracer, Health: state, Kafka: w.cluster, Store: w.store, Ring: w.keys, Profiles: w.profiles, Endpoint: w.guard, Waiting: index, Mounted: true}))
			w.api = control.Handler()
			return control
		},
		"ingest": func() service {
			inbound := must(ingest.New(ingest.Config{Addr: "127.0.0.1:0", BufferBytes: 64 << 20, DrainTimeout: drain},
				ingest.Deps{Log: w.log, Metrics: w.metrics, Tracer: tracer, Health: state, Kafka: w.cluster, Snapshot: applied, Keys: w.keys, Profiles: w.profiles, Mounted: true}))
			w.ingest = inbound.Handler()
			return inbound
		},
		"router": func() service {
			return must(router.New(router.Config{DrainTimeout: drain}, router.Deps{Log: w.log, Metrics: w.metrics, Tracer: tracer, Health: state, Kafka: w.cluster, Snapshot: applied, Profiles: w.profiles}))
		},
		"delivery": func() service {
			return must(delivery.New(
				delivery.Config{MaxInflight: 64, EndpointInflight: 16, WindowRecords: 2000, WindowBytes: 32 << 20, RememberedTrips: 10_000, ResponseBytes: 1024, DrainTimeout: drain},
				delivery.Deps{Log: w.log, Metrics: w.metrics, Tracer: tracer, Health: state, Kafka: w.cluster, Snapshot: applied, Profiles: w.profiles, Keys: w.keys, Transport: transport}))
		},
		"scheduler": func() service {
			return must(scheduler.New(scheduler.Config{Inflight: 100, CacheBytes: 1 << 20, Lease: 30 * time.Second, DrainTimeout: drain},
				scheduler.Deps{Log: w.log, Metrics: w.metrics, Health: state, Kafka: w.cluster, Index: index, LongestDelay: w.profiles.LongestDelay()}))
		},
		"recorder": func() service {
			return must(recorder.New(recorder.Config{Batch: 1000, Linger: 100 * time.Millisecond, DrainTimeout: drain},
				recorder.Deps{Log: w.log, Metrics: w.metrics, Health: state, Kafka: w.cluster, Store: w.store, Profiles: w.profiles}))
		},
	}
}

// start runs services that do not run, and waits until they are in their groups and have applied the config topic.
func (w *world) start(names ...string) {
	for _, name := range names {
		s := w.services[name]()
		ctx, cancel := context.WithCancel(w.Context())
		running := started{cancel, make(chan struct{})}
		w.running[name] = running
		go func() {
			defer close(running.done)
			if err := s.Run(ctx); err != nil && ctx.Err() == nil {
				w.Errorf("%s: %v", name, err)
			}
		}()
	}
	settle(5 * time.Second)
}

// stop ends services, and waits until they have.
func (w *world) stop(names ...string) {
	for _, name := range names {
		w.running[name].cancel()
	}
	for _, name := range names {
		<-w.running[name].done
		delete(w.running, name)
	}
}

// call asks the API and decodes the answer.
func (w *world) call(method, path string, body, answer any) {
	w.Helper()
	request := httptest.NewRequest(method, "/api/v1/event-deliveries"+path, nil)
	if body != nil {
		request = httptest.NewRequest(method, "/api/v1/event-deliveries"+path, bytes.NewReader(must(json.Marshal(body))))
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	response := httptest.NewRecorder()
	w.api.ServeHTTP(response, request.WithContext(w.Context()))
	if response.Code/100 != 2 {
		w.Fatalf("%s %s: %d %s", method, path, response.Code, response.Body)
	}
	if answer != nil {
		if err := json.Unmarshal(response.Body.Bytes(), answer); err != nil {
			w.Fatalf("%s %s: %v in %s", method, path, err, response.Body)
		}
	}
}

// subscribe makes a subscription whose endpoint's path is its name.
func (w *world) subscribe(name, profile string, more map[string]any) (id string) {
	w.Helper()
	body := map[string]any{"name": name, "endpointUrl": hookURL + "/" + name, "profile": profile}
	for key, value := range more {
		body[key] = value
	}
	var made struct{ ID string }
	w.call(http.MethodPost, "/subscriptions", body, &made)
	settle(3 * time.Second)
	return made.ID
}

// status is that of a subscription.
type status struct{ Status, StatusReason string }

func (w *world) subscription(id string) status {
	w.Helper()
	var s status
	w.call(http.MethodGet, "/subscriptions/"+id, nil, &s)
	return s
}

// publish produces a native event.
func (w *world) publish(id, eventType string, headers ...kgo.RecordHeader) {
	w.Helper()
	value := fmt.Sprintf(`{"event_id":%q,"event_type":%q,"data":{"id":%q}}`, id, eventType, id)
	if err := w.client.ProduceSync(w.Context(), &kgo.Record{Topic: w.cluster.Topics.Events, Value: []byte(value), Headers: headers}).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

// at are the times at which a path was called.
func (w *world) at(path string) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	var times []time.Time
	for _, a := range w.arrivals {
		if a.path == path {
			times = append(times, a.at)
		}
	}
	return times
}

// row is a delivery as the API shows it.
type row struct {
	ID, Status, Reason, EventID, SubscriptionID string
	AttemptCount                                int
	UpdatedAt                                   time.Time
	Attempts                                    []struct {
		Number, StatusCode int
		Traceparent        string
	}
}

func (w *world) deliveries() []row {
	w.Helper()
	var page struct{ Items []row }
	w.call(http.MethodGet, "/deliveries?include=attempts&limit=1000", nil, &page)
	return page.Items
}
