package fuse

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/tests/testenv"
)

// stage is a Hookline with a source, a client, and the client's endpoint.
type stage struct {
	*testenv.Deployment
	t      *testing.T
	ingest []string // addresses
	source struct{ ID, Path, SecretValue string }
	key    string // the client's
	log    string // of the receiver
}

func open(t *testing.T, count int, fail float64, exporter string) *stage {
	t.Helper()
	// Spans are printed, so that a test can follow a trace through the processes.
	env := testenv.System(t).With("HOOKLINE_INGEST_ADDR", testenv.Addr(t)).With("HOOKLINE_KAFKA_SESSION_TIMEOUT", "6s").
		With("OTEL_TRACES_EXPORTER", exporter).With("OTEL_BSP_SCHEDULE_DELAY", "200")
	s := &stage{t: t, ingest: []string{env["HOOKLINE_INGEST_ADDR"], testenv.Addr(t)}}
	s.Deployment = testenv.Deploy(t, env, "api", "recorder", "scheduler", "router", "delivery", "ingest")
	other := testenv.Start(t, env.With("HOOKLINE_INGEST_ADDR", s.ingest[1]), "ingest")
	other.Ready(t, time.Minute)
	s.Crew["ingest 2"] = other
	receiver := s.receiver()
	s.Call(http.MethodPost, "/sources", map[string]any{"name": "plaid", "spec": spec()}, &s.source)
	s.connect(count)
	var client struct{ SecretValue string }
	s.Call(http.MethodPost, "/subscriptions", map[string]any{
		"name": "client", "endpointUrl": "http://" + receiver + "/webhook", "profile": "fuse",
		"eventTypes": []string{syncData, updates, disconnected, finished},
		"overrides":  map[string]any{"traceparent": true, "retry": map[string]any{"delays": []string{"200ms", "500ms", "1s", "1s", "2s", "2s", "5s", "5s", "10s", "10s"}}},
	}, &client)
	s.key = client.SecretValue
	s.AwaitConfig()
	s.set(receiver, map[string]any{"key": s.key, "sync": s.ingest, "fail": fail})
	return s
}

func spec() map[string]any {
	return map[string]any{
		"verify":     map[string]any{"scheme": "hmac", "header": "X-Signature", "prefix": "sha256="},
		"id":         map[string]any{"header": "X-Request-Id"},
		"connection": map[string]any{"aggregator": "plaid", "remoteId": map[string]any{"pointer": "/item_id"}},
		"event": map[string]any{
			"type": map[string]any{"const": syncData}, "orderingKey": map[string]any{"connection": "id"},
			"data": []any{
				map[string]any{"name": "financial_connection_id", "connection": "id"}, map[string]any{"name": "environment", "connection": "environment"},
				map[string]any{"name": "source", "connection": "aggregator"}, map[string]any{"name": "remote_data", "raw": true},
			},
		},
	}
}

func (s *stage) connect(count int) {
	s.t.Helper()
	var items []any
	for n := range count {
		items = append(items, map[string]any{"aggregator": "plaid", "remoteId": item(n), "connectionId": connection(n), "environment": "sandbox"})
	}
	for part := range slices.Chunk(items, 500) {
		s.Call(http.MethodPost, "/connections", map[string]any{"items": part}, nil)
	}
}

func item(n int) string       { return fmt.Sprintf("item-%04d", n) }
func connection(n int) string { return fmt.Sprintf("conn-%04d", n) }

// receiver starts the client's handler and returns its address.
func (s *stage) receiver() string {
	s.t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		s.t.Fatalf("the client of the documents is written in JavaScript: %v", err)
	}
	s.log = filepath.Join(s.t.TempDir(), "received")
	p := testenv.StartCommand(s.t, nil, node, filepath.Join(testenv.Root(), "services", "hookline", "fuse.js"), s.log)
	p.Printed(s.t, "listening on ", time.Minute)
	_, address, _ := strings.Cut(p.Output(), "listening on ")
	return strings.TrimSpace(address)
}

func (s *stage) set(receiver string, settings map[string]any) {
	s.t.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		s.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPut, "http://"+receiver+"/settings", bytes.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	if status, _ := s.do(request); status != http.StatusOK {
		s.t.Fatalf("the receiver did not take its settings: %d", status)
	}
}

func (s *stage) do(request *http.Request) (int, string) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

// post is one webhook of the aggregator, to one of the ingest processes.
func (s *stage) post(address, id, body string, headers ...string) (int, string) {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+address+s.source.Path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(s.source.SecretValue))
	mac.Write([]byte(body))
	request.Header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	request.Header.Set("X-Request-Id", id)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return s.do(request)
}

// received is a line of the receiver's log.
type received struct {
	Type, Connection, Remote, Source, Signature, Error, TraceParent string
	Verified, Synced                                                bool
	Historical                                                      *bool
	Status                                                          int
	// When the sync endpoint was called, when it answered, and when the receiver did, in steps of the receiver.
	Called, Answered, Step int
}

func (s *stage) received() (all []received) {
	s.t.Helper()
	file, err := os.Open(s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var r received
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			break // it is being written
		}
		all = append(all, r)
	}
	return all
}

// await returns once so many different webhooks of a type have been accepted.
func (s *stage) await(eventType string, count int) {
	s.t.Helper()
	got := 0
	if err := testenv.Until(patience, func() bool {
		done := map[string]bool{}
		for _, r := range s.received() {
			if r.Type == eventType && r.Status == http.StatusOK {
				done[r.Connection+r.Remote] = true
			}
		}
		got = len(done)
		return got >= count
	}); err != nil {
		s.t.Fatalf("%d of %d %s accepted", got, count, eventType)
	}
}

// callBack sends a body to the sync endpoint as a client.
func (s *stage) callBack(client, key, verification, body string) (int, string) {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+s.ingest[0]+"/v1/callbacks/fuse/financial_connections/sync", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for name, value := range map[string]string{"Fuse-Client-Id": client, "Fuse-Api-Key": key, "Fuse-Verification": verification, "Content-Type": "application/json"} {
		if value != "" {
			request.Header.Set(name, value)
		}
	}
	return s.do(request)
}

// counted is the sum of a counter over the ingest processes.
func (s *stage) counted(metric, outcome, reason string) (sum int) {
	s.t.Helper()
	for name, p := range s.Crew {
		if !strings.HasPrefix(name, "ingest") {
			continue
		}
		response, err := http.Get("http://" + p.Admin + "/metrics")
		if err != nil {
			s.t.Fatal(err)
		}
		defer response.Body.Close()
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			labels, value, _ := strings.Cut(strings.TrimPrefix(lines.Text(), metric+"{"), "} ")
			if strings.HasPrefix(lines.Text(), metric+"{") && strings.Contains(labels, `outcome="`+outcome+`"`) && strings.Contains(labels, `reason="`+reason+`"`) {
				n, err := strconv.Atoi(value)
				if err != nil {
					s.t.Fatalf("%s: %v", lines.Text(), err)
				}
				sum += n
			}
		}
	}
	return sum
}

// try runs the command as somebody at a terminal does, and returns what it has printed, and its exit code.
func (s *stage) try(args ...string) (text string, code int) {
	s.t.Helper()
	p := testenv.Start(s.t, testenv.Env{"HOOKLINE_API_URL": "http://" + s.Env["HOOKLINE_API_ADDR"], "HOOKLINE_API_KEY": testenv.APIKey}, args...)
	code = p.Wait(s.t, time.Minute)
	return p.Output(), code
}

func (s *stage) hookline(args ...string) string {
	s.t.Helper()
	text, code := s.try(args...)
	if code != 0 {
		s.t.Fatalf("hookline %s: exit code %d: %s", strings.Join(args, " "), code, text)
	}
	return text
}

// events are those of a type on the topic.
func (s *stage) events(eventType string) (found []event.Decoded) {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.Env["HOOKLINE_KAFKA_BROKERS"], ",")...), kgo.ConsumeTopics(s.Topic("events")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if e, err := event.FromRecord(r); err == nil && e.Type == eventType {
				found = append(found, e)
			}
		})
	}
	return found
}
