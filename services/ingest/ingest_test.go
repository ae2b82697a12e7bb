package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
