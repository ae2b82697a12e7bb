package fuse

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/tests/testenv"
)

// accepted are the requests about a connection that the receiver has accepted.
func (s *stage) accepted(connection string) (all []received) {
	s.t.Helper()
	for _, r := range s.received() {
		if r.Connection == connection && r.Status == http.StatusOK {
			all = append(all, r)
		}
	}
	return all
}

// awaitAccepted returns the requests about a connection once the receiver has accepted these types, in this order.
func (s *stage) awaitAccepted(connection string, types ...string) []received {
	s.t.Helper()
	got := func() (names []string) {
		for _, r := range s.accepted(connection) {
			names = append(names, r.Type)
		}
		return names
	}
	if err := testenv.Until(time.Minute, func() bool { return slices.Equal(got(), types) }); err != nil {
		s.t.Fatalf("%s: accepted %v, want %v; of %+v", connection, got(), types, s.received())
	}
	return s.accepted(connection)
}

// span is one that a process has printed.
type span struct {
	Name                string
	SpanContext, Parent struct{ TraceID, SpanID string }
}

// spans are those of a trace, by their ids.
func (s *stage) spans(trace string) map[string]span {
	all := map[string]span{}
	for _, p := range s.Crew {
		for line := range strings.Lines(p.Output()) {
			var one span
			if json.Unmarshal([]byte(line), &one) == nil && one.SpanContext.TraceID == trace {
				all[one.SpanContext.SpanID] = one
			}
		}
	}
	return all
}

// way is the names of the spans from the one of this id up to the one whose parent is no span of ours, and that parent's id.
func way(all map[string]span, id string) (names []string, from string) {
	for one, ok := all[id]; ok; one, ok = all[id] {
		names, id = append(names, one.Name), one.Parent.SpanID
	}
	slices.Reverse(names)
	return names, id
}

// explained is what `hookline why` says of an event's chain.
type explained struct {
	Event struct {
		ID         string
		Follows    *struct{ EventID, DeliveryID, Rule string }
		FollowedBy []struct{ EventID, EventType, DeliveryID, Rule string }
	}
	Subscriptions []struct {
		Delivery *struct{ ID, Status string }
	}
}

// why asks until the audit has the event with its one subscription, and so many events that must follow.
func (s *stage) why(event string, followed int) (e explained) {
	s.t.Helper()
	if err := testenv.Until(time.Minute, func() bool {
		text, code := s.try("why", event, "-o", "json")
		if err := json.Unmarshal([]byte(text), &e); code == 0 && err != nil {
			s.t.Fatalf("why: %v in %s", err, text)
		}
		return len(e.Event.FollowedBy) >= followed && len(e.Subscriptions) == 1
	}); err != nil {
		s.t.Fatalf("why %s: %+v", event, e)
	}
	return e
}

func TestASyncIsSeenFromTheAggregatorToWhatFollows(t *testing.T) {
	s := open(t, 1, 0, "console")
	const trace, aggregator = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	var event struct {
		ID string `json:"event_id"`
	}
	for range 2 { // the sender may not have got the answer
		status, text := s.post(s.ingest[0], "r1", remote(0, 0), "Traceparent", "00-"+trace+"-"+aggregator+"-01")
		if err := json.Unmarshal([]byte(text), &event); status != http.StatusAccepted || err != nil {
			t.Fatalf("%d %s (%v)", status, text, err)
		}
	}
	lines := s.awaitAccepted("conn-0000", syncData, updates, disconnected)
	ways := map[string][]string{
		syncData:     {"publish event", "route", "send deliveries", "deliver"},
		updates:      {"publish event", "route", "send deliveries", "callback", "follow up", "route", "send deliveries", "deliver"},
		disconnected: {"publish event", "route", "send deliveries", "callback", "follow up", "route", "send deliveries", "deliver"},
	}
	for _, r := range lines {
		parent := strings.Split(r.TraceParent, "-")
		if len(parent) != 4 || parent[1] != trace {
			t.Errorf("the receiver got %s with the traceparent %q", r.Type, r.TraceParent)
			continue
		}
		var names []string
		var from string
		if err := testenv.Until(time.Minute, func() bool {
			names, from = way(s.spans(trace), parent[2])
			return slices.Equal(names, ways[r.Type]) && from == aggregator
		}); err != nil {
			t.Errorf("%s came the way %v from %s, want %v from the aggregator's span", r.Type, names, from, ways[r.Type])
		}
	}
	s.checkWhy(event.ID)

	// The third party's own, word for word, under another id is another message.
	s.post(s.ingest[1], "r2", remote(0, 0))
	s.awaitAccepted("conn-0000", syncData, updates, disconnected, syncData, updates, disconnected)
	s.Stop()
}

// checkWhy: the chain is told in both directions.
func (s *stage) checkWhy(event string) {
	s.t.Helper()
	rules := map[string]string{"sync_requested": requested, "transactions_updates": updates, "disconnected": disconnected}
	whole := s.why(event, len(rules))
	told := map[string]string{}
	if whole.Event.ID != event || whole.Event.Follows != nil {
		s.t.Errorf("why %s: %+v", event, whole)
	}
	for _, f := range whole.Event.FollowedBy {
		told[f.Rule] = f.EventType
		next := s.why(f.EventID, 0)
		if back := next.Event.Follows; back == nil || back.EventID != event || back.DeliveryID != f.DeliveryID || back.Rule != f.Rule || len(next.Event.FollowedBy) != 0 {
			s.t.Errorf("why %s: %+v, want that it follows %s", f.EventID, next, event)
		}
		// The client does not subscribe to what is for the upstream system.
		if first, own := whole.Subscriptions[0].Delivery, next.Subscriptions[0].Delivery; first == nil || f.DeliveryID != first.ID || (own == nil) != (f.EventType == requested) {
			s.t.Errorf("%s follows delivery %s of %+v; its own is %+v", f.EventType, f.DeliveryID, first, own)
		}
		text := s.hookline("why", f.EventID)
		for _, want := range []string{"follows:\n", "eventId: " + event + "\n", "deliveryId: " + f.DeliveryID + "\n", "rule: " + f.Rule + "\n", "followedBy: []\n"} {
			if !strings.Contains(text, want) {
				s.t.Errorf("%q is not in:\n%s", want, text)
			}
		}
		if text := s.hookline("why", event); !strings.Contains(text, "follows: null\n") || !strings.Contains(text, "eventId: "+f.EventID+"\n") || !strings.Contains(text, "rule: "+f.Rule+"\n") {
			s.t.Errorf("%s is not in:\n%s", f.EventID, text)
		}
	}
	if !maps.Equal(told, rules) {
		s.t.Errorf("followed by %v, want %v", told, rules)
	}
}

func TestWhatComesAboutAnUnknownConnectionWaitsUntilItIsKnown(t *testing.T) {
	s := open(t, 1, 0, "none")
	byCLI, byAPI := 7, 8
	for _, n := range []int{byCLI, byAPI} {
		if status, text := s.post(s.ingest[0], "r-"+item(n), remote(n, 1)); status != http.StatusAccepted || !strings.Contains(text, `"outcome":"rejected"`) {
			t.Fatalf("%s: %d %s", item(n), status, text)
		}
	}
	if n := s.counted(sourceCounter, "rejected", "unknown_connection"); n != 2 {
		t.Errorf("counted %d times", n)
	}
	requests := "/sources/" + s.source.ID + "/requests"
	var list struct {
		Items []struct{ ID, Outcome, Reason, RemoteID, EventID string }
	}
	if err := testenv.Until(time.Minute, func() bool {
		s.Call(http.MethodGet, requests+"?outcome=rejected", nil, &list)
		return len(list.Items) == 2
	}); err != nil || list.Items[0].Reason != "unknown_connection" || list.Items[0].RemoteID != item(byAPI) {
		t.Fatalf("requests %+v", list)
	}
	table := s.hookline("sources", "requests", s.source.ID, "--outcome", "rejected")
	for _, want := range []string{item(byCLI), item(byAPI), "unknown_connection", "OUTCOME"} {
		if !strings.Contains(table, want) {
			t.Errorf("%q is not in:\n%s", want, table)
		}
	}

	s.hookline("connections", "add", "plaid", item(byCLI), connection(byCLI), "--environment", "sandbox")
	if text := s.hookline("sources", "replay", s.source.ID, "-o", "json"); !strings.Contains(text, `"replayed": 1`) || !strings.Contains(text, `"rejected": 1`) {
		t.Errorf("replayed: %s", text)
	}
	s.awaitAccepted(connection(byCLI), syncData, updates)

	var made struct{ Replayed, Rejected int }
	s.Call(http.MethodPost, "/connections", map[string]any{"items": []any{
		map[string]any{"aggregator": "plaid", "remoteId": item(byAPI), "connectionId": connection(byAPI), "environment": "sandbox"},
	}}, nil)
	s.Call(http.MethodPost, requests+"/replay", map[string]any{"requestId": list.Items[0].ID}, &made)
	if made.Replayed != 1 || made.Rejected != 0 {
		t.Errorf("replayed %+v", made)
	}
	s.awaitAccepted(connection(byAPI), syncData, updates)
	s.Call(http.MethodPost, requests+"/replay", nil, &made)
	if made.Replayed != 0 || made.Rejected != 0 {
		t.Errorf("replayed again: %+v", made)
	}
	s.upstream()
	s.manage()
	s.Stop()
}

// upstream lets another system produce a sync whose body JavaScript prints in another way than it was sent: the client's handler sends
// it back all the same. What the other system says follows from it is delivered like any event.
func (s *stage) upstream() {
	s.t.Helper()
	quoted, err := json.Marshal(remote(9, 1))
	if err != nil {
		s.t.Fatal(err)
	}
	about := `"remote_data":` + string(quoted) + `,"financial_connection_id":"conn-0009","environment":"sandbox"`
	s.publish(`{"event_type":"` + syncData + `","data":{"source":"other", "10":1.0,"9":[ 1e2 ],"é":"\u00e9\/", "big":12345678901234567890,` + about + `}}`)
	for _, r := range s.awaitAccepted("conn-0009", syncData, updates) {
		if !r.Verified || r.Remote != remote(9, 1) {
			s.t.Errorf("received %+v", r)
		}
	}
	s.publish(`{"event_type":"` + finished + `","data":{"source":"fuse",` + about + `}}`)
	s.awaitAccepted("conn-0009", syncData, updates, finished)
}

func (s *stage) publish(event string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+s.ingest[0]+"/v1/events", strings.NewReader(event))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+testenv.APIKey)
	request.Header.Set("Content-Type", "application/json")
	if status, text := s.do(request); status != http.StatusAccepted {
		s.t.Fatalf("%d %s", status, text)
	}
}

// seed is what MX posts in Fuse's documents.
const seed = `{"type":"AGGREGATION","action":"member_data_updated","user_guid":"USR-67bcb452-225e-11ee-be56-0242ac120002","user_id":"67bcb452-225e-11ee-be56-0242ac120002",` +
	`"member_guid":"MBR-67bcb452-225e-11ee-be56-0242ac120002","job_guid":"JOB-ebdbcc48-1823-41da-96ef-adc2dc2fd6ec","transactions_created_count":2,` +
	`"transactions_updated_count":0,"is_background":true,"completed_at":1688527757,"completed_on":"2023-07-05"}`

// manage makes the source of our documents from the command line, lets MX post what Fuse's documents say to it, and takes it away.
func (s *stage) manage() {
	s.t.Helper()
	documents, err := os.ReadFile(filepath.Join(testenv.Root(), "docs", "sources.md"))
	if err != nil {
		s.t.Fatal(err)
	}
	_, spec, _ := strings.Cut(string(documents), "```yaml\n")
	spec, _, _ = strings.Cut(spec, "```")
	file := filepath.Join(s.t.TempDir(), "mx.yaml")
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		s.t.Fatal(err)
	}
	var made struct{ ID, Path, SecretValue string }
	if text := s.hookline("sources", "create", "mx", "--spec", file, "-o", "json"); json.Unmarshal([]byte(text), &made) != nil || made.SecretValue == "" {
		s.t.Fatalf("made %s", text)
	}
	const connection = "67bcb452-225e-11ee-be56-0242ac120002"
	s.hookline("connections", "add", "mx", "MBR-"+connection, connection, "--environment", "sandbox")
	post := func() (int, string) {
		stamp := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, []byte(made.SecretValue))
		mac.Write([]byte(stamp + "." + seed))
		request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+s.ingest[1]+made.Path, strings.NewReader(seed))
		if err != nil {
			s.t.Fatal(err)
		}
		request.Header.Set("X-Signature", "t="+stamp+",v1="+hex.EncodeToString(mac.Sum(nil)))
		request.Header.Set("X-Request-Id", "seed")
		return s.do(request)
	}
	until := func(what string, reached func(status int, text string) bool) {
		s.t.Helper()
		var status int
		var text string
		if err := testenv.Until(time.Minute, func() bool {
			status, text = post()
			return reached(status, text)
		}); err != nil {
			s.t.Fatalf("%s: %d %s", what, status, text)
		}
	}
	until("made", func(status int, text string) bool {
		return status == http.StatusAccepted && strings.Contains(text, `"outcome":"accepted"`)
	})
	for _, r := range s.awaitAccepted(connection, syncData, updates) {
		if r.Remote != seed || r.Type == syncData && r.Source != "mx" {
			s.t.Errorf("received %+v", r)
		}
	}
	if text := s.hookline("sources", "ls"); !strings.Contains(text, made.ID) || !strings.Contains(text, "plaid") {
		s.t.Errorf("sources:\n%s", text)
	}
	if text := s.hookline("sources", "requests", made.ID, "-o", "json"); !strings.Contains(text, `"outcome": "accepted"`) {
		s.t.Errorf("requests:\n%s", text)
	}
	s.hookline("sources", "update", made.ID, "--status", "disabled")
	until("disabled", func(status int, _ string) bool { return status == http.StatusNotFound })
	s.hookline("sources", "update", made.ID, "--status", "active")
	until("enabled", func(status int, _ string) bool { return status == http.StatusAccepted })
	s.hookline("sources", "rotate", made.ID, "--overlap", "0s")
	until("rotated", func(status int, _ string) bool { return status == http.StatusUnauthorized })
	if text := s.hookline("sources", "requests", made.ID, "--outcome", "refused"); !strings.Contains(text, "bad_signature") {
		s.t.Errorf("refused requests:\n%s", text)
	}
	s.hookline("sources", "delete", made.ID)
	until("deleted", func(status int, _ string) bool { return status == http.StatusNotFound })
}
