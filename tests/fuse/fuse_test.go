// Package fuse plays the documents of Fuse with real processes: an aggregator posts, the client's own handler, in Node, verifies and
// calls back, and what follows comes after it and in order, although the client fails at times and a process is killed.
package fuse

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	connections  = 1000
	patience     = 5 * time.Minute
	syncData     = "financial_connection.sync_data"
	updates      = "transactions.updates"
	disconnected = "financial_connection.disconnected"
	finished     = "financial_connection.finished"
	requested    = "financial_connection.sync_requested"
)

// stage is a Hookline with a source, a client, and the client's endpoint.
type stage struct {
	*testenv.Deployment
	t      *testing.T
	ingest []string // addresses
	source struct{ Path, SecretValue string }
	key    string // the client's
	log    string // of the receiver
}

func open(t *testing.T, count int, fail float64) *stage {
	t.Helper()
	env := testenv.System(t).With("HOOKLINE_INGEST_ADDR", testenv.Addr(t)).With("HOOKLINE_KAFKA_SESSION_TIMEOUT", "6s")
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
		"overrides":  map[string]any{"retry": map[string]any{"delays": []string{"200ms", "500ms", "1s", "1s", "2s", "2s", "5s", "5s", "10s", "10s"}}},
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
	Type, Connection, Remote, Source, Signature, Error string
	Verified, Synced                                   bool
	Historical                                         *bool
	Status                                             int
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

// remote is what the aggregator says the n-th time about a connection: new transactions and a broken login, then the end.
func remote(n, round int) string {
	if round == 0 {
		return fmt.Sprintf(`{"webhook_type":"TRANSACTIONS","webhook_code":"DEFAULT_UPDATE","item_id":%q,"new_transactions":3,"error":{"error_code":"ITEM_LOGIN_REQUIRED","status":400}}`, item(n))
	}
	return fmt.Sprintf("{\n  \"webhook_type\": \"ITEM\",\n  \"webhook_code\": \"USER_PERMISSION_REVOKED\",\n  \"item_id\": %q,\n  \"error\": null\n}", item(n))
}

// postAll posts one round for every connection, several at once.
func (s *stage) postAll(round int, addresses []string) {
	s.t.Helper()
	var all sync.WaitGroup
	work := make(chan int)
	for range 16 {
		all.Go(func() {
			for n := range work {
				id := fmt.Sprintf("request-%d-%d", round, n)
				if err := testenv.Until(time.Minute, func() bool {
					status, _ := s.post(addresses[n%len(addresses)], id, remote(n, round))
					return status == http.StatusAccepted
				}); err != nil {
					s.t.Errorf("%s was not accepted", id)
				}
			}
		})
	}
	for n := range connections {
		work <- n
	}
	close(work)
	all.Wait()
}

func TestAThousandConnectionsAreSyncedAndFollowedInOrderThroughFailuresAndAKill(t *testing.T) {
	s := open(t, connections, 0.15)
	s.postAll(0, s.ingest)
	s.await(updates, connections/4)
	s.Crew["ingest 2"].Kill()
	delete(s.Crew, "ingest 2")
	t.Log("killed one of two ingest processes")
	s.postAll(1, s.ingest[:1])
	for _, eventType := range []string{syncData, updates, disconnected, finished} {
		count := connections
		if eventType == syncData {
			count *= 2
		}
		s.await(eventType, count)
	}
	all := s.received()
	s.check(all)
	t.Logf("%d requests, of which %d failed", len(all), len(slices.DeleteFunc(slices.Clone(all), func(r received) bool { return r.Status == 200 })))
	s.Stop()
}

// check holds the receiver's log to the promise: every webhook verifies; a follow-up comes after its sync was called back and accepted;
// the follow-ups of one sync come in the order of the rules, each after the one before was accepted.
func (s *stage) check(all []received) {
	s.t.Helper()
	type of struct{ connection, remote, eventType string }
	accepted, synced := map[of]int{}, map[of]bool{}
	problems := 0
	report := func(format string, args ...any) {
		if problems++; problems < 10 {
			s.t.Errorf(format, args...)
		}
	}
	for i, r := range all {
		at := func(eventType string) of { return of{r.Connection, r.Remote, eventType} }
		if !r.Verified {
			report("line %d: %s of %s does not verify", i, r.Type, r.Connection)
		}
		switch r.Type {
		case syncData:
			synced[at(syncData)] = synced[at(syncData)] || r.Synced
		case updates, disconnected, finished:
			if !synced[at(syncData)] {
				report("line %d: %s of %s came without a callback", i, r.Type, r.Connection)
			}
			if accepted[at(syncData)] == 0 {
				report("line %d: %s of %s came before its sync was accepted", i, r.Type, r.Connection)
			}
			if r.Type == disconnected && accepted[at(updates)] == 0 {
				report("line %d: %s of %s came before what is before it was accepted", i, r.Type, r.Connection)
			}
			if r.Source != "fuse" || r.Type == updates && (r.Historical == nil || !*r.Historical) {
				report("line %d: %+v", i, r)
			}
		default:
			report("line %d: a webhook of type %s", i, r.Type)
		}
		if r.Status == http.StatusOK {
			accepted[at(r.Type)]++
		}
	}
	for n := range connections {
		for round, types := range [][]string{{syncData, updates, disconnected}, {syncData, finished}} {
			for _, eventType := range types {
				if accepted[of{connection(n), remote(n, round), eventType}] == 0 {
					report("%s of %s is missing", eventType, connection(n))
				}
			}
		}
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

func TestNothingFollowsFromWhatTheClientWasNotSent(t *testing.T) {
	s := open(t, 2, 1) // the client itself fails always, so that nobody calls back but this test
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	if status, text := s.post(s.ingest[0], "r", remote(0, 0), "Traceparent", parent); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	if status, text := s.post(s.ingest[0], "r2", remote(0, 0), "X-Signature", "sha256="+strings.Repeat("0", 64)); status != http.StatusUnauthorized {
		t.Errorf("a forged webhook: %d %s", status, text)
	}
	if err := testenv.Until(patience, func() bool { return len(s.received()) > 0 }); err != nil {
		t.Fatal("the client got nothing")
	}
	signature := s.received()[0].Signature
	quoted, err := json.Marshal(remote(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	members := []string{`"type":"` + syncData + `"`, `"financial_connection_id":"conn-0000"`, `"environment":"sandbox"`, `"source":"plaid"`, `"remote_data":` + string(quoted)}
	body := "{" + strings.Join(members, ",") + "}"
	invented := strings.Replace(body, "conn-0000", "conn-0001", 1)
	mac := hmac.New(sha256.New, []byte(s.key))
	mac.Write([]byte(`{"environment":"sandbox","financial_connection_id":"conn-0001","remote_data":` + string(quoted) + `,"source":"plaid","type":"` + syncData + `"}`))
	own := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for name, c := range map[string]struct {
		client, key, verification, body string
		want                            int
	}{
		"forged":               {"default", s.key, base64.StdEncoding.EncodeToString(make([]byte, 32)), body, 401},
		"altered":              {"default", s.key, signature, strings.Replace(body, "sandbox", "production", 1), 401},
		"a wrong key":          {"default", "a-wrong-key-of-some-length-12345", signature, body, 401},
		"another client":       {"nobody", s.key, signature, body, 401},
		"no key":               {"default", "", signature, body, 401},
		"not signed":           {"default", s.key, "", body, 401},
		"signed by the client": {"default", s.key, own, invented, 401},
		"nested too deep":      {"default", s.key, signature, strings.Repeat("[", 1000) + strings.Repeat("]", 1000), 400},
		"too large":            {"default", s.key, signature, `{"a":"` + strings.Repeat("x", 3<<20) + `"}`, 413},
	} {
		if status, text := s.callBack(c.client, c.key, c.verification, c.body); status != c.want {
			t.Errorf("%s: %d %s, want %d", name, status, text, c.want)
		}
	}
	if events := s.events(requested); len(events) != 0 {
		t.Fatalf("%d syncs were requested", len(events))
	}

	slices.Reverse(members)
	reordered := "{" + strings.Join(members, ", ") + "}"
	first, answer := s.callBack("default", s.key, signature, reordered)
	second, again := s.callBack("default", s.key, signature, body)
	if first != 200 || second != 200 || answer != again {
		t.Fatalf("the real callback: %d %s, again: %d %s", first, answer, second, again)
	}
	if err := testenv.Until(patience, func() bool { return len(s.events(requested)) > 0 }); err != nil {
		t.Fatal("no sync was requested")
	}
	if events := s.events(requested); len(events) != 1 || !strings.HasPrefix(events[0].Trace.Parent, parent[:35]) {
		t.Errorf("%d syncs were requested, the first in the trace %s, want one in %s", len(events), events[0].Trace.Parent, parent)
	}
	s.refusedAreCounted()
	s.Stop()
}

// refusedAreCounted looks for the counter of each reason.
func (s *stage) refusedAreCounted() {
	s.t.Helper()
	response, err := http.Get("http://" + s.Crew["ingest"].Admin + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, reason := range []string{"bad_signature", "bad_credentials", "no_such_delivery", "too_deep", "too_large"} {
		counted := slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
			return strings.HasPrefix(line, "hookline_callbacks_total{") && strings.Contains(line, `outcome="refused"`) && strings.Contains(line, `reason="`+reason+`"`)
		})
		if !counted {
			s.t.Errorf("refused for %s: not counted", reason)
		}
	}
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
