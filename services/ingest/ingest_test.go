package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/httpapi"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	stop    func()
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
		w.start(change)
		defer func() { w.stop() }()
		test(t, w)
	})
}

func (w *world) start(change func(*Config, *Deps)) {
	w.Helper()
	metrics, err := telemetry.NewMetrics(noop.NewMeterProvider())
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

// post sends a body as a key, with headers given as name, value, name, value.
func (w *world) post(key, body string, headers ...string) answer {
	r := httptest.NewRequestWithContext(w.Context(), http.MethodPost, "/v1/events", strings.NewReader(body))
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+token(key))
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	w.service.Handler().ServeHTTP(recorder, r)
	return answer{recorder.Code, recorder.Header(), recorder.Body.String()}
}

// events returns what the topic holds now, as the router reads it.
func (w *world) events() (out []event.Decoded) {
	w.Helper()
	name := w.cluster.Topics.Events
	ends, err := kadm.NewClient(w.client).ListEndOffsets(w.Context(), name)
	if err != nil {
		w.Fatal(err)
	}
	var total int64
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	cl, err := w.cluster.Client(kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		w.Fatal(err)
	}
	defer cl.Close()
	for int64(len(out)) < total {
		for _, r := range cl.PollFetches(w.Context()).Records() {
			d, err := event.FromRecord(r)
			if err != nil {
				w.Fatalf("the router would reject it: %v", err)
			}
			out = append(out, d)
		}
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

const native = `{"event_id":"e1","event_type":"a.b","data":{"n":1.00,"n":2}}`

func TestAnEventIsTakenAsItStands(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	inWorld(t, nil, func(t *testing.T, w *world) {
		got := w.post("acme", `{"event_id":"e1","event_type":"a.b","event_timestamp":"2026-04-14T09:54:45.04Z","ordering_key":"k","metadata":{"x": 1.0},"data": {"n":1.00,"n":[ ]} }`,
			"Traceparent", parent)
		if got.status != 202 || got.body != `{"event_id":"e1"}`+"\n" || got.header.Get("Content-Type") != "application/json" {
			t.Fatalf("got %+v", got)
		}
		e := w.events()[0]
		if e.ID != "e1" || e.Tenant != "acme" || e.Type != "a.b" || e.OrderingKey != "k" || string(e.Metadata) != `{"x": 1.0}` ||
			string(e.Data) != `{"n":1.00,"n":[ ]}` || !e.Timestamp.Equal(time.Date(2026, 4, 14, 9, 54, 45, 40_000_000, time.UTC)) || e.Trace.Parent != parent {
			t.Errorf("got %+v", e)
		}
	})
}

func TestEveryFormIsTaken(t *testing.T) {
	cloud := `{"specversion":"1.0","id":"c1","source":"/s","type":"a.b","data":1}`
	protobuf, err := event.Record("events", &webhook.Event{ID: "p1", Type: "a.b", Data: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, body, want string
		headers          []string
	}{
		{"native", native, `{"event_id":"e1"}`, nil},
		{"structured", cloud, `{"event_id":"c1"}`, []string{"Content-Type", "application/cloudevents+json"}},
		{"binary", `1`, `{"event_id":"b1"}`, []string{"Ce-Specversion", "1.0", "Ce-Id", "b1", "Ce-Source", "/s", "Ce-Type", "a.b", "Content-Type", "application/json"}},
		{"protobuf", string(protobuf.Value), `{"event_id":"p1"}`, []string{"Content-Type", "application/protobuf"}},
		{"batch", `[` + native + `,{"event_id":"e2","event_type":"a","data":null}]`, `{"events":[{"event_id":"e1"},{"event_id":"e2"}]}`, nil},
		{"batch of CloudEvents", `[` + cloud + `]`, `{"events":[{"event_id":"c1"}]}`, []string{"Content-Type", "application/cloudevents-batch+json"}},
		{"empty batch", `[]`, `{"events":[]}`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, nil, func(t *testing.T, w *world) {
				got := w.post("publisher", test.body, test.headers...)
				if got.status != 202 || got.body != test.want+"\n" {
					t.Fatalf("got %+v, want %s", got, test.want)
				}
				if n := strings.Count(test.want, "event_id"); len(w.events()) != n {
					t.Errorf("%d events, want %d", len(w.events()), n)
				}
			})
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	for _, test := range []struct {
		name, key, body string
		headers         []string
		status          int
		code, pointers  string
	}{
		{"no key", "", native, nil, 401, "unauthenticated", ""},
		{"another scheme", "", native, []string{"Authorization", "Basic x"}, 401, "unauthenticated", ""},
		{"an unknown key", "nobody", native, nil, 401, "unauthenticated", ""},
		{"a revoked key", "revoked", native, nil, 401, "unauthenticated", ""},
		{"an expired key", "expired", native, nil, 401, "unauthenticated", ""},
		{"a key that may not publish", "reader", native, nil, 403, "permission_denied", ""},
		{"another tenant", "publisher", `{"event_type":"a","data":1,"tenant":"acme"}`, nil, 403, "tenant_mismatch", "/tenant"},
		{"another tenant in a batch", "acme", `[{"event_type":"a","data":1,"tenant":"acme"},{"event_type":"a","data":1,"tenant":"default"}]`, nil, 403, "tenant_mismatch", "/1/tenant"},
		{"no JSON", "publisher", `hello`, nil, 400, "invalid_json", ""},
		{"nothing", "publisher", ``, nil, 400, "empty", ""},
		{"no type", "publisher", `{"data":1}`, nil, 400, "missing_event_type", "/event_type"},
		{"one of a batch", "publisher", `[` + native + `,` + native + `,` + native + `,{"data":1}]`, nil, 400, "missing_event_type", "/3/event_type"},
		{"several of a batch", "publisher", `[{"event_type":"a"},{"data":1}]`, nil, 400, "invalid_events", "/0/data /1/event_type"},
		{"a large event", "publisher", `{"event_type":"a","data":"` + strings.Repeat("x", event.MaxSize) + `"}`, nil, 413, "too_large", ""},
		{"a large body", "publisher", `[` + strings.Repeat(" ", event.MaxBatchSize) + `]`, nil, 413, "too_large", ""},
		{"a large body that cannot be a batch", "publisher", strings.Repeat(" ", event.MaxRecord+1), []string{"Ce-Id", "1"}, 413, "too_large", ""},
		{"compression", "publisher", native, []string{"Content-Encoding", "gzip"}, 415, "unsupported_content_encoding", ""},
		{"another form of CloudEvents", "publisher", native, []string{"Content-Type", "application/cloudevents+protobuf"}, 415, "unsupported_content_type", ""},
		{"a long idempotency key", "publisher", native, []string{"Idempotency-Key", strings.Repeat("x", 257)}, 400, "invalid_idempotency_key", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, nil, func(t *testing.T, w *world) {
				got := w.post(test.key, test.body, test.headers...)
				p := got.problem(t)
				var pointers []string
				for _, e := range p.Errors {
					if e.Pointer != "" {
						pointers = append(pointers, e.Pointer)
					}
				}
				if got.status != test.status || p.Status != test.status || p.Code != test.code || strings.Join(pointers, " ") != test.pointers {
					t.Errorf("got %d %s", got.status, got.body)
				}
				if got.status == 401 && got.header.Get("WWW-Authenticate") == "" {
					t.Error("no challenge")
				}
				if n := len(w.events()); n > 0 {
					t.Errorf("%d events were written", n)
				}
			})
		})
	}
}

func TestOtherPathsAndMethodsAreProblems(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		for path, want := range map[string]int{"/v1/events": 405, "/v1/other": 404} {
			recorder := httptest.NewRecorder()
			w.service.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			if p := (answer{recorder.Code, recorder.Header(), recorder.Body.String()}).problem(t); p.Status != want || recorder.Code != want {
				t.Errorf("%s: %+v", path, p)
			}
		}
	})
}

// I2: the answer may get lost, so the producer must be able to send the same again.
func TestARepeatedRequestGetsTheSameIDs(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		const anonymous = `{"event_type":"a","data":1}`
		batch := `[` + anonymous + `,` + anonymous + `]`
		a, b := w.post("publisher", anonymous), w.post("publisher", anonymous)
		if a.body == b.body || a.status != 202 {
			t.Errorf("without an idempotency key: %s and %s", a.body, b.body)
		}
		a, b = w.post("publisher", batch, "Idempotency-Key", "k"), w.post("publisher", batch, "Idempotency-Key", "k")
		other, foreign := w.post("publisher", batch, "Idempotency-Key", "l"), w.post("acme", batch, "Idempotency-Key", "k")
		if a.body != b.body || a.body == other.body || a.body == foreign.body {
			t.Errorf("with an idempotency key: %s and %s; another key %s; another tenant %s", a.body, b.body, other.body, foreign.body)
		}
		var got struct {
			Events []struct {
				EventID uuid.UUID `json:"event_id"`
			} `json:"events"`
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || len(got.Events) != 2 || got.Events[0] == got.Events[1] {
			t.Errorf("%s: %v", a.body, err)
		}
	})
}

// I1 and I3: no 202 before the acknowledgement, and none without it.
func TestWithoutAnAcknowledgementTheAnswerIs503(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		h := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
		began := time.Now()
		got := w.post("publisher", native)
		if p := got.problem(t); got.status != 503 || p.Code != "not_acknowledged" || got.header.Get("Retry-After") == "" {
			t.Errorf("got %+v", got)
		}
		if took := time.Since(began); took < 25*time.Second || took > 32*time.Second {
			t.Errorf("it took %v", took)
		}
		h.Remove()
		// What came to wait behind the first event may time out with it.
		if got := w.post("publisher", native); got.status != 202 {
			if got = w.post("publisher", native); got.status != 202 {
				t.Errorf("afterwards %+v", got)
			}
		}
	})
}

func TestALostAcknowledgementIsNoLoss(t *testing.T) {
	for _, fault := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend} {
		t.Run(fault.Message, func(t *testing.T) {
			inWorld(t, nil, func(t *testing.T, w *world) {
				w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: fault, Count: 2})
				if got := w.post("publisher", native); got.status != 202 {
					t.Fatalf("got %+v", got)
				}
				if n := len(w.events()); n != 1 {
					t.Errorf("%d events, want 1", n)
				}
			})
		})
	}
}

func TestAProducerThatCannotGoOnIsReplaced(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: 1})
		before := w.service.producer.Load()
		if got := w.post("publisher", native); got.status != 503 {
			t.Fatalf("got %+v", got)
		}
		time.Sleep(5 * time.Second)
		if after := w.service.producer.Load(); after == before || after == nil {
			t.Error("the producer is the same")
		}
		if got := w.post("publisher", native); got.status != 202 {
			t.Errorf("afterwards %+v", got)
		}
	})
}

func TestWhenTooMuchIsUnderWayTheAnswerIs503AtOnce(t *testing.T) {
	inWorld(t, func(cfg *Config, _ *Deps) { cfg.BufferBytes = event.MaxBatchSize }, func(t *testing.T, w *world) {
		w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
		var waiting sync.WaitGroup
		large := `{"event_type":"a","data":"` + strings.Repeat("x", event.MaxSize-100) + `"}`
		for range 8 {
			waiting.Go(func() { w.post("publisher", large) })
		}
		time.Sleep(time.Second)
		began := time.Now()
		got := w.post("publisher", large)
		if p := got.problem(t); got.status != 503 || p.Code != "busy" || got.header.Get("Retry-After") == "" || time.Since(began) > time.Second {
			t.Errorf("got %+v after %v", got, time.Since(began))
		}
		waiting.Wait()
		if held := w.service.held.Load(); held != 0 {
			t.Errorf("%d bytes are still held", held)
		}
	})
}

func TestBeforeTheConfigurationIsThereTheAnswerIs503(t *testing.T) {
	k := newKeys()
	inWorld(t, func(_ *Config, deps *Deps) {
		k.ready = make(chan struct{})
		deps.Snapshot = k
	}, func(t *testing.T, w *world) {
		time.Sleep(time.Minute)
		got := w.post("publisher", native)
		if p := got.problem(t); got.status != 503 || p.Code != "unavailable" || got.header.Get("Retry-After") == "" || len(w.health.Unmet()) != 1 {
			t.Errorf("got %+v, unmet %v", got, w.health.Unmet())
		}
		close(k.ready)
		time.Sleep(time.Second)
		if got := w.post("publisher", native); got.status != 202 || len(w.health.Unmet()) > 0 {
			t.Errorf("got %+v, unmet %v", got, w.health.Unmet())
		}
	})
}

func TestWithKafkaDownAtTheStartItWaits(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		w.stop()
		w.cut.Store(true)
		w.start(nil)
		time.Sleep(5 * time.Minute)
		if got := w.post("publisher", native); got.status != 503 || len(w.health.Unmet()) == 0 {
			t.Errorf("got %+v, unmet %v", got, w.health.Unmet())
		}
		w.cut.Store(false)
		time.Sleep(time.Minute)
		if got := w.post("publisher", native); got.status != 202 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAStopLetsRequestsUnderWayFinish(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		h := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
		var under answer
		var waiting sync.WaitGroup
		waiting.Go(func() { under = w.post("publisher", native) })
		time.Sleep(time.Second)
		go w.stop()
		time.Sleep(time.Second)
		if late := w.post("publisher", native); late.status != 503 {
			t.Errorf("after the stop signal: %+v", late)
		}
		h.Remove()
		waiting.Wait()
		if under.status != 202 {
			t.Errorf("got %+v", under)
		}
	})
}

func TestAStopIsCutOffAfterTheDrainTimeout(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
		var under answer
		var waiting sync.WaitGroup
		waiting.Go(func() { under = w.post("publisher", native) })
		time.Sleep(time.Second)
		began := time.Now()
		w.stop()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		waiting.Wait()
		if under.status != 503 {
			t.Errorf("got %+v", under)
		}
	})
}

func TestItServesAListenerOfItsCaller(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		w.stop()
		listener, err := w.network.Listen("tcp", "127.0.0.1:8081")
		if err != nil {
			t.Fatal(err)
		}
		w.start(func(_ *Config, deps *Deps) { deps.Mounted, deps.Listener = false, listener })
		transport := &http.Transport{DialContext: w.network.DialContext}
		client := &http.Client{Transport: transport}
		send := func(body io.Reader) (int, error) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:8081/v1/events", body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token("publisher"))
			response, err := client.Do(r)
			if err != nil {
				return 0, err
			}
			defer response.Body.Close()
			_, _ = io.Copy(io.Discard, response.Body)
			return response.StatusCode, nil
		}
		if status, err := send(strings.NewReader(native)); err != nil || status != 202 {
			t.Errorf("got %d, %v", status, err)
		}
		slow, writer := io.Pipe()
		began := time.Now()
		status, err := send(slow)
		if took := time.Since(began); took > 20*time.Second || err == nil && status != 400 {
			t.Errorf("a body that does not come: %d, %v after %v", status, err, took)
		}
		_ = writer.Close()
		// A slow acknowledgement must not look like a client that has gone.
		h := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
		go func() {
			time.Sleep(18 * time.Second)
			h.Remove()
		}()
		if status, err := send(strings.NewReader(native)); err != nil || status != 202 {
			t.Errorf("with a slow Kafka: %d, %v", status, err)
		}
		transport.CloseIdleConnections()
		w.stop()
		if _, err := send(strings.NewReader(native)); err == nil {
			t.Error("it still listens")
		}
	})
}

func TestAWrongConfigurationIsReportedWhole(t *testing.T) {
	err := Config{Addr: "x", BufferBytes: 1, DrainTimeout: -1}.Validate()
	for _, name := range []string{"HOOKLINE_INGEST_ADDR", "HOOKLINE_INGEST_BUFFER_BYTES", "HOOKLINE_DRAIN_TIMEOUT"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not in %v", name, err)
		}
	}
}

func TestManyRequestsAtOnceLoseNothing(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				var body bytes.Buffer
				fmt.Fprintf(&body, `{"event_id":"%d","event_type":"a","data":1}`, i)
				if got := w.post("publisher", body.String()); got.status != 202 {
					t.Errorf("%d: %+v", i, got)
				}
			})
		}
		all.Wait()
		if n := len(w.byID()); n != 200 {
			t.Errorf("%d events", n)
		}
	})
}
