// Package mainjob holds the main job to its promise on real servers: what somebody else's Kafka client produces reaches
// every subscriber, verified by code that is not Hookline's, and the audit agrees with the receiver, through SIGKILLs.
package mainjob

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hookline/hookline/pkg/webhook"
	hooklinev1 "github.com/hookline/hookline/proto/hookline/v1"
	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	events   = 10_000
	apiKey   = "bootstrap-key-of-the-main-job"
	patience = 3 * time.Minute
)

var types = []string{"balance.extracted", "account.created", "account.status.changed", "payment.registered", "noise"}

// subscriber is a subscription, and what it must get.
type subscriber struct {
	path  string
	types []string
	id    string
}

func (s *subscriber) wants(eventType string) bool {
	if len(s.types) == 0 {
		return true
	}
	for _, pattern := range s.types {
		if webhook.MatchType(pattern, eventType) {
			return true
		}
	}
	return false
}

func TestEveryEventReachesEverySubscriberThroughKills(t *testing.T) {
	d := testenv.Deploy(t, testenv.System(t), "api", "recorder", "scheduler", "router", "router 2", "delivery", "delivery 2")
	t.Log("every process is ready")
	receiver := startReceiver(t)
	client := &client{Deployment: d, t: t}
	subscribers := []*subscriber{
		{path: "/exact", types: []string{"balance.extracted"}},
		{path: "/prefix", types: []string{"account.*"}},
		{path: "/all"},
	}
	for _, s := range subscribers {
		client.subscribe(s, receiver)
	}
	d.AwaitConfig()

	t.Log("every subscription is live")
	produced := make(chan error, 1)
	go func() { produced <- produce(t, d.Env["HOOKLINE_KAFKA_BROKERS"], d.Topic("events")) }()
	want := expected(subscribers)
	for _, share := range []int{10, 30, 50, 70} {
		receiver.await(t, len(want)*share/100)
		for _, name := range []string{"router", "delivery"} {
			d.Crew[name].Kill()
			d.Start(name)
		}
		t.Logf("killed a router and a worker at %d %%", share)
	}
	if err := <-produced; err != nil {
		t.Fatal(err)
	}
	client.awaitDelivered(len(want))
	check(t, want, receiver, client)
	d.Stop()
}

// pair is one event for one subscriber.
type pair struct{ path, event string }

func expected(subscribers []*subscriber) map[pair]bool {
	want := map[pair]bool{}
	for n := range events {
		for _, s := range subscribers {
			if s.wants(types[n%len(types)]) {
				want[pair{s.path, eventID(n)}] = true
			}
		}
	}
	return want
}

func eventID(n int) string { return fmt.Sprintf("event-%05d", n) }

// produce writes the events in the four formats in turn, with Apache Kafka's own client.
func produce(t *testing.T, brokers, topic string) error {
	libs, err := exec.Command(filepath.Join(testenv.Root(), "scripts", "servers"), "libs").Output()
	if err != nil {
		return fmt.Errorf("find Kafka's libraries: %w", err)
	}
	var input bytes.Buffer
	for n := range events {
		writeRecord(&input, n)
	}
	command := exec.CommandContext(t.Context(), "java", "-cp", strings.TrimSpace(string(libs))+"/*", "Produce.java", brokers, topic)
	command.Stdin = &input
	out, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("acknowledged %d", events)) {
		return fmt.Errorf("produce: %w: %s", err, out)
	}
	return nil
}

func writeRecord(w io.Writer, n int) {
	const occurred = "2026-04-14T09:54:45.040Z"
	eventType := types[n%len(types)]
	data := fmt.Sprintf(`{"n":%d,"big":12345678901234567890,"f":1.10,"k":{"b":1,"a":"\u00e9<&>"}}`, n)
	record := func(value string, headers ...string) {
		fmt.Fprintln(w, strings.Join(append([]string{base64.StdEncoding.EncodeToString([]byte(value))}, headers...), "\t"))
	}
	switch n / len(types) % 4 {
	case 0:
		record(fmt.Sprintf(`{"event_id":%q,"event_type":%q,"event_timestamp":%q,"data":%s}`, eventID(n), eventType, occurred, data))
	case 1:
		record(fmt.Sprintf(`{"specversion":"1.0","id":%q,"type":%q,"source":"/test","time":%q,"datacontenttype":"application/json","data":%s}`,
			eventID(n), eventType, occurred, data), "content-type=application/cloudevents+json")
	case 2:
		record(data, "content-type=application/json", "ce_specversion=1.0", "ce_id="+eventID(n), "ce_type="+eventType, "ce_source=/test", "ce_time="+occurred)
	case 3:
		at, _ := time.Parse(time.RFC3339, occurred)
		value, _ := proto.Marshal(&hooklinev1.Event{EventId: eventID(n), EventType: eventType, EventTimestamp: timestamppb.New(at), Data: []byte(data)})
		record(string(value), "content-type=application/protobuf")
	}
}

// receiverProcess is receiver.js.
type receiverProcess struct {
	url string
	log string
}

func startReceiver(t *testing.T) *receiverProcess {
	log := filepath.Join(t.TempDir(), "received.jsonl")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is needed: signatures are verified by code that is not Hookline's")
	}
	p := testenv.StartCommand(t, testenv.Env{}, node, "receiver.js", log)
	const announced = "listening on "
	p.Printed(t, announced, 20*time.Second)
	_, rest, _ := strings.Cut(p.Output(), announced)
	return &receiverProcess{url: strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), log: log}
}

func (r *receiverProcess) await(t *testing.T, requests int) {
	t.Helper()
	if err := testenv.Until(patience, func() bool {
		written, err := os.ReadFile(r.log)
		return err == nil && bytes.Count(written, []byte("\n")) >= requests
	}); err != nil {
		t.Fatalf("the receiver has not had %d requests: %v", requests, err)
	}
}

// request is a line of the receiver's log.
type request struct {
	Path, Key, Event, Type, Members, Broken string
	N, Status                               int
	Verified, Intact                        bool
}

func (r *receiverProcess) requests(t *testing.T) []request {
	f, err := os.Open(r.log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []request
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var one request
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatalf("receiver's log: %v", err)
		}
		all = append(all, one)
	}
	return all
}

// client asks the API.
type client struct {
	*testenv.Deployment
	t *testing.T
}

// subscribe makes the subscription, and gives its secret to the receiver. Retries come quickly, for the test's sake.
func (c *client) subscribe(s *subscriber, to *receiverProcess) {
	c.t.Helper()
	body := map[string]any{
		"name": "main job " + s.path, "endpointUrl": to.url + s.path,
		"overrides": map[string]any{"retry": map[string]any{"delays": []string{"200ms", "500ms", "1s", "2s", "5s"}}},
	}
	if s.types != nil {
		body["eventTypes"] = s.types
	}
	var made struct{ ID, SecretValue, Status string }
	c.Call(http.MethodPost, "/subscriptions", body, &made)
	if made.SecretValue == "" || made.Status != "active" {
		c.t.Fatalf("subscription %+v, want it active with the value of its secret", made)
	}
	s.id = made.ID
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPut, to.url+"/secrets"+s.path, strings.NewReader(made.SecretValue))
	if err != nil {
		c.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	response.Body.Close()
}

func (c *client) awaitDelivered(n int) {
	c.t.Helper()
	var count struct{ Counts map[string]int }
	if err := testenv.Until(patience, func() bool {
		c.Call(http.MethodGet, "/deliveries/count", nil, &count)
		return count.Counts["DELIVERED"] >= n
	}); err != nil {
		c.t.Fatalf("audit counts %v, want %d DELIVERED: %v", count.Counts, n, err)
	}
	for status, got := range count.Counts {
		if status != "DELIVERED" && got != 0 || status == "DELIVERED" && got != n {
			c.t.Errorf("audit counts %v, want exactly %d DELIVERED", count.Counts, n)
		}
	}
}

// delivery is a row of the audit.
type delivery struct {
	ID, Status, EventID, SubscriptionID string
	AttemptCount                        int
	Attempts                            []struct {
		Number, StatusCode int
	}
}

func (c *client) deliveries() []delivery {
	c.t.Helper()
	var all []delivery
	for cursor := ""; ; {
		var page struct {
			Items      []delivery
			NextCursor string
		}
		c.Call(http.MethodGet, "/deliveries?include=attempts&limit=1000&cursor="+cursor, nil, &page)
		all = append(all, page.Items...)
		if cursor = page.NextCursor; cursor == "" {
			return all
		}
	}
}

// check compares what was wanted, what the receiver had, and what the audit says.
func check(t *testing.T, want map[pair]bool, receiver *receiverProcess, client *client) {
	requests := receiver.requests(t)
	got := map[pair][]request{}
	for _, r := range requests {
		if r.Broken != "" || !r.Verified || !r.Intact || r.Members != "data,event_id,event_timestamp,event_type,metadata" || r.Type != types[r.N%len(types)] {
			t.Fatalf("bad request: %+v", r)
		}
		p := pair{r.Path, r.Event}
		if !want[p] {
			t.Fatalf("nobody asked for %+v", r)
		}
		if len(got[p]) > 0 && got[p][0].Key != r.Key {
			t.Fatalf("%v came under two idempotency keys: %s and %s", p, got[p][0].Key, r.Key)
		}
		got[p] = append(got[p], r)
	}
	if len(got) != len(want) {
		t.Fatalf("%d of %d pairs arrived", len(got), len(want))
	}
	byKey := map[string][]request{}
	refused := 0
	for _, rs := range got {
		byKey[rs[0].Key] = rs
		for _, r := range rs {
			if r.Status != http.StatusOK {
				refused++
			}
		}
	}
	rows := client.deliveries()
	if len(rows) != len(want) || len(byKey) != len(want) {
		t.Fatalf("%d rows in the audit, %d idempotency keys, want %d", len(rows), len(byKey), len(want))
	}
	attempts := 0
	for _, row := range rows {
		seen := byKey[row.ID]
		if row.Status != "DELIVERED" || len(seen) == 0 || seen[0].Event != row.EventID {
			t.Fatalf("audit row %+v, receiver %+v", row, seen)
		}
		// A request that a killed worker made but could not record is seen by the receiver alone.
		if len(row.Attempts) == 0 || len(row.Attempts) > len(seen) {
			t.Fatalf("audit has %d attempts of %s, receiver %d", len(row.Attempts), row.ID, len(seen))
		}
		attempts += len(row.Attempts)
	}
	t.Logf("%d pairs, %d requests (%d refused once), %d attempts in the audit: %d requests repeated by kills",
		len(want), len(requests), refused, attempts, len(requests)-len(want)-refused)
}
